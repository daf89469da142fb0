"""Muon for matrices, AdamW for the rest (Jordan et al. 2024, "Muon: An optimizer for hidden layers")."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.base_model.architecture import Network

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Newton-Schulz polynomial of the Muon reference."""
_STEPS, _MOMENTUM, _DECAY = 5, 0.95, 0.02
_EPSILON = 1e-6
"""Larger than usual: tokens that hardly occur get gradients of almost nothing and must not be blown up to a step."""


def orthogonalise(gradient: Tensor) -> Tensor:
    """The nearest matrix with all singular values near one, by Newton-Schulz iteration in bfloat16."""
    x = gradient.bfloat16()
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T.contiguous()
    x = x / (x.norm() + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.T if tall else x).float()


class Optimiser:
    """Both optimisers behind one step; learning rates are scaled by a common factor (warm-up, decay).

    ``kept``: masks by parameter name of entries that stay as they are now. Make it when the parameters are where they
    are trained.
    """

    def __init__(
        self,
        network: Network,
        *,
        matrix_rate: float = 0.01,
        other_rate: float = 1e-3,
        embedding_rate: float = 1e-4,
        kept: dict[str, Tensor] | None = None,
    ) -> None:
        named = list(network.named_parameters())
        self.matrices = [p for name, p in named if p.dim() == 2 and "embed" not in name]
        others = [p for name, p in named if p.dim() != 2]
        embeddings = [p for name, p in named if "embed" in name]
        self.parameters = [p for _, p in named]
        self.matrix_rate = matrix_rate
        self.rates = (other_rate, embedding_rate)
        self.adam = torch.optim.AdamW(
            [{"params": others}, {"params": embeddings}],
            lr=other_rate, betas=(0.9, 0.95), weight_decay=0.0, eps=_EPSILON, fused=True,
        )  # fmt: skip
        self.momenta = [torch.zeros_like(p) for p in self.matrices]
        by_name = dict(named)
        self.kept = [
            (by_name[name], mask.to(by_name[name].device), by_name[name].detach().clone())
            for name, mask in (kept or {}).items()
        ]

    def zero(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, scale: float) -> float:
        """Clips to norm 1, applies both updates, and returns the norm of the gradient before clipping."""
        for parameter, mask, _ in self.kept:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(mask, 0.0)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, 1.0))
        for group, rate in zip(self.adam.param_groups, self.rates, strict=True):
            group["lr"] = rate * scale
        self.adam.step()
        rate = self.matrix_rate * scale
        for parameter, momentum in zip(self.matrices, self.momenta, strict=True):
            if parameter.grad is None:
                continue
            momentum.mul_(_MOMENTUM).add_(parameter.grad)
            update = orthogonalise(parameter.grad.add(momentum, alpha=_MOMENTUM))
            parameter.mul_(1 - rate * _DECAY)
            parameter.add_(update, alpha=-rate * max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5)
        for parameter, mask, value in self.kept:
            torch.where(mask, value, parameter, out=parameter)
        return norm

    def state(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "momenta": self.momenta}

    def load(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        for mine, saved in zip(self.momenta, state["momenta"], strict=True):
            mine.copy_(saved)
