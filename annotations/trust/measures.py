"""What the agreement page says, computed from `Columns`. Pure: no database."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from annotations.agreement import Agreement, Estimate, PairAgreement, alpha_of
from annotations.trust.columns import Columns, Ints
from annotations.trust.questions import QUESTIONS, Question
from annotations.trust.tables import (
    Answers,
    Meetings,
    answers_on,
    counts,
    estimates,
    kappas,
    meetings,
    pair_agreements,
    patterns,
)

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
    seconds: float
    """Of the slowest label on it."""
    labels: tuple[int, ...]
    """Keys of all labels on it."""


def overview(columns: Columns) -> tuple[Overall, ...]:
    """All questions, in their order."""
    people = _busiest(columns, MAX_PEOPLE)
    met: dict[str, Meetings] = {}
    found = []
    for question in QUESTIONS:
        answers = answers_on(question, columns)
        if question.unit not in met:  # who met whom is the same for every question about turns
            met[question.unit] = meetings(answers, columns.rater, people)
        found.append(Overall(question, *estimates(answers), tuple(kappas(met[question.unit].tables(answers.value)))))
    return tuple(found)


def matrix(question: Question, columns: Columns) -> Matrix:
    """Everybody with everybody, on one question."""
    pairs, left_out = _pairs(answers_on(question, columns), columns, MAX_PEOPLE)
    people = [columns.names[one] for one in _busiest(columns, MAX_PEOPLE)]
    by_names = {frozenset((pair.first, pair.second)): pair for pair in pairs}
    table = tuple(
        (one, tuple(None if one == other else _cell(by_names.get(frozenset((one, other)))) for other in people))
        for one in people
    )
    return Matrix(tuple(people), table, pairs, left_out)


def agreement_on(title: str, question: Question, columns: Columns, most: int) -> Agreement:
    """Everything about one question; pairs of the ``most`` people with the most labels."""
    answers = answers_on(question, columns)
    pairs, left_out = _pairs(answers, columns, most)
    return Agreement(title, *estimates(answers), pairs, left_out)


def by_week(question: Question, columns: Columns) -> tuple[Week, ...]:
    """α of each week in which turns or passages were labelled last, oldest first: they belong to that week."""
    week = columns.week
    answers = answers_on(question, columns)
    of_unit = week[_last(answers.unit, answers.label)][answers.unit]
    listed = np.unique(np.concatenate([week[_last(columns.turn, np.arange(len(columns)))], of_unit]))
    found = []
    for one in listed:
        inside = of_unit == one
        _, unit = np.unique(answers.unit[inside], return_inverse=True)
        alpha = alpha_of(*patterns(Answers(unit, answers.value[inside], answers.label[inside])))
        monday = date(1970, 1, 1) + timedelta(days=int(one))
        found.append(Week(monday, alpha, int((week == one).sum())))
    return tuple(found)


def _last(unit: Ints, label: Ints) -> Ints:
    """The last label of each unit."""
    found = np.zeros(int(unit.max(initial=-1)) + 1, dtype=np.int64)
    np.maximum.at(found, unit, label)
    return found


def disagreements(question: Question, columns: Columns) -> Ints:
    """Turns (places) on which people said different things, the last labelled first."""
    answers = answers_on(question, columns)
    given, ones = counts(answers)
    split = (ones > 0) & (ones < given)
    last = np.full(len(columns.turns), -1)
    inside = split[answers.unit]
    np.maximum.at(last, columns.turn[answers.label[inside]], answers.label[inside])
    turns = np.flatnonzero(last >= 0)
    return turns[np.argsort(-last[turns])]


def slowest(columns: Columns) -> list[Slow]:
    """Turns whose labels took longest."""
    seconds = np.where(np.isnan(columns.seconds), -1, columns.seconds)
    most = np.full(len(columns.turns), -1.0)
    np.maximum.at(most, columns.turn, seconds)
    first = np.full(len(columns.turns), len(columns))
    np.minimum.at(first, columns.turn, np.arange(len(columns)))
    order = [turn for turn in np.lexsort((first, -most))[:SLOWEST] if most[turn] >= 0]
    return [Slow(columns.key(turn), float(most[turn]), keys_on(columns, turn)) for turn in order]


def keys_on(columns: Columns, turn: int) -> tuple[int, ...]:
    """Of the labels on a turn (its place), oldest first."""
    return tuple(columns.pk[columns.turn == turn].tolist())


def _pairs(answers: Answers, columns: Columns, most: int) -> tuple[tuple[PairAgreement, ...], int]:
    """(pairs, how many people are not among them)."""
    people = _busiest(columns, most)
    tables = meetings(answers, columns.rater, people).tables(answers.value)
    return pair_agreements(tables, [columns.names[one] for one in people]), len(columns.names) - len(people)


def _busiest(columns: Columns, most: int) -> Ints:
    """Those with the most labels, and of those with as many the first by name; in order of name."""
    given = np.bincount(columns.rater, minlength=len(columns.names))
    return np.sort(np.argsort(-given, kind="stable")[:most])


def _cell(pair: PairAgreement | None) -> Cell:
    kappa = pair.kappa.value if pair is not None else None
    return Cell(pair, -1 if kappa is None else sum(kappa >= step for step in _STEPS))
