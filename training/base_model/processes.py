"""Training on several CPU cores: one process with one thread each, gradients averaged after every step.

Two threads of one process wait for each other in every small matrix product and collapse when something else runs on
the machine; two processes meet once per step.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor


def run(entry: Callable[[int], None], processes: int) -> None:
    """Calls ``entry(rank)`` in each process; with one process, here.

    Raises:
        torch.multiprocessing.ProcessRaisedException: one of them failed; the others are ended.
    """
    if processes == 1:
        entry(0)
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments = (entry, processes, str(Path(folder) / "meeting"))
        torch.multiprocessing.spawn(_join, arguments, nprocs=processes)  # type: ignore[attr-defined]  # public, untyped


def _join(rank: int, entry: Callable[[int], None], processes: int, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    try:
        entry(rank)
    finally:
        dist.destroy_process_group()


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """One message for all gradients; nothing to do for a single process."""
    if count() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= count()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def agreed(value: float) -> float:
    """The first process's value, for all: its clock is the one that counts."""
    if count() == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(tensor, 0)
    return float(tensor)
