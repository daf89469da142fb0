"""Pages of documents: hand files in, read a document as it was cut, try a search. Reached through `knowledge.admin`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from assistants.access import assistants_of, has_role, require_role
from assistants.models import Assistant
from assistants.policies import rules_of
from assistants.work_admin import ADMINS, READERS
from generation.engines import EngineError
from generation.prompts import Message, split_sentences
from knowledge.models import Chunk, Document, Upload
from knowledge.query import history_query
from knowledge.retrieval import RetrievalResult, retrieve
from knowledge.scrubbing import masking_digest
from knowledge.services import MAX_BYTES, MEDIA_TYPES, mark_superseded
from knowledge.uploads import MAX_FILES, MAX_TOTAL_BYTES, IncomingFile, UploadRefused, start_upload

CHUNKS_PER_PAGE = 40
MAX_QUESTION = 1000


class ManyFiles(forms.ClearableFileInput):
    allow_multiple_selected = True


class ManyFilesField(forms.FileField):
    """What is wrong with one file is said on its row of the upload, not on the form."""

    def clean(self, data: Any, initial: Any = None) -> list[Any]:
        return data if isinstance(data, list) else [data] if data else []


class UploadForm(forms.Form):
    """Files or a folder of them; browsers send a folder's paths beside its files (knowledge/upload.js)."""

    assistant = forms.ModelChoiceField(Assistant.objects.none(), empty_label=None)
    documents = ManyFilesField(
        required=False,
        label="Files",
        widget=ManyFiles(attrs={"multiple": True, "accept": ",".join(MEDIA_TYPES)}),
        help_text="Markdown, text or HTML.",
    )
    tree = ManyFilesField(
        required=False,
        label="Or a folder",
        widget=ManyFiles(attrs={"multiple": True, "webkitdirectory": True}),
        help_text="With all that is in it; paths are kept.",
    )
    folder = forms.CharField(
        required=False,
        max_length=200,
        label="Put them into",
        help_text="A folder such as tariffs/2026. May stay empty.",
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["assistant"]
        field.queryset = assistants_of(user, *ADMINS)


def upload_page(request: HttpRequest) -> HttpResponse:
    user: Any = request.user
    if not assistants_of(user, *ADMINS).exists():
        raise PermissionDenied("Only admins of an assistant load documents.")
    form = UploadForm(request.POST or None, request.FILES or None, user=user, initial=request.GET.dict())
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            upload = start_upload(
                assistant=values["assistant"], files=_incoming(request), folder=values["folder"], created_by=user
            )
        except UploadRefused as refused:
            form.add_error(None, str(refused))
        else:
            return HttpResponseRedirect(reverse("admin:knowledge_upload_change", args=[upload.pk]))
    limits = {"files": MAX_FILES, "each": MAX_BYTES // 1_000_000, "together": MAX_TOTAL_BYTES // 1_000_000}
    return _page(request, "knowledge/upload.html", {"title": "Upload documents", "form": form, "limits": limits})


def _incoming(request: HttpRequest) -> list[IncomingFile]:
    """What is too large is not read into memory: its row only needs the size."""
    tree = request.FILES.getlist("tree")
    paths = request.POST.getlist("tree_path")
    named = [(str(file.name), file) for file in request.FILES.getlist("documents")]
    named += [(paths[i] if len(paths) == len(tree) else str(file.name), file) for i, file in enumerate(tree)]
    return [
        IncomingFile(path=name, size=file.size or 0, data=file.read() if (file.size or 0) <= MAX_BYTES else b"")
        for name, file in named
    ]


def uploaded_page(request: HttpRequest, upload: Upload, panel: dict[str, Any]) -> HttpResponse:
    """What became of each file of an upload that `knowledge.admin` found readable for this person."""
    files = upload.files.defer("data").select_related("document")
    counts = dict.fromkeys(("loaded", "unchanged", "failed", "waiting"), 0)
    for file in files:
        counts[file.outcome] += 1
    context = {"title": str(upload), "upload": upload, "panel": panel, "files": files, "counts": counts}
    return _page(request, "knowledge/uploaded.html", context)


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
    context = {
        "title": str(document),
        "document": document,
        "page": page,
        "total": total,
        "query": query,
        "folder": document.path.rpartition("/")[0],
        "may_change": has_role(request.user, document.assistant, *ADMINS),
        "outdated": _is_outdated(document),
    }
    return _page(request, "knowledge/document.html", context)


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
    """Marks a document as superseded, or (``in_force=1``) as in force again."""
    document = _document(request, str(pk))
    require_role(request.user, document.assistant, *ADMINS)
    actor: Any = request.user
    superseded = not request.POST.get("in_force")
    mark_superseded(documents=[document], superseded=superseded, actor=actor)
    word = "superseded: no questions are written from it" if superseded else "in force"
    messages.success(request, f"{document} is {word}.")
    return HttpResponseRedirect(reverse("admin:knowledge_document_change", args=[pk]))


# --- Try a search -----------------------------------------------------------------------------------------------------


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
    }  # fmt: skip
    if question:
        history: list[Message] = [{"role": "user", "content": before}] if before else []
        context["searched"] = history_query(question, history, assistant.glossary)
        try:
            result = retrieve(assistant=assistant, question=question, history=history)
        except EngineError as error:
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


# --- Shared -----------------------------------------------------------------------------------------------------------


def _document(request: HttpRequest, pk: str) -> Document:
    if not pk.isdecimal():
        raise Http404("There is no such document.")
    document = get_object_or_404(Document.objects.select_related("assistant"), pk=pk)
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
