"""A look into the layers of the local model: how far each feed-forward block moves what would be said next.

The *parametric knowledge score* of ReDeEP (Sun et al. 2024, arXiv 2410.11414): for each token of an answer and each
layer, the Jensen–Shannon divergence between the vocabulary distributions that the residual stream stands for before and
after the feed-forward block (logit lens: final norm, then output embedding), averaged over the answer's tokens. What
feed-forward blocks add is taken for what the weights know, as against what attention copies from the prompt.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from generation.embedder import torch_threads
from generation.engines import EngineError, GenerationRequest, PromptTooLong

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from generation.local import TransformersEngine

BEFORE_FEED_FORWARD = ("pre_feedforward_layernorm", "post_attention_layernorm")
"""The norm whose input is the residual stream before the feed-forward block. Gemma has both names, and there the second
one closes the attention block instead."""
CHUNK = 32
"""Tokens whose distributions over the vocabulary are held at once."""


class LayersUnknown(EngineError):
    """The model is not built as the score takes it to be."""

    code = "layers_unknown"
    status = 422


def knowledge_scores(engine: TransformersEngine, request: GenerationRequest, completion: str) -> NDArray[np.float64]:
    """Score of each layer for one answer that is given, not written: shape (layers,), in nats, 0 … ln 2.

    Raises:
        LayersUnknown: layers, norms or output are not where they are in Llama-like models.
        PromptTooLong: prompt and answer do not fit the context.
        ValueError: the answer has no tokens.
    """
    import torch

    prompt = engine.encode(request)
    answer: list[int] = engine.tokenizer(completion, add_special_tokens=False, verbose=False)["input_ids"]
    if not answer:
        raise ValueError("an answer without tokens has no score")
    if len(prompt) + len(answer) > engine.context:
        raise PromptTooLong("Prompt and answer do not fit the context.", tokens=len(prompt), limit=engine.context)
    adapters = engine._adapters  # of this package, and nobody else needs it
    layers, norm, head = _parts(adapters._base)
    before: list[torch.Tensor] = []
    after: list[torch.Tensor] = []
    # The token at position i is said from what stands at i − 1.
    said = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)

    def keep_input(_: Any, args: tuple[Any, ...]) -> None:
        before.append(args[0][0, said])

    def keep_output(_: Any, __: Any, output: Any) -> None:
        after.append((output[0] if isinstance(output, tuple) else output)[0, said])

    with torch_threads(engine.threads), torch.inference_mode(), ExitStack() as hooks:
        for layer in layers:
            hooks.callback(_gate_of(layer).register_forward_pre_hook(keep_input).remove)
            hooks.callback(layer.register_forward_hook(keep_output).remove)
        ids = torch.tensor([prompt + answer], device=adapters.device)
        adapters.forward([request.adapter], input_ids=ids, use_cache=False, logits_to_keep=1)
    with torch_threads(engine.threads), torch.inference_mode():
        scores = [_divergence(a, b, norm, head) for a, b in zip(before, after, strict=True)]
    return torch.stack(scores).double().cpu().numpy()


def _parts(model: Any) -> tuple[list[Any], Any, Any]:
    inner = getattr(model, "model", None)
    layers, norm, head = getattr(inner, "layers", None), getattr(inner, "norm", None), model.get_output_embeddings()
    if not layers or norm is None or head is None:
        raise LayersUnknown(
            f"The layers of {type(model).__name__} are not where they are looked for.",
            "The score is for decoders only.",
        )
    return list(layers), norm, head


def _gate_of(layer: Any) -> Any:
    for name in BEFORE_FEED_FORWARD:
        if (found := getattr(layer, name, None)) is not None:
            return found
    raise LayersUnknown(f"{type(layer).__name__} has no norm before its feed-forward block.")


def _divergence(before: torch.Tensor, after: torch.Tensor, norm: Any, head: Any) -> torch.Tensor:
    """Mean Jensen–Shannon divergence of the tokens (rows) of one layer."""
    import torch

    total = torch.zeros((), dtype=torch.float32, device=before.device)
    for start in range(0, len(before), CHUNK):
        p, q = (torch.log_softmax(head(norm(x[start : start + CHUNK])).float(), dim=-1) for x in (before, after))
        mean = torch.logsumexp(torch.stack([p, q]), dim=0) - torch.log(torch.tensor(2.0))
        total += 0.5 * ((p.exp() * (p - mean)).sum() + (q.exp() * (q - mean)).sum())
    return total / len(before)
