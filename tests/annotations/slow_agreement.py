"""Agreement the slow way: each label an object, each question asked of each of them, libraries for the numbers. What
the pages say from sums is held against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from datetime import date, datetime, timedelta

from django.utils import timezone

from annotations.agreement import Estimate, Labels, krippendorff_alpha, pair_agreements, percent_agreement
from annotations.models import Annotation, ContextMark, Reason
from annotations.trust.measures import MAX_PEOPLE, Overall
from annotations.trust.questions import QUESTIONS, Question
from annotations.trust.rows import Scope

Row = tuple[Annotation, ContextMark | None]


def by_unit(rows: Iterable[tuple[Hashable, Hashable, str]]) -> Labels:
    labels: dict[Hashable, dict[Hashable, str]] = {}
    for unit, rater, value in rows:
        labels.setdefault(unit, {})[rater] = value
    return labels


def given(scope: Scope, most: int) -> list[Annotation]:
    """Oldest first."""
    newest = scope.labels().select_related("annotator", "turn").order_by("-created_at", "-pk")
    return list(newest[:most])[::-1]


def rows_on(question: Question, labels: list[Annotation]) -> list[tuple[Hashable, Annotation, str]]:
    """(unit, label, value) of each answer."""
    if question.key == "relevance":
        marks = ContextMark.objects.filter(annotation__in=labels).exclude(relevance="unsure")
        own = {label.pk: label for label in labels}
        found = [(mark.retrieval_id, own[mark.annotation_id], str(mark.relevance)) for mark in marks]
        return sorted(found, key=lambda row: (row[1].created_at, row[1].pk))
    return [(label.turn_id, label, _answer(question)(label)) for label in labels]


def _answer(question: Question) -> Callable[[Annotation], str]:
    if question.key == "verdict":
        return lambda label: str(label.verdict)
    if question.key == "declining":
        return _declines
    reason = question.key.removeprefix("reason-")
    return lambda label: "yes" if reason in label.reasons else "no"


def _declines(label: Annotation) -> str:
    if Reason.SHOULD_HAVE_ANSWERED in label.reasons:
        return "no"
    if Reason.SHOULD_HAVE_DECLINED in label.reasons or Reason.RETRIEVAL_MISSED in label.reasons:
        return "yes"
    return "yes" if label.turn.declined else "no"


def labels_on(question: Question, labels: list[Annotation]) -> Labels:
    return by_unit((unit, label.annotator.username, value) for unit, label, value in rows_on(question, labels))


def busiest(labels: list[Annotation], most: int = MAX_PEOPLE) -> list[str]:
    counted = Counter(label.annotator.username for label in labels)
    return sorted(sorted(counted, key=lambda name: (-counted[name], name))[:most])


def overview(labels: list[Annotation]) -> tuple[Overall, ...]:
    found = []
    for question in QUESTIONS:
        units = labels_on(question, labels)
        pairs = pair_agreements(units, busiest(labels))
        kappas = sorted(pair.kappa.value for pair in pairs if pair.kappa.value is not None)
        found.append(Overall(question, percent_agreement(units), krippendorff_alpha(units), tuple(kappas)))
    return tuple(found)


def by_week(question: Question, labels: list[Annotation]) -> dict[date, Estimate]:
    """Weeks that have an α."""
    last: dict[Hashable, datetime] = {unit: label.created_at for unit, label, _ in rows_on(question, labels)}
    units = labels_on(question, labels)
    weeks: dict[date, dict[Hashable, object]] = {}
    for unit, when in last.items():
        day = timezone.localtime(when).date()
        weeks.setdefault(day - timedelta(days=day.weekday()), {})[unit] = units[unit]
    found = {monday: krippendorff_alpha(inside) for monday, inside in weeks.items()}  # type: ignore[arg-type]
    return {monday: alpha for monday, alpha in found.items() if alpha.value is not None}


def disagreements(question: Question, labels: list[Annotation]) -> list[Hashable]:
    units = labels_on(question, labels)
    split = {}
    for unit, label, _ in rows_on(question, labels):
        if len(set(units[unit].values())) > 1:
            split[label.turn_id] = (label.created_at, label.pk)
    return sorted(split, key=split.__getitem__, reverse=True)


def slowest(labels: list[Annotation], most: int) -> list[tuple[Hashable, float]]:
    seconds: dict[Hashable, float] = {}
    for label in labels:
        if label.seconds is not None:
            seconds[label.turn_id] = max(seconds.get(label.turn_id, 0), label.seconds)
    return sorted(seconds.items(), key=lambda entry: -entry[1])[:most]
