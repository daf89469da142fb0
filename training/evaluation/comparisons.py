"""What the answers of an evaluation say beside each other: in pairs, under other conditions, by group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from generation.prompts import split_sentences
from knowledge.metrics import of_question
from training.evaluation.conditions import is_gold
from training.evaluation.statistics import (
    Estimate,
    PairedTest,
    cluster_bootstrap,
    cluster_ratio,
    holm,
    paired_test,
)
from training.models import Arm, BenchmarkItem, Condition, Kind

LESS_IS_BETTER = frozenset({"over_refusal", "unsupported_numbers", "recites", "private", "invalid_citations"})
RIGHT = ("answer_presence", "rightly_declined", "rightly_handed_off")
"""Which of them is measured of an answer depends on what was expected there."""
SECONDARY = (
    "citation_recall", "citation_precision", "answer_presence", "f1", "rouge_l", "numbers_exact", "over_refusal",
    "rightly_declined", "groundedness",
)  # fmt: skip
"""Compared besides, and corrected for being many (Holm)."""
TODAY, CANDIDATE = Arm.BASE_RAG.value, Arm.ADAPTER_RAG.value
CLEAN = Condition.CLEAN.value
MAX_GROUPS = 40


@dataclass(frozen=True)
class Measured:
    """The measures of all answers of an evaluation, with the clusters of their questions."""

    answers: Mapping[tuple[str, str], Mapping[int, Mapping[str, float]]]
    """(arm, condition) → item pk → measures."""
    clusters: Mapping[int, str]

    def of(self, arm: str, condition: str) -> Mapping[int, Mapping[str, float]]:
        return self.answers.get((arm, condition), {})

    def names(self, keys: Iterable[int]) -> list[str]:
        return [self.clusters[pk] for pk in keys]

    def pairs(
        self, name: str, condition: str, *, only: Set[int] | None = None, against: str = TODAY
    ) -> PairedTest | None:
        """Candidate against today (or another arm) where the measure applies to both; None where it does nowhere."""
        candidate, today = self.of(CANDIDATE, condition), self.of(against, condition)
        shared = self._shared(name, condition, only, against)
        if not shared:
            return None
        sign = -1.0 if name in LESS_IS_BETTER else 1.0
        return paired_test(
            [sign * (value_of(candidate[pk], name) or 0.0) for pk in shared],
            [sign * (value_of(today[pk], name) or 0.0) for pk in shared],
            self.names(shared),
        )

    def lower_end(self, name: str, condition: str, *, confidence: float) -> float:
        """Where the interval of candidate minus today begins, as in `pairs`, at another confidence.

        Raises:
            ValueError: no pairs.
        """
        candidate, today = self.of(CANDIDATE, condition), self.of(TODAY, condition)
        shared = self._shared(name, condition, None, TODAY)
        sign = -1.0 if name in LESS_IS_BETTER else 1.0
        gains = [sign * ((value_of(candidate[pk], name) or 0.0) - (value_of(today[pk], name) or 0.0)) for pk in shared]
        return cluster_bootstrap(gains, self.names(shared), confidence=confidence).low

    def _shared(self, name: str, condition: str, only: Set[int] | None, against: str) -> list[int]:
        candidate, today = self.of(CANDIDATE, condition), self.of(against, condition)
        return [
            pk
            for pk, values in candidate.items()
            if (only is None or pk in only)
            and value_of(values, name) is not None
            and value_of(today.get(pk, {}), name) is not None
        ]


def value_of(values: Mapping[str, float], name: str) -> float | None:
    if name == "right":
        return right_of(values) if values else None
    return values.get(name)


def right_of(values: Mapping[str, float]) -> float:
    """Behaviour and content, support aside. Exactly one of these is measured of every answer."""
    return next((values[name] for name in RIGHT if name in values), 0.0)


SAME_GOLD = (Condition.NOISY_HARD, Condition.NOISY_RANDOM, Condition.SHUFFLED, Condition.COUNTERFACTUAL)
"""Conditions under which the same question has the same to find as under clean."""


def robustness(measured: Measured) -> dict[str, Any]:
    """Clean minus another condition on the same questions, for today and the candidate, and the difference of both
    drops (below zero: the candidate loses less). Only where the same is expected under both conditions."""
    out: dict[str, Any] = {}
    for condition in SAME_GOLD:
        drops = {arm: _drops(measured, arm, condition) for arm in (TODAY, CANDIDATE)}
        shared = [pk for pk in drops[CANDIDATE] if pk in drops[TODAY]]
        if shared:
            names = measured.names(shared)
            values = {arm: [found[pk] for pk in shared] for arm, found in drops.items()}
            more = [after - before for before, after in zip(values[TODAY], values[CANDIDATE], strict=True)]
            out[condition.value] = {
                **{arm: cluster_bootstrap(found, names).as_dict() for arm, found in values.items()},
                "difference": cluster_bootstrap(more, names).as_dict(),
            }
    return out


def _drops(measured: Measured, arm: str, condition: str) -> dict[int, float]:
    clean = measured.of(arm, CLEAN)
    return {
        pk: clean[pk]["grounded_correct"] - values["grounded_correct"]
        for pk, values in measured.of(arm, condition).items()
        if pk in clean and _expected(clean[pk]) == _expected(values)
    }


def _expected(values: Mapping[str, float]) -> str:
    return next((name for name in RIGHT if name in values), "")


def declining(measured: Measured, arm: str) -> dict[str, Any]:
    """Precision, recall and F1 of declining over clean and missing oracle together (Trust-Align's refusal measures):
    a condition alone has hardly anything to decline, or nothing else."""
    rows = [
        (values["declined"], float("rightly_declined" in values), measured.clusters[pk])
        for condition in (CLEAN, Condition.MISSING_ORACLE.value)
        for pk, values in measured.of(arm, condition).items()
        if "declined" in values
    ]
    if not rows:
        return {}
    names = [cluster for _, _, cluster in rows]
    both = [said * right for said, right, _ in rows]
    said, right = [row[0] for row in rows], [row[1] for row in rows]
    parts = {
        "precision": (both, said),
        "recall": (both, right),
        "f1": ([2 * b for b in both], [a + b for a, b in zip(said, right, strict=True)]),
    }
    return {
        name: cluster_ratio(above, below, names).as_dict() for name, (above, below) in parts.items() if sum(below) > 0
    }


def retrieval_quality(items: Sequence[BenchmarkItem], clusters: Mapping[int, str]) -> dict[str, Any]:
    """How well the frozen passages hold the gold (`knowledge.metrics`), over questions to answer: the same for every
    arm, and the ceiling of all that read them. ``offered``: a gold sentence is among those that the arms see."""
    rows: dict[str, list[float]] = defaultdict(list)
    names: list[str] = []
    for item in items:
        if item.kind != Kind.ANSWER or CLEAN not in item.contexts or not item.gold:
            continue
        found = of_question(_gold_ranks(item))
        names.append(clusters[item.pk])
        for name, value in found.items():
            rows[name].append(value)
        rows["offered"].append(float(item.contexts[CLEAN]["has_gold"]))
    return {name: cluster_bootstrap(values, names).as_dict() for name, values in rows.items() if name in SHOWN_RANKS}


SHOWN_RANKS = ("recall@1", "recall@3", "recall@5", "mrr", "ndcg@10", "offered")


def _gold_ranks(item: BenchmarkItem) -> list[int]:
    """Of each gold sentence the rank of the first passage that holds it; 0 where none does."""
    passages = [(p["rank"], split_sentences(p["text"])) for p in item.contexts[CLEAN]["passages"]]
    return [
        next((rank for rank, held in passages if any(is_gold(sentence, [gold]) for sentence in held)), 0)
        for gold in item.gold
    ]


def slow_and_fast(latency: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Median and 95th percentile of single answers; ``slower``: by what share the candidate's slow end is *faster*
    (positive is better), with a bootstrap interval over questions."""
    arms = {arm: np.asarray(seconds, dtype=np.float64) for arm, seconds in latency.items()}
    if not all(len(seconds) for seconds in arms.values()):
        return {}
    today, candidate = arms[TODAY], arms[CANDIDATE]
    draws = np.random.default_rng(0).integers(0, len(today), size=(2000, len(today)))
    ratios = 1 - np.quantile(candidate[draws], 0.95, axis=1) / np.quantile(today[draws], 0.95, axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    value = 1 - np.quantile(candidate, 0.95) / np.quantile(today, 0.95)
    shown = {
        arm: {"p50": float(np.quantile(s, 0.5)), "p95": float(np.quantile(s, 0.95)), "n": len(s)}
        for arm, s in arms.items()
    }
    slower = Estimate(float(value), float(low), float(high), len(today), len(today))
    return {**shown, "slower": slower.as_dict()}


def interaction(measured: Measured) -> dict[str, float] | None:
    """(adapter + retrieval − base + retrieval) − (adapter − base): above zero, the adapter improved the *use* of what
    is retrieved, and not only what it remembers or how it phrases things.

    Of right behaviour and content, not of `grounded_correct`: arms without retrieval have nothing to cite, and could
    never gain there. None when an arm was not asked."""
    names = (Arm.ADAPTER_RAG, Arm.BASE_RAG, Arm.ADAPTER, Arm.BASE)
    arms = [measured.of(name.value, CLEAN) for name in names]
    shared = [pk for pk in arms[0] if all(pk in arm for arm in arms)]
    if not shared:
        return None
    right = [[right_of(arm[pk]) for arm in arms] for pk in shared]
    values = [candidate - today - adapter + base for candidate, today, adapter, base in right]
    return cluster_bootstrap(values, measured.names(shared)).as_dict()


def secondary(measured: Measured) -> dict[str, Any]:
    found = {name: measured.pairs(name, CLEAN) for name in SECONDARY}
    known = {name: test for name, test in found.items() if test is not None}
    adjusted = holm({name: test.p_permutation for name, test in known.items()})
    return {name: {**test.as_dict(), "p_holm": adjusted[name]} for name, test in known.items()}


def by_group(items: Sequence[BenchmarkItem], measured: Measured, attribute: str) -> dict[str, Any]:
    """Where the gain comes from: the primary measure for each kind, slice, topic or document; the largest groups."""
    groups: dict[str, set[int]] = defaultdict(set)
    for item in items:
        if CLEAN not in item.contexts:
            continue
        document = measured.clusters[item.pk] if item.gold else ""
        if value := document if attribute == "document" else getattr(item, attribute):
            groups[value].add(item.pk)
    largest = sorted(groups, key=lambda value: (-len(groups[value]), value))[:MAX_GROUPS]
    out = {}
    for value in sorted(largest):
        test = measured.pairs("grounded_correct", CLEAN, only=groups[value])
        if test is not None:
            both = {
                arm: _mean(v["grounded_correct"] for pk, v in measured.of(arm, CLEAN).items() if pk in groups[value])
                for arm in (TODAY, CANDIDATE)
            }
            out[value] = {**test.as_dict(), **both, "n": len(groups[value])}
    return out


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
