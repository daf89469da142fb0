"""Which of two retrieval configurations finds more of a benchmark's right passages, with what certainty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from assistants.background import launch
from assistants.services import audit
from knowledge import metrics
from knowledge.benchmarking import Outcome, Question, ask
from knowledge.configuration import checked
from knowledge.models import RetrievalConfiguration
from training.evaluation.statistics import paired_test
from training.models import Benchmark
from training.retrieval.models import RetrievalComparison
from training.services import NotPossible
from training.signs import signed

MEASURES = ("recall@1", "recall@5", "recall@10", "mrr", "ndcg@10")
MAX_QUESTIONS = 5_000
MAX_TEXT = 4_000


def start_comparison(
    *, benchmark: Benchmark, first: RetrievalConfiguration, second: RetrievalConfiguration, actor: User | None = None
) -> RetrievalComparison:
    """Queues the comparison.

    Raises:
        NotPossible: they are not of one assistant, or the same, or no question says where its answer stands.
    """
    if len({benchmark.assistant_id, first.assistant_id, second.assistant_id}) > 1:
        raise NotPossible("Benchmark and configurations belong to different assistants.")
    if first.pk == second.pk:
        raise NotPossible("Choose two different configurations.")
    if not benchmark.items.exclude(gold=[]).exists():
        raise NotPossible("No question of this benchmark says where its answer stands.")
    with transaction.atomic():
        comparison = RetrievalComparison.objects.create(
            assistant=benchmark.assistant, benchmark=benchmark, first=first, second=second, created_by=actor
        )
        audit(
            assistant=benchmark.assistant, actor=actor, action="retrieval.compared",
            target=f"{first.number} and {second.number} on {benchmark.name}"[:200],
        )  # fmt: skip
    launch(comparison)
    return comparison


def perform(comparison: RetrievalComparison) -> None:
    """Asks every question twice. Started again, it begins anew: it is seconds to a few minutes."""
    rows = comparison.benchmark.items.exclude(gold=[]).order_by("pk")[:MAX_QUESTIONS]
    questions = [
        Question.model_validate(
            {"id": row.key, "question": row.question[:MAX_TEXT], "history": row.history, "gold": row.gold}
        )
        for row in rows
    ]
    both: list[list[Outcome]] = []
    for turn, configuration in enumerate((comparison.first, comparison.second)):
        comparison.beat(stage=f"asking by version {configuration.number}", done=turn * len(questions))
        both.append(
            list(
                ask(
                    assistant=comparison.assistant,
                    questions=questions,
                    settings=checked(configuration.settings),
                    progress=lambda done, total, turn=turn: comparison.beat(  # type: ignore[misc]
                        done=turn * total + done, total=2 * total
                    ),
                )
            )
        )
    comparison.result = compare(*both)
    comparison.keep("result")


def compare(first: Sequence[Outcome], second: Sequence[Outcome]) -> dict[str, Any]:
    """Measures of both, and paired differences (second less first) resampled by document.

    Raises:
        ValueError: they are not the same questions in the same order.
    """
    one, other = [o.measures for o in first], [o.measures for o in second]
    clusters = [outcome.cluster for outcome in first]
    tests = {
        name: paired_test([m[name] for m in other], [m[name] for m in one], clusters).as_dict() for name in MEASURES
    }
    return {
        "n": len(first),
        "first": metrics.mean(one),
        "second": metrics.mean(other),
        "tests": tests,
        "ms": [_median_ms(first), _median_ms(second)],
        "ranks": [[a.question.id, _best(a), _best(b)] for a, b in zip(first, second, strict=True)],
    }


def _best(outcome: Outcome) -> int:
    return min((rank for rank in outcome.ranks if rank), default=0)


def _median_ms(outcomes: Sequence[Outcome]) -> float:
    times = sorted(outcome.seconds for outcome in outcomes)
    return round(times[len(times) // 2] * 1000, 1)


def sentence(comparison: RetrievalComparison) -> str:
    """The result in one sentence, on nDCG@10; empty until it is there."""
    if not comparison.result:
        return ""
    test = comparison.result["tests"]["ndcg@10"]
    change = test["difference"]
    first, second = f"“{comparison.first.name}”", f"“{comparison.second.name}”"
    points = f"nDCG@10 {signed(change['value'], 3)}"
    interval = f"95 % {signed(change['low'], 3)} … {signed(change['high'], 3)}, n = {change['n']:,}"
    if change["low"] > 0:
        return f"{second} finds more than {first}: {points} ({interval})."
    if change["high"] < 0:
        return f"{second} finds less than {first}: {points} ({interval})."
    return f"No difference is proven between {first} and {second}: {interval}."
