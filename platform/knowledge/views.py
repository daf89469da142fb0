"""Try a search. Reached through `knowledge.admin`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from assistants.access import assistants_of, has_role
from assistants.work_admin import ADMINS, READERS
from generation.engines import EngineError
from generation.prompts import Message, split_sentences
from knowledge.configuration import SettingsRefused
from knowledge.models import Document
from knowledge.query import history_query
from knowledge.retrieval import RetrievalResult, retrieve

MAX_QUESTION = 1000


@dataclass(frozen=True)
class FoundSentence:
    """``place``: among the evidence, from 1; None when it was not offered."""

    text: str
    place: int | None
    similarity: float | None


@dataclass(frozen=True)
class FoundPassage:
    rank: int
    title: str
    source: str
    score: float
    document_url: str
    sentences: Sequence[FoundSentence]


@require_safe
def search_page(request: HttpRequest) -> HttpResponse:
    """``?q=`` the question, ``?before=`` the question before it, ``?assistant=`` its slug."""
    own = assistants_of(request.user, *READERS)
    if not own.exists():
        raise PermissionDenied("Only admins and reviewers of an assistant search its documents.")
    assistant = own.filter(slug=request.GET.get("assistant", "")).first() or own[0]
    question = request.GET.get("q", "").replace("\x00", " ").strip()[:MAX_QUESTION]
    before = request.GET.get("before", "").replace("\x00", " ").strip()[:MAX_QUESTION]
    context: dict[str, Any] = {
        "title": "Try a search", "assistants": own, "assistant": assistant, "question": question, "before": before,
        "documents": Document.objects.ready().filter(assistant=assistant).count(),
        "may_upload": has_role(request.user, assistant, *ADMINS),
    }  # fmt: skip
    if question:
        history: list[Message] = [{"role": "user", "content": before}] if before else []
        context["searched"] = history_query(question, history, assistant.glossary)
        try:
            result = retrieve(assistant=assistant, question=question, history=history)
        except (EngineError, SettingsRefused) as error:
            context["problem"] = str(error)
        else:
            context |= {"result": result, "passages": found(result)}
    return _page(request, "knowledge/search.html", context)


def found(result: RetrievalResult) -> list[FoundPassage]:
    """Passages in rank order with their sentences; those that would be offered to the model carry their place."""
    places = {(e.rank, e.sentence): (place, e.similarity) for place, e in enumerate(result.evidence, start=1)}
    return [
        FoundPassage(
            rank=passage.rank,
            title=passage.title,
            source=passage.source,
            score=passage.score,
            document_url=reverse("admin:knowledge_chunk_change", args=[passage.chunk_id]),
            sentences=[
                FoundSentence(text, *places.get((passage.rank, index), (None, None)))
                for index, text in enumerate(split_sentences(passage.text))
            ],
        )
        for passage in result.passages
    ]


def _page(request: HttpRequest, template: str, context: dict[str, Any]) -> TemplateResponse:
    return TemplateResponse(request, template, {**admin.site.each_context(request), **context})
