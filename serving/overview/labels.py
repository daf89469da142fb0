"""Labels: how many, by whom, what they say, and how they settle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from statistics import median
from typing import Any

from django.db.models import Count, Q, QuerySet
from django.db.models.functions import TruncDate, TruncHour
from django.urls import reverse

from annotations.models import Annotation, QueueItem, Reason, Resolution, Verdict
from assistants.models import Assistant
from serving.overview.panels import Cell, Overview, Panel, Series, Span, Table, Tile, by_label, share, spread

MOST_TIMES = 5_000
"""Seconds on the page that a median is taken of: the newest."""

MOST_PEOPLE = 50


@dataclass(frozen=True)
class Given:
    """So many labels of one moment of the charts that are alike."""

    moment: datetime | date
    verdict: str
    person: str
    corrected: bool
    reasons: Sequence[str]
    n: int


def overview(assistant: Assistant, span: Span) -> Overview:
    of_span = {"created_at__gte": span.since, "created_at__lt": span.until}
    given = Annotation.objects.of(assistant).current().filter(**of_span).order_by()
    # One pass for tiles, charts and people.
    cut = TruncHour("created_at") if span.hourly else TruncDate("created_at")
    alike = given.annotate(moment=cut, corrected=~Q(correction="")).values_list(
        "moment", "verdict", "annotator__username", "corrected", "reasons"
    )
    counted = [Given(*row) for row in alike.annotate(n=Count("pk"))]
    return Overview("Labels", _tiles(assistant, given, counted), _panels(assistant, span, counted))


def _tiles(assistant: Assistant, given: QuerySet[Annotation], counted: Sequence[Given]) -> list[Tile]:
    n = sum(one.n for one in counted)
    bad = sum(one.n for one in counted if one.verdict == Verdict.BAD)
    corrected = sum(one.n for one in counted if one.corrected)
    people = len({one.person for one in counted})
    seconds: list[Any] = list(
        given.exclude(seconds=None).order_by("-pk").values_list("seconds", flat=True)[:MOST_TIMES]
    )
    items = QueueItem.objects.filter(queue__assistant=assistant).aggregate(open=Count("pk", filter=Q(done=False)))
    return [
        Tile("Labels", f"{n:,}", f"by {people} {'person' if people == 1 else 'people'}",
             link=_list("annotations_annotation")),
        Tile("Bad", _short(bad, n), spread(bad, n)),
        Tile("Corrected", _short(corrected, n), "of all labels carry a better answer"),
        Tile("Time", f"{median(seconds):.0f} s" if seconds else "–", "median on the page"),
        Tile(
            "To label", f"{items['open']:,}", "open items", "amber" if items["open"] else "", _list("annotations_queue")
        ),
    ]  # fmt: skip


def _panels(assistant: Assistant, span: Span, counted: Sequence[Given]) -> list[Panel]:
    verdicts = by_label(span, ((one.moment, Verdict(one.verdict).label, one.n) for one in counted))
    colours = {Verdict.GOOD.label: "good", Verdict.BAD.label: "bad"}
    return [
        Panel("verdicts", "Labels by verdict", "stacked", span.labels,
              [Series(name, values, colours.get(name, "")) for name, values in verdicts.items()], "labels",
              empty="Nobody labelled in this time. Fill a queue, and give it to people."),
        _reasons(counted),
        _people(counted),
        _resolved(assistant, span),
    ]  # fmt: skip


def _reasons(given: Sequence[Given]) -> Panel:
    found: Counter[str] = Counter()
    for one in given:
        found.update(dict.fromkeys(one.reasons, one.n))
    counted = [(Reason(reason).label, n) for reason, n in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))]
    return Panel(
        "reasons", "What was wrong with the answers that were labelled bad", "bars", [name for name, _ in counted],
        [Series("labels", [n for _, n in counted], "bad")], "labels", empty="No label of this time gives a reason.",
    )  # fmt: skip


def _people(counted: Sequence[Given]) -> Panel:
    people: dict[str, list[Given]] = {}
    for one in counted:
        people.setdefault(one.person, []).append(one)
    rows: list[list[Cell]] = []
    for name, given in people.items():
        n = sum(one.n for one in given)
        bad = sum(one.n for one in given if one.verdict == Verdict.BAD)
        rows.append([name, n, share(bad, n), sum(one.n for one in given if one.corrected)])
    rows.sort(key=lambda row: (-sum(one.n for one in people[str(row[0])]), str(row[0])))
    table = Table(["", "labels", "bad", "corrected"], rows[:MOST_PEOPLE])
    return Panel("people", "Who labelled", shown=table, empty="Nobody labelled in this time.")


def _resolved(assistant: Assistant, span: Span) -> Panel:
    settled = Resolution.objects.of(assistant).order_by()
    rows = settled.filter(resolved_at__gte=span.since, resolved_at__lt=span.until)
    counted = [
        (Resolution.How(how).label, n) for how, n in rows.values_list("how").annotate(n=Count("pk")).order_by("-n")
    ]
    return Panel(
        "settled", f"{sum(n for _, n in counted):,} verdicts came to count", "bars", [name for name, _ in counted],
        [Series("verdicts", [n for _, n in counted])], "verdicts",
        empty="No verdict came to count in this time.",
        note="How far labels agree stands on the page Agreement.",
        link=f"{reverse('annotations:agreement')}?assistant={assistant.slug}",
    )  # fmt: skip


def _short(hits: int, total: int) -> str:
    return f"{hits / total * 100:.0f} %" if total else "–"


def _list(name: str) -> str:
    return reverse(f"admin:{name}_changelist")
