"""Gives models/names its glance: `python -m training.name_model.glance --data FOLDER`.

The glance learns from the first layers what the whole model says in the end, about generated texts. Where it says no
more than a limit, the later layers are not asked. The limit lies a margin below the lowest that it says of any window
of the held-out texts in which the whole model sees something; what it costs and saves there is printed.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from privacy.everyday import needs_no_reading
from privacy.name_model.labels import WINDOW
from privacy.name_model.merged import load_weights
from privacy.name_model.network import Network, Window, worth_computing
from privacy.name_model.pieces import FEATURES, load_tokenizer, read_pieces
from privacy.name_model.segments import segments
from privacy.name_model.weights import CONFIG, DELTA, FOLDER, GLANCE, GRAPHS, WIDTH, encoder_folder, read_config
from training.name_model.export import finish

SEEN = 0.1
"""A window in which the whole model says this much of a piece must not be missed."""
MARGIN = 1.0
_LIKELY_WINDOW = 0.05
_HEAVIER = 4.0
_BATCH = 64
_RATE = 2e-3
_PADDING = -99.0


@dataclass(frozen=True)
class Told:
    """A window after the first layers with its letters, (n + 2, WIDTH + FEATURES) with both marks, and for each of its
    n pieces how likely the whole model finds it part of a name."""

    inputs: NDArray[np.float16]
    named: NDArray[np.float32]


class Head(nn.Module):
    """What `training.name_model.graph` computes of a glance: rows (b, n, WIDTH + FEATURES) → (b, n)."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Linear(WIDTH + FEATURES, GLANCE)
        self.near = nn.Conv1d(GLANCE, GLANCE, 3, padding=1)
        self.head = nn.Linear(GLANCE, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """How much each piece could be part of a name, as a logit."""
        own = F.relu(self.each(rows)).transpose(1, 2)
        both: Tensor = self.head((own + F.relu(self.near(own))).transpose(1, 2))
        return both[..., 0]

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The weights by the names under which they are shipped."""
        return {
            f"glance.{name}": tensor.detach().float().contiguous().numpy()
            for name, tensor in (
                ("each", self.each.weight.T),
                ("each_bias", self.each.bias),
                ("near", self.near.weight),
                ("near_bias", cast("Tensor", self.near.bias)),
                ("head", self.head.weight.T),
                ("head_bias", self.head.bias),
            )
        }


def windows(path: Path, limit: int, seed: int | None) -> list[Window]:
    """The first different windows of the texts of a file, of sentences that the model would be asked about."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if seed is not None:
        random.Random(seed).shuffle(lines)
    tokenizer = load_tokenizer(encoder_folder())
    found: list[Window] = []
    seen: set[str] = set()
    for line in lines:
        text = json.loads(line)["text"]
        for start, end in segments(text):
            sentence = text[start:end]
            if sentence in seen or needs_no_reading(sentence):
                continue
            seen.add(sentence)
            pieces = read_pieces(tokenizer, sentence)
            cuts = range(0, len(pieces), WINDOW)
            found += [(pieces.ids[at : at + WINDOW], pieces.features[at : at + WINDOW]) for at in cuts]
        if len(found) >= limit:
            break
    return found[:limit]


def whole(folder: Path) -> Network:
    """The network of a folder as it is without its glance."""
    weights = load_weights(read_config(folder), folder)
    return Network(weights, [(folder / name).read_bytes() for name in GRAPHS])


def told(network: Network, asked: Sequence[Window]) -> list[Told]:
    """What a network without a glance says of each window, the longest first."""
    named = network.probabilities(asked)
    return [
        Told(
            np.concatenate([window.hidden, window.features], axis=1).astype(np.float16),
            1 - named[window.number][:, 0],
        )
        for window in network.begun(asked)
    ]


def trained(examples: Sequence[Told], epochs: int, seed: int) -> Head:
    """A head that says what the whole model says, of pieces and, four times as much, of windows with a name."""
    torch.manual_seed(seed)
    head = Head()
    optimiser = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=0.01)
    order = random.Random(seed)
    steps = epochs * -(-len(examples) // _BATCH)
    done = 0
    for _ in range(epochs):
        starts = list(range(0, len(examples), _BATCH))
        order.shuffle(starts)
        for at in starts:
            for group in optimiser.param_groups:
                group["lr"] = _RATE * min(1.0, (done + 1) / 30) * (1 - done / steps)
            done += 1
            rows, named, real = _padded(examples[at : at + _BATCH])
            logits = head(rows)
            pieces = F.binary_cross_entropy_with_logits(logits, named, reduction="none")[real].mean()
            highest, wanted = logits.masked_fill(~real, _PADDING).amax(1), named.amax(1)
            heavier = torch.where(wanted > _LIKELY_WINDOW, _HEAVIER, 1.0)
            whole = F.binary_cross_entropy_with_logits(highest, wanted, reduction="none") * heavier
            optimiser.zero_grad(set_to_none=True)
            (3 * pieces + whole.mean()).backward()
            optimiser.step()
    return head


def _padded(examples: Sequence[Told]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, targets and which are pieces; the marks at either end of a window are not."""
    width = max(len(example.inputs) for example in examples)
    rows = torch.zeros(len(examples), width, WIDTH + FEATURES)
    named = torch.zeros(len(examples), width)
    real = torch.zeros(len(examples), width, dtype=torch.bool)
    for i, example in enumerate(examples):
        end = len(example.inputs)
        rows[i, :end] = torch.from_numpy(example.inputs).float()
        named[i, 1 : end - 1] = torch.from_numpy(example.named)
        real[i, 1 : end - 1] = True
    return rows, named, real


def scores(head: Head, examples: Sequence[Told]) -> Iterator[NDArray[np.float32]]:
    """What the head says of the pieces of each window."""
    with torch.inference_mode():
        for at in range(0, len(examples), _BATCH):
            group = examples[at : at + _BATCH]
            said = head(_padded(group)[0]).numpy()
            for i, example in enumerate(group):
                yield said[i, 1 : len(example.named) + 1]


def limit_of(said: Sequence[NDArray[np.float32]], examples: Sequence[Told]) -> float:
    """So much below the lowest of a window in which the whole model sees something. Raises ValueError without any."""
    highest = [float(s.max()) for s, e in zip(said, examples, strict=True) if e.named.max() >= SEEN]
    return round(min(highest) - MARGIN, 2)


def figures(said: Sequence[NDArray[np.float32]], examples: Sequence[Told], below: float) -> dict[str, Any]:
    """How much is done after a glance, and what is lost by it."""
    out = [bool((s <= below).all()) for s in said]
    pieces = sum(len(e.named) for e in examples)
    kept = [(s, e) for s, e, gone in zip(said, examples, out, strict=True) if not gone]
    spared = [(np.setdiff1d(np.arange(len(s)), worth_computing(s, below)), e.named) for s, e in kept]
    gone = [e for e, left in zip(examples, out, strict=True) if left]
    return {
        "windows": len(said),
        "windows_with_names": sum(bool(e.named.max() >= SEEN) for e in examples),
        "lost_windows": sum(bool(e.named.max() >= SEEN) for e in gone),
        "pieces_done": round(sum(len(e.named) for e in gone) / pieces, 3),
        "pieces_spared_of_the_rest": round(sum(len(s) for s, _ in spared) / sum(len(e.named) for _, e in kept), 3),
        "lost_pieces": {p: sum(int((named[s] >= p).sum()) for s, named in spared) for p in (0.02, 0.1, 0.25)},
    }


def main() -> None:
    """Trains on what the model of a folder says, and writes the glance into it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--windows", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = whole(arguments.folder)
    examples = told(network, windows(arguments.data / "train.jsonl", arguments.windows, arguments.seed))
    head = trained(examples, arguments.epochs, arguments.seed)
    held_out = told(network, windows(arguments.data / "held_out.jsonl", arguments.windows, None))
    said = list(scores(head, held_out))
    below = limit_of(said, held_out)
    print(json.dumps({"below": below, **figures(said, held_out, below)}))
    write(arguments.folder, head.tensors(), below)


def write(folder: Path, tensors: dict[str, NDArray[np.float32]], below: float) -> None:
    """Adds a glance, or puts it in the place of another."""
    from safetensors.numpy import load_file

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    finish(folder, config | {"glance_below": below}, {**load_file(folder / DELTA), **tensors})


if __name__ == "__main__":
    main()
