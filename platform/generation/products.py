"""Matrix products of several linear layers of one input as one, and the same of an adapter's matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 64
"""For products of about this height the weights are packed; others are nearly as fast with them."""


class Product:
    """One matrix product: the weights of several linear layers of the same input, one below the other."""

    def __init__(self, layers: Sequence[Any], *, pack: bool) -> None:
        import torch

        self.widths = [layer.weight.shape[0] for layer in layers]
        self.inputs: int = layers[0].weight.shape[1]
        biases = [layer.bias for layer in layers]
        self._bias = None if biases[0] is None else torch.cat(biases).detach()
        self._packed: Tensor | None = None
        if len(layers) == 1:
            self._weight = layers[0].weight.detach()
        else:
            self._weight = torch.cat([layer.weight.detach() for layer in layers])
            for layer, part in zip(layers, self._weight.split(self.widths), strict=True):
                layer.weight.data = part  # one copy in memory
        if pack:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight, ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        import torch

        if self._weight.dtype != x.dtype:
            return torch.nn.functional.linear(x.to(self._weight.dtype), self._weight, self._bias).to(x.dtype)
        if self._packed is None:
            return torch.nn.functional.linear(x, self._weight, self._bias)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return found


def join(product: Product, pairs: Sequence[tuple[Tensor, Tensor, float] | None]) -> tuple[Tensor, Tensor] | None:
    """The matrices of several linear layers of one input as one pair."""
    import torch

    present = [pair for pair in pairs if pair is not None]
    if not present:
        return None
    ranks = sum(len(a) for a, _, _ in present)
    second = torch.zeros((ranks, sum(product.widths)))
    column = row = 0
    for width, pair in zip(product.widths, pairs, strict=True):
        if pair is not None:
            second[row : row + len(pair[0]), column : column + width] = pair[1].detach().float().T * pair[2]
            row += len(pair[0])
        column += width
    return torch.cat([a.detach().float() for a, _, _ in present]).T.contiguous(), second
