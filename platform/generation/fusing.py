"""Makes a `FusedDecoder` of a loaded model, and tries whether it says the same."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from generation.fused import FusedDecoder, Layer, Piece
from generation.products import Product

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("ratchet.engine")

KINDS = ("qwen3", "qwen2", "llama")
"""Model types whose layers are what `Layer` takes them to be; anything else goes through transformers."""
POSITIONS = ("default", "linear", "llama3", "yarn")
"""Ways of turning queries and keys to their positions that are the same for texts of any length."""
PACKED_BYTES = 512 * 1024**2
"""Of weights in oneDNN's order: up to here the model keeps its own beside them. A larger one has one copy, and each of
its layers gets it back while a pass of its own is there (`generation.layers` makes such passes)."""
HEAD_BYTES = 1024**3
"""Of the output layer in oneDNN's order, in float32; mostly the embeddings are the same matrix and stay as they are."""
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
        or rope.get("rope_type", "default") not in POSITIONS
        or set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}
    ):
        return None
    made: list[Product] = []
    hooks: list[Any] = []
    try:
        with torch.inference_mode():
            tokens, expected = _probe(model)
            fused = _build(model, context, made, hooks)
            difference = _difference(fused, tokens, expected)
        if difference < TOLERANCE[model.dtype is torch.float32]:
            return fused
        reason = f"logits differ by {difference:.1g}"
    except (AttributeError, RuntimeError, NotImplementedError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
    for hook in hooks:
        hook.remove()
    for product in made:
        product.lend()
    log.warning("engine: %s runs through transformers: %s", config.model_type, reason)
    return None


def _build(model: Any, context: int, made: list[Product], hooks: list[Any]) -> FusedDecoder:
    """``made`` and ``hooks`` get what is to be undone where it comes to nothing."""
    import torch

    inner = model.model
    first = inner.layers[0].self_attn
    weights = sum(p.numel() * p.element_size() for p in inner.layers.parameters())
    keep = weights <= PACKED_BYTES
    pack = _packs(model.dtype) and (model.dtype == torch.float32 or not keep)
    queries = first.q_proj.weight.shape[0] // first.head_dim
    keys = first.k_proj.weight.shape[0] // first.head_dim
    paths = {id(module): path for path, module in model.named_modules()}
    if pack and not keep:
        _leave_file(inner)
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
        products: list[Product] = []
        for group in groups:
            products.append(Product(group, pack=pack, keep=keep))
            made.append(products[-1])
        if pack and not keep:
            hooks += _lending(layer, products)
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
        head=_head(model),
        eps=model.config.rms_norm_eps,
        turns=(cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous()),
        queries=queries,
        keys=keys,
        width=first.head_dim,
        scale=first.scaling,
    )


def _packs(dtype: Any) -> bool:
    import torch

    if dtype == torch.bfloat16:
        return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.backends.mkldnn.is_available() and dtype == torch.float32


def _leave_file(model: Any) -> None:
    """Weights of the right kind are mapped from their file in one piece: while one norm of it is used, all stays."""
    import torch

    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name != "weight" or not isinstance(module, torch.nn.Linear):
                parameter.data = parameter.data.clone()


def _lending(layer: Any, products: Sequence[Product]) -> list[Any]:
    """The model itself has a layer's weights while it passes through it."""

    def lend(*_: Any) -> None:
        for product in products:
            product.lend()

    def take_back(*_: Any) -> None:
        for product in products:
            product.take_back()

    # Also behind a pass that failed: else the weights would stay twice.
    return [layer.register_forward_pre_hook(lend), layer.register_forward_hook(take_back, always_call=True)]


def _head(model: Any) -> Product:
    """In bfloat16 the two best tokens are often equal, so where there is room the choice is made in float32."""
    import torch

    head = model.lm_head
    if 4 * head.weight.numel() > HEAD_BYTES:
        return Product([head], pack=False)
    if head.weight.dtype == torch.float32:
        return Product([head], pack=_packs(torch.float32))
    other = torch.nn.Linear(head.weight.shape[1], head.weight.shape[0], bias=False)
    other.weight.data = head.weight.detach().float()
    pack = _packs(torch.float32)
    return Product([other], pack=pack, keep=not pack)


def _probe(model: Any) -> tuple[list[int], Tensor]:
    """Some tokens, and what the model says behind each: (tokens, vocabulary)."""
    import torch

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.get_input_embeddings().weight.shape[0], (PROBE,), generator=generator).tolist()
    return tokens, model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()


def _difference(fused: FusedDecoder, tokens: Sequence[int], expected: Tensor) -> float:
    """Greatest difference of any logit, as a share of the greatest; read in two goes, as serving reads."""
    import torch

    store = fused.store(PROBE)
    cut = PROBE // 3
    parts = [fused.logits([Piece(part, store, last=len(part))]) for part in (tokens[:cut], tokens[cut:])]
    return float((torch.cat(parts).float() - expected).abs().max() / expected.abs().max())
