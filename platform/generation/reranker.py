"""A cross-encoder reads question and passage together and says how well they fit: slower than vectors, and better at
telling the first passages apart. Off unless RATCHET_RERANKER names one; none is bundled.

Run in the engine and in workers, never in a web process: it loads torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from generation.adapters import file_digest
from generation.embedder import quiet_loading, torch_threads
from generation.engines import EngineUnavailable
from generation.folders import model_folder

MAX_TOKENS = 512
BATCH = 16


class Reranker:
    """One cross-encoder with a single score, loaded with the first pair that it reads."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        self.folder = folder
        self.threads = threads
        self._model: Any = None

    def score(self, question: str, texts: Sequence[str]) -> list[float]:
        """One number for each text, higher is better; the scale is the model's own.

        Raises:
            EngineUnavailable: the folder is no cross-encoder of one score.
        """
        if not texts:
            return []
        self._load()
        with torch_threads(self.threads):
            scores = self._model.predict([(question, text) for text in texts], batch_size=BATCH)
        return [round(float(score), 5) for score in scores]

    def _load(self) -> None:
        if self._model is not None:
            return
        from sentence_transformers import CrossEncoder

        try:
            with quiet_loading():
                model = CrossEncoder(
                    str(self.folder), device="cpu", max_length=MAX_TOKENS, local_files_only=True, num_labels=1
                )
        except (OSError, ValueError, RuntimeError) as error:
            raise EngineUnavailable(
                f"The reranker {self.folder.name} cannot be loaded.", "Name a cross-encoder with one score."
            ) from error
        self._model = model


def load_reranker(name: str) -> Reranker:
    """The cross-encoder of that name or folder, once per process.

    Raises:
        EngineUnavailable: none is named, or it is not on this machine.
    """
    if not name:
        raise EngineUnavailable("No reranker is set.", "Set RATCHET_RERANKER, or switch reranking off.")
    return _loaded(name)


@lru_cache(maxsize=2)
def _loaded(name: str) -> Reranker:
    return Reranker(model_folder(name))


@lru_cache(maxsize=2)
def weights_digest(name: str) -> str:
    """sha256 of its weights. Loads no model.

    Raises:
        EngineUnavailable: it is not on this machine.
    """
    path = model_folder(name) / "model.safetensors"
    if not path.is_file():
        raise EngineUnavailable(f"The reranker {name} has no model.safetensors.", "Name another one.")
    return file_digest(path)
