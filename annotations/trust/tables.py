"""Answers to one question as sums: how often each pattern of answers came, and what each two people said together.

Which turn a label was on does not matter for any figure; so a page costs as much for 20,000 labels as for 200, but for
reading them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from annotations.agreement import Estimate, PairAgreement, alpha_of, kappa_of, percent_of
from annotations.trust.columns import Columns, Ints
from annotations.trust.questions import ASKED, Question

_CACHED = 8192
"""Pairs whose intervals are kept: some 20 pages of 15 people."""


@dataclass(frozen=True)
class Answers:
    """One entry an answer, of a label or of a mark. ``value``: 0 or 1, of two words in order of the alphabet."""

    unit: Ints
    """A number for each turn, or each passage of a turn."""
    value: Ints
    label: Ints
    """Place of the label that gave it."""


def answers_on(question: Question, columns: Columns) -> Answers:
    if question.yes is None:
        marks = columns.marks
        return Answers(marks.passage, marks.relevant, marks.label)
    value = columns.said >> ASKED.index(question) & 1
    return Answers(columns.turn, value, np.arange(len(columns)))


def patterns(answers: Answers) -> tuple[Ints, Ints]:
    """(patterns, times) of the units with at least two answers: a pattern is how many gave each value."""
    given, ones = counts(answers)
    most = int(given.max(initial=0)) + 1
    shared = given > 1
    found, times = np.unique((given[shared] - ones[shared]) * most + ones[shared], return_counts=True)
    return np.stack([found // most, found % most], axis=1), times.astype(np.int64)


def counts(answers: Answers) -> tuple[Ints, Ints]:
    """(answers, answers with value 1) by unit."""
    given = np.bincount(answers.unit)
    return given, np.bincount(answers.unit[answers.value == 1], minlength=len(given))


def estimates(answers: Answers) -> tuple[Estimate, Estimate]:
    """(percent agreement, α)."""
    found, times = patterns(answers)
    return percent_of(found, times), alpha_of(found, times)


@dataclass(frozen=True)
class Meetings:
    """Each two answers of different people on one unit, as places in `Answers`."""

    first: Ints
    second: Ints
    pair: Ints
    people: int

    def tables(self, value: Ints) -> Ints:
        """people × people × 2 × 2: how often the one (before in order of name) said this and the other that."""
        cells = (self.pair * 2 + value[self.first]) * 2 + value[self.second]
        return np.bincount(cells, minlength=self.people**2 * 4).reshape(self.people, self.people, 2, 2)


def meetings(answers: Answers, rater: Ints, people: Ints) -> Meetings:
    """Of these people.

    Args:
        rater: who gave each label.
        people: raters, in order of name.
    """
    place = np.full(int(rater.max(initial=-1)) + 1, -1)
    place[people] = np.arange(len(people))
    who = place[rater[answers.label]]
    asked = np.flatnonzero(who >= 0)
    order = asked[np.lexsort((who[asked], answers.unit[asked]))]
    unit, who = answers.unit[order], who[order]
    found: list[tuple[Ints, Ints, Ints]] = []
    step = 1
    while len(near := np.flatnonzero(unit[step:] == unit[:-step])):
        found.append((order[near], order[near + step], who[near] * len(people) + who[near + step]))
        step += 1
    nothing = np.zeros(0, dtype=np.int64)
    first, second, pair = (np.concatenate(parts) for parts in zip(*found, strict=True)) if found else (nothing,) * 3
    return Meetings(first, second, pair, len(people))


def kappas(tables: Ints) -> list[float]:
    """κ of each pair that has one, smallest first: all at once, as a page asks for it of a hundred pairs a question."""
    table = tables.reshape(-1, 4).astype(np.float64)
    n = table.sum(axis=1)
    table = table[n > 0] / n[n > 0, None]
    neither, second, first, both = table.T
    chance = (neither + second) * (neither + first) + (both + first) * (both + second)
    defined = (neither < 1) & (both < 1)  # else both gave everything the same value
    return sorted(((neither + both - chance)[defined] / (1 - chance[defined])).tolist())


def pair_agreements(tables: Ints, names: list[str]) -> tuple[PairAgreement, ...]:
    """Of each two who have a common unit."""
    return tuple(
        PairAgreement(names[one], names[other], *pair_estimates(*(int(n) for n in tables[one, other].ravel())))
        for one in range(len(names))
        for other in range(one + 1, len(names))
        if tables[one, other].any()
    )


@lru_cache(_CACHED)
def pair_estimates(neither: int, second: int, first: int, both: int) -> tuple[Estimate, Estimate]:
    """(percent agreement, κ) of two, from how often neither, only one of them, or both said yes.

    Kept: between two views of a page few pairs have labelled anything.
    """
    found = np.array([[0, 2], [1, 1], [2, 0]])
    times = np.array([both, first + second, neither])
    table = np.array([[neither, second], [first, both]])
    used = table.any(axis=0) | table.any(axis=1)
    return percent_of(found[times > 0], times[times > 0]), kappa_of(table[np.ix_(used, used)])
