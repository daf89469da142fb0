"""Passes through a Llama-like decoder on a CPU, with as few and as large steps as the arithmetic allows.

transformers runs any model, through small modules. With a small model on a CPU that costs as much as the arithmetic:
masks are built anew and caches copied at every step, and PEFT picks each adapter's rows out of the batch for every
matrix. Here query, key and value are one product, gate and up another, the adapter's matrices of one product are one
pair; weights lie packed as oneDNN wants them; and each row's keys and values lie in a store of its own, so that rows
have no padding and no mask, join and leave for nothing, and copy nothing.

Whether it says the same as the model it is made of is tried when it is made (`generation.fusing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

from generation.products import Product, join

if TYPE_CHECKING:
    from torch import Tensor

FEW = 16
"""Tokens of a pass beyond which it is filled up to a multiple of as many: oneDNN makes a program for every height of a
product, which takes as long as the products of a short step, and keeps a thousand of them."""
BLOCK = 64
"""Queries that look at keys together: what comes after them is not computed only to be masked."""


@dataclass(eq=False)
class Store:
    """Keys and values of one row: (layers, 2, heads, capacity, width), of which ``length`` tokens are read."""

    values: Tensor
    length: int = 0


@dataclass(frozen=True)
class Piece:
    """What one row reads in a pass: tokens that follow those in its store. ``last``: of how many of them it is asked
    what comes next."""

    tokens: Sequence[int]
    store: Store
    adapter: str | None = None
    last: int = 1


@dataclass
class Layer:
    products: tuple[Product, Product, Product, Product]
    """Query, key and value; output; gate and up; down."""
    names: tuple[tuple[str, ...], ...]
    """The modules of each product, as PEFT finds them."""
    before: Tensor
    between: Tensor
    heads: Tensor | None
    """Weights of the norms of queries and keys, (heads, width)."""


Matrices = list[list[tuple["Tensor", "Tensor"] | None]]
"""Of each layer and product: A (inputs, ranks) and B (ranks, outputs), scaled."""


@dataclass
class FusedDecoder:
    """Made by `generation.fusing.fuse`. Not safe for use from several threads."""

    layers: list[Layer]
    embedding: Tensor
    norm: Tensor
    head: Product
    eps: float
    turns: tuple[Tensor, Tensor]
    """Cosines and sines of each position, (positions, 1, width / 2)."""
    queries: int
    keys: int
    width: int
    scale: float
    adapters: dict[str, Matrices] = field(default_factory=dict)

    def store(self, capacity: int) -> Store:
        import torch

        return Store(torch.empty((len(self.layers), 2, self.keys, capacity, self.width), dtype=torch.float32))

    def next_tokens(self, pieces: Sequence[Piece]) -> list[list[int]]:
        """For each piece what most probably follows each of its ``last`` tokens; the stores hold its tokens then."""
        import torch

        with torch.inference_mode():
            order = sorted(range(len(pieces)), key=lambda i: pieces[i].adapter or "")
            logits = self.logits([pieces[i] for i in order])
            chosen = logits.argmax(-1).tolist()
        found: list[list[int]] = [[] for _ in pieces]
        at = 0
        for i in order:
            found[i] = chosen[at : at + pieces[i].last]
            at += pieces[i].last
        return found

    def logits(self, pieces: Sequence[Piece]) -> Tensor:
        """(sum of ``last``, vocabulary). Pieces of one adapter must be neighbours."""
        import torch

        counts = [len(piece.tokens) for piece in pieces]
        asked = [piece.last for piece in pieces]
        read, wanted = _spans(counts), _spans(asked)
        filler = -sum(counts) % FEW if sum(counts) > FEW else 0
        tokens = torch.tensor([*(token for piece in pieces for token in piece.tokens), *[0] * filler])
        positions = [torch.arange(p.store.length, p.store.length + n) for p, n in zip(pieces, counts, strict=True)]
        turns = [table[torch.cat([*positions, torch.zeros(filler, dtype=torch.long)])] for table in self.turns]
        masks = [_mask(n, piece.store.length) for piece, n in zip(pieces, counts, strict=True)]
        adapted = self._adapted(pieces, read)
        x = self.embedding[tokens].float()
        for number, layer in enumerate(self.layers):
            turned, values = self._heads(x, number, turns, adapted)
            out = read
            if number == len(self.layers) - 1:  # of what else it would say nothing is used
                x = x[torch.tensor([i for (_, end), n in zip(read, asked, strict=True) for i in range(end - n, end)])]
                adapted, out = self._adapted(pieces, wanted), wanted
            seen = torch.zeros((len(x), self.queries, self.width))
            for piece, mask, (start, end), (first, last) in zip(pieces, masks, read, out, strict=True):
                kept, new = piece.store.values[number], piece.store.length + end - start
                kept[0, :, piece.store.length : new] = turned[start:end, self.queries :].transpose(0, 1)
                kept[1, :, piece.store.length : new] = values[start:end].transpose(0, 1)
                queries = turned[end - (last - first) : end, : self.queries]
                self._attend(queries, kept[:, :, :new], mask, seen[first:last])
            x = x + self._product(seen.view(len(x), -1), number, 1, adapted)
            inner = self._product(self._norm(x, layer.between), number, 2, adapted)
            gate, up = inner.chunk(2, dim=-1)
            x = x + self._product(torch.nn.functional.silu(gate).mul_(up), number, 3, adapted)
        for piece, count in zip(pieces, counts, strict=True):
            piece.store.length += count
        return self.head(self._norm(x, self.norm))

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        import torch

        return torch.nn.functional.rms_norm(x, weight.shape, weight, self.eps)

    def _adapted(self, pieces: Sequence[Piece], spans: Sequence[tuple[int, int]]) -> list[tuple[int, int, Matrices]]:
        """Which rows of a product belong to which adapter."""
        found = []
        for name, group in groupby(zip(pieces, spans, strict=True), key=lambda pair: pair[0].adapter):
            own = [span for _, span in group]
            if name is not None:
                found.append((own[0][0], own[-1][1], self.adapters[name]))
        return found

    def _heads(
        self, x: Tensor, number: int, turns: Sequence[Tensor], adapted: Sequence[tuple[int, int, Matrices]]
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys, turned to their positions, and values; each (tokens, heads, width)."""
        import torch

        layer, both, half = self.layers[number], self.queries + self.keys, self.width // 2
        heads = self._product(self._norm(x, layer.before), number, 0, adapted).view(len(x), -1, self.width)
        found, (cos, sin) = heads[:, :both], turns
        if layer.heads is not None:
            found = torch.nn.functional.rms_norm(found, (self.width,), None, self.eps).mul_(layer.heads)
        turned = torch.empty_like(found)
        left, right = found[..., :half], found[..., half:]
        torch.mul(left, cos, out=turned[..., :half]).addcmul_(right, sin, value=-1)
        torch.mul(right, cos, out=turned[..., half:]).addcmul_(left, sin)
        return turned, heads[:, both:]

    def _product(self, x: Tensor, number: int, which: int, adapted: Sequence[tuple[int, int, Matrices]]) -> Tensor:
        out = self.layers[number].products[which](x)
        for start, end, matrices in adapted:
            if (pair := matrices[number][which]) is not None:
                out[start:end].addmm_(x[start:end] @ pair[0], pair[1])
        return out

    def _attend(self, queries: Tensor, kept: Tensor, mask: Tensor | None, out: Tensor) -> None:
        """``queries`` and ``out`` (tokens, heads, width); the queries are the last tokens of ``kept``."""
        import torch

        attention = torch.nn.functional.scaled_dot_product_attention
        before = kept.shape[2] - len(queries)
        asked = queries.transpose(0, 1).unsqueeze(0)
        keys, values = kept[0].unsqueeze(0), kept[1].unsqueeze(0)
        if mask is not None:
            mask = mask[len(mask) - len(queries) :]
        for start in range(0, len(queries), BLOCK):
            end = min(start + BLOCK, len(queries))
            part = attention(
                asked[:, :, start:end],
                keys[:, :, : before + end],
                values[:, :, : before + end],
                attn_mask=None if mask is None else mask[start:end, : before + end],
                scale=self.scale,
                enable_gqa=self.queries != self.keys,
            )
            out[start:end] = part[0].transpose(0, 1)

    # --- Adapters -----------------------------------------------------------------------------------------------------

    def adopt(self, name: str, model: Any) -> None:
        """Takes over the matrices of an adapter that PEFT has put into ``model``.

        Raises:
            ValueError: it adapts a module that is no part of a layer's products.
        """
        from peft.tuners.lora import LoraLayer

        found = {
            path: (module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name])
            for path, module in model.named_modules()
            if isinstance(module, LoraLayer) and name in module.lora_A
        }
        matrices: Matrices = []
        for layer in self.layers:
            parts = zip(layer.products, layer.names, strict=True)
            matrices.append([join(product, [found.pop(path, None) for path in names]) for product, names in parts])
        if found:
            raise ValueError(f"{min(found)} cannot be adapted here")
        self.adapters[name] = matrices


def _spans(counts: Sequence[int]) -> list[tuple[int, int]]:
    ends = list(accumulate(counts))
    return list(zip([0, *ends], ends, strict=False))


def _mask(tokens: int, before: int) -> Tensor | None:
    """What is added to the scores of ``tokens`` queries behind ``before`` keys; None where all see all."""
    import torch

    if tokens == 1:
        return None
    mask = torch.zeros((tokens, before + tokens))
    mask[:, before:].fill_(float("-inf")).triu_(1)
    return mask
