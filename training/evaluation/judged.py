"""What a judge's choices say, and whether they may count: only as far as the judge agrees with people."""

from __future__ import annotations

from training.evaluation.models import Judging
from training.evaluation.statistics import Estimate
from training.models import Evaluation

LEAST_PAIRS = 30
"""Pairs judged by judge and people from which on an agreement says something."""


def judged_preference(evaluation: Evaluation, least_agreement: float) -> Estimate | None:
    """Win rate of the candidate minus one half, of the newest finished judging; None where there is none, or where its
    agreement with people (Cohen's κ) is unknown, rests on fewer than `LEAST_PAIRS` pairs, or is below what was
    declared."""
    # Results are written when all is said; the judging that asks for the gate just now is not called done yet.
    judging = Judging.objects.filter(evaluation=evaluation).exclude(results={}).first()
    if judging is None:
        return None
    agreement = judging.results.get("agreement") or {}
    kappa = agreement.get("kappa")
    if kappa is None or agreement.get("n", 0) < LEAST_PAIRS or kappa < least_agreement:
        return None
    rate = judging.results["win_rate"]
    return Estimate(rate["value"] - 0.5, rate["low"] - 0.5, rate["high"] - 0.5, rate["n"], rate["n"])
