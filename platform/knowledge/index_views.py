"""Pages of vector indexes: what became of one, and making it anew. Reached through `knowledge.retrieval_admin`."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from assistants.access import assistants_of, has_role
from assistants.work_admin import ADMINS
from knowledge.indexing import start_index
from knowledge.models import Chunk, VectorIndex
from knowledge.vector_indexes import EXACT_UP_TO


@require_POST
def rebuild(request: HttpRequest) -> HttpResponse:
    """Makes the index of ``assistant`` (its slug) anew; the old one serves meanwhile."""
    assistant = get_object_or_404(assistants_of(request.user, *ADMINS), slug=request.POST.get("assistant", ""))
    some = Chunk.objects.filter(assistant=assistant).values("pk")[: EXACT_UP_TO + 1]
    if some.count() <= EXACT_UP_TO:
        messages.info(request, f"{assistant} has at most {EXACT_UP_TO:,} chunks and is searched exactly, without one.")
        return HttpResponseRedirect(reverse("admin:knowledge_vectorindex_changelist"))
    actor: Any = request.user
    work = start_index(assistant=assistant, actor=actor)
    return HttpResponseRedirect(reverse("admin:knowledge_vectorindex_change", args=[work.pk]))


def about(request: HttpRequest) -> dict[str, Any]:
    """What the list says above its rows: the assistants that have, or had, an index, where one may make it anew."""
    made = VectorIndex.objects.filter(ef_search__isnull=False).values("assistant")
    return {"exact_up_to": EXACT_UP_TO, "large": assistants_of(request.user, *ADMINS).filter(pk__in=made)}


def index_page(request: HttpRequest, row: VectorIndex, panel: dict[str, Any]) -> HttpResponse:
    """One that `knowledge.retrieval_admin` found readable for this person."""
    # One that is still being made, or of which nothing came, replaces nothing.
    later = VectorIndex.objects.filter(assistant=row.assistant, pk__gt=row.pk, ef_search__isnull=False)
    context = {
        "title": str(row), "index": row, "panel": panel, "found": f"{100 * (row.recall or 0):.4g}",
        "latest": not later.exists(),
        "may_rebuild": not row.is_active and has_role(request.user, row.assistant, *ADMINS),
    }  # fmt: skip
    return TemplateResponse(request, "knowledge/index.html", {**admin.site.each_context(request), **context})
