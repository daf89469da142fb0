"""Labels: how many, by whom, what they say, and how they settle."""

from __future__ import annotations

from statistics import median
from typing import Any

from django.db.models import Count, F, Func, Q, QuerySet
from django.db.models.functions import TruncDate, TruncHour
from django.urls import reverse

from annotations.models import Annotation, QueueItem, Reason, Resolution, Verdict
from assistants.models import Assistant
from serving.overview.panels import Overview, Panel, Series, Span, Table, Tile, by_label, share

MOST_TIMES = 20_000
"""Seconds on the page that a median is taken of: the newest."""


def overview(assistant: Assistant, span: Span) -> Overview:
    given = Annotation.objects.filter(
        turn__assistant=assistant, created_at__gte=span.since, created_at__lt=span.until, withdrawn_at=None
    ).order_by()
    return Overview("Labels", _tiles(assistant, given), _panels(assistant, span, given))


def _tiles(assistant: Assistant, given: QuerySet[Annotation]) -> list[Tile]:
    numbers = given.aggregate(
        n=Count("pk"), bad=Count("pk", filter=Q(verdict=Verdict.BAD)), people=Count("annotator", distinct=True),
        corrected=Count("pk", filter=~Q(correction="")),
    )  # fmt: skip
    seconds: list[Any] = list(
        given.exclude(seconds=None).order_by("-pk").values_list("seconds", flat=True)[:MOST_TIMES]
    )
    items = QueueItem.objects.filter(queue__assistant=assistant).aggregate(open=Count("pk", filter=Q(done=False)))
    return [
        Tile("Labels", f"{numbers['n']:,}", f"by {numbers['people']} people", link=_list("annotations_annotation")),
        Tile("Bad", _short(numbers["bad"], numbers["n"]), share(numbers["bad"], numbers["n"])),
        Tile("Corrected", _short(numbers["corrected"], numbers["n"]), "of all labels carry a better answer"),
        Tile("Time", f"{median(seconds):.0f} s" if seconds else "–", "median on the page"),
        Tile(
            "To label", f"{items['open']:,}", "open items", "amber" if items["open"] else "", _list("annotations_queue")
        ),
    ]


def _panels(assistant: Assistant, span: Span, given: QuerySet[Annotation]) -> list[Panel]:
    cut = TruncHour("created_at") if span.hourly else TruncDate("created_at")
    daily = given.annotate(moment=cut).values_list("moment", "verdict").annotate(n=Count("pk"))
    verdicts = by_label(span, ((moment, Verdict(verdict).label, n) for moment, verdict, n in daily))
    colours = {Verdict.GOOD.label: "good", Verdict.BAD.label: "bad"}
    return [
        Panel("verdicts", "Labels by verdict", "stacked", span.labels,
              [Series(name, values, colours.get(name, "")) for name, values in verdicts.items()], "labels",
              empty="Nobody labelled in this time. Fill a queue, and give it to people."),
        _reasons(given),
        _people(given),
        _resolved(assistant, span),
    ]  # fmt: skip


def _reasons(rows: QuerySet[Annotation]) -> Panel:
    found = (
        rows.annotate(reason=Func(F("reasons"), function="unnest"))
        .values_list("reason").annotate(n=Count("pk")).order_by("-n")
    )  # fmt: skip
    counted = [(Reason(reason).label, n) for reason, n in found]
    return Panel(
        "reasons", "What was wrong with the answers that were labelled bad", "bars", [name for name, _ in counted],
        [Series("labels", [n for _, n in counted], "bad")], "labels", empty="No label of this time gives a reason.",
    )  # fmt: skip


def _people(rows: QuerySet[Annotation]) -> Panel:
    found = (
        rows.values_list("annotator__username")
        .annotate(n=Count("pk"), bad=Count("pk", filter=Q(verdict=Verdict.BAD)))
        .annotate(fixed=Count("pk", filter=~Q(correction="")))
        .order_by("-n")[:50]
    )  # fmt: skip
    table = Table(
        ["", "labels", "bad", "corrected"], [[name, n, share(bad, n), fixed] for name, n, bad, fixed in found]
    )
    return Panel("people", "Who labelled", shown=table, empty="Nobody labelled in this time.")


def _resolved(assistant: Assistant, span: Span) -> Panel:
    rows = Resolution.objects.filter(
        turn__assistant=assistant, resolved_at__gte=span.since, resolved_at__lt=span.until
    ).order_by()
    counted = [
        (Resolution.How(how).label, n) for how, n in rows.values_list("how").annotate(n=Count("pk")).order_by("-n")
    ]
    return Panel(
        "settled", f"{sum(n for _, n in counted):,} verdicts came to count", "bars", [name for name, _ in counted],
        [Series("verdicts", [n for _, n in counted], "today")], "verdicts",
        empty="No verdict came to count in this time.",
        note=f"How far labels agree stands on the page Agreement ({reverse('annotations:agreement')}).",
    )  # fmt: skip


def _short(hits: int, total: int) -> str:
    return f"{hits / total * 100:.0f} %" if total else "–"


def _list(name: str) -> str:
    return reverse(f"admin:{name}_changelist")
