"""How often it has been tried: evaluations that could have let this adapter, or another one of the same data, pass.

Whoever measures often enough passes by luck: under other thresholds, on parts of a benchmark, with other seeds. So
each further attempt may spend less of α (`training.evaluation.statistics.attempt_share`), and all of them are shown.
What is the same in everything that decides the gain (the adapter, the questions, the threshold, the measure, and what
came out) is no further attempt: another margin of a guardrail cannot turn a gain that is none into one.

What was measured beside the benchmark that the gate names is none either, as long as the gate goes on naming that one:
else one would measure anywhere for nothing, and declare the benchmark afterwards on which it went well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import F, Q

from assistants.models import AuditEvent
from knowledge.models import RetrievalConfiguration
from training.evaluation.gate import GateRule
from training.models import Adapter, Benchmark, BenchmarkItem, DatasetVersion, Evaluation
from training.registry.lineage import MAX_DEPTH

NEW_DATA = 0.1
"""Share of a dataset's questions that another one must lack for it to be other data. Judgement."""
MOST_SHOWN = 50
THRESHOLD_APPLIED = "threshold.applied"


@dataclass(frozen=True)
class Tried:
    """``number``: which attempt this is, from 1. ``earlier``: the others, oldest first, as plain values for a page."""

    number: int
    earlier: Sequence[Mapping[str, Any]]


def attempts_before(evaluation: Evaluation, *, outcome: tuple[int, int]) -> Tried:
    """Counts those that have a verdict by now, and those still at it that were started earlier. Not by when they were
    started alone: who starts ten, cancels them, and lets one after the other go on has ten attempts.

    Args:
        outcome: (better, worse) questions of this one: what repeats another one to the last question is no attempt.

    Eight queries at most, whatever the number of evaluations.
    """
    family, own_rule = _family(evaluation.adapter), GateRule.from_dict(evaluation.gate_rule)
    before = Q(created_at__lt=evaluation.created_at) | Q(created_at=evaluation.created_at, pk__lt=evaluation.pk)
    rows = (
        Evaluation.objects.filter(assistant=evaluation.assistant_id)
        .filter(~Q(verdict="") | Q(before, state__in=[Evaluation.State.QUEUED, Evaluation.State.RUNNING]))
        .exclude(pk=evaluation.pk)
        .select_related("adapter__run__dataset", "benchmark")
        .defer("results", "comparison", "gate", "sentence", "progress", "adapter__run__progress")
        .annotate(found=F("comparison__primary"), counted=F("comparison__attempts__number"))
        .order_by("created_at", "pk")
    )
    seen: dict[tuple[Any, ...], int] = {}
    earlier = []
    for one in rows:
        rule = GateRule.from_dict(one.gate_rule)
        informed = not rule.may_pass(one.benchmark.content_hash) and rule.benchmark == own_rule.benchmark
        if informed or not family.holds(one.adapter):
            continue
        place = seen.setdefault(_key(one, _outcome(one)), one.counted or len(seen) + 1)
        earlier.append(_told(one, place))
    own = _key(evaluation, outcome)
    return Tried(seen.get(own, len(seen) + 1), earlier[-MOST_SHOWN:])


def read_off(evaluation: Evaluation) -> str:
    """The benchmark off which the threshold of this evaluation was read, where it shares questions with the one that it
    is measured on; empty where none does, or there is no threshold. Four queries at most."""
    if not evaluation.threshold:
        return ""
    own = BenchmarkItem.objects.filter(benchmark=evaluation.benchmark_id).values("question")
    alike = Benchmark.objects.filter(
        Q(pk=evaluation.benchmark_id) | Q(items__question__in=own), assistant=evaluation.assistant_id
    ).distinct()
    names = {benchmark.pk: benchmark.name for benchmark in alike}
    events = AuditEvent.objects.filter(
        assistant=evaluation.assistant_id, action=THRESHOLD_APPLIED, details__threshold=evaluation.threshold
    ).values_list("details", flat=True)
    for details in events:
        if (found := details.get("benchmark")) in names:
            return names[found]
    notes = RetrievalConfiguration.objects.filter(
        assistant=evaluation.assistant_id, settings__evidence_threshold=evaluation.threshold
    ).values_list("note", flat=True)
    return next((name for note in notes for name in names.values() if f"benchmark “{name}”" in note), "")


@dataclass(frozen=True)
class _Family:
    """What makes an adapter one of the same: the row, its weights, or its data."""

    adapter: int
    weights: str
    content: str
    datasets: frozenset[int]
    learnt: Mapping[int, frozenset[int]]
    """Of each adapter of the assistant the datasets of itself and of those that it continues."""
    unknown: bool

    def holds(self, other: Adapter) -> bool:
        if other.pk == self.adapter or (self.weights and _weights(other) == self.weights):
            return True
        if self.unknown:
            return _unknown(other)
        learnt = self.learnt.get(other.pk, frozenset())
        return bool(learnt & self.datasets) or bool(self.content and _content(other) == self.content)


def _family(adapter: Adapter) -> _Family:
    own = adapter.run.dataset if adapter.run is not None else None
    learnt = _learnt(adapter.assistant_id)
    return _Family(
        adapter=adapter.pk,
        weights=_weights(adapter),
        content=own.content_hash if own is not None else _content(adapter),
        datasets=frozenset(_same_data(own, learnt[adapter.pk])) if own is not None else frozenset(),
        learnt=learnt,
        unknown=_unknown(adapter),
    )


def _learnt(assistant: int) -> dict[int, frozenset[int]]:
    """One query."""
    rows = Adapter.objects.filter(assistant=assistant).values_list("pk", "parent_id", "run__dataset_id")
    known = {pk: (parent, dataset) for pk, parent, dataset in rows}
    found = {}
    for pk in known:
        chain: list[int | None] = []
        at: int | None = pk
        while at in known and len(chain) < MAX_DEPTH:
            at, dataset = known[at]
            chain.append(dataset)
        found[pk] = frozenset(dataset for dataset in chain if dataset is not None)
    return found


def _same_data(dataset: DatasetVersion, learnt: frozenset[int]) -> set[int]:
    """This one, and versions of the assistant that were evaluated and hold nine of ten questions of all that the
    adapter has learnt from: other settings of a build, another seed, rows left out, and what it continues when it has
    learnt little since. One query."""
    statement = """
        WITH own AS (
            SELECT DISTINCT question FROM training_example WHERE dataset_id = ANY(%s) AND erased_at IS NULL
        )
        SELECT others.dataset_id FROM (
            SELECT DISTINCT e.dataset_id, e.question FROM training_example e
            JOIN training_datasetversion d ON d.id = e.dataset_id
            WHERE d.assistant_id = %s AND e.question IN (SELECT question FROM own) AND (
                d.id = ANY(%s) OR EXISTS (
                    SELECT 1 FROM training_run r JOIN training_adapter a ON a.run_id = r.id
                    JOIN training_evaluation v ON v.adapter_id = a.id WHERE r.dataset_id = d.id
                )
            )
        ) AS others
        GROUP BY others.dataset_id HAVING count(*) > %s * (SELECT count(*) FROM own)
    """
    with connection.cursor() as cursor:
        cursor.execute(statement, [list(learnt), dataset.assistant_id, list(learnt), 1 - NEW_DATA])
        return {dataset.pk, *(pk for (pk,) in cursor.fetchall())}


def _weights(adapter: Adapter) -> str:
    return str(adapter.manifest.get("files", {}).get("adapter_model.safetensors", ""))


def _content(adapter: Adapter) -> str:
    return str(adapter.manifest.get("data", {}).get("content_hash", ""))


def _unknown(adapter: Adapter) -> bool:
    """Imported, and nobody knows from what: such adapters cannot be told apart, and count together."""
    return adapter.run_id is None and not _content(adapter)


def _outcome(evaluation: Any) -> tuple[int, int] | None:
    found = evaluation.found or {}
    return (found["better"], found["worse"]) if "better" in found else None


def _key(evaluation: Evaluation, outcome: tuple[int, int] | None) -> tuple[Any, ...]:
    """Equal for what is the same measurement; one that is not known yet is like no other."""
    if outcome is None:
        return (evaluation.pk,)
    adapter = _weights(evaluation.adapter) or evaluation.adapter_id
    primary = evaluation.gate_rule.get("primary", GateRule.primary)
    return adapter, evaluation.benchmark.content_hash, evaluation.threshold, primary, *outcome


def _told(evaluation: Evaluation, place: int) -> dict[str, Any]:
    run = evaluation.adapter.run
    return {
        "number": place,
        "evaluation": evaluation.pk,
        "adapter": str(evaluation.adapter),
        "dataset": str(run.dataset) if run is not None else "",
        "seed": run.seed if run is not None else None,
        "benchmark": evaluation.benchmark.name,
        "threshold": evaluation.threshold,
        "gate_version": evaluation.gate_version,
        "verdict": evaluation.get_verdict_display() if evaluation.verdict else "",
    }
