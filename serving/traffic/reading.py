"""Traffic of a page's span: by the hour where it shows hours, else by the day."""

from __future__ import annotations

from django.db.models import QuerySet
from django.utils import timezone

from assistants.models import Assistant
from serving.overview.panels import Span
from serving.traffic.models import TrafficDay, TrafficHour


def traffic_of(assistant: Assistant, span: Span) -> QuerySet[TrafficHour] | QuerySet[TrafficDay]:
    """Unordered. `Traffic.moment` says of which hour or day a row is."""
    if span.hourly:
        return TrafficHour.objects.filter(assistant=assistant, hour__gte=span.since, hour__lt=span.until)
    first, end = timezone.localdate(span.since), timezone.localdate(span.until)
    return TrafficDay.objects.filter(assistant=assistant, day__gte=first, day__lt=end)
