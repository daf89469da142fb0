"""The folder that goes to a Ray cluster with a job: code, configuration, rows, and what is not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from django.conf import settings

from generation.adapters import ALLOWED_FILES
from training.finetune.bases import from_state
from training.finetune.runs import prepare
from training.models import Run
from training.providers.client import ProviderError

MAX_BASE_BYTES = 400 * 1024**2
"""What is brought along with a job; Ray keeps at most 500 MB of a job's files."""
CODE = (
    ("training", ["__init__.py"]),
    ("training/finetune", ["*.py"]),
    ("platform/generation", ["*.py"]),
)
"""What the recipe imports (a test sends it away and lets it run)."""


def pack(run: Run, folder: Path, mark: str) -> Path:
    """The folder that goes to the cluster: code, configuration, rows, and what is not there.

    Raises:
        ProviderError: the base is too large to be brought along.
    """
    assert run.provider is not None
    record = json.loads(prepare(run, folder).read_bytes())
    package = folder / "work" / "package"  # where cleaning and erasures look
    shutil.rmtree(package, ignore_errors=True)
    root = Path(settings.BASE_DIR)
    for place, patterns in CODE:
        (package / place).mkdir(parents=True)
        for path in (found for pattern in patterns for found in (root / place).glob(pattern)):
            shutil.copyfile(path, package / place / path.name)
    (package / "job").mkdir(mode=0o700)
    for name in ("train", "validation", "preferences", "held_preferences"):
        if record.get(name):
            shutil.copyfile(record[name], package / "job" / f"{name}.jsonl")
            record[name] = f"job/{name}.jsonl"
    if run.parent is not None:
        (package / "parent").mkdir()
        for name in sorted(ALLOWED_FILES):
            source = from_state(run.parent.folder) / name
            if source.is_file():
                shutil.copyfile(source, package / "parent" / name)
        record["parent"] = "parent"
    if run.provider.model:
        record["base"] = run.provider.model
    else:
        _pack_base(Path(record["base"]), package / "base")
    record["elsewhere"] = {
        "mark": mark,
        "folder": run.provider.folder,
        "keep_days": max(1, settings.RATCHET_KEEP_RUN_DAYS),
        "most_bytes": settings.RATCHET_MAX_ADAPTER_BYTES,
    }
    (package / "job" / "config.json").write_text(json.dumps(record), encoding="utf-8")
    return package


def _pack_base(base: Path, place: Path) -> None:
    files = [path for path in base.iterdir() if path.is_file() and not path.name.startswith(".")]
    size = sum(path.stat().st_size for path in files)
    if size > MAX_BASE_BYTES:
        raise ProviderError(
            f"The base model has {size // 1024**2} MB, too much to send with each run. Put it on the machines of the "
            "cluster, and enter its folder there as the provider's base."
        )
    place.mkdir()
    for path in files:
        shutil.copyfile(path, place / path.name)
