"""How often people are right where the right answer is known: on items with known answers, and where a reviewer has
settled a turn that they had labelled."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery

from annotations.agreement import Estimate
from annotations.models import Annotation, AnnotationQuerySet, GoldItem, Resolution
from annotations.trust.rows import Scope


@dataclass(frozen=True)
class PersonAccuracy:
    name: str
    labels: int
    gold: Estimate
    """Share of the first labels on items with known answers that have the known verdict."""
    reviewed: Estimate
    """Share of the labels that a reviewer's verdict confirms; turns with known answers are not among them."""


def accuracy(scope: Scope) -> list[PersonAccuracy]:
    """Everybody in scope, most labels first, in four queries.

    On an item with a known answer a person's first label is measured, also if they replaced it or took it back: the
    page tells them at once when they were overruled, so a later one may repeat what they were told. It must have been
    given after the item was marked: earlier ones may have made the answer. Nobody is
    measured by their own word, as the one who marked the item or settled the turn.
    """
    labels = scope.labels()
    known = GoldItem.objects.filter(item__queue=OuterRef("queue"), item__turn=OuterRef("turn"))
    # By key, the order in which they were stored.
    before = Annotation.objects.filter(turn=OuterRef("turn"), annotator=OuterRef("annotator"), pk__lt=OuterRef("pk"))
    gold = (
        scope.ever_given()
        .filter(Exists(known), ~Exists(before))
        .alias(marked_at=Subquery(known.values("marked_at")[:1]), marked_by=Subquery(known.values("marked_by")[:1]))
        .filter(Q(marked_by=None) | ~Q(marked_by=F("annotator")), created_at__gt=F("marked_at"))
        .alias(expected=Subquery(known.values("verdict")[:1]))
    )
    # In whatever queue: marking makes the labels' own verdict the reviewer's word, which would only confirm them.
    marked = GoldItem.objects.filter(item__turn=OuterRef("turn"))
    settled = labels.filter(~Exists(marked), turn__resolution__how=Resolution.How.ADJUDICATED).filter(
        Q(turn__resolution__resolved_by=None) | ~Q(turn__resolution__resolved_by=F("annotator"))
    )
    on_gold = _shares(gold, Q(verdict=F("expected")))
    on_settled = _shares(settled, Q(verdict=F("turn__resolution__verdict")))
    # Rows, not keys: an index has all else that is asked.
    by_key: dict[int, int] = dict(labels.values_list("annotator").annotate(n=Count("*")))
    names: dict[int, str] = dict(User.objects.filter(pk__in=by_key).values_list("pk", "username"))
    given = {names[key]: n for key, n in by_key.items()}
    given |= dict.fromkeys(on_gold.keys() - given.keys(), 0)  # who took everything back
    nothing = _share(0, 0)
    return [
        PersonAccuracy(name, n, on_gold.get(name, nothing), on_settled.get(name, nothing))
        for name, n in sorted(given.items(), key=lambda row: (-row[1], row[0]))
    ]


def _shares(labels: AnnotationQuerySet, right: Q) -> dict[str, Estimate]:
    rows = labels.values_list("annotator__username").annotate(n=Count("pk"), hits=Count("pk", filter=right))
    return {name: _share(hits, n) for name, n, hits in rows}


def _share(hits: int, n: int) -> Estimate:
    """With Wilson's interval, which stays honest for few labels and for all or none right."""
    from statsmodels.stats.proportion import proportion_confint

    if not n:
        return Estimate(None, None, None, 0)
    low, high = proportion_confint(hits, n, method="wilson")
    return Estimate(hits / n, float(low), float(high), n)
