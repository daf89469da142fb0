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
    """How folders are stored on rows: relative to the state folder, so that it can move; absolute where it is elsewhere
    (``Path(VAR_DIR) / stored`` finds both)."""
    state = Path(settings.VAR_DIR)
    return str(folder.relative_to(state)) if folder.is_relative_to(state) else str(folder)


def from_state(stored: str) -> Path:
    return Path(settings.VAR_DIR) / stored
