"""Live: how much is asked, how fast it is answered, and what people think of it, by adapter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlencode

from django.urls import reverse
from django.utils import timezone

from assistants.models import Assistant
from capture.models import Turn
from serving.alerts.unserved import why_base_answers
from serving.chat import base_name
from serving.models import Deployment, Promotion
from serving.overview.panels import (
    Cell,
    Mark,
    Overview,
    Panel,
    Series,
    Span,
    Table,
    Tile,
    by_label,
    grouped,
    percent,
    share,
    spread,
)
from serving.traffic.latency import added, percentile
from serving.traffic.models import OTHER_MODELS, Traffic
from serving.traffic.reading import traffic_of

MOST_ROWS = 40
"""Of the table, the busiest first: a frontend may post another model name with every turn."""
RECENT = timedelta(minutes=15)
BASE = "Base model"
_MARKED = (Promotion.Action.PROMOTE, Promotion.Action.ROLL_BACK)


@dataclass(frozen=True)
class Arms:
    """What people call the adapters of an assistant, and which of them has a colour of its own."""

    adapters: Mapping[str, str]
    """By the name in the engine, which is what a turn carries."""
    colours: Mapping[str, str]

    def name(self, model: str, adapter: str) -> str:
        """The adapter, else the model that posted it."""
        return self.adapters.get(adapter, adapter) or self.model(model)

    def model(self, model: str) -> str:
        return BASE if model == base_name() else model or "no model named"


def overview(assistant: Assistant, span: Span) -> Overview:
    hours: list[Traffic] = list(traffic_of(assistant, span).defer("masked"))
    related = ("assistant", "adapter", "experiment__candidate")
    deployment = Deployment.objects.filter(assistant=assistant).select_related(*related).first()
    arms = _arms(assistant, deployment)
    return Overview("Live", _tiles(assistant, deployment, hours), _panels(assistant, arms, hours, span))


def _arms(assistant: Assistant, deployment: Deployment | None) -> Arms:
    rows = assistant.adapters.only("assistant", "number", "source", "remote_model")
    named = {one.engine_name: str(one) for one in rows}
    colours = {BASE: "base"}
    if deployment is not None and deployment.experiment is not None:
        colours[str(deployment.experiment.candidate)] = "candidate"
    if deployment is not None and deployment.adapter is not None:
        colours[str(deployment.adapter)] = "live"
    return Arms(named, colours)


def _tiles(assistant: Assistant, deployment: Deployment | None, hours: Sequence[Traffic]) -> list[Tile]:
    now = timezone.now()
    recent = Turn.objects.of(assistant).asked_by_users().filter(asked_at__gte=now - RECENT, asked_at__lte=now).count()
    turns, declined = sum(h.turns for h in hours), sum(h.declined for h in hours)
    down, up = sum(h.down for h in hours), sum(h.up for h in hours)
    latencies = added([h.latencies for h in hours])
    return [
        _live_tile(deployment),
        Tile("Now", f"{recent / (RECENT.seconds / 60):.1f} a minute", "over the last quarter of an hour"),
        Tile("Latency, median", _ms(percentile(latencies, 0.5)), f"95 % within {_ms(percentile(latencies, 0.95))}"),
        Tile("Declined", _short(declined, turns), spread(declined, turns)),
        Tile("Thumbs down", _short(down, up + down), spread(down, up + down), "bad" if down > up else ""),
    ]


def _live_tile(deployment: Deployment | None) -> Tile:
    link = reverse("admin:serving_deployment_changelist")
    live = deployment.adapter if deployment else None
    if why := why_base_answers(deployment):
        return Tile("Live", f"✗ {BASE}", f"answers, not {live}: {why}", "bad", link)
    return Tile("Live", f"● {live or BASE}", tone="good", link=link)


def _panels(assistant: Assistant, arms: Arms, hours: Sequence[Traffic], span: Span) -> list[Panel]:
    labels = span.labels
    turns = by_label(span, ((h.moment, arms.name(h.model, h.adapter), h.turns) for h in hours))
    marks = _marks(assistant, span)
    total = sum(h.turns for h in hours)
    by_time: dict[str, list[Traffic]] = {label: [] for label in labels}
    for hour in hours:
        if (label := span.label(hour.moment)) in by_time:
            by_time[label].append(hour)
    cells = list(by_time.values())
    declined = [percent(sum(h.declined for h in c), sum(h.turns for h in c)) for c in cells]
    down = [percent(sum(h.down for h in c), sum(h.up + h.down for h in c)) for c in cells]
    return [
        Panel("traffic", f"{total:,} questions were asked in {span.words}", "stacked", labels,
              grouped(turns, "other models", arms.colours), "questions", marks,
              empty="No turn was captured in this time. Post turns to the log API, or ask through the chat endpoint."),
        Panel("by-adapter", "What each model and adapter did", shown=_by_adapter(arms, hours),
              empty="No turn was captured in this time."),
        Panel("latency", "Half of the answers came within the lower line, 95 % within the upper", "lines", labels,
              [Series("median, ms", [percentile(_all(c), 0.5) for c in cells]),
               Series("95 %, ms", [percentile(_all(c), 0.95) for c in cells])], "milliseconds", marks,
              empty="No turn of this time says how long it took.", note="From counts in bins: up to 12 % off."),
        Panel("quality", "Declined answers, and thumbs down among the thumbs", "lines", labels,
              [Series("declined, %", declined, "slate"), Series("thumbs down, %", down, "bad")],
              "percent", marks, empty="Nothing was declined, and nobody gave a thumb."),
    ]  # fmt: skip


def _by_adapter(arms: Arms, hours: Iterable[Traffic]) -> Table:
    groups: dict[tuple[str, str], list[Traffic]] = {}
    for hour in hours:
        groups.setdefault((hour.model, hour.adapter), []).append(hour)
    rows: list[list[Cell]] = []
    links: dict[int, str] = {}
    turn_list = reverse("admin:capture_turn_changelist")
    for (model, adapter), found in sorted(groups.items(), key=lambda pair: -sum(h.turns for h in pair[1]))[:MOST_ROWS]:
        turns, up, down = (sum(getattr(h, name) for h in found) for name in ("turns", "up", "down"))
        latencies = added([h.latencies for h in found])
        if model != OTHER_MODELS:
            links[len(rows)] = f"{turn_list}?{urlencode({'adapter': adapter} if adapter else {'model': model})}"
        rows.append([
            arms.name(model, adapter), arms.model(model), turns, share(sum(h.declined for h in found), turns),
            share(down, up + down), sum(h.escalated for h in found), _ms(percentile(latencies, 0.5)),
            _ms(percentile(latencies, 0.95)), sum(h.completion_tokens for h in found),
        ])  # fmt: skip
    columns = [
        "",
        "model",
        "turns",
        "declined",
        "thumbs down",
        "handed to a person",
        "median",
        "95 %",
        "tokens written",
    ]
    return Table(columns, rows, links)


def _marks(assistant: Assistant, span: Span) -> list[Mark]:
    rows = Promotion.objects.filter(assistant=assistant, at__gte=span.since, at__lt=span.until, action__in=_MARKED)
    rows = rows.select_related("to_adapter__run__dataset").order_by("at")[:50]
    return [Mark(span.label(row.at), f"{row.get_action_display()}: {row.to_adapter or 'base model'}") for row in rows]


def _all(hours: Sequence[Traffic]) -> list[int]:
    return added([hour.latencies for hour in hours])


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def _short(hits: int, total: int) -> str:
    return f"{hits / total * 100:.1f} %" if total else "–"
