"""`/metrics`: what capture is doing, for Prometheus. Counts and ages only."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Iterator
from datetime import datetime

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from assistants.models import Assistant
from capture.counting import flush_due
from capture.intake_numbers import Intake, intake_of
from capture.models import IntakeCount
from generation.engines import EngineError
from serving import measures

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-Ip")


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """With RATCHET_METRICS_TOKEN for whoever sends it as a bearer; without one for this machine alone."""
    if not _may_read(request):
        return HttpResponse("Not from here. Set RATCHET_METRICS_TOKEN, and send it as a bearer.\n", "text/plain", 403)
    flush_due()
    registry = CollectorRegistry()
    registry.register(_Capture())
    # Of the chat each web process counts its own answers: sum over them.
    content = generate_latest(registry) + generate_latest(measures.registry)
    return HttpResponse(content, content_type=CONTENT_TYPE_LATEST)


@require_safe
def engine_metrics(request: HttpRequest) -> HttpResponse:
    """What the engine counts: it listens where Prometheus cannot reach. Same rule as `metrics`."""
    if not _may_read(request):
        return HttpResponse("Not from here. Set RATCHET_METRICS_TOKEN, and send it as a bearer.\n", "text/plain", 403)
    if settings.RATCHET_OPENAI_BASE_URL:
        return HttpResponse("The server of RATCHET_OPENAI_BASE_URL has metrics of its own.\n", "text/plain", 404)
    from generation.client import default_client  # httpx: not for every command

    try:
        found = default_client(settings.RATCHET_ENGINE_URL, settings.RATCHET_ENGINE_KEY).metrics()
    except EngineError as error:
        return HttpResponse(f"{error}\n", "text/plain", 503)
    return HttpResponse(found, content_type=CONTENT_TYPE_LATEST)


def _may_read(request: HttpRequest) -> bool:
    if token := settings.RATCHET_METRICS_TOKEN:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
    # Behind a proxy on this machine everybody comes from this machine.
    if any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


class _Capture(Collector):
    def collect(self) -> Iterator[Metric]:
        intakes = intake_of(Assistant.objects.only("pk", "slug", "name"))
        yield _gauge(
            "quarantine_items", "Items in quarantine", intakes, "state",
            lambda intake: {"waiting": intake.waiting, "held": intake.held},
        )  # fmt: skip
        yield _plain("quarantine_bytes", "Encrypted bytes in quarantine", intakes, lambda intake: intake.size)
        yield _plain("quarantine_fullness", "Share of what may wait, 1 is full", intakes, lambda i: i.fullness)
        yield _plain(
            "quarantine_oldest_seconds",
            "Age of the oldest item that waits",
            intakes,
            lambda intake: _age(intake.oldest),
        )
        yield _plain("waiting_traces", "Traces that wait for the rest of their spans", intakes, lambda i: i.traces)
        yield _plain("waiting_spans", "Spans of such traces", intakes, lambda intake: intake.spans)
        yield _plain(
            "waiting_spans_oldest_seconds", "Age of the oldest of them", intakes, lambda i: _age(i.oldest_span)
        )
        yield _ever()


def _plain(name: str, help_text: str, intakes: list[Intake], value: Callable[[Intake], float]) -> Metric:
    family = GaugeMetricFamily(f"ratchet_{name}", f"{help_text}.", labels=["assistant"])
    for intake in intakes:
        family.add_metric([intake.assistant.slug], value(intake))
    return family


def _gauge(
    name: str, help_text: str, intakes: list[Intake], label: str, values: Callable[[Intake], dict[str, int]]
) -> Metric:
    family = GaugeMetricFamily(f"ratchet_{name}", f"{help_text}.", labels=["assistant", label])
    for intake in intakes:
        for which, value in values(intake).items():
            family.add_metric([intake.assistant.slug, which], value)
    return family


def _age(since: datetime | None) -> float:
    return max(0.0, (timezone.now() - since).total_seconds()) if since else 0.0


def _ever() -> Metric:
    """Kept in the database, so they go on rising whichever process is asked, and after it was started again."""
    family = CounterMetricFamily(
        "ratchet_intake",
        "Items (turns, feedback, updates) and refused requests; key is the beginning of the key.",
        labels=["assistant", "key", "event", "reason"],
    )
    rows = IntakeCount.objects.filter(minute=None).order_by("assistant__slug", "api_key__prefix", "event", "reason")
    for *labels, count in rows.values_list("assistant__slug", "api_key__prefix", "event", "reason", "count"):
        family.add_metric([label or "" for label in labels], count)
    return family
