"""What an overview page is made of: numbers above, charts with their tables below. One template draws all of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal

from django.utils import timezone
from statsmodels.stats.proportion import proportion_confint

Kind = Literal["bars", "stacked", "lines"]
Cell = str | int | float | None
NUMBERS = "numbers"
"""The key of what stands above the panels."""
RANGES = (1, 7, 30, 90)
"""Days that a page can show."""
MOST_SERIES = 8
"""Of a chart, with a colour of their own."""
HOURLY = 3
"""Up to so many days a chart has a point an hour, else one a day."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Tile:
    """One number. ``tone``: good, bad, amber or nothing."""

    label: str
    value: str
    note: str = ""
    tone: str = ""
    link: str = ""


@dataclass(frozen=True)
class Series:
    """``values`` by label of the panel; None leaves a gap. ``colour``: a word that the script knows, or nothing."""

    name: str
    values: Sequence[float | None]
    colour: str = ""


@dataclass(frozen=True)
class Mark:
    """A moment on the axis: an adapter that went live."""

    label: str
    text: str


@dataclass(frozen=True)
class Table:
    """``links``: address by row number, for the first column."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    links: Mapping[int, str] = field(default_factory=dict)

    @property
    def linked(self) -> list[tuple[str, Sequence[Cell]]]:
        """For the page; CSV has numbers as they are."""
        return [
            (self.links.get(number, ""), [f"{cell:,}" if isinstance(cell, int) else cell for cell in row])
            for number, row in enumerate(self.rows)
        ]


@dataclass(frozen=True)
class Panel:
    """``title`` is a sentence. Without ``series`` only a table is shown; without both ``empty`` says what fills it."""

    key: str
    title: str
    kind: Kind = "bars"
    labels: Sequence[str] = ()
    series: Sequence[Series] = ()
    axis: str = ""
    marks: Sequence[Mark] = ()
    shown: Table | None = None
    empty: str = "Nothing yet."
    note: str = ""
    link: str = ""
    """Where the note leads."""

    @property
    def table(self) -> Table:
        if self.shown is not None:
            return self.shown
        rows = [[label, *(s.values[n] for s in self.series)] for n, label in enumerate(self.labels)]
        return Table(["", *(s.name for s in self.series)], rows)

    @property
    def is_empty(self) -> bool:
        charted = any(value for s in self.series for value in s.values)
        return not charted and not (self.shown is not None and self.shown.rows)

    @property
    def chart(self) -> dict[str, Any]:
        """For the script."""
        return {
            "kind": self.kind,
            "labels": list(self.labels),
            "series": [{"name": s.name, "values": list(s.values), "colour": s.colour} for s in self.series],
            "axis": self.axis,
            "marks": [{"label": mark.label, "text": mark.text} for mark in self.marks],
        }


@dataclass(frozen=True)
class Overview:
    """One page."""

    title: str
    tiles: Sequence[Tile]
    panels: Sequence[Panel]

    def table(self, key: str) -> Table | None:
        """What ``?csv=`` asks for: the numbers above, or a panel's."""
        if key == NUMBERS:
            return Table(("", "Number", "Note"), [(tile.label, tile.value, tile.note) for tile in self.tiles])
        return next((panel.table for panel in self.panels if panel.key == key), None)


@dataclass(frozen=True)
class Span:
    """The last ``days`` days, cut into hours or days of the page's time zone."""

    days: int
    since: datetime
    until: datetime

    @classmethod
    def last(cls, days: int) -> Span:
        """Whole hours, or whole days with today as the last."""
        now = timezone.localtime()
        if days <= HOURLY:
            until = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
            return cls(days, until - timedelta(days=days), until)
        until = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        return cls(days, until - timedelta(days=days), until)

    @property
    def words(self) -> str:
        return "24 hours" if self.days == 1 else f"{self.days} days"

    @property
    def hourly(self) -> bool:
        return self.days <= HOURLY

    @property
    def labels(self) -> list[str]:
        step = timedelta(hours=1) if self.hourly else timedelta(days=1)
        count = self.days * 24 if self.hourly else self.days
        return [self.label(self.since + n * step + step / 2) for n in range(count)]

    def label(self, moment: datetime | date) -> str:
        if not isinstance(moment, datetime):
            return f"{moment:%Y-%m-%d}"
        here = timezone.localtime(moment)
        return f"{here:%m-%d %H:00}" if self.hourly else f"{here:%Y-%m-%d}"


def share(hits: int, total: int) -> str:
    """“4.2 % (3.1 to 5.6, n = 900)” with the Wilson interval of 95 %; a dash without any."""
    if not total:
        return "–"
    low, high = proportion_confint(hits, total, method="wilson")
    return f"{hits / total * 100:.1f} % ({low * 100:.1f} to {high * 100:.1f}, n = {total:,})"


def spread(hits: int, total: int) -> str:
    """The interval and n of `share` alone, for beside the share itself."""
    if not total:
        return "–"
    low, high = proportion_confint(hits, total, method="wilson")
    return f"95 % interval {low * 100:.1f} to {high * 100:.1f}, n = {total:,}"


def percent(hits: int, total: int) -> float | None:
    return round(hits / total * 100, 1) if total else None


def as_csv(table: Table) -> str:
    """What a spreadsheet opens. A cell that would be taken for a formula gets a quote before it."""
    out = io.StringIO()
    writer = csv.writer(out)
    # Names of columns may be names of models, as frontends post them.
    writer.writerows([_safe(cell) for cell in row] for row in (table.columns, *table.rows))
    return out.getvalue()


def _safe(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def by_label(span: Span, rows: Iterable[tuple[datetime | date, str, int]]) -> dict[str, list[float | None]]:
    """{name: a value for each label} from (moment, name, how many)."""
    places = {label: n for n, label in enumerate(span.labels)}
    found: dict[str, list[float | None]] = {}
    for moment, name, count in rows:
        place = places.get(span.label(moment))
        if place is not None:
            values = found.setdefault(name, [0.0] * len(places))
            values[place] = (values[place] or 0) + count
    return dict(sorted(found.items(), key=lambda pair: -sum(value or 0 for value in pair[1])))


def grouped(
    found: Mapping[str, Sequence[float | None]], rest: str, colours: Mapping[str, str] | None = None
) -> list[Series]:
    """The first few by themselves, the others together under the name ``rest``. ``colours``: by name, where one means
    something."""
    named = list(found.items())
    shown = [Series(name, values, (colours or {}).get(name, "")) for name, values in named[:MOST_SERIES]]
    if others := [values for _, values in named[MOST_SERIES:]]:
        shown.append(
            Series(rest, [sum(value or 0 for value in column) for column in zip(*others, strict=True)], "slate")
        )
    return shown
