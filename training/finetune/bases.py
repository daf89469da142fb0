"""The base model that the settings name: its folder on this machine and its digest. Loads no weights."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from generation.adapters import base_digest
from generation.folders import model_folder


def base_folder(name: str = "") -> Path:
    """Folder of the base ``name`` (default: the setting RATCHET_BASE_MODEL); relative names count from the checkout.

    Raises:
        generation.engines.EngineUnavailable: there is no such model here; the message says what to do.
    """
    name = name or settings.RATCHET_BASE_MODEL
    inside = Path(settings.BASE_DIR) / name
    return inside if inside.is_dir() else model_folder(name)


def digest_of_base(name: str = "") -> str:
    """Raises as `base_folder`, and when the folder holds no weights."""
    return base_digest(base_folder(name))


def relative_to_state(folder: Path) -> str:
    """How folders are stored on rows: below the folder of adapters or of runs as ``adapters/…`` and ``runs/…``, else
    relative to the state folder. So each can move, lie elsewhere on another machine, or come back from a backup;
    absolute where it is in none of them."""
    for name, root in _roots().items():
        if folder.is_relative_to(root):
            return str(Path(name) / folder.relative_to(root))
    state = Path(settings.VAR_DIR)
    return str(folder.relative_to(state)) if folder.is_relative_to(state) else str(folder)


def from_state(stored: str) -> Path:
    """Where that folder is on this machine."""
    first, *rest = Path(stored).parts or ("",)
    root = _roots().get(first)
    return Path(settings.VAR_DIR) / stored if root is None else root.joinpath(*rest)


def _roots() -> dict[str, Path]:
    return {"adapters": Path(settings.RATCHET_ADAPTERS_DIR), "runs": Path(settings.RATCHET_RUNS_DIR)}
