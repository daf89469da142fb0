"""The weights of the name model as its graph takes them: large ones as bytes with a scale for each column."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.name_model.weights import Matrix, Weights

LEAST_GELU = 0.1701
"""GELU is nowhere below the negative of this."""
PROBED = 64
"""The graph adds so many of the largest products of bytes, for `network` to see whether they overflow."""
FEW = 8
"""Inner values of a layer with the largest weights, forty times those of others: multiplied as they are, since bytes
that hold them are too coarse for the rest."""
_LEVELS = 127
"""Of either sign. With 63 twice as much is lost, and half a percent of precision with it."""
_CUTS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7)
"""The largest weights of a column may lose so much, where all others gain more from finer steps."""

Tensors = dict[str, NDArray[Any]]


def tensors(weights: Weights) -> Tensors:
    """Every tensor that the graph of `training.name_model.graph` names."""
    found: Tensors = {"letters": weights.letters, "head": weights.head, "head.bias": weights.head_bias}

    def norm(name: str, parameters: tuple[Matrix, Matrix]) -> None:
        found[f"{name}.scale"], found[f"{name}.shift"] = parameters

    def linear(name: str, weight: Matrix, bias: Matrix) -> None:
        found[f"{name}.weight"], found[f"{name}.columns"] = quantised(weight)
        found[f"{name}.bias"] = bias

    for name in ("each", "each_bias", "near", "near_bias", "head", "head_bias"):
        found[f"glance.{name}"] = getattr(weights.glance, name)
    norm("norm", weights.norm)
    for i, layer in enumerate(weights.layers):
        at = f"layer.{i}"
        linear(f"{at}.qkv", layer.qkv, layer.qkv_bias)
        linear(f"{at}.out", layer.out, layer.out_bias)
        norm(f"{at}.norm", layer.norm)
        order = np.argsort(np.abs(layer.down).max(axis=1), kind="stable")
        linear(f"{at}.up", layer.up[:, order], layer.up_bias[order])
        linear(f"{at}.down", layer.down[order[:-FEW]], layer.down_bias)
        found[f"{at}.down.few"] = layer.down[order[-FEW:]]
        # The graph raises what goes in by LEAST_GELU, so that its bytes need no sign.
        raised = (found[f"{at}.down.weight"].sum(axis=0, dtype=np.int64) * found[f"{at}.down.columns"]) * LEAST_GELU
        found[f"{at}.down.bias"] = (layer.down_bias - raised).astype(np.float32)
        norm(f"{at}.out_norm", layer.out_norm)
    return {name: np.ascontiguousarray(tensor) for name, tensor in found.items()}


def halves(found: Tensors, after: int) -> tuple[Tensors, Tensors]:
    """The tensors of the graph that ends behind so many layers, and those of the one that goes on."""
    late = {f"layer.{i}" for i in range(after)}.isdisjoint
    rest = {
        name: tensor
        for name, tensor in found.items()
        if name in {"head", "head.bias"} or (name.startswith("layer.") and late([".".join(name.split(".")[:2])]))
    }
    return {name: tensor for name, tensor in found.items() if name not in rest}, rest


def quantised(weight: Matrix) -> tuple[NDArray[np.int8], Matrix]:
    """(n, m) → whole numbers of at most _LEVELS, and for each of the m columns what one of them stands for."""
    largest = np.maximum(np.abs(weight).max(axis=0), np.float32(1e-12))
    least = np.full(weight.shape[1], np.inf, dtype=np.float32)
    steps = largest / _LEVELS
    for cut in _CUTS:
        step = largest * np.float32(cut / _LEVELS)
        error = np.square(weight - _rounded(weight, step) * step).sum(axis=0)
        steps = np.where(error < least, step, steps)
        least = np.minimum(error, least)
    return _rounded(weight, steps).astype(np.int8), steps.astype(np.float32)


def _rounded(weight: Matrix, steps: Matrix) -> Matrix:
    rounded: Matrix = np.clip(np.rint(weight / steps), -_LEVELS, _LEVELS)
    return rounded
