"""From answers to tables, gate and one sentence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from training.evaluation.gate import GUARDRAILS, GateRule, judge
from training.evaluation.statistics import PairedTest, cluster_bootstrap, paired_test
from training.models import Arm, BenchmarkItem, Condition, Evaluation, GateVerdict

LESS_IS_BETTER = frozenset({"over_refusal", "unsupported_numbers"})
RIGHT = ("answer_presence", "rightly_declined", "rightly_handed_off")
"""Which of them is measured of an answer depends on what was expected there."""

Measures = dict[tuple[str, str], dict[int, dict[str, float]]]
"""(arm, condition) → item pk → measures."""


def summarise(evaluation: Evaluation, items: Sequence[BenchmarkItem]) -> None:
    """Writes ``results``, ``comparison``, ``gate``, ``verdict`` and ``sentence`` from the stored answers."""
    clusters = {item.pk: cluster_of(item) for item in items}
    measures: Measures = defaultdict(dict)
    for pk, arm, condition, values in evaluation.answers.values_list("item_id", "arm", "condition", "measures"):
        measures[arm, condition][pk] = values
    evaluation.results = _results(measures, clusters)
    tests = _tests(measures, clusters)
    rule = GateRule.from_dict(evaluation.gate_rule)
    verdict, table = judge(rule, tests["grounded_correct"], {name: tests[name] for name in GUARDRAILS if name in tests})
    evaluation.comparison = {name: test.as_dict() for name, test in tests.items()}
    evaluation.comparison["interaction"] = _interaction(measures, clusters)
    evaluation.comparison["by_kind"] = _by(items, measures, clusters, "kind")
    evaluation.comparison["by_slice"] = _by(items, measures, clusters, "slice")
    evaluation.gate = [line.as_dict() for line in table]
    evaluation.verdict = verdict
    evaluation.sentence = sentence(evaluation, tests["grounded_correct"], verdict)
    evaluation.save(update_fields=["results", "comparison", "gate", "verdict", "sentence"])


def cluster_of(item: BenchmarkItem) -> str:
    """Questions on one document are alike; one without a document stands for itself."""
    return str(item.gold[0]["path"]) if item.gold else f"item:{item.key}"


def _results(measures: Measures, clusters: dict[int, str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for (arm, condition), by_item in measures.items():
        names = sorted({name for values in by_item.values() for name in values})
        out.setdefault(arm, {})[condition] = {
            name: cluster_bootstrap(
                [values[name] for values in by_item.values() if name in values],
                [clusters[pk] for pk, values in by_item.items() if name in values],
            ).as_dict()
            for name in names
        }
    return out


def _pairs(
    measures: Measures, clusters: dict[int, str], name: str, condition: str, only: set[int] | None = None
) -> PairedTest | None:
    """Candidate against today where the measure applies to both."""
    candidate = measures.get((Arm.ADAPTER_RAG.value, condition), {})
    today = measures.get((Arm.BASE_RAG.value, condition), {})
    shared = [
        pk
        for pk, values in candidate.items()
        if name in values and name in today.get(pk, {}) and (only is None or pk in only)
    ]
    if not shared:
        return None
    sign = -1.0 if name in LESS_IS_BETTER else 1.0
    return paired_test(
        [sign * candidate[pk][name] for pk in shared],
        [sign * today[pk][name] for pk in shared],
        [clusters[pk] for pk in shared],
    )


def _tests(measures: Measures, clusters: dict[int, str]) -> dict[str, PairedTest]:
    clean, missing = Condition.CLEAN.value, Condition.MISSING_ORACLE.value
    wanted = {
        "grounded_correct": ("grounded_correct", clean),
        "citation_recall": ("citation_recall", clean),
        "over_refusal": ("over_refusal", clean),
        "missing_oracle": ("rightly_declined", missing),
    }
    found = {key: _pairs(measures, clusters, name, condition) for key, (name, condition) in wanted.items()}
    return {key: test for key, test in found.items() if test is not None}


def _by(
    items: Sequence[BenchmarkItem], measures: Measures, clusters: dict[int, str], attribute: str
) -> dict[str, Any]:
    """Where the gain comes from: the primary measure for each kind, or slice, of questions."""
    groups: dict[str, set[int]] = defaultdict(set)
    for item in items:
        if value := getattr(item, attribute):
            groups[value].add(item.pk)
    out = {}
    for value, only in sorted(groups.items()):
        test = _pairs(measures, clusters, "grounded_correct", Condition.CLEAN.value, only)
        if test is not None:
            both = {
                arm: sum(measures[arm, Condition.CLEAN.value][pk]["grounded_correct"] for pk in only) / len(only)
                for arm in (Arm.BASE_RAG.value, Arm.ADAPTER_RAG.value)
            }
            out[value] = {**test.as_dict(), **both, "n": len(only)}
    return out


def _interaction(measures: Measures, clusters: dict[int, str]) -> dict[str, float]:
    """(adapter + retrieval − base + retrieval) − (adapter − base): above zero, the adapter improved the *use* of what
    is retrieved, and not only what it remembers or how it phrases things.

    Of right behaviour and content, not of `grounded_correct`: arms without retrieval have nothing to cite, and could
    never gain there."""
    clean = Condition.CLEAN.value
    names = (Arm.ADAPTER_RAG, Arm.BASE_RAG, Arm.ADAPTER, Arm.BASE)
    arms = [measures[name.value, clean] for name in names]
    shared = [pk for pk in arms[0] if all(pk in arm for arm in arms)]
    right = [[_right(arm[pk]) for arm in arms] for pk in shared]
    values = [candidate - today - adapter + base for candidate, today, adapter, base in right]
    return cluster_bootstrap(values, [clusters[pk] for pk in shared]).as_dict()


def _right(values: dict[str, float]) -> float:
    """Behaviour and content, support aside. Exactly one of these is measured of every answer."""
    return next(values[name] for name in RIGHT if name in values)


def sentence(evaluation: Evaluation, primary: PairedTest, verdict: GateVerdict) -> str:
    share = evaluation.results[Arm.ADAPTER_RAG.value][Condition.CLEAN.value]["grounded_correct"]["value"]
    d = primary.difference
    points = f"{abs(d.value) * 100:.1f} points {'more' if d.value >= 0 else 'fewer'} than today"
    interval = f"95 % interval {d.low * 100:+.1f} to {d.high * 100:+.1f}, n = {d.n}"
    said = {
        GateVerdict.PASSED: "the gate is passed",
        GateVerdict.NOT_PROVEN: "the gate is not proven",
        GateVerdict.WORSE: "it is worse than today",
    }[verdict]
    return (
        f"{evaluation.adapter} answers {share * 100:.0f} % of the held-out questions correctly and grounded, "
        f"{points} ({interval}): {said}."
    )
