"""The processes of one training: one, or one per GPU. No Django; torch only where there are several.

Several processes are started by torch's own launcher, which ``accelerate launch`` uses too, and trained by accelerate
through the library's trainer. The first of them alone reports and writes files; who waits for its files waits here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

MAX_PROCESSES = 64


def size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Which GPU of this machine is ours."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first() -> bool:
    return rank() == 0


def wanted_processes(setting: int) -> int:
    """``setting``, or with 0 one per GPU; 1 where there is none. Torch is asked only where GPUs can be: it takes
    seconds to load, and whoever trains loads it again."""
    if setting:
        return setting
    if size() > 1 or not any(Path("/dev").glob(pattern) for pattern in ("nvidia[0-9]*", "kfd")):
        return 1
    import torch

    return min(max(1, torch.cuda.device_count()), MAX_PROCESSES)


def launch(module: str, argument: str, processes: int) -> NoReturn:
    """Becomes the launcher of ``processes`` processes of ``module``: same process id, same standard streams, so that
    whoever started us stops and hears all of them."""
    os.environ["PYTHONWARNINGS"] = "ignore"
    options = ["--standalone", "--nproc-per-node", str(processes), "--max-restarts", "0"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", module, argument]
    os.execv(sys.executable, command)  # noqa: S606 - a list, no shell


def join(*, on_gpu: bool) -> None:
    """Meets the others; gloo between processors, NCCL between GPUs. Nothing to do for one process."""
    if size() > 1:
        from accelerate import PartialState

        PartialState(cpu=not on_gpu)


def wait() -> None:
    """Until every process has come here."""
    if size() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def any_of(*flags: bool) -> list[bool]:
    """Each flag as it is where any process has it set: what all must do together is decided by all."""
    if size() == 1:
        return list(flags)
    import torch
    from accelerate import PartialState

    told = torch.tensor([int(flag) for flag in flags], device=PartialState().device)
    torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
    return [bool(flag) for flag in told.tolist()]


def leave() -> None:
    """The end of a training that several processes share. The group's threads do not survive the interpreter's end
    well: a process that falls over them has done its work, and the launcher calls the whole training failed."""
    if size() > 1:
        import torch

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
