"""The encoder's forward pass in numpy: a few large matrix products, as fast on one core as torch in float32.

Devlin et al., "BERT" (2019), with the tanh form of GELU. Windows lie one behind the other without padding; only
attention looks at each by itself, at those of like length together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from privacy.name_model.weights import HEADS, Layer, Matrix, Weights

_CLS, _SEP = 101, 102
_EPSILON = np.float32(1e-12)
_ROOT = np.float32(0.7978845608028654)
_CUBIC = np.float32(0.044715 * 0.7978845608028654)
_MASKED = np.float32(-1e9)
_LIKE = 8
"""Windows whose lengths fall into the same stretch of so many pieces attend together, the shorter ones padded."""

Window = tuple[NDArray[np.int32], Matrix]
"""Ids (n,) and features (n, FEATURES) of one stretch of a text."""


class _Bucket(NamedTuple):
    """Windows of like length: `places` (rows, width) of their pieces among all; what is padding is `mask`ed."""

    places: NDArray[np.intp]
    mask: Matrix | None
    real: NDArray[np.bool_]


def probabilities(weights: Weights, windows: Sequence[Window]) -> list[Matrix]:
    """For each window the probabilities of the labels, (n, labels)."""
    lengths = np.array([len(ids) + 2 for ids, _ in windows])
    ends = np.cumsum(lengths)
    starts = ends - lengths
    ids = np.full(int(ends[-1]), _CLS, dtype=np.int64)
    ids[ends - 1] = _SEP
    features = np.zeros((len(ids), weights.letters.shape[0]), dtype=np.float32)
    for (window, letters), start, end in zip(windows, starts.tolist(), ends.tolist(), strict=True):
        ids[start + 1 : end - 1] = window
        features[start + 1 : end - 1] = letters
    positions = np.arange(len(ids)) - np.repeat(starts, lengths)
    x = weights.words[ids] + weights.positions[positions] + features @ weights.letters
    x = _norm(x, weights.norm)
    buckets = list(_buckets(starts, lengths))
    for layer in weights.layers:
        x = _layer(x, layer, buckets)
    logits = _softmax(np.concatenate([x, features], axis=1) @ weights.head + weights.head_bias)
    return [logits[start + 1 : end - 1] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _buckets(starts: NDArray[np.intp], lengths: NDArray[np.intp]) -> Iterator[_Bucket]:
    kinds = (lengths - 1) // _LIKE
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        inside = lengths[rows]
        steps = np.arange(int(inside.max()))
        real = steps < inside[:, None]
        places = starts[rows][:, None] + np.where(real, steps, 0)
        mask = None if real.all() else np.where(real, np.float32(0), _MASKED)[:, None, None, :]
        yield _Bucket(places, mask, real)


def _layer(x: Matrix, layer: Layer, buckets: Sequence[_Bucket]) -> Matrix:
    qkv = x @ layer.qkv
    qkv += layer.qkv_bias
    attended = np.empty_like(x)
    for bucket in buckets:
        attended[bucket.places[bucket.real]] = _attention(qkv[bucket.places], bucket.mask)[bucket.real]
    out = attended @ layer.out
    out += layer.out_bias
    out += x
    x = _norm(out, layer.norm)
    inner = x @ layer.up
    inner += layer.up_bias
    out = _gelu(inner) @ layer.down
    out += layer.down_bias
    out += x
    return _norm(out, layer.out_norm)


def _attention(qkv: Matrix, mask: Matrix | None) -> Matrix:
    """(rows, width, 3 d) → (rows, width, d)."""
    rows, width, size = qkv.shape
    parts = qkv.reshape(rows, width, 3, HEADS, size // (3 * HEADS)).transpose(2, 0, 3, 1, 4)
    scores = parts[0] @ parts[1].swapaxes(-1, -2)
    if mask is not None:
        scores += mask
    out: Matrix = (_softmax(scores) @ parts[2]).transpose(0, 2, 1, 3).reshape(rows, width, size // 3)
    return out


def _softmax(scores: Matrix) -> Matrix:
    """Over the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _norm(x: Matrix, parameters: tuple[Matrix, Matrix]) -> Matrix:
    x = x - x.mean(axis=-1, keepdims=True)
    x *= 1 / np.sqrt(np.einsum("ij,ij->i", x, x)[:, None] / np.float32(x.shape[1]) + _EPSILON)
    x *= parameters[0]
    x += parameters[1]
    return x


def _gelu(x: Matrix) -> Matrix:
    inner = x * x
    inner *= _CUBIC
    inner += _ROOT
    inner *= x
    np.tanh(inner, out=inner)
    inner += 1
    inner *= x
    inner *= np.float32(0.5)
    return inner
