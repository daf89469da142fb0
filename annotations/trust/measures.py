"""What the agreement page says, computed from `Rows`. Pure: no database."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.utils import timezone

from annotations.agreement import (
    Estimate,
    Labels,
    PairAgreement,
    by_unit,
    krippendorff_alpha,
    pair_agreements,
    percent_agreement,
)
from annotations.trust.questions import QUESTIONS, Question
from annotations.trust.rows import LabelRow, Rows

MAX_PEOPLE = 15
"""In the table of pairs: those with the most labels."""
SLOWEST = 10
_STEPS = (0.0, 0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Overall:
    """One line of the overview."""

    question: Question
    percent: Estimate
    alpha: Estimate
    kappas: tuple[float, ...]
    """κ of each pair that has one, smallest first."""


@dataclass(frozen=True)
class Cell:
    pair: PairAgreement | None
    shade: int
    """0 (no better than chance) to 5 (κ of .8 and more); -1 where κ is not defined."""


@dataclass(frozen=True)
class Matrix:
    people: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    """(name, cells); None on the diagonal."""
    pairs: tuple[PairAgreement, ...]
    left_out: int
    """People with fewer labels than those shown."""


@dataclass(frozen=True)
class Week:
    monday: date
    alpha: Estimate
    labels: int


@dataclass(frozen=True)
class Slow:
    turn: uuid.UUID
    labels: tuple[LabelRow, ...]
    seconds: float
    """Of the slowest label on it."""


def labels_on(question: Question, rows: Rows) -> Labels:
    """What everybody said; units are turns, or passages of turns."""
    if question.answer is None:
        return by_unit((mark.retrieval, mark.name, mark.relevance) for mark in rows.marks)
    answer = question.answer
    return by_unit((label.turn, label.name, answer(label)) for label in rows.labels)


def overview(rows: Rows) -> tuple[Overall, ...]:
    """All questions, in their order."""
    people = _busiest(rows)
    found = []
    for question in QUESTIONS:
        labels = labels_on(question, rows)
        pairs = pair_agreements(labels, people)
        kappas = sorted(pair.kappa.value for pair in pairs if pair.kappa.value is not None)
        found.append(Overall(question, percent_agreement(labels), krippendorff_alpha(labels), tuple(kappas)))
    return tuple(found)


def matrix(question: Question, rows: Rows) -> Matrix:
    """Everybody with everybody, on one question."""
    people = _busiest(rows)
    pairs = pair_agreements(labels_on(question, rows), people)
    by_names = {frozenset((pair.first, pair.second)): pair for pair in pairs}
    table = tuple(
        (one, tuple(None if one == other else _cell(by_names.get(frozenset((one, other)))) for other in people))
        for one in people
    )
    everybody = {label.name for label in rows.labels}
    return Matrix(tuple(people), table, pairs, len(everybody) - len(people))


def by_week(question: Question, rows: Rows) -> tuple[Week, ...]:
    """α of each week that has labels, oldest first; a turn belongs to the week of its last label."""
    last: dict[Hashable, datetime] = {}
    if question.answer is None:
        for mark in rows.marks:
            last[mark.retrieval] = mark.created_at
    else:
        for label in rows.labels:
            last[label.turn] = label.created_at
    weeks: dict[date, dict[Hashable, object]] = {}
    labels = labels_on(question, rows)
    for unit, when in last.items():
        weeks.setdefault(_monday(when), {})[unit] = labels[unit]
    given = Counter(_monday(label.created_at) for label in rows.labels)
    return tuple(
        Week(monday, krippendorff_alpha(weeks[monday]), given[monday])  # type: ignore[arg-type]
        for monday in sorted(weeks)
    )


def disagreements(question: Question, rows: Rows) -> list[uuid.UUID]:
    """Turns on which people said different things, the last labelled first."""
    split: dict[uuid.UUID, datetime] = {}
    labels = labels_on(question, rows)
    if question.answer is None:
        for mark in rows.marks:
            if len(set(labels[mark.retrieval].values())) > 1:
                split[mark.turn] = max(split.get(mark.turn, mark.created_at), mark.created_at)
    else:
        for label in rows.labels:
            if len(set(labels[label.turn].values())) > 1:
                split[label.turn] = label.created_at
    return sorted(split, key=split.__getitem__, reverse=True)


def slowest(rows: Rows) -> list[Slow]:
    """Turns whose labels took longest."""
    by_turn = labels_by_turn(rows.labels)
    found = [
        Slow(turn, tuple(labels), max(label.seconds for label in labels if label.seconds is not None))
        for turn, labels in by_turn.items()
        if any(label.seconds is not None for label in labels)
    ]
    return sorted(found, key=lambda slow: -slow.seconds)[:SLOWEST]


def labels_by_turn(labels: Sequence[LabelRow]) -> dict[uuid.UUID, list[LabelRow]]:
    found: dict[uuid.UUID, list[LabelRow]] = {}
    for label in labels:
        found.setdefault(label.turn, []).append(label)
    return found


def _busiest(rows: Rows) -> list[str]:
    """Names of those with the most labels, in order of name."""
    counts = Counter(label.name for label in rows.labels)
    return sorted(name for name, _ in counts.most_common(MAX_PEOPLE))


def _cell(pair: PairAgreement | None) -> Cell:
    kappa = pair.kappa.value if pair is not None else None
    return Cell(pair, -1 if kappa is None else sum(kappa >= step for step in _STEPS))


def _monday(when: datetime) -> date:
    day = timezone.localtime(when).date()
    return day - timedelta(days=day.weekday())
