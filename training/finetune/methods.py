"""How an adapter can be taught: the methods, the stages that they are made of, and which one suits how many labels.

No Django, no torch. Sources of the thresholds: the TRL documentation of KTO (effective batches of 16 to 128, weights
that bring the classes to between 1:1 and 4:3) and, for how many labels are enough, judgement: no paper settles it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal["sft", "dpo", "kto"]
Method = Literal["sft", "dpo", "kto", "sft+dpo", "sft+kto"]
METHODS: tuple[Method, ...] = get_args(Method)
LABELS: dict[str, str] = {
    "sft": "Supervised (SFT): say what the good and corrected answers say",
    "dpo": "Pairs (DPO): prefer the correction to what was logged",
    "kto": "Good and bad labels (KTO)",
    "sft+dpo": "Supervised, then pairs (SFT → DPO)",
    "sft+kto": "Supervised, then good and bad labels (SFT → KTO)",
}
NAMES = {"sft": "supervised", "dpo": "pairs (DPO)", "kto": "good and bad labels (KTO)"}

ENOUGH_PAIRS = 300
ENOUGH_LABELS = 500
ENOUGH_OF_EACH = 50
"""Good and bad labels each: with fewer of one class, the few decide what the model leaves off."""


@dataclass(frozen=True)
class Counts:
    """Rows that a dataset has for each method (repetitions not counted)."""

    sft: int = 0
    pairs: int = 0
    good: int = 0
    bad: int = 0


def stages(method: str) -> tuple[Stage, ...]:
    """The stages in order. Raises ValueError for a method that there is not."""
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}; there are {', '.join(METHODS)}.")
    names: dict[str, Stage] = {"sft": "sft", "dpo": "dpo", "kto": "kto"}
    return tuple(names[name] for name in method.split("+"))


def shortage(method: str, counts: Counts) -> str:
    """Why these rows cannot be trained on with this method, in one sentence with what to do; empty when they can."""
    wanted = stages(method)
    if "sft" in wanted and not counts.sft:
        return "The dataset has no training rows. Build one with more labelled or synthetic turns."
    if "dpo" in wanted and not counts.pairs:
        return (
            "The dataset has no pairs: no bad answer of it was corrected, and no blind comparison decided. Correct bad "
            "answers in a queue and build a new dataset, or train supervised."
        )
    if "kto" in wanted and not (counts.good and counts.bad):
        have, lack = (f"{counts.good} good", "bad") if counts.good else (f"{counts.bad} bad", "good")
        if not (counts.good or counts.bad):
            have = "neither good nor bad"
            lack = "labelled"
        return (
            f"KTO learns from good and bad answers, and the dataset holds {have} ones and no {lack} one. Label some "
            f"more and build a new dataset, or train supervised."
        )
    return ""


def recommend(counts: Counts) -> tuple[Method, str]:
    """The method that suits these rows, and why, in one sentence."""
    labels = counts.good + counts.bad
    first = "sft+" if counts.sft else ""
    if counts.pairs >= ENOUGH_PAIRS:
        method: Method = "sft+dpo" if first else "dpo"
        return method, f"{counts.pairs} pairs are enough ({ENOUGH_PAIRS}) to teach what to prefer."
    if labels >= ENOUGH_LABELS and min(counts.good, counts.bad) >= ENOUGH_OF_EACH:
        method = "sft+kto" if first else "kto"
        return method, (
            f"{counts.good} good and {counts.bad} bad labels are enough ({ENOUGH_LABELS} together, {ENOUGH_OF_EACH} of "
            f"each); {counts.pairs} pairs are too few for DPO ({ENOUGH_PAIRS})."
        )
    return "sft", (
        f"{counts.pairs} pairs (DPO wants {ENOUGH_PAIRS}) and {counts.good} good with {counts.bad} bad labels (KTO "
        f"wants {ENOUGH_LABELS} together, {ENOUGH_OF_EACH} of each) are too few to learn preferences from."
    )
