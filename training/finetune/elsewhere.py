"""The recipe on a machine of a cluster: ``python -m training.finetune.elsewhere``, in the folder that came with the
job. No Django.

`training.providers.ray_jobs` sends that folder: this code, ``job/`` with CONFIG.json and the rows, and, where the
cluster has no copy, ``base/`` and ``parent/``. Checkpoints lie in a folder of the cluster that outlives the job, so
that a job which is started again goes on. What is trained comes back in the log, the one way out that every cluster
has: lines of ``{"event": "file", …}`` behind those of the recipe. Then everything of the run is deleted here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from training.finetune.reporting import EXIT_ERROR, EXIT_STOPPED, LIFELINE

NEEDED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors")
PIECE_BYTES = 48 * 1024
DAY = 86_400.0
SIGN_OF_LIFE = 3_600.0


class CannotTrain(Exception):
    """The message is for the page of the run."""


def main(package: Path) -> int:
    try:
        job = json.loads((package / "job" / "config.json").read_bytes())
        here = job.pop("elsewhere")
        folder = Path(here["folder"] or tempfile.gettempdir()) / "ratchet-runs" / here["mark"]
        forget_old(folder.parent, days=here["keep_days"])
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.utime(folder)
        config = place(job, package, folder)
        code = train(config)
        if code == 0:
            deliver(folder / "adapter", most=here["most_bytes"])
            shutil.rmtree(folder, ignore_errors=True)
    except CannotTrain as error:
        tell("error", message=str(error))
        return EXIT_ERROR
    return code


def forget_old(folder: Path, *, days: int) -> None:
    """Deletes what runs have left here that nobody went on with."""
    for old in folder.glob("*"):
        if time.time() - old.stat().st_mtime > days * DAY:
            shutil.rmtree(old, ignore_errors=True)


def place(job: dict[str, Any], package: Path, folder: Path) -> Path:
    """Writes CONFIG.json with the paths of this machine.

    Raises:
        CannotTrain: a library is missing, or the base is not here or another one.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise CannotTrain(
            f"The cluster's Python lacks {', '.join(missing)}. Install there what the extra “train” of this project "
            "names."
        )
    from generation.adapters import base_digest
    from generation.engines import EngineError

    base = package / "base" if (package / "base").is_dir() else Path(job["base"])
    try:
        found = base_digest(base)
    except (EngineError, OSError) as error:
        raise CannotTrain(f"The base model is not at {base} on the cluster. Put it there.") from error
    if found != job["base_digest"]:
        raise CannotTrain(
            f"The base model at {base} on the cluster is another one ({found[:12]}, not {job['base_digest'][:12]}). "
            "Copy the one of this platform there."
        )
    job |= {"base": str(base), "work": str(folder / "work"), "output": str(folder / "adapter")}
    for name in ("train", "validation", "preferences", "held_preferences", "parent"):
        if job.get(name):
            job[name] = str(package / job[name])
    config = folder / "config.json"
    config.write_text(json.dumps(job), encoding="utf-8")
    return config


def train(config: Path) -> int:
    """The recipe as a child that ends with us; its exit code. What it says goes to our standard output."""
    environment = {**os.environ, LIFELINE: "1", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "training.finetune.recipe", str(config)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)

    def stop(number: int, frame: FrameType | None) -> None:
        child.terminate()

    signal.signal(signal.SIGTERM, stop)
    while True:
        try:
            code = child.wait(SIGN_OF_LIFE)
        except subprocess.TimeoutExpired:
            os.utime(config.parent)  # else `forget_old` of another job took a long training for a forgotten one
        else:
            return code if code >= 0 else 128 - code


def deliver(adapter: Path, *, most: int) -> None:
    """Raises CannotTrain: the adapter is larger than the platform takes."""
    files = sorted(path for path in adapter.iterdir() if path.is_file())
    size = sum(path.stat().st_size for path in files)
    if size > most:
        raise CannotTrain(
            f"The adapter has {size:,} bytes, and {most:,} can be brought back (RATCHET_MAX_ADAPTER_BYTES). Set a "
            "lower rank, or raise the limit."
        )
    for path in files:
        content = path.read_bytes()
        pieces = [content[start : start + PIECE_BYTES] for start in range(0, len(content), PIECE_BYTES)] or [b""]
        for number, piece in enumerate(pieces):
            tell("file", name=path.name, piece=number, data=base64.b64encode(piece).decode())
        tell("file_end", name=path.name, pieces=len(pieces), sha256=hashlib.sha256(content).hexdigest())
    tell("delivered", files=[path.name for path in files])


def tell(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    code = main(Path.cwd())
    sys.exit(code if code != EXIT_STOPPED else 1)
