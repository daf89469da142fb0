"""The encoder's forward pass: two graphs of 8-bit products in onnxruntime, on the thread that asks.

Devlin et al., "BERT" (2019), with the tanh form of GELU. Windows lie one behind the other without padding; only
attention looks at each by itself.

After the first layers a small head, the glance, says of each piece how much it could be part of a name. A window in
which nothing could is done; of the others the last layer computes only the pieces that could.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from privacy.name_model.batches import grouped
from privacy.name_model.labels import LABELS
from privacy.name_model.merged import load_weights
from privacy.name_model.pieces import FEATURES
from privacy.name_model.tensors import PROBED, Tensors, halves, tensors
from privacy.name_model.weights import FOLDER, GRAPHS, REPAIR, Config, Matrix, NameModelError, Weights

_CLS, _SEP = 101, 102
_SAY_ERRORS = 3
_NEAR = 2

Window = tuple[NDArray[np.int32], Matrix]
"""Ids (n,) and features (n, FEATURES) of one stretch of a text."""


class Begun(NamedTuple):
    """A window after the first layers: which of those given it is, hidden (n + 2, width) and features
    (n + 2, FEATURES) with the two marks around it, and what the glance says of its n pieces."""

    number: int
    hidden: Matrix
    features: Matrix
    glance: Matrix


class Network:
    """Both graphs with the weights in them; safe for threads."""

    def __init__(self, weights: Weights, graphs: Sequence[bytes], below: float = -np.inf) -> None:
        """Takes 0.3 s. Pieces of which the glance says at most `below` count as no part of a name; by default it is
        not asked. Raises what onnxruntime raises when graphs and weights do not fit."""
        self._words, self._positions = weights.words, weights.positions
        self._below = below
        given = list(zip(graphs, halves(tensors(weights), weights.glance.after), strict=True))
        self._begin, self._rest = (_session(*each) for each in given)
        if self._overflows():
            careful = {"session.x64quantprecision": "1"}
            self._begin, self._rest = (_session(graph, held, **careful) for graph, held in given)

    def _overflows(self) -> bool:
        """Whether this processor adds two products of bytes in 16 bits, as those without instructions for it do.

        Nothing else would tell; the library has another way then, which takes longer.
        """
        window = np.zeros(1, dtype=np.int32), np.zeros((1, FEATURES), dtype=np.float32)
        probe: NDArray[np.int32] = self._begin.run(["probe"], self._given([window]))[0]
        return bool((probe != PROBED * 255 * 127).any())

    def probabilities(self, windows: Sequence[Window]) -> list[Matrix]:
        """For each window the probabilities of the labels, (n, labels)."""
        found = [_none_named(len(ids)) for ids, _ in windows]
        # What may hold a name waits for others of its kind: computed together, however few of a batch there were.
        may = (window for window in self.begun(windows) if not (window.glance <= self._below).all())
        for group in grouped(may, lambda window: len(window.hidden)):
            for window, (pieces, said) in zip(group, self._finished(group), strict=True):
                found[window.number][pieces] = said
        return found

    def begun(self, windows: Sequence[Window]) -> Iterator[Begun]:
        """Each window after the first layers, the longest first."""
        order = sorted(range(len(windows)), key=lambda number: -len(windows[number][0]))
        for group in grouped(order, lambda number: len(windows[number][0]) + 2):
            given = self._given([windows[number] for number in group])
            hidden, glance = self._begin.run(["hidden", "glance"], given)
            end = 0
            for number in group:
                start, end = end, end + len(windows[number][0]) + 2
                yield Begun(number, hidden[start:end], given["features"][start:end], glance[start + 1 : end - 1])

    def _given(self, windows: Sequence[Window]) -> Tensors:
        """What the first graph takes in."""
        lengths = np.array([len(ids) + 2 for ids, _ in windows])
        ends = np.cumsum(lengths)
        starts = ends - lengths
        ids = np.full(int(ends[-1]), _CLS, dtype=np.int64)
        ids[ends - 1] = _SEP
        features = np.zeros((len(ids), FEATURES), dtype=np.float32)
        for (window, letters), start, end in zip(windows, starts.tolist(), ends.tolist(), strict=True):
            ids[start + 1 : end - 1] = window
            features[start + 1 : end - 1] = letters
        positions = np.arange(len(ids)) - np.repeat(starts, lengths)
        embedded = self._words[ids] + self._positions[positions]
        return {"embedded": embedded, "features": features, **_layout(lengths)}

    def _finished(self, windows: Sequence[Begun]) -> Iterator[tuple[NDArray[np.intp], Matrix]]:
        """For each window which of its pieces could be part of a name, and the probabilities of their labels."""
        lengths = np.array([len(window.hidden) for window in windows])
        wanted = [worth_computing(window.glance, self._below) for window in windows]
        places = np.concatenate([pieces + 1 for pieces in wanted])
        places += np.repeat(np.cumsum(lengths) - lengths, [len(pieces) for pieces in wanted])
        given = {
            "hidden": np.concatenate([window.hidden for window in windows]),
            "features": np.concatenate([window.features for window in windows]),
            "wanted": places,
            **_layout(lengths),
        }
        said: Matrix = self._rest.run(["probabilities"], given)[0]
        end = 0
        for pieces in wanted:
            start, end = end, end + len(pieces)
            yield pieces, said[start:end]


def worth_computing(glance: NDArray[np.float32], below: float) -> NDArray[np.intp]:
    """Which pieces of a window could be part of a name, or stand so near one that they could be its last piece."""
    may = ~(glance <= below)  # also what is no number
    near = may.copy()
    for step in range(1, _NEAR + 1):
        near[step:] |= may[:-step]
        near[:-step] |= may[step:]
    return np.flatnonzero(near)


def _layout(lengths: NDArray[np.int64]) -> Tensors:
    """Where the pieces of windows of these lengths are among all, row by row with padding, and the way back."""
    steps = np.arange(int(lengths.max()))
    real = steps < lengths[:, None]
    starts = np.cumsum(lengths) - lengths
    return {
        "places": starts[:, None] + np.where(real, steps, 0),
        "mask": real.astype(np.int32),
        "back": np.flatnonzero(real),
    }


def _none_named(pieces: int) -> Matrix:
    said = np.zeros((pieces, len(LABELS)), dtype=np.float32)
    said[:, 0] = 1.0
    return said


def _session(graph: bytes, given: Tensors, **settings: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # The processes of this house share few cores, and memory is to stay flat: no threads that spin, and no plan kept
    # for each shape that ever came.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = _SAY_ERRORS
    for name, value in settings.items():
        options.add_session_config_entry(name, value)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in given.values()]
    options.add_external_initializers(list(given), values)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def load_network(config: Config, folder: Path = FOLDER) -> Network:
    """The network of models/names; takes about half a second. Raises NameModelError for anything that does not fit."""
    weights = load_weights(config, folder)
    try:
        return Network(weights, [(folder / name).read_bytes() for name in GRAPHS], config.below)
    except Exception as error:  # the runtime raises kinds of its own
        raise NameModelError(f"a graph does not fit the name model ({type(error).__name__}): {REPAIR}") from None
