"""What a judge's choices say, and whether they may count: only as far as the judge agrees with people."""

from __future__ import annotations

from collections.abc import Sequence

from training.evaluation.gate import LEAST_PAIRS
from training.evaluation.models import Judging
from training.evaluation.statistics import Estimate
from training.models import Evaluation


def said_of(evaluation: Evaluation) -> list[Judging]:
    """What judges have said of an evaluation, in the order in which they were asked. One query."""
    # Results are written when all is said; the judging that asks for the gate just now is not called done yet.
    return list(Judging.objects.filter(evaluation=evaluation).exclude(results={}).order_by("created_at", "pk"))


def counting(said: Sequence[Judging], least_pairs: int = LEAST_PAIRS) -> Judging | None:
    """The one that a gate may take: the first whose agreement with people is known on ``least_pairs`` pairs, whatever
    it says. Who asks again, or another model, asks for information: else one would ask until it passes."""
    return next((judging for judging in said if _agreement(judging)[1] >= least_pairs), None)


def judged_preference(evaluation: Evaluation, least_agreement: float, least_pairs: int) -> Estimate | None:
    """Win rate of the candidate minus one half, of the judging that counts; None where there is none, or where its
    agreement with people (Cohen's κ) is below what was declared."""
    judging = counting(said_of(evaluation), least_pairs)
    if judging is None or _agreement(judging)[0] < least_agreement:
        return None
    rate = judging.results["win_rate"]
    return Estimate(rate["value"] - 0.5, rate["low"] - 0.5, rate["high"] - 0.5, rate["n"], rate["n"])


def _agreement(judging: Judging) -> tuple[float, int]:
    """Cohen's κ with people (0 where nothing can be said), and on how many pairs."""
    found = judging.results.get("agreement") or {}
    return found.get("kappa") or 0.0, found.get("n", 0)
