"""The encoder's forward pass in numpy: a few large matrix products, as fast on one core as torch in float32.

Devlin et al., "BERT" (2019), with the tanh form of GELU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from privacy.name_model.pieces import FEATURES
from privacy.name_model.weights import HEADS, Layer, Matrix, Weights

_CLS, _SEP = 101, 102
_EPSILON = np.float32(1e-12)
_ROOT = np.float32(0.7978845608028654)
_CUBIC = np.float32(0.044715 * 0.7978845608028654)
_MASKED = np.float32(-1e9)

Window = tuple[NDArray[np.int32], Matrix]
"""Ids (n,) and features (n, FEATURES) of one stretch of a text."""


def probabilities(weights: Weights, windows: Sequence[Window]) -> list[Matrix]:
    """For each window the probabilities of the labels, (n, labels). The windows are one batch of like length."""
    lengths = np.array([len(ids) for ids, _ in windows])
    rows, width = len(windows), int(lengths.max()) + 2
    ids = np.zeros((rows, width), dtype=np.int64)
    features = np.zeros((rows, width, FEATURES), dtype=np.float32)
    ids[:, 0] = _CLS
    ids[np.arange(rows), lengths + 1] = _SEP
    for i, (window, letters) in enumerate(windows):
        ids[i, 1 : len(window) + 1] = window
        features[i, 1 : len(window) + 1] = letters
    mask = None
    if (lengths + 2 < width).any():
        mask = np.where(np.arange(width) < (lengths + 2)[:, None], np.float32(0), _MASKED)[:, None, None, :]
    x = weights.words[ids] + weights.positions[:width] + features @ weights.letters
    x = _norm(x.reshape(rows * width, -1), weights.norm)
    for layer in weights.layers:
        x = _layer(x, layer, rows, mask)
    logits = np.concatenate([x, features.reshape(rows * width, -1)], axis=1) @ weights.head + weights.head_bias
    logits = _softmax(logits).reshape(rows, width, -1)
    return [logits[i, 1 : length + 1] for i, length in enumerate(lengths)]


def _layer(x: Matrix, layer: Layer, rows: int, mask: Matrix | None) -> Matrix:
    attended = _attention(x @ layer.qkv + layer.qkv_bias, rows, mask)
    attended = attended @ layer.out
    attended += layer.out_bias
    attended += x
    x = _norm(attended, layer.norm)
    inner = x @ layer.up
    inner += layer.up_bias
    out = _gelu(inner) @ layer.down
    out += layer.down_bias
    out += x
    return _norm(out, layer.out_norm)


def _attention(qkv: Matrix, rows: int, mask: Matrix | None) -> Matrix:
    width = qkv.shape[1] // 3
    parts = qkv.reshape(rows, -1, 3, HEADS, width // HEADS).transpose(2, 0, 3, 1, 4)
    scores = parts[0] @ parts[1].swapaxes(-1, -2)
    if mask is not None:
        scores += mask
    out: Matrix = (_softmax(scores) @ parts[2]).transpose(0, 2, 1, 3).reshape(-1, width)
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
