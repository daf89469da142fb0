"""The encoder's forward pass: a graph of 8-bit products in onnxruntime, on the thread that asks.

Devlin et al., "BERT" (2019), with the tanh form of GELU. Windows lie one behind the other without padding; only
attention looks at each by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.name_model.pieces import FEATURES
from privacy.name_model.tensors import PROBED, Tensors, tensors
from privacy.name_model.weights import FOLDER, GRAPH, REPAIR, Config, Matrix, NameModelError, Weights, load_weights

_CLS, _SEP = 101, 102
_SAY_ERRORS = 3

Window = tuple[NDArray[np.int32], Matrix]
"""Ids (n,) and features (n, FEATURES) of one stretch of a text."""


class Network:
    """The graph with the weights in it; safe for threads."""

    def __init__(self, weights: Weights, graph: bytes) -> None:
        """Takes 0.3 s. Raises what onnxruntime raises when graph and weights do not fit."""
        self._words, self._positions = weights.words, weights.positions
        given = tensors(weights)
        self._session = _session(graph, given)
        if self._overflows():
            self._session = _session(graph, given, **{"session.x64quantprecision": "1"})

    def _overflows(self) -> bool:
        """Whether this processor adds two products of bytes in 16 bits, as those without instructions for it do.

        Nothing else would tell; the library has another way then, which takes longer.
        """
        window = np.zeros(1, dtype=np.int32), np.zeros((1, FEATURES), dtype=np.float32)
        probe: NDArray[np.int32] = self._session.run(["probe"], self._given([window])[0])[0]
        return bool((probe != PROBED * 255 * 127).any())

    def probabilities(self, windows: Sequence[Window]) -> list[Matrix]:
        """For each window the probabilities of the labels, (n, labels). Quickest where windows are of like length."""
        given, bounds = self._given(windows)
        found: Matrix = self._session.run(["probabilities"], given)[0]
        return [found[start:end] for start, end in bounds]

    def _given(self, windows: Sequence[Window]) -> tuple[Tensors, list[tuple[int, int]]]:
        """What the graph takes in, and where in what comes out each window is."""
        lengths = np.array([len(ids) + 2 for ids, _ in windows])
        ends = np.cumsum(lengths)
        starts = ends - lengths
        ids = np.full(int(ends[-1]), _CLS, dtype=np.int64)
        ids[ends - 1] = _SEP
        features = np.zeros((len(ids), FEATURES), dtype=np.float32)
        bounds = list(zip((starts + 1).tolist(), (ends - 1).tolist(), strict=True))
        for (window, letters), (start, end) in zip(windows, bounds, strict=True):
            ids[start:end] = window
            features[start:end] = letters
        positions = np.arange(len(ids)) - np.repeat(starts, lengths)
        steps = np.arange(int(lengths.max()))
        real = steps < lengths[:, None]
        given = {
            "embedded": self._words[ids] + self._positions[positions],
            "features": features,
            "places": starts[:, None] + np.where(real, steps, 0),
            "mask": real.astype(np.int32),
            "back": np.flatnonzero(real),
        }
        return given, bounds


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
        return Network(weights, (folder / GRAPH).read_bytes())
    except Exception as error:  # the runtime raises kinds of its own
        raise NameModelError(f"the graph does not fit the name model ({type(error).__name__}): {REPAIR}") from None
