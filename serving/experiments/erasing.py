"""Answers and pairs made of users' turns go when the turns go; here is what must go although its turn stays."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection

from annotations.comparing.models import ComparisonPair
from annotations.models import LiveAnswer
from serving.experiments.models import ShadowAnswer


def forget_made_of(turns: Collection[uuid.UUID]) -> Counter[str]:
    """Of turns whose history quoted what is erased: the other arm's answer, and the one that annotators are shown, were
    written to it, and a pair shows it.
    Returns {table: rows}."""
    keys = list(turns)
    return Counter(
        {
            "shadow answers": ShadowAnswer.objects.filter(turn__in=keys).delete()[0],
            "answers for annotators": LiveAnswer.objects.filter(turn__in=keys).delete()[0],
            "comparison pairs": ComparisonPair.objects.filter(turn__in=keys)
            .delete()[1]
            .get("annotations.ComparisonPair", 0),
        }
    )


def forget_masked() -> int:
    """Of turns in which a later scrubbing has masked something: these were made of the words from before. Only turns
    without a mask are ever answered twice, so that a mask tells. Run each minute."""
    stale = ShadowAnswer.objects.exclude(turn__pii=[])
    pairs = ComparisonPair.objects.filter(turn__isnull=False).exclude(turn__pii=[])
    return stale.delete()[0] + pairs.delete()[0]
