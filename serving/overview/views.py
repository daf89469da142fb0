"""The overview pages, and each of their tables as CSV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from assistants.access import assistants_of
from assistants.models import Assistant, Role
from serving.overview import data, labels, live, privacy
from serving.overview.panels import RANGES, Overview, Span, as_csv

DEFAULT_DAYS = 7


@dataclass(frozen=True)
class Page:
    title: str
    make: Callable[[Assistant, Span], Overview]
    roles: tuple[str, ...]


PAGES = {
    "live": Page("Live", live.overview, (Role.ADMIN, Role.REVIEWER)),
    "labels": Page("Labels", labels.overview, (Role.ADMIN, Role.REVIEWER)),
    "data": Page("Data", data.overview, (Role.ADMIN, Role.REVIEWER)),
    "privacy": Page("Privacy", privacy.overview, (Role.ADMIN, Role.PRIVACY)),
}


@require_safe
def choose(request: HttpRequest, page: str) -> HttpResponse:
    """The page of the first assistant that this person may see it of."""
    found = assistants_of(request.user, *_page(page).roles).order_by("name").first()
    if found is None:
        raise PermissionDenied
    return redirect("dashboards:overview", page=page, slug=found.slug)


@require_safe
def overview(request: HttpRequest, page: str, slug: str) -> HttpResponse:
    """``?days=`` is one of `RANGES`; ``?csv=KEY`` gives the table of that panel."""
    wanted = _page(page)
    own = list(assistants_of(request.user, *wanted.roles).order_by("name"))
    assistant = next((one for one in own if one.slug == slug), None)
    if assistant is None:
        raise PermissionDenied
    days = request.GET.get("days", "")
    span = Span.last(int(days) if days.isdecimal() and int(days) in RANGES else DEFAULT_DAYS)
    made = wanted.make(assistant, span)
    if key := request.GET.get("csv"):
        return _csv(made, key, f"{slug}-{page}-{key}-{span.days}d.csv")
    context = {
        **admin.site.each_context(request),
        "title": f"{made.title} of {assistant.name}",
        "overview": made, "assistant": assistant, "assistants": own, "span": span, "ranges": RANGES, "page": page,
        "pages": [(key, one.title) for key, one in PAGES.items() if _may(request, one, assistant)],
        "here": reverse("dashboards:overview", args=[page, slug]),
    }  # fmt: skip
    return render(request, "serving/overview.html", context)


def _page(name: str) -> Page:
    if name not in PAGES:
        raise Http404
    return PAGES[name]


def _may(request: HttpRequest, page: Page, assistant: Assistant) -> bool:
    from assistants.access import has_role

    user = request.user
    return bool(user.is_superuser) or has_role(user, assistant, *page.roles)


def _csv(made: Overview, key: str, name: str) -> HttpResponse:
    table = made.table(key)
    if table is None:
        raise Http404
    answer = HttpResponse(as_csv(table), content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer
