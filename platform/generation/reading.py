"""Passes through a BERT-like embedder on a CPU: as `generation.fused` does for decoders, without padding and masks.

A question is some fifteen tokens, so the library's modules cost nearly as much as the arithmetic; texts of a batch lie
one behind the other, and each looks at itself only. And it takes longer to fetch the weights than to multiply by them:
the engine's process has read other things since the last question. So there they lie in half as many bytes, where the
processor multiplies such numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from generation.fused import FEW
from generation.products import Product

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger("ratchet.engine")

FINE, SHORT = 4, 64
"""See `_filler`."""
TOLERANCE = 1e-4
"""Greatest difference from what the model itself says of the probe; rounding makes some 1e-6."""
ROUGHLY = 1e-3
"""Of products in bfloat16: greatest distance from the model's own direction, as 1 - cosine of the mean; some 2e-5."""
PROBE = ((101, 2054, 2003, 1996, 6164, 7408, 1029, 102), (101, 102), tuple(range(1000, 1040)))


@dataclass(frozen=True)
class _Norm:
    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        import torch

        return torch.nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class _Layer:
    heads: Product
    """Query, key and value."""
    out: Product
    between: _Norm
    up: Product
    down: Product
    after: _Norm


class Reader:
    """Keeps nothing between calls."""

    def __init__(self, model: Any, made: list[Product], dtype: torch.dtype | None = None) -> None:
        """Takes over the weights of ``model``, which gets them back by `Product.lend` of what is put into ``made``."""

        def product(*layers: Any) -> Product:
            made.append(Product(layers, pack=True, keep=False, dtype=dtype))
            return made[-1]

        parts = model.embeddings
        self._words = parts.word_embeddings.weight.detach()
        self._places = (parts.position_embeddings.weight + parts.token_type_embeddings.weight[0]).detach()
        self._first = _norm(parts.LayerNorm)
        self._count = model.config.num_attention_heads
        self._layers = [
            _Layer(
                heads=product(layer.attention.self.query, layer.attention.self.key, layer.attention.self.value),
                out=product(layer.attention.output.dense),
                between=_norm(layer.attention.output.LayerNorm),
                up=product(layer.intermediate.dense),
                down=product(layer.output.dense),
                after=_norm(layer.output.LayerNorm),
            )
            for layer in model.encoder.layer
        ]

    def read(self, texts: Sequence[Sequence[int]]) -> list[Tensor]:
        """What stands behind the last layer for each token of each text, (tokens, width)."""
        import torch

        ends = list(accumulate(len(text) for text in texts))
        spans = list(zip([0, *ends], ends, strict=False))
        filler = _filler(ends[-1])
        ids = torch.tensor([*(token for text in texts for token in text), *[0] * filler])
        places = torch.tensor([*(place for text in texts for place in range(len(text))), *[0] * filler])
        x = self._first(self._words[ids] + self._places[places])
        for layer in self._layers:
            heads = layer.heads(x).view(len(x), 3, self._count, -1)
            seen = torch.zeros_like(x)
            for start, end in spans:
                query, key, value = heads[start:end].permute(1, 2, 0, 3).unsqueeze(1)
                part = torch.nn.functional.scaled_dot_product_attention(query, key, value)
                seen[start:end] = part[0].transpose(0, 1).reshape(end - start, -1)
            x = layer.between(layer.out.inside(seen) + x)
            x = layer.after(layer.down.inside(layer.up.inside(x, gelu=True)) + x)
        return [x[start:end] for start, end in spans]


def _filler(tokens: int) -> int:
    """Tokens that are read for nothing, so that few heights of a product have programs of their own. A question is
    filled up to the next four: up to the next sixteen, half of them would take a third longer."""
    if tokens <= FEW:
        return 0
    return -tokens % (FINE if tokens <= SHORT else FEW)


def reader_of(model: Any, *, quick: bool = False) -> Reader | None:
    """None where the model is of another kind, or does not say the same: then it is as it was, but for a ``quick`` one.

    Args:
        quick: products in bfloat16, where the processor multiplies such numbers.
    """
    import torch

    if not is_readable(model):
        return None
    short = quick and multiplies_bfloat16()
    with torch.inference_mode():
        expected = [model(input_ids=torch.tensor([text])).last_hidden_state[0] for text in PROBE]
        made: list[Product] = []
        try:
            reader = Reader(model, made, torch.bfloat16 if short else None)
            pairs = list(zip(reader.read(PROBE), expected, strict=True))
            differences = [(_turned if short else _apart)(*pair) for pair in pairs]
            # Each by itself: the greatest of several may be less than what is no number.
            if all(difference < (ROUGHLY if short else TOLERANCE) for difference in differences):
                return reader
            reason = f"what it says differs by {', '.join(f'{difference:.1g}' for difference in differences)}"
        except (AttributeError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0][:200]
        for product in made:
            product.lend()
    log.warning("embedder: runs through transformers: %s", reason)
    return None


def is_readable(model: Any) -> bool:
    """Whether it is of the kind that is read here."""
    import torch

    config = model.config
    return bool(
        config.model_type == "bert"
        and config.hidden_act == "gelu"
        and model.dtype == torch.float32
        and config.vocab_size >= 8000
        and getattr(config, "position_embedding_type", None) in (None, "absolute")
        and torch.backends.mkldnn.is_available()
    )


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it; without them it is emulated, slower than float32."""
    import torch

    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max())


def _turned(found: Tensor, expected: Tensor) -> float:
    import torch

    return 1 - float(torch.nn.functional.cosine_similarity(found.mean(0), expected.mean(0), dim=0))


def _norm(module: Any) -> _Norm:
    return _Norm(module.weight.detach(), module.bias.detach(), module.eps)
