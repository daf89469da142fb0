"""The figures of the home page as CSV."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.views.decorators.http import require_safe

from assistants.access import require_role
from assistants.models import Assistant
from serving.dashboards.loop import READERS, loop_counts, stages, week
from serving.overview.panels import Table, as_csv


@require_safe
def loop_csv(request: HttpRequest, slug: str) -> HttpResponse:
    """For those who see the whole loop; others see no counts on the page either."""
    assistant = get_object_or_404(Assistant, slug=slug)
    require_role(request.user, assistant, *READERS)
    counts = loop_counts(assistant)
    rows: list[list[str | int]] = [[stage.name, stage.count, stage.unit, stage.trouble] for stage in stages(counts, ())]
    rows += [["Last 7 days", number, name, ""] for name, number in week(assistant, counts).items()]
    answer = HttpResponse(
        as_csv(Table(("Station", "Count", "Of", "Stuck"), rows)), content_type="text/csv; charset=utf-8"
    )
    answer["Content-Disposition"] = f'attachment; filename="{slug}-loop-{timezone.localdate()}.csv"'
    return answer
