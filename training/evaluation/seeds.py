"""Several seeds of one recipe: one seed decides about one adapter, a recipe needs several."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from django.db.models.fields.json import KeyTransform

from training.evaluation.asking import cluster_of
from training.evaluation.statistics import Estimate, cluster_bootstrap
from training.models import Arm, BenchmarkItem, Condition, Evaluation, Run

MOST = 20


@dataclass(frozen=True)
class OverSeeds:
    """``gain``: candidate minus today, each question's mean over the seeds, with the interval over questions (these
    adapters on other questions). ``deviation``: of the gains between seeds (other adapters on these questions)."""

    evaluations: tuple[Evaluation, ...]
    gain: Estimate
    deviation: float
    passed: int

    @property
    def lowest(self) -> float:
        return min(_gain(one) for one in self.evaluations)


def same_recipe(evaluation: Evaluation) -> list[Evaluation]:
    """Finished evaluations on the same benchmark of adapters of the same data, settings, base and parent, the newest
    one of each run; this one alone for an adapter without a run. One query."""
    run = evaluation.adapter.run
    if run is None:
        return [evaluation]
    runs = Run.objects.filter(
        assistant=evaluation.assistant_id,
        dataset=run.dataset_id,
        method=run.method,
        settings=run.settings,
        base_digest=run.base_digest,
        prompt_digest=run.prompt_digest,
        parent=run.parent_id,
        provider=run.provider_id,
        base_model=run.base_model,
    )
    found = Evaluation.objects.filter(
        benchmark=evaluation.benchmark_id, adapter__run__in=runs, state=Evaluation.State.SUCCEEDED
    ).select_related("adapter__run")
    newest: dict[int, Evaluation] = {}
    for one in found.order_by("created_at", "pk"):
        # Another threshold asks other questions: its gain is not one more of these.
        if one.threshold == evaluation.threshold:
            newest[one.adapter_id] = one
    return sorted(newest.values(), key=lambda one: (one.adapter.run.seed if one.adapter.run else 0, one.pk))[:MOST]


def over_seeds(evaluations: Sequence[Evaluation]) -> OverSeeds | None:
    """None when they have no question in common. Three queries, and one where this process has told it before."""
    benchmark = evaluations[0].benchmark_id
    questions = BenchmarkItem.objects.filter(benchmark=benchmark).count()  # fewer after an erasure, never others
    gain = _gain_over(benchmark, questions, tuple((one.pk, one.finished_at) for one in evaluations))
    if gain is None:
        return None
    gains = [_gain(one) for one in evaluations]
    return OverSeeds(
        evaluations=tuple(evaluations),
        gain=gain,
        deviation=statistics.stdev(gains) if len(gains) > 1 else 0.0,
        passed=sum(one.verdict == "passed" for one in evaluations),
    )


@lru_cache(maxsize=256)
def _gain_over(benchmark: int, questions: int, finished: tuple[tuple[int, datetime | None], ...]) -> Estimate | None:
    """Of evaluations by key and when they finished, on a benchmark with so many ``questions``. Only an erasure changes
    finished ones, and twenty seeds of two thousand questions take seconds: a page asks for the same numbers again."""
    items = BenchmarkItem.objects.filter(benchmark=benchmark).only("key", "gold")
    clusters = {item.pk: cluster_of(item) for item in items}
    differences: dict[int, list[float]] = defaultdict(list)
    for pair in _pairs([pk for pk, _ in finished]).values():
        if len(pair) == 2:
            item_id = pair[Arm.ADAPTER_RAG.value][0]
            differences[item_id].append(pair[Arm.ADAPTER_RAG.value][1] - pair[Arm.BASE_RAG.value][1])
    shared = [pk for pk, found in sorted(differences.items()) if len(found) == len(finished) and pk in clusters]
    if not shared:
        return None
    means = [statistics.fmean(differences[pk]) for pk in shared]
    return cluster_bootstrap(means, [clusters[pk] for pk in shared])


def _pairs(evaluations: Sequence[int]) -> dict[tuple[int, int], dict[str, tuple[int, float]]]:
    from training.models import EvaluationAnswer

    rows = EvaluationAnswer.objects.filter(
        evaluation__in=evaluations,
        condition=Condition.CLEAN,
        arm__in=[Arm.BASE_RAG, Arm.ADAPTER_RAG],
    ).values_list("evaluation_id", "item_id", "arm", KeyTransform("grounded_correct", "measures"))
    pairs: dict[tuple[int, int], dict[str, tuple[int, float]]] = defaultdict(dict)
    for evaluation_id, item_id, arm, value in rows:
        pairs[evaluation_id, item_id][arm] = (item_id, float(value or 0.0))
    return pairs


def _gain(evaluation: Evaluation) -> float:
    found = evaluation.comparison.get("grounded_correct") or {}
    return float(found.get("difference", {}).get("value", 0.0))
