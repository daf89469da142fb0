"""What a fine-tuning run may be told, and what it chooses itself by the size of data and base. No Django, no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from training.finetune.methods import Counts, Stage, stages
from training.finetune.order import batch_count

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

    LoRA on all linear layers, loss on the completion only. ``learning_rate`` and ``epochs`` are those of the supervised
    stage, ``preference_learning_rate`` and ``preference_epochs`` those of a DPO or KTO stage. Defaults follow "LoRA
    Learns Less and Forgets Less" (Biderman et al. 2024) and common practice for adapters: rank 16, alpha twice the
    rank, learning rate ten times that of full fine-tuning, cosine decay after a short warm-up.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    rank_stabilised: bool = False
    dora: bool = False
    """Always refused: the engine mixes adapters row by row in one batch, and DoRA layers cannot be mixed."""
    quantise: bool = False
    """QLoRA: the base in 4 bits while training. Needs a CUDA device and bitsandbytes."""
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
    processes: int = 0
    """That train together, each with a GPU of its own. 0: one per GPU of the machine."""
    keep: Keep = "last"
    """``best``: the epoch with the lowest validation loss (where there are enough validation rows)."""
    checkpoint_seconds: float = 30.0
    checkpoint_steps: int = 0
    """Also every so many steps; 0: by time only."""
    sample_rows: int = 3
    """Validation rows that are answered at the end of each epoch, to read along."""
    sample_tokens: int = 48
    sample_seconds: float = 0.0
    """Also at a checkpoint, at most every so many seconds; 0: at the end of epochs only."""
    preference_learning_rate: float | None = None
    preference_epochs: float | None = None
    beta: float = 0.1
    """How far DPO and KTO may take the model from where they began: small is far."""
    sft_weight: float = 1.0
    """Of the supervised loss on the chosen answer beside DPO's: corrections are no answers of the model's own, and DPO
    alone may lower the probability of both (Pang et al. 2024, "Iterative Reasoning Preference Optimization")."""
    desirable_weight: float | None = None
    undesirable_weight: float | None = None
    """Of good and bad rows in KTO's loss. None: the rarer class counts as much as the other together."""

    def __post_init__(self) -> None:
        if self.dora:
            raise ConfigError(
                "dora is not possible here: adapters answer mixed in one batch, which DoRA layers cannot. Use LoRA, or "
                "rank_stabilised for high ranks."
            )
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                # A whole number of hundreds of digits cannot be shown as another one is.
                shown = f"{value:g}" if abs(value) < 1e300 else "as large as that"
                raise ConfigError(f"{name} must be between {low:g} and {high:g}, not {shown}.")
        if self.batch is not None:
            self.batches()
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

    def batches(self, processes: int = 1) -> tuple[int, int]:
        """Rows that go through the model at once in each process, and how often before a step: all of it together is
        ``batch``, to the row. For resolved settings.

        Raises:
            ConfigError: ``batch`` cannot be cut into equal parts of a useful size.
        """
        assert self.batch is not None
        share, rest = divmod(self.batch, processes)
        if rest or not share:
            down, up = self.batch // processes * processes, -(-self.batch // processes) * processes
            raise ConfigError(
                f"batch {self.batch} cannot be shared out evenly among {processes} processes. Choose "
                f"{' or '.join(str(n) for n in (down, up) if n)}."
            )
        most = min(self.micro_batch, share)
        micro = next(size for size in range(most, 0, -1) if share % size == 0)
        if micro == 1 < most:
            least = most * processes
            down, up = self.batch // least * least, -(-self.batch // least) * least
            raise ConfigError(
                f"batch {self.batch} cannot be cut into equal parts of at most {most} rows (micro_batch). Choose batch "
                f"{' or '.join(str(n) for n in (down, up) if n)}, or another micro_batch."
            )
        return micro, share // micro

    def steps(self, rows: int, processes: int = 1) -> int:
        """Optimiser steps over ``rows`` rows (repetitions counted). For resolved settings. Raises as `batches`."""
        micro, accumulate = self.batches(processes)
        assert self.epochs is not None
        return math.ceil(max(1, math.ceil(batch_count(rows, micro, processes) / accumulate)) * self.epochs)

    def alone(self, method: str) -> str:
        """Why KTO cannot be shared out like this, in one sentence; empty where it can, or where it is not known before
        the machine is (``processes`` 0, or a batch that is chosen)."""
        if "kto" not in stages(method) or self.processes < 2 or self.batch is None:
            return ""
        if min(self.batch // self.processes, max(2, self.micro_batch)) >= 2:
            return ""
        return (
            f"KTO compares the rows of a batch, and batch {self.batch} leaves each of {self.processes} processes one "
            f"row. Choose batch {2 * self.processes} or more, or fewer processes."
        )

    def for_stage(self, stage: Stage) -> FinetuneConfig:
        """The settings as one stage sees them: its own learning rate and epochs; DPO and KTO know no dropout (it would
        make the model differ from its reference where nothing was learned)."""
        if stage == "sft":
            return self
        # KTO compares rows within a batch: alone, a row would be compared with itself.
        least = 2 if stage == "kto" else 1
        return replace(
            self,
            learning_rate=self.preference_learning_rate,
            epochs=self.preference_epochs,
            dropout=0.0,
            batch=None if self.batch is None else max(least, self.batch),
            micro_batch=max(least, self.micro_batch),
        )

    def resolve(
        self,
        *,
        rows: int,
        parameters: int,
        stage: Stage = "sft",
        counts: Counts | None = None,
        processes: int = 1,
    ) -> tuple[FinetuneConfig, list[str]]:
        """Fills what was left open for ``rows`` training rows (repetitions counted) and a base of ``parameters``.

        ``counts``: good and bad rows of a KTO stage. Returns the complete settings and one sentence per choice.
        """
        chosen: dict[str, Any] = {}
        why: list[str] = []
        small = parameters < SMALL_BASE
        if self.learning_rate is None:
            # Preferences move a model that knows how to answer: a twentieth of the supervised rate.
            rate = (1e-3 if small else 2e-4) if stage == "sft" else (5e-5 if small else 1e-5)
            chosen["learning_rate"] = rate
            why.append(f"Learning rate {rate:g}: the base has {parameters / 1e6:.1f} M parameters.")
        if self.epochs is None:
            if stage == "sft":
                chosen["epochs"] = 6.0 if rows < 200 else 3.0 if rows < 3000 else 2.0
            else:
                chosen["epochs"] = 3.0 if rows < 1000 else 1.0
            why.append(f"{chosen['epochs']:g} epochs: {rows} rows.")
        if self.batch is None:
            least = 16 if stage == "kto" else 8
            wanted = max(least, 8 if rows < 2000 else 16 if rows < 5000 else 32)
            part = processes * min(self.micro_batch, -(-wanted // processes))
            chosen["batch"] = -(-wanted // part) * part  # equal parts, for each process alike
            why.append(f"{chosen['batch']} rows per step: {rows} rows.")
        if stage == "kto" and counts is not None and counts.good and counts.bad:
            chosen |= self._balance(counts, why)
        return replace(self, **chosen), why

    def _balance(self, counts: Counts, why: list[str]) -> dict[str, Any]:
        """Weights that make good and bad rows count alike together (1:1 to 4:3 is what KTO's authors advise)."""
        if self.desirable_weight is not None or self.undesirable_weight is not None:
            return {
                "desirable_weight": 1.0 if self.desirable_weight is None else self.desirable_weight,
                "undesirable_weight": 1.0 if self.undesirable_weight is None else self.undesirable_weight,
            }
        good = max(1.0, round(counts.bad / counts.good, 4))
        bad = max(1.0, round(counts.good / counts.bad, 4))
        if (good, bad) != (1.0, 1.0):
            rarer, weight = ("good", good) if good > 1 else ("bad", bad)
            why.append(f"A {rarer} row weighs {weight:.3g}: there are {counts.good} good and {counts.bad} bad ones.")
        return {"desirable_weight": good, "undesirable_weight": bad}


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
    "processes": (0, 64),
    "checkpoint_seconds": (1, 86_400),
    "checkpoint_steps": (0, 100_000),
    "sample_rows": (0, 20),
    "sample_tokens": (1, 512),
    "sample_seconds": (0, 86_400),
    "preference_learning_rate": (1e-8, 0.01),
    "preference_epochs": (0.01, 100),
    "beta": (0.001, 10),
    "sft_weight": (0, 100),
    "desirable_weight": (0.001, 1000),
    "undesirable_weight": (0.001, 1000),
}


def _fits(value: Any, hint: Any) -> bool:
    kinds = get_args(hint) or (hint,)
    if hint in (Precision, Keep):
        return isinstance(value, str)
    if isinstance(value, bool):
        return bool in kinds
    return any(isinstance(value, (int, float) if kind is float else kind) for kind in kinds)
