"""In which order rows are seen: like lengths together, another order each epoch, and the same again after a kill.

No torch: preflight counts batches with it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence

POOL = 24
"""Batches among which rows are sorted: more pads less, fewer mixes better."""


def length_order(lengths: Sequence[int], batch: int, seed: int, epoch: int = 0) -> list[int]:
    """Row numbers so that neighbours (a batch) have like lengths; a function of seed and epoch alone."""
    rng = random.Random(f"{seed}:{epoch}")
    rows = list(range(len(lengths)))
    rng.shuffle(rows)
    pool = batch * POOL
    batches: list[list[int]] = []
    for start in range(0, len(rows), pool):
        ordered = sorted(rows[start : start + pool], key=lambda row: lengths[row])
        batches += [ordered[i : i + batch] for i in range(0, len(ordered), batch)]
    short = [b for b in batches if len(b) < batch]
    full = [b for b in batches if len(b) == batch]
    rng.shuffle(full)
    # A short one must be last: the loader cuts the sequence into equal batches.
    return [row for members in [*full, *short] for row in members]


def even_batches(order: Iterable[int], batch: int, processes: int) -> list[list[int]]:
    """``order`` in batches whose number is a multiple of ``processes``, so that each process has as many and every row
    is seen exactly once: the last ones are shared out anew, with up to one row more than ``batch``. At least as many
    rows as processes are needed.

    accelerate evens out by showing the first rows twice, which is not the same training as on one device.
    """
    rows = list(order)
    batches = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    over = len(batches) % processes
    if not over:
        return batches
    if sum(map(len, batches[-over:])) < processes:
        over += processes
    last = [row for members in batches[-over:] for row in members]
    cuts = [round(place * len(last) / processes) for place in range(processes + 1)]
    return [*batches[:-over], *(last[low:high] for low, high in itertools.pairwise(cuts))]


def batch_count(rows: int, batch: int, processes: int) -> int:
    """How many batches `even_batches` makes, for each process."""
    whole, over = divmod(-(-rows // batch), processes)
    # What is left over makes one batch more for each, unless it is fewer rows than processes.
    return whole + (over > 0 and rows - whole * processes * batch >= processes)


def batch_order(rows: int, batch: int, seed: int, epoch: int) -> Iterator[int]:
    """Row numbers with each batch as it stands (KTO's rows have partners in theirs), batches in another order each
    epoch, a short one last."""
    full = list(range(rows // batch))
    random.Random(f"{seed}:{epoch}").shuffle(full)
    for number in full:
        yield from range(number * batch, (number + 1) * batch)
    yield from range(len(full) * batch, rows)
