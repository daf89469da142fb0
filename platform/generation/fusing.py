"""Makes a `FusedDecoder` of a loaded model, and tries whether it says the same."""

from __future__ import annotations

import logging
from typing import Any

from generation.fused import FusedDecoder, Layer, Piece
from generation.products import Product

log = logging.getLogger("ratchet.engine")

KINDS = ("qwen3", "qwen2", "llama")
"""Model types whose layers are what `Layer` takes them to be; anything else goes through transformers."""
PACKED_BYTES = 512 * 1024**2
"""Of weights: up to here they are copied into oneDNN's order. Larger models keep one copy, as it is stored."""
PROBE = 48
"""Tokens that are compared with the model's own."""
TOLERANCE = {True: 1e-3, False: 0.1}
"""Greatest difference of a logit, as a share of the greatest, in float32 and not; rounding makes some 1e-6 and 1e-2."""


def fuse(model: Any, context: int) -> FusedDecoder | None:
    """A decoder with the model's weights; None where the model is of another kind, or does not say the same."""
    import torch

    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    if (
        config.model_type not in KINDS
        or model.device.type != "cpu"
        or config.hidden_act != "silu"
        or rope.get("rope_type", "default") != "default"
        or set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}
    ):
        return None
    try:
        with torch.inference_mode():
            fused = _build(model, context)
            difference = _difference(model, fused)
    except (AttributeError, RuntimeError, NotImplementedError, ValueError) as error:
        log.warning("engine: %s runs through transformers: %s", config.model_type, str(error).splitlines()[0][:200])
        return None
    if not difference < TOLERANCE[model.dtype is torch.float32]:
        log.warning("engine: %s runs through transformers: logits differ by %.1g", config.model_type, difference)
        return None
    return fused


def _build(model: Any, context: int) -> FusedDecoder:
    import torch

    inner = model.model
    first = inner.layers[0].self_attn
    weights = sum(p.numel() * p.element_size() for p in inner.layers.parameters())
    pack = torch.backends.mkldnn.is_available() and model.dtype == torch.float32 and weights <= PACKED_BYTES
    queries = first.q_proj.weight.shape[0] // first.head_dim
    keys = first.k_proj.weight.shape[0] // first.head_dim
    paths = {id(module): path for path, module in model.named_modules()}
    layers = []
    for layer in inner.layers:
        attention, block = layer.self_attn, layer.mlp
        groups = (
            (attention.q_proj, attention.k_proj, attention.v_proj), (attention.o_proj,),
            (block.gate_proj, block.up_proj), (block.down_proj,),
        )  # fmt: skip
        norms = None
        if (norm := getattr(attention, "q_norm", None)) is not None:
            parts = [norm.weight.expand(queries, -1), attention.k_norm.weight.expand(keys, -1)]
            norms = torch.cat(parts).detach().float()
        products = [Product(group, pack=pack) for group in groups]
        layers.append(
            Layer(
                products=(products[0], products[1], products[2], products[3]),
                names=tuple(tuple(paths[id(module)] for module in group) for group in groups),
                before=layer.input_layernorm.weight.detach().float(),
                between=layer.post_attention_layernorm.weight.detach().float(),
                heads=norms,
            )
        )
    cos, sin = inner.rotary_emb(torch.zeros(1), torch.arange(context).unsqueeze(0))
    half = first.head_dim // 2
    return FusedDecoder(
        layers=layers,
        embedding=inner.embed_tokens.weight.detach(),
        norm=inner.norm.weight.detach().float(),
        head=_head(model, pack),
        eps=model.config.rms_norm_eps,
        turns=(cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous()),
        queries=queries,
        keys=keys,
        width=first.head_dim,
        scale=first.scaling,
    )


def _head(model: Any, pack: bool) -> Product:
    """In bfloat16 the two best tokens are often equal, so where there is room the choice is made in float32."""
    import torch

    head = model.lm_head
    if head.weight.dtype != torch.float32 and 4 * head.weight.numel() <= PACKED_BYTES:
        other = torch.nn.Linear(head.weight.shape[1], head.weight.shape[0], bias=False)
        other.weight.data = head.weight.detach().float()
        return Product([other], pack=torch.backends.mkldnn.is_available())
    return Product([head], pack=pack)


def _difference(model: Any, fused: FusedDecoder) -> float:
    """Greatest difference of any logit, as a share of the greatest; read in two goes, as serving reads."""
    import torch

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(len(fused.embedding), (PROBE,), generator=generator).tolist()
    expected = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()
    store = fused.store(PROBE)
    cut = PROBE // 3
    parts = [fused.logits([Piece(part, store, last=len(part))]) for part in (tokens[:cut], tokens[cut:])]
    return float((torch.cat(parts).float() - expected).abs().max() / expected.abs().max())
