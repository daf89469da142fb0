"""Does the gate do what it says? Thousands of invented evaluations, through the very functions that judge real ones.

Questions fall into documents; a document is easy or hard for both arms, and the candidate may be better on one document
and worse on another, so that differences within a document are alike: what the cluster bootstrap is there for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.evaluation.gate import Attempt, GateRule, judge
from training.evaluation.statistics import (
    PairedTest,
    cluster_bootstrap,
    mcnemar_exact,
    minimum_detectable_effect,
    power_of,
    sign_flip,
)

ALPHA = 0.05
Values = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class World:
    """``effect``: true mean difference. ``uneven``: standard deviation of the difference between documents.
    ``spread``: of how hard documents are. ``rate``: of today's right answers."""

    questions: int = 300
    per_document: int = 3
    rate: float = 0.45
    effect: float = 0.0
    uneven: float = 0.10
    spread: float = 0.12


@dataclass(frozen=True)
class Found:
    """Shares of the runs. ``discordance``: of the questions on which the arms differed."""

    runs: int
    promoted: float
    worse: float
    covered: float
    mcnemar: float
    flipped: float
    discordance: float


def simulate(world: World, *, runs: int, seed: int = 1) -> Found:
    """``runs`` evaluations of that world: how often the gate (without guardrails, which only hold back) promotes, calls
    it worse, and how often the interval holds the true difference."""
    draw = np.random.default_rng(seed)
    documents = world.questions // world.per_document
    names = [str(i) for i in np.repeat(np.arange(documents), world.per_document)]
    promoted = worse = covered = by_mcnemar = by_flips = 0
    apart = 0.0
    for _ in range(runs):
        difference = _differences(world, draw, documents)
        estimate = cluster_bootstrap(difference.tolist(), names)
        p = mcnemar_exact(int((difference > 0).sum()), int((difference < 0).sum()))
        promoted += estimate.low > 0 and p < ALPHA
        worse += estimate.high < 0
        covered += estimate.low <= world.effect <= estimate.high
        by_mcnemar += p < ALPHA
        by_flips += sign_flip(difference.tolist(), names) < ALPHA
        apart += float(np.mean(difference != 0))
    return Found(runs, promoted / runs, worse / runs, covered / runs, by_mcnemar / runs, by_flips / runs, apart / runs)


def simulate_attempts(world: World, *, attempts: int, runs: int, seed: int = 3) -> tuple[float, float]:
    """Share of ``runs`` in which at least one of ``attempts`` candidates passes the gate (without guardrails): (each
    held to what its number leaves it, each held to the whole α). All of a run meet the same questions and the same
    answers of today, as other seeds or settings of one recipe do."""
    draw = np.random.default_rng(seed)
    documents = world.questions // world.per_document
    names = [str(i) for i in np.repeat(np.arange(documents), world.per_document)]
    rule = GateRule(margins={})
    held = free = 0
    for _ in range(runs):
        candidates = _candidates(world, draw, documents, attempts)
        found = [_passes(rule, difference, names, number) for number, difference in enumerate(candidates, start=1)]
        held += any(counted for counted, _ in found)
        free += any(alone for _, alone in found)
    return held / runs, free / runs


def _passes(rule: GateRule, difference: Values, names: list[str], number: int) -> tuple[bool, bool]:
    """Whether the gate lets it pass as the ``number``-th attempt, and as the first."""
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    p = mcnemar_exact(better, worse)
    if p >= rule.alpha:
        return False, False  # without the bootstrap, which takes a hundred times as long
    values = difference.tolist()
    test = PairedTest(cluster_bootstrap(values, names), better, worse, p, 0.0)
    first = Attempt(number)
    low = cluster_bootstrap(values, names, confidence=first.confidence).low
    counted, _ = judge(rule, test, {}, attempt=Attempt(number, low))
    alone, _ = judge(rule, test, {})
    return counted.value == "passed", alone.value == "passed"


def _candidates(world: World, draw: np.random.Generator, documents: int, attempts: int) -> list[Values]:
    """Candidate minus today of ``attempts`` candidates on the same questions, today's answers being the same."""
    hard = draw.uniform(-1, 1, documents) * world.spread * np.sqrt(3)
    today = np.repeat(world.rate + hard, world.per_document)
    first = draw.random(len(today))
    right_today = first < today
    found = []
    for _ in range(attempts):
        bent = draw.uniform(-1, 1, documents) * world.uneven * np.sqrt(3)
        candidate = today + np.repeat(world.effect + bent, world.per_document)
        shared = draw.random(len(today)) < 0.5
        right = np.where(shared, first, draw.random(len(today))) < candidate
        found.append(right.astype(np.float64) - right_today.astype(np.float64))
    return found


def _differences(world: World, draw: np.random.Generator, documents: int) -> Values:
    """Candidate minus today of each question: −1, 0 or 1. Probabilities are drawn so that none has to be cut at 0 or 1:
    the mean difference is the effect to the last digit."""
    # Uniform draws have the deviations asked for, and known ends.
    hard = draw.uniform(-1, 1, documents) * world.spread * np.sqrt(3)
    bent = draw.uniform(-1, 1, documents) * world.uneven * np.sqrt(3)
    today = np.repeat(world.rate + hard, world.per_document)
    candidate = today + np.repeat(world.effect + bent, world.per_document)
    if min(today.min(), candidate.min()) < 0 or max(today.max(), candidate.max()) > 1:
        low, high = -(world.spread + world.uneven) * np.sqrt(3), (world.spread + world.uneven) * np.sqrt(3)
        raise ValueError(f"rate {world.rate} with effect {world.effect} leaves 0 … 1 ({low:+.2f} … {high:+.2f})")
    # One uniform number each: what both arms get right or wrong together is half of the draws.
    shared = draw.random(len(today)) < 0.5
    first, second = draw.random(len(today)), draw.random(len(today))
    right_today = first < today
    right_candidate = np.where(shared, first, second) < candidate
    return right_candidate.astype(np.float64) - right_today.astype(np.float64)


def stated_power(world: World, *, runs: int, seed: int = 2) -> tuple[float, float, Found]:
    """(minimum detectable effect, power stated for it, what was found) of a world without documents, at the effect that
    80 % power is stated for."""
    probe = simulate(World(questions=world.questions, per_document=1, rate=world.rate, uneven=0.0), runs=50, seed=seed)
    effect = minimum_detectable_effect(world.questions, probe.discordance)
    flat = World(questions=world.questions, per_document=1, rate=world.rate, effect=effect, uneven=0.0)
    found = simulate(flat, runs=runs, seed=seed)
    return effect, power_of(world.questions, found.discordance, effect), found
