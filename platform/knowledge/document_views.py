"""Pages of one document: as it was cut, and what it was before. Reached through `knowledge.admin`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from assistants.access import has_role, require_role
from assistants.models import Assistant
from assistants.policies import rules_of
from assistants.work_admin import ADMINS, READERS
from knowledge.models import Chunk, Document
from knowledge.scrubbing import masking_digest
from knowledge.services import mark_superseded

CHUNKS_PER_PAGE = 40
VERSIONS_SHOWN = 30
TEXT_SHOWN = 100_000
MAX_COMPARED = 3_000
"""Lines of each text: comparing takes time with the square of their number."""


@require_safe
def document_page(request: HttpRequest, pk: str) -> HttpResponse:
    """Text and chunks as retrieval sees them. ``?q=`` only chunks with these words."""
    document = _document(request, pk)
    chunks = document.chunks.defer("embedding", "sentence_embeddings", "words")
    total = chunks.count()
    query = request.GET.get("q", "").replace("\x00", " ").strip()[:200]
    if query:
        chunks = chunks.filter(text__icontains=query)
    page = Paginator(chunks, CHUNKS_PER_PAGE).get_page(request.GET.get("page"))
    versions = list(document.versions.select_related("created_by").defer("text")[: VERSIONS_SHOWN + 1])
    context = {
        "title": str(document),
        "document": document,
        "page": page,
        "total": total,
        "query": query,
        "folder": document.path.rpartition("/")[0],
        "may_change": has_role(request.user, document.assistant, *ADMINS),
        "outdated": _is_outdated(document),
        "text": document.text[:TEXT_SHOWN],
        "text_length": len(document.text),
        "versions": versions[:VERSIONS_SHOWN],
        "more_versions": len(versions) > VERSIONS_SHOWN,
        "replaces": list(document.supersedes.only("pk", "path")[:20]),
    }
    return _page(request, "knowledge/document.html", context)


@require_safe
def version_page(request: HttpRequest, pk: int, number: int) -> HttpResponse:
    """What a version said, and what the next one changed in it."""
    document = _document(request, str(pk))
    version = get_object_or_404(document.versions.select_related("created_by"), number=number)
    newer = document.versions.filter(number__gt=number).order_by("number").first()
    is_newest = number == document.version
    text = document.text if is_newest else version.text
    following = "" if newer is None else (document.text if newer.number == document.version else newer.text)
    context = {
        "title": f"{document}, version {number}",
        "document": document,
        "version": version,
        "newer": newer,
        "older": document.versions.filter(number__lt=number).order_by("-number").only("number").first(),
        "text": text[:TEXT_SHOWN],
        "is_newest": is_newest,
        "changes": list(_changes(text, following)) if text and following else [],
        "comparable": bool(text and following) and _is_short(text) and _is_short(following),
    }
    return _page(request, "knowledge/version.html", context)


@require_safe
def chunk_page(request: HttpRequest, pk: str) -> HttpResponse:
    """A chunk is shown at its place in the document."""
    if not pk.isdecimal():
        raise Http404("There is no such chunk.")
    chunk = get_object_or_404(Chunk.objects.only("document_id", "assistant", "position"), pk=pk)
    _require_reader(request, chunk.assistant)
    number = chunk.document.chunks.filter(position__lt=chunk.position).count() // CHUNKS_PER_PAGE + 1
    url = reverse("admin:knowledge_document_change", args=[chunk.document_id])
    return HttpResponseRedirect(f"{url}?page={number}#chunk-{chunk.pk}")


@require_POST
def supersede(request: HttpRequest, pk: int) -> HttpResponse:
    """Marks a document as superseded, ``by`` the path of another, or (``in_force=1``) as in force again."""
    document = _document(request, str(pk))
    require_role(request.user, document.assistant, *ADMINS)
    actor: Any = request.user
    back = HttpResponseRedirect(reverse("admin:knowledge_document_change", args=[pk]))
    superseded = not request.POST.get("in_force")
    path = request.POST.get("by", "").replace("\x00", "").strip()[:500]
    by = None
    if superseded and path:
        by = Document.objects.filter(assistant=document.assistant, path=path).exclude(pk=document.pk).first()
        if by is None:
            messages.error(request, "There is no other document with this path. Give it as it stands in the list.")
            return back
    mark_superseded(documents=[document], superseded=superseded, by=by, actor=actor)
    word = "superseded: no questions are written from it" if superseded else "in force"
    messages.success(request, f"{document} is {word}.")
    return back


def _changes(before: str, after: str) -> Iterator[tuple[str, str]]:
    """("+", line), ("-", line), or (" ", line) with three lines around each change; nothing for very long texts."""
    if not (_is_short(before) and _is_short(after)):
        return
    rows = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3)
    for place, row in enumerate(rows):
        if place > 2 or (place == 2 and not row.startswith("@@")):  # before: names of files, and where it begins
            yield ("@", "…") if row.startswith("@@") else (row[:1], row[1:])


def _is_short(text: str) -> bool:
    return text.count("\n") <= MAX_COMPARED and len(text) <= 10 * TEXT_SHOWN


def _document(request: HttpRequest, pk: str) -> Document:
    if not pk.isdecimal():
        raise Http404("There is no such document.")
    found = Document.objects.select_related("assistant", "loaded_by", "superseded_by")
    document = get_object_or_404(found, pk=pk)
    _require_reader(request, document.assistant)
    return document


def _is_outdated(document: Document) -> bool:
    """Whether it was loaded under another privacy policy than the one that counts now."""
    try:
        return bool(document.masking_digest) and document.masking_digest != masking_digest(rules_of(document.assistant))
    except ValueError:  # written by a release that knew other settings
        return True


def _require_reader(request: HttpRequest, assistant: Assistant) -> None:
    """A stranger learns nothing, not even that the row is there."""
    if not has_role(request.user, assistant, *READERS):
        raise Http404("There is no such document.")


def _page(request: HttpRequest, template: str, context: dict[str, Any]) -> TemplateResponse:
    return TemplateResponse(request, template, {**admin.site.each_context(request), **context})
