"""From answers to tables, gate and one sentence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation.asking import cluster_of
from training.evaluation.attempts import Tried, attempts_before, read_off
from training.evaluation.comparisons import (
    CANDIDATE,
    CLEAN,
    RIGHT,
    TODAY,
    Measured,
    by_group,
    declining,
    interaction,
    retrieval_quality,
    robustness,
    secondary,
    slow_and_fast,
)
from training.evaluation.gate import GUARDRAILS, Attempt, Criterion, GateRule, judge
from training.evaluation.judged import judged_preference
from training.evaluation.statistics import Estimate, PairedTest, cluster_bootstrap, power_of
from training.models import Arm, Benchmark, BenchmarkItem, Evaluation, GateVerdict
from training.signs import signed

__all__ = ["cluster_of", "measured_of", "summarise"]


class NothingToCompare(ValueError):
    """Candidate and today answered no question together."""


def summarise(
    evaluation: Evaluation, items: Sequence[BenchmarkItem], *, latency: Mapping[str, Sequence[float]] | None = None
) -> None:
    """Writes ``results``, ``comparison``, ``gate``, ``verdict`` and ``sentence`` from the stored answers.

    ``latency``: seconds of single answers of each arm, where they were taken; else those taken earlier stay.

    Raises:
        NothingToCompare: there are no pairs.
    """
    measured = measured_of(evaluation, items)
    rule = GateRule.from_dict(evaluation.gate_rule)
    primary = measured.pairs(rule.primary, CLEAN)
    if primary is None:
        raise NothingToCompare("Candidate and today answered no question together: there is nothing to compare.")
    kept = evaluation.comparison.get("attempts") or {}
    evaluation.results = _results(measured)
    seconds = slow_and_fast(latency) if latency else evaluation.comparison.get("latency", {})
    evaluation.comparison = _comparison(measured, items, primary, rule) | {"latency": seconds}
    found = {name: _guardrail(evaluation, rule, name, measured) for name in rule.margins}
    tried = _tried(kept, evaluation, primary)
    attempt = _attempt(rule, measured, tried.number)
    elsewhere = _elsewhere(evaluation, rule)
    evaluation.comparison |= {
        "attempts": {
            # Where the gate cannot be passed, nothing was attempted.
            "number": None if elsewhere else tried.number,
            "earlier": list(tried.earlier),
            "confidence": attempt.confidence,
            "alpha": rule.alpha * attempt.share,
            "low": primary.difference.low if attempt.low is None else attempt.low,
            "threshold_read_off": read_off(evaluation),
        }
    }
    verdict, table = judge(rule, primary, found, attempt=attempt, elsewhere=elsewhere)
    evaluation.gate = [line.as_dict() for line in table]
    evaluation.verdict = verdict
    evaluation.sentence = sentence(evaluation, primary, verdict, table)
    evaluation.save(update_fields=["results", "comparison", "gate", "verdict", "sentence"])


def _tried(kept: Mapping[str, Any], evaluation: Evaluation, primary: PairedTest) -> Tried:
    """What was counted when it was first judged stays: judging it again, since a judge has spoken, is no attempt, and
    later ones do not count against it."""
    if kept.get("number"):
        return Tried(kept["number"], kept["earlier"])
    return attempts_before(evaluation, outcome=(primary.better, primary.worse))


def _attempt(rule: GateRule, measured: Measured, number: int) -> Attempt:
    """With the lower end of the gain's interval at the confidence that this attempt is held to."""
    first = Attempt(number)
    if number == 1:
        return first
    return Attempt(number, measured.lower_end(rule.primary, CLEAN, confidence=first.confidence))


def _elsewhere(evaluation: Evaluation, rule: GateRule) -> str:
    if rule.may_pass(evaluation.benchmark.content_hash):
        return ""
    named = Benchmark.objects.filter(assistant=evaluation.assistant_id, content_hash=rule.benchmark).first()
    where = f"“{named.name}”" if named else f"a benchmark that is not here any more ({rule.benchmark[:12]})"
    return f"the gate is to be passed on {where}; what is measured on “{evaluation.benchmark.name}” informs only"


def measured_of(evaluation: Evaluation, items: Sequence[BenchmarkItem]) -> Measured:
    answers: dict[tuple[str, str], dict[int, dict[str, float]]] = defaultdict(dict)
    # By question, not by when they were asked: sums of floats are to be the same however many asked, in any order.
    rows = evaluation.answers.values_list("item_id", "arm", "condition", "measures").order_by("item_id")
    for pk, arm, condition, values in rows.iterator(chunk_size=2000):
        answers[arm, condition][pk] = values
    return Measured(answers, {item.pk: cluster_of(item) for item in items})


def _results(measured: Measured) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for (arm, condition), by_item in measured.answers.items():
        names = sorted({name for values in by_item.values() for name in values})
        out.setdefault(arm, {})[condition] = {
            name: cluster_bootstrap(
                [values[name] for values in by_item.values() if name in values],
                measured.names(pk for pk, values in by_item.items() if name in values),
            ).as_dict()
            for name in names
        }
    return out


def _comparison(
    measured: Measured, items: Sequence[BenchmarkItem], primary: PairedTest, rule: GateRule
) -> dict[str, Any]:
    n = primary.difference.n
    # Power at the difference that was found, had it been expected: proves nothing, and helps to plan the next one.
    power = power_of(n, (primary.better + primary.worse) / n, primary.difference.value)
    arms = sorted({arm for arm, _ in measured.answers})
    return {
        **_tests(measured),
        "primary": {**primary.as_dict(), "measure": rule.primary, "power": power},
        "secondary": secondary(measured),
        "interaction": interaction(measured),
        "robustness": robustness(measured),
        "declining": {arm: declining(measured, arm) for arm in arms},
        "retrieval": retrieval_quality(items, measured.clusters),
        **{f"by_{name}": by_group(items, measured, name) for name in ("kind", "slice", "topic", "document")},
    }


def _guardrail(evaluation: Evaluation, rule: GateRule, name: str, measured: Measured) -> Estimate | None:
    """What the gate holds against the margin; None where it was not measured."""
    rail = GUARDRAILS[name]
    if name == "judge":
        return judged_preference(evaluation, rule.judge_agreement, rule.judge_pairs)
    if rail.kind == "ratio":
        found = evaluation.comparison["latency"].get("slower")
        return Estimate(**found) if found else None
    if rail.kind == "level":
        by_item = measured.of(CANDIDATE, str(rail.condition))
        known = [pk for pk, values in by_item.items() if rail.metric in values]
        values = [-by_item[pk][rail.metric] for pk in known]
        return cluster_bootstrap(values, measured.names(known)) if known else None
    against = Arm.RIVAL_RAG.value if name == "rival" else TODAY
    test = measured.pairs(rail.metric, str(rail.condition), against=against)
    return test.difference if test else None


def _tests(measured: Measured) -> dict[str, Any]:
    """The standard comparisons by name; those that apply to no question in both arms are left out."""
    wanted = {"grounded_correct": ("grounded_correct", CLEAN)}
    rails = {name: rail for name, rail in GUARDRAILS.items() if rail.kind == "loss" and name not in ("rival", "judge")}
    wanted |= {name: (rail.metric, str(rail.condition)) for name, rail in rails.items()}
    found = {key: measured.pairs(name, condition) for key, (name, condition) in wanted.items()}
    return {key: test.as_dict() for key, test in found.items() if test is not None}


def sentence(evaluation: Evaluation, primary: PairedTest, verdict: GateVerdict, table: Sequence[Criterion]) -> str:
    """The verdict in one sentence, with its interval and what keeps it from passing."""
    clean = evaluation.results[CANDIDATE][CLEAN]
    share, how = clean["grounded_correct"]["value"], "correctly and grounded"
    if evaluation.gate_rule.get("primary") == "right":
        n = sum(clean[name]["n"] for name in RIGHT if name in clean)
        share = sum(clean[name]["value"] * clean[name]["n"] for name in RIGHT if name in clean) / max(n, 1)
        how = "rightly, support aside"
    d = primary.difference
    points = f"{abs(d.value) * 100:.1f} points {'more' if d.value >= 0 else 'fewer'} than today"
    interval = f"95 % interval {signed(d.low * 100)} to {signed(d.high * 100)}, n = {d.n}"
    said = {
        GateVerdict.PASSED: "the gate is passed",
        GateVerdict.NOT_PROVEN: "the gate is not proven",
        GateVerdict.WORSE: "it is worse than today",
    }[verdict]
    failed = [line.label for line in table if not line.passed]
    tried = evaluation.comparison.get("attempts", {})
    counted = ""
    if (tried.get("number") or 1) > 1:
        held = f"{tried['confidence'] * 100:.2f} %"
        counted = f" Attempt {tried['number']} with this adapter or its data, held to {held}."
    if tried.get("threshold_read_off"):
        counted += f" Its threshold was read off “{tried['threshold_read_off']}”."
    because = f" for {'; '.join(failed)}" if failed and verdict == GateVerdict.NOT_PROVEN else ""
    return (
        f"{evaluation.adapter} answers {share * 100:.0f} % of the held-out questions {how}, "
        f"{points} ({interval}): {said}{because}.{counted}"
    )
