"""Wins and losses one by one: what both arms saw and said. `training.evaluation.blind` says who must not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.db.models.fields.json import KeyTransform

from generation.prompts import split_sentences
from serving.dashboards.tables import CANDIDATE, TODAY
from training.evaluation.differences import differences
from training.evaluation.scoring import expected, gold_of
from training.models import BenchmarkItem, Condition, Evaluation, EvaluationAnswer, Kind

FILTERS = {"wins": "Wins", "losses": "Losses", "both": "Both right", "neither": "Neither right", "all": "All"}
OUTCOMES = {(False, True): "wins", (True, False): "losses", (True, True): "both", (False, False): "neither"}


@dataclass(frozen=True)
class Pair:
    """One question that candidate and today both answered under one condition."""

    item_id: int
    outcome: str


def pairs_of(evaluation: Evaluation, condition: str, *, kind: str = "", query: str = "") -> list[Pair]:
    """In benchmark order: one query, and no texts, whatever the size."""
    answers = evaluation.answers.filter(condition=condition, arm__in=[TODAY, CANDIDATE])
    if kind:
        answers = answers.filter(item__kind=kind)
    if query:
        answers = answers.filter(item__question__icontains=query)
    right: dict[int, dict[str, bool]] = {}
    rows = answers.order_by("item_id").values_list("item_id", "arm", KeyTransform("grounded_correct", "measures"))
    for item_id, arm, value in rows:
        right.setdefault(item_id, {})[arm] = bool(value)
    both = [(key, found) for key, found in right.items() if len(found) == 2]
    return [Pair(key, OUTCOMES[found[TODAY], found[CANDIDATE]]) for key, found in both]


def rows_of(evaluation: Evaluation, pairs: Sequence[Pair], condition: str) -> list[dict[str, Any]]:
    """What is shown of these pairs, in their order: two queries."""
    keys = [pair.item_id for pair in pairs]
    items = BenchmarkItem.objects.in_bulk(keys)
    answers: dict[tuple[int, str], EvaluationAnswer] = {
        (answer.item_id, answer.arm): answer for answer in _answers(evaluation, condition, keys)
    }
    return [_row(evaluation, pair, items[pair.item_id], answers, condition) for pair in pairs if pair.item_id in items]


def _answers(evaluation: Evaluation, condition: str, keys: Sequence[int]) -> QuerySet[EvaluationAnswer]:
    return evaluation.answers.filter(condition=condition, arm__in=[TODAY, CANDIDATE], item__in=keys)


def _row(
    evaluation: Evaluation,
    pair: Pair,
    item: BenchmarkItem,
    answers: Mapping[tuple[int, str], EvaluationAnswer],
    condition: str,
) -> dict[str, Any]:
    today, candidate = answers[item.pk, TODAY], answers[item.pk, CANDIDATE]
    before, after = differences(today.text, candidate.text)
    frozen = item.contexts[condition]
    wanted = expected(item, CANDIDATE, condition)
    gold = gold_of(item, condition)
    reference = {
        Kind.ANSWER: gold.answers[0] if gold.answers else "",
        Kind.DECLINE: evaluation.assistant.decline_sentence,
        Kind.HANDOFF: evaluation.assistant.handoff_sentence,
    }[wanted]
    return {
        "item": item,
        "outcome": pair.outcome,
        "wanted": wanted.label,
        "reference": reference,
        "edit": frozen.get("edit"),
        "before": before,
        "after": after,
        "before_right": bool(today.measures.get("grounded_correct")),
        "after_right": bool(candidate.measures.get("grounded_correct")),
        "evidence": _evidence(frozen),
    }


def _evidence(frozen: dict[str, Any]) -> list[tuple[int, str, str]]:
    """(passage rank, title, sentence) as offered."""
    passages = {p["rank"]: (p["title"], split_sentences(p["text"])) for p in frozen["passages"]}
    return [(rank, passages[rank][0], passages[rank][1][index]) for rank, index, _ in frozen["evidence"]]


def conditions_with_pairs(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Conditions under which both arms were asked."""
    return [
        (value, label)
        for value, label in Condition.choices
        if all(value in evaluation.results.get(arm, {}) for arm in (TODAY, CANDIDATE))
    ]
