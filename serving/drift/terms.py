"""Which words gave it away: log-odds with an informative prior, as a pure function.

Monroe, Colaresi and Quinn, "Fightin' words" (Political Analysis, 2008): a word's frequency in two sets, pulled towards
that in both together, in standard deviations. Unlike a plain ratio it does not put a word first that was said once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from generation.overlap import STOP_WORDS, words

PRIOR = 100.0
SAID_IN = 3
"""Questions that must hold a word, so that nobody's own words stand on the page."""


@dataclass(frozen=True)
class Term:
    """``z`` above 0: said more now. Counted are questions, not mentions."""

    word: str
    z: float
    now: int
    before: int


def telling_terms(now: Sequence[str], before: Sequence[str], *, most: int = 15) -> tuple[list[Term], list[Term]]:
    """(said more now, said less now), the most telling first."""
    new, old = _counted(now), _counted(before)
    both = new + old
    total, n_new, n_old = sum(both.values()), sum(new.values()), sum(old.values())
    found = []
    for word, count in both.items():
        if count < SAID_IN:
            continue
        prior = PRIOR * count / total
        odds = _odds(new[word] + prior, n_new + PRIOR) - _odds(old[word] + prior, n_old + PRIOR)
        z = odds / math.sqrt(1 / (new[word] + prior) + 1 / (old[word] + prior))
        found.append(Term(word, round(z, 2), new[word], old[word]))
    more = sorted((one for one in found if one.z > 1.96 and one.now >= SAID_IN), key=lambda one: -one.z)
    less = sorted((one for one in found if one.z < -1.96 and one.before >= SAID_IN), key=lambda one: one.z)
    return more[:most], less[:most]


def _odds(count: float, total: float) -> float:
    return math.log(count / (total - count))


def _counted(questions: Sequence[str]) -> Counter[str]:
    return Counter(
        word
        for question in questions
        for word in set(words(question))
        if word not in STOP_WORDS and len(word) > 1 and not word[0].isdigit()
    )
