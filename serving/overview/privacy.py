"""Privacy: what was masked, what waits for a decision, what was erased, what the audits found."""

from __future__ import annotations

from django.db.models import Count, Q, Sum
from django.db.models.functions import TruncDate, TruncHour
from django.urls import reverse

from assistants.models import Assistant, AuditEvent
from capture.models import IntakeCount, LeakReport, Quarantine, UncertainMask
from serving.models import Erasure
from serving.overview.panels import Cell, Overview, Panel, Series, Span, Table, Tile, by_label, grouped
from serving.traffic.reading import traffic_of

_WATCHED = ("quarantine.", "review.", "policy.", "erasure.", "leak", "export.", "turns.exported", "rescrub")


def overview(assistant: Assistant, span: Span) -> Overview:
    return Overview("Privacy", _tiles(assistant, span), _panels(assistant, span))


def _tiles(assistant: Assistant, span: Span) -> list[Tile]:
    held = Quarantine.objects.held().filter(assistant=assistant).count()
    review = UncertainMask.objects.open().filter(assistant=assistant).count()
    erased = Erasure.objects.filter(assistant=assistant, state=Erasure.State.SUCCEEDED, finished_at__gte=span.since)
    erasures = erased.exclude(confirmed_at=None).count()
    blocked = LeakReport.objects.blocking().filter(assistant=assistant).count()
    return [
        Tile("Held", f"{held:,}", "could not be scrubbed; nobody can read them", "amber" if held else "good",
             f"{_list('capture_quarantine')}?state__exact=held"),
        Tile("To review", f"{review:,}", "masks that the policy is not sure of", "amber" if review else "",
             _list("capture_uncertainmask")),
        Tile("Erasures", f"{erasures:,}", f"in {span.words}", link=_list("serving_erasure")),
        Tile("Leak audits that block", f"{blocked:,}", "a dataset or an export waits", "bad" if blocked else "good",
             _list("capture_leakreport")),
    ]  # fmt: skip


def _panels(assistant: Assistant, span: Span) -> list[Panel]:
    masked = traffic_of(assistant, span).exclude(masked={}).values_list("hour" if span.hourly else "day", "masked")
    found = by_label(span, ((moment, kind, n) for moment, kinds in masked for kind, n in kinds.items()))
    total = sum(value or 0 for values in found.values() for value in values)
    return [
        Panel("masked", f"{total:,.0f} values were masked in questions, answers and passages", "stacked", span.labels,
              grouped(found, "other types"), "values", empty="Nothing was masked in this time.",
              note="By the time at which the question was asked."),
        _intake(assistant, span),
        _audits(assistant),
        _acts(assistant, span),
    ]  # fmt: skip


def _intake(assistant: Assistant, span: Span) -> Panel:
    cut = TruncHour("minute") if span.hourly else TruncDate("minute")
    rows = (
        IntakeCount.objects.filter(assistant=assistant, minute__gte=span.since, minute__lt=span.until)
        .order_by().annotate(moment=cut).values_list("moment", "event").annotate(n=Sum("count"))
    )  # fmt: skip
    names = {event.value: event.label for event in IntakeCount.Event}
    found = by_label(span, ((moment, names[event], n) for moment, event, n in rows))
    return Panel(
        "intake", "What came in, was scrubbed, refused or held", "lines", span.labels,
        [Series(name, values) for name, values in found.items()], "items",
        empty="Nothing came in in this time.", note="Minutes are kept for a while only: the page Intake has totals.",
    )  # fmt: skip


def _audits(assistant: Assistant) -> Panel:
    rows: list[list[Cell]] = []
    links: dict[int, str] = {}
    for report in LeakReport.objects.filter(assistant=assistant).order_by("-created_at")[:15]:
        links[len(rows)] = reverse("admin:capture_leakreport_change", args=[report.pk])
        state = "let through" if report.overridden_at else report.get_verdict_display()
        hits = ", ".join(f"{n} × {kind}" for kind, n in sorted(report.counts.items()))
        rows.append([report.subject, state, hits or "–", report.texts, f"{report.created_at:%Y-%m-%d %H:%M}"])
    table = Table(["", "verdict", "hits", "texts read", "when"], rows, links)
    return Panel("audits", "The newest leak audits", shown=table, empty="Nothing was frozen or exported yet.")


def _acts(assistant: Assistant, span: Span) -> Panel:
    """Who did what with what is private: counts by act, the rows stand in the audit trail."""
    wanted = Q()
    for prefix in _WATCHED:
        wanted |= Q(action__startswith=prefix)
    rows = (
        AuditEvent.objects.filter(wanted, assistant=assistant, at__gte=span.since).order_by()
        .values_list("action", "actor_name").annotate(n=Count("pk")).order_by("-n")[:40]
    )  # fmt: skip
    base = _list("assistants_auditevent")
    links = {n: f"{base}?q={action}" for n, (action, _, _) in enumerate(rows)}
    table = Table(["", "who", "times"], [[action, who, n] for action, who, n in rows], links)
    return Panel("acts", "Decisions, exports and erasures", shown=table, empty="Nobody decided anything in this time.")


def _list(name: str) -> str:
    return reverse(f"admin:{name}_changelist")
