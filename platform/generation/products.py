"""Matrix products of several linear layers of one input as one, and the same of an adapter's matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ROWS = 64
"""For products of about this height the weights are packed; others are nearly as fast with them."""


class Product:
    """One matrix product: the weights of several linear layers of the same input, one below the other."""

    def __init__(
        self, layers: Sequence[Any], *, pack: bool, keep: bool = True, dtype: torch.dtype | None = None
    ) -> None:
        """``pack``: in the order that oneDNN multiplies in. ``keep``: the layers keep their own weights beside those;
        else they have them only from `lend` to `take_back`, and there is one copy in memory. ``dtype``: of the product;
        where it is not the weights' own, the layers get theirs back rounded.

        Raises:
            ValueError: packing would lose a bit of the weights.
        """
        import torch

        self.widths = [layer.weight.shape[0] for layer in layers]
        self.inputs: int = layers[0].weight.shape[1]
        biases = [layer.bias for layer in layers]
        self._bias = None if biases[0] is None else torch.cat(biases).detach().to(dtype)
        self._layers = layers
        self._packed: Tensor | None = None
        self._weight: Tensor | None
        if len(layers) == 1:
            self._weight = layers[0].weight.detach()
        else:
            self._weight = torch.cat([layer.weight.detach() for layer in layers])
            self._share(self._weight)  # one copy in memory
        self._weight = self._weight.to(dtype)
        self._dtype = self._weight.dtype
        if pack:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight, ROWS)
            if not keep:
                if not torch.equal(self._packed.to_dense(), self._weight):
                    raise ValueError("packed weights are not the same")
                self._weight = None
                self.take_back()

    def __call__(self, x: Tensor) -> Tensor:
        return self.inside(x).to(x.dtype)

    def inside(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """In the product's own type, for what goes on in it. ``gelu``: the exact one, in the same step."""
        import torch

        y = x.to(self._dtype)
        if self._packed is not None:
            after = ("gelu", "none") if gelu else ("none", "")
            found: Tensor = torch.ops.mkldnn._linear_pointwise(y, self._packed, self._bias, after[0], [], after[1])
            return found
        assert self._weight is not None
        plain = torch.nn.functional.linear(y, self._weight, self._bias)
        return torch.nn.functional.gelu(plain) if gelu else plain

    def lend(self) -> None:
        """The layers have their weights again."""
        if self._weight is None and self._packed is not None:
            self._share(self._packed.to_dense())

    def take_back(self) -> None:
        """What was lent goes."""
        if self._weight is None:
            for layer in self._layers:
                layer.weight.data = layer.weight.data.new_empty(0)

    def _share(self, weight: Tensor) -> None:
        for layer, part in zip(self._layers, weight.split(self.widths), strict=True):
            layer.weight.data = part


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
