"""Spot checks: a random sample of what was kept, looked at by people, and the precision that follows.

One person looks at each item, whoever comes first: what is measured is the synthesis and not the people. A verdict is
stored only while the item is open, so that two people who had the same one before them cannot overwrite each other.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from assistants.models import Assistant
from assistants.services import audit
from training.models import SpotCheck, Synthesis

MAX_SAMPLE = 1_000
SAMPLE = 100
UNDO = timedelta(minutes=30)
"""As long a person may take their last verdict back."""


class CheckRefused(ValueError):
    """Why a sample cannot be drawn, or a verdict not be taken, in one sentence."""


@dataclass(frozen=True)
class Precision:
    """Of ``n`` checked items ``good`` were good; the share with Wilson's interval, None while nothing is checked."""

    good: int
    n: int
    open: int
    value: float | None
    low: float | None
    high: float | None
    reasons: tuple[tuple[str, int], ...] = ()


@transaction.atomic
def draw_sample(*, synthesis: Synthesis, size: int, actor: User) -> int:
    """Puts ``size`` more kept items before people, drawn at random; returns how many were left to draw.

    Raises:
        CheckRefused: the size is out of its limits, the synthesis is still writing, or every kept item is drawn.
    """
    if not 1 <= size <= MAX_SAMPLE:
        raise CheckRefused(f"A sample holds 1 to {MAX_SAMPLE:,} items.")
    locked = Synthesis.objects.select_for_update().get(pk=synthesis.pk)  # two admins draw one after the other
    if locked.is_active:
        raise CheckRefused(f"{locked} is still writing. A sample is drawn from what it has kept in the end.")
    drawn = SpotCheck.objects.of(locked).count()
    left = list(locked.items.filter(dropped_by="", spot_check=None).order_by("pk").values_list("pk", flat=True))
    if not left:
        raise CheckRefused("Every kept question is in the sample already.")
    chosen = random.Random(f"{locked.pk} {locked.seed} {drawn}").sample(left, min(size, len(left)))
    SpotCheck.objects.bulk_create(
        SpotCheck(item_id=item, position=place) for place, item in enumerate(chosen, start=drawn + 1)
    )
    audit(
        assistant=locked.assistant, actor=actor, action="synthesis.sampled", target=str(locked),
        details={"items": len(chosen)},
    )  # fmt: skip
    return len(chosen)


def next_check(synthesis: Synthesis, person: User) -> SpotCheck | None:
    """An open item. People who look at the same time start at different ones."""
    rows = SpotCheck.objects.of(synthesis).open().select_related("item", "item__chunk")
    rows = rows.defer("item__chunk__embedding", "item__chunk__sentence_embeddings", "item__chunk__words")
    count = SpotCheck.objects.of(synthesis).open().count()
    start = person.pk * 7 % count if count else 0
    # Somebody may have decided some since they were counted.
    return next(iter([*rows[start : start + 1], *rows[:1]]), None)


def decide(*, check: SpotCheck, person: User, verdict: str, reason: str = "") -> None:
    """Stores a verdict.

    Raises:
        CheckRefused: no such verdict or reason, or somebody else was faster.
    """
    if verdict not in SpotCheck.Verdict.values:
        raise CheckRefused("Say good or bad.")
    if reason and (verdict == SpotCheck.Verdict.GOOD or reason not in SpotCheck.Reason.values):
        raise CheckRefused("A reason belongs to a bad one, and is one of the list.")
    changed = SpotCheck.objects.open().filter(pk=check.pk)
    if not changed.update(verdict=verdict, reason=reason, checked_by=person, checked_at=timezone.now()):
        raise CheckRefused("Somebody else has just decided this one. Here is the next.")


def undo(*, synthesis: Synthesis, person: User) -> bool:
    """Takes back the person's last verdict of the last half hour; False when there is none."""
    rows = SpotCheck.objects.of(synthesis).done().filter(checked_by=person, checked_at__gte=timezone.now() - UNDO)
    last = rows.order_by("-checked_at", "-pk").first()
    if last is None:
        return False
    mine = SpotCheck.objects.filter(pk=last.pk, checked_by=person)
    return bool(mine.update(verdict="", reason="", checked_by=None, checked_at=None))


def precision_of(synthesis: Synthesis) -> Precision | None:
    """None where no sample was drawn. One query."""
    from statsmodels.stats.proportion import proportion_confint

    rows = SpotCheck.objects.of(synthesis).order_by().values_list("verdict", "reason").annotate(n=Count("pk"))
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for verdict, reason, n in rows:
        counts[verdict] += n
        if verdict == SpotCheck.Verdict.BAD:
            reasons[SpotCheck.Reason(reason).label if reason else "no reason given"] += n
    if not counts:
        return None
    good, n = counts["good"], counts["good"] + counts["bad"]
    if not n:
        return Precision(0, 0, counts[""], None, None, None)
    low, high = proportion_confint(good, n, method="wilson")
    return Precision(good, n, counts[""], good / n, float(low), float(high), tuple(reasons.most_common()))


def waiting_for(assistants: QuerySet[Assistant]) -> QuerySet[Synthesis]:
    """Syntheses of these assistants with a sample, those with open items first; each says how many."""
    rows = Synthesis.objects.filter(assistant__in=assistants, items__spot_check__isnull=False)
    return (
        rows.select_related("assistant")
        .annotate(
            n_sampled=Count("items__spot_check"),
            n_open=Count("items__spot_check", filter=Q(items__spot_check__verdict="")),
        )
        .order_by("-n_open", "-created_at")
    )
