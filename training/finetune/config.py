"""What a fine-tuning run may be told, and what it chooses itself by the size of data and base. No Django, no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

Precision = Literal["auto", "fp32", "bf16"]
Keep = Literal["best", "last"]

SMALL_BASE = 100_000_000
"""Parameters below which a base takes (and needs) a much higher learning rate."""
MIN_VALIDATION_ROWS = 20
"""With fewer, the validation loss is noise, and choosing by it worse than not choosing."""


class ConfigError(ValueError):
    """A setting that cannot be meant; the message is a sentence that says what is allowed."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of one run. ``None`` means: chosen from the data and the base (`resolve`), with the reason recorded.

    LoRA on all linear layers, loss on the completion only. Defaults follow "LoRA Learns Less and Forgets Less"
    (Biderman et al. 2024) and common practice for adapters: rank 16, alpha twice the rank, learning rate ten times that
    of full fine-tuning, cosine decay after a short warm-up.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    rank_stabilised: bool = False
    learning_rate: float | None = None
    epochs: float | None = None
    batch: int | None = None
    """Rows per optimiser step."""
    micro_batch: int = 8
    """Rows that go through the model at once; what the memory allows."""
    warmup_share: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_length: int | None = None
    """Tokens of the longest allowed row. Longer rows are never cut: the run refuses to start."""
    precision: Precision = "auto"
    """``auto`` on a CPU: whichever is faster on this machine, measured on one batch."""
    threads: int = 0
    """0: every core that the process may use."""
    keep: Keep = "last"
    """``best``: the epoch with the lowest validation loss (where there are enough validation rows)."""
    checkpoint_seconds: float = 30.0
    checkpoint_steps: int = 0
    """Also every so many steps; 0: by time only."""
    sample_rows: int = 3
    """Validation rows that are answered at the end of each epoch, to read along."""
    sample_tokens: int = 48

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} must be between {low:g} and {high:g}, not {value:g}.")
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision must be one of {', '.join(get_args(Precision))}.")
        if self.keep not in get_args(Keep):
            raise ConfigError(f"keep must be one of {', '.join(get_args(Keep))}.")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FinetuneConfig:
        """Raises ConfigError for a setting that is unknown, of another type, or out of its limits."""
        known = {f.name for f in fields(cls)}
        hints = get_type_hints(cls)
        for name, value in values.items():
            if name not in known:
                raise ConfigError(f"There is no setting {name!r}; there are {', '.join(sorted(known))}.")
            if not _fits(value, hints[name]):
                raise ConfigError(f"{name} has the wrong type: {str(value)[:60]!r}.")
        return cls(**values)

    def batches(self) -> tuple[int, int]:
        """Rows that go through the model at once, and how often before a step. For resolved settings."""
        assert self.batch is not None
        micro = min(self.micro_batch, self.batch)
        return micro, max(1, self.batch // micro)

    def steps(self, rows: int) -> int:
        """Optimiser steps over ``rows`` rows (repetitions counted). For resolved settings."""
        micro, accumulate = self.batches()
        assert self.epochs is not None
        return math.ceil(max(1, math.ceil(math.ceil(rows / micro) / accumulate)) * self.epochs)

    def resolve(self, *, rows: int, parameters: int) -> tuple[FinetuneConfig, list[str]]:
        """Fills what was left open for ``rows`` training rows (repetitions counted) and a base of ``parameters``.

        Returns the complete settings and one sentence per choice.
        """
        chosen: dict[str, Any] = {}
        why: list[str] = []
        if self.learning_rate is None:
            chosen["learning_rate"] = 1e-3 if parameters < SMALL_BASE else 2e-4
            why.append(f"Learning rate {chosen['learning_rate']:g}: the base has {parameters / 1e6:.1f} M parameters.")
        if self.epochs is None:
            chosen["epochs"] = 6.0 if rows < 200 else 3.0 if rows < 3000 else 2.0
            why.append(f"{chosen['epochs']:g} epochs: {rows} rows.")
        if self.batch is None:
            chosen["batch"] = 8 if rows < 2000 else 16 if rows < 5000 else 32
            why.append(f"{chosen['batch']} rows per step: {rows} rows.")
        return replace(self, **chosen), why


LIMITS: dict[str, tuple[float, float]] = {
    "rank": (1, 256),
    "alpha": (1, 1024),
    "dropout": (0, 0.5),
    "learning_rate": (1e-7, 0.1),
    "epochs": (0.01, 100),
    "batch": (1, 1024),
    "micro_batch": (1, 256),
    "warmup_share": (0, 0.5),
    "weight_decay": (0, 1),
    "max_grad_norm": (0.01, 100),
    "max_length": (16, 131_072),
    "threads": (0, 256),
    "checkpoint_seconds": (1, 86_400),
    "checkpoint_steps": (0, 100_000),
    "sample_rows": (0, 20),
    "sample_tokens": (1, 512),
}


def _fits(value: Any, hint: Any) -> bool:
    kinds = get_args(hint) or (hint,)
    if hint in (Precision, Keep):
        return isinstance(value, str)
    if isinstance(value, bool):
        return bool in kinds
    return any(isinstance(value, (int, float) if kind is float else kind) for kind in kinds)
