"""The network: a small Qwen3 in plain PyTorch, with the parameter names and the arithmetic of transformers.

Written out so that training can mask examples inside a row and compute the output layer only where it is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.base_model.tokenizer import VOCABULARY


@dataclass(frozen=True)
class Shape:
    """Sizes of the network; the defaults are those of the bundled model (5.9 million parameters)."""

    vocabulary: int = VOCABULARY
    hidden: int = 256
    layers: int = 5
    heads: int = 4
    head: int = 64
    feed_forward: int = 640
    positions: int = 1024
    rope_theta: float = 1e10
    """High, so that enough rotary dimensions turn slowly and can carry content matches."""


def inverse_frequencies(shape: Shape) -> Tensor:
    """(head / 2,): how fast each rotary pair turns per position."""
    return 1.0 / (shape.rope_theta ** (torch.arange(0, shape.head, 2).float() / shape.head))


class _Norm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), 1e-6)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class _Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.head = shape.heads, shape.head
        width = shape.heads * shape.head
        self.q_proj = nn.Linear(shape.hidden, width, bias=False)
        self.k_proj = nn.Linear(shape.hidden, width, bias=False)
        self.v_proj = nn.Linear(shape.hidden, width, bias=False)
        self.o_proj = nn.Linear(width, shape.hidden, bias=False)
        self.q_norm, self.k_norm = _Norm(shape.head), _Norm(shape.head)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, allowed: Tensor | None) -> Tensor:
        rows, length, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(rows, length, self.heads, self.head)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(rows, length, self.heads, self.head)).transpose(1, 2)
        v = self.v_proj(x).view(rows, length, self.heads, self.head).transpose(1, 2)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=allowed is None)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))
        return out


class _FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.feed_forward, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.feed_forward, bias=False)
        self.down_proj = nn.Linear(shape.feed_forward, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class _Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = _Norm(shape.hidden), _Norm(shape.hidden)
        self.self_attn, self.mlp = _Attention(shape), _FeedForward(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, allowed: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, allowed)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class _Body(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList([_Layer(shape) for _ in range(shape.layers)])
        self.norm = _Norm(shape.hidden)


class Network(nn.Module):
    """``state_dict()`` loads into transformers' Qwen3ForCausalLM with tied embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = _Body(shape)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                deviation = 0.02 if "embed" in name else 0.5 / math.sqrt(parameter.shape[1])
                nn.init.normal_(parameter, 0.0, deviation)
        angles = torch.outer(torch.arange(shape.positions).float(), inverse_frequencies(shape))
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def hidden(self, ids: Tensor, positions: Tensor | None = None, allowed: Tensor | None = None) -> Tensor:
        """(rows, length) → (rows, length, hidden).

        ``positions``: (rows, length), default 0, 1, 2, ...
        ``allowed``: boolean (rows, 1, length, length), default causal.
        """
        if positions is None:
            positions = torch.arange(ids.shape[1]).expand_as(ids)
        x = self.model.embed_tokens(ids)
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.bfloat16)
        cos = self.cos[positions].unsqueeze(1).to(x.dtype)
        sin = self.sin[positions].unsqueeze(1).to(x.dtype)
        for layer in self.model.layers:
            x = layer(x, cos, sin, allowed)
        out: Tensor = self.model.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.model.embed_tokens.weight.to(hidden.dtype))
