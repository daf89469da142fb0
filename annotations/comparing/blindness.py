"""Who must not see yet what a comparison says: whoever still has pairs to judge in it.

Who knows how others chose, or which arm leads, does not choose blind any more. Roles make no exception: an admin who
judges may close the round, which ends it for everybody.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib.auth.models import User

from annotations.comparing.models import ComparisonPair, ComparisonRound
from annotations.comparing.services import is_judge

WITHHELD = "Results show when you have judged all your pairs, or the round is closed."


def still_judging(person: User, rounds: Sequence[ComparisonRound]) -> set[int]:
    """Keys of those of ``rounds`` that are open and in which this person has pairs left. At most two queries."""
    keys = [opened.pk for opened in rounds if not opened.closed]
    if not keys:
        return set()
    named: dict[int, set[int]] = {}
    people = ComparisonRound.people.through.objects.filter(comparisonround__in=keys)
    for key, user in people.values_list("comparisonround", "user"):
        named.setdefault(key, set()).add(user)
    theirs = [opened.pk for opened in rounds if not opened.closed and is_judge(person, opened, named.get(opened.pk))]
    left = ComparisonPair.objects.filter(round__in=theirs).unjudged_by(person)
    return set(left.order_by().values_list("round", flat=True).distinct())
