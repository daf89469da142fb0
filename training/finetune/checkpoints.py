"""Checkpoints that can be trusted after a kill at any instant: complete ones carry a seal with a digest of each file.

A checkpoint holds pickles (optimiser, random state). Only a folder that this run wrote itself is ever opened, and only
when it is sealed; what a kill left half-written is deleted. No Django.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

SEAL = "complete.json"
KEPT = 2


def seal(checkpoint: Path) -> None:
    """Marks a checkpoint as completely written, and removes all but the newest `KEPT`."""
    digests = {p.name: _digest(p) for p in sorted(checkpoint.iterdir()) if p.is_file() and p.name != SEAL}
    temporary = checkpoint / f".{SEAL}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(digests, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(checkpoint / SEAL)
    for old in _by_step(checkpoint.parent)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint; deletes those that are not."""
    for checkpoint in reversed(_by_step(folder)):
        if _is_complete(checkpoint):
            return checkpoint
        shutil.rmtree(checkpoint, ignore_errors=True)
    return None


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _by_step(folder: Path) -> list[Path]:
    found = [p for p in folder.glob("checkpoint-*") if p.is_dir() and p.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=step_of)


def _is_complete(checkpoint: Path) -> bool:
    try:
        digests = json.loads((checkpoint / SEAL).read_bytes())
        return bool(digests) and all(_digest(checkpoint / name) == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
