"""Documents, their chunks and uploads in the admin."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.contrib.auth.models import User
from django.contrib.postgres.search import SearchQuery
from django.db.models import Count, Max, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import URLPattern, path
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST
from unfold.decorators import display

from assistants.access import assistants_of
from assistants.presenting import excerpt, json_lines_response, moment
from assistants.scoped_admin import ScopedAdmin
from assistants.services import audit
from assistants.work_admin import ADMINS, READERS, WorkPageAdmin
from knowledge import document_views, upload_views, views
from knowledge.models import Chunk, Document, Upload
from knowledge.retrieval_admin import RetrievalCheckAdmin, RetrievalConfigurationAdmin
from knowledge.services import delete_document, mark_superseded

__all__ = ["ChunkAdmin", "DocumentAdmin", "RetrievalCheckAdmin", "RetrievalConfigurationAdmin", "UploadAdmin"]

EXPORT_LIMIT = 10_000
MAX_FOLDERS = 100


class FolderFilter(SimpleListFilter):
    """The tree of paths, one level at a time: the folders in the chosen one, and the way back up."""

    title = "folder"
    parameter_name = "folder"
    TOP = "-"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        here = _folder_of(request)
        parents = _trail(here)
        found = [(parent, f"{'· ' * depth}{name}/") for depth, (parent, name) in enumerate(parents)]
        for below, name, count, failed in _folders(request, here):
            note = f" · ✗ {failed}" if failed else ""
            found.append((below, f"{'· ' * len(parents)}{name}/ · {count}{note}"))
        return [(self.TOP, "(no folder)"), *found]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Document]) -> QuerySet[Document]:
        value = self.value()
        if not value:
            return queryset
        if value == self.TOP:
            return queryset.exclude(path__contains="/")
        return queryset.filter(path__startswith=f"{value.strip('/')}/")


def _folder_of(request: HttpRequest) -> str:
    here = request.GET.get(FolderFilter.parameter_name, "").replace("\x00", "").strip("/")
    return "" if here == FolderFilter.TOP else here


def _trail(here: str) -> list[tuple[str, str]]:
    """(path, name) of each folder from the top down to ``here``."""
    paths = accumulate(here.split("/"), lambda a, b: f"{a}/{b}") if here else ()
    return [(path, path.rpartition("/")[2]) for path in paths]


def _folders(request: HttpRequest, here: str) -> list[tuple[str, str, int, int]]:
    """(path, name, documents, of them failed) of the folders in ``here``, read once for a request."""
    if not hasattr(request, "_folders"):
        own = Document.objects.filter(assistant__in=assistants_of(request.user, *READERS))
        rows = own.folders_in(here)[:MAX_FOLDERS]
        request._folders = [(f"{here}/{name}" if here else name, name, n, bad) for name, n, bad in rows]  # type: ignore[attr-defined]
    found: list[tuple[str, str, int, int]] = request._folders  # type: ignore[attr-defined]
    return found


@admin.register(Document)
class DocumentAdmin(ScopedAdmin):
    """What the assistants may know. Loading makes versions; nothing is edited by hand."""

    when_empty = "Documents are uploaded here, by REST, or with `manage.py load_documents`."
    view_roles = READERS
    add_roles = ADMINS
    delete_roles = ADMINS
    list_display = ("named", "path", "version", "state_label", "chunk_count", "note", "assistant", "updated")
    list_display_links = ("named",)
    list_filter = ("state", "superseded", FolderFilter, "masking", "assistant")
    list_select_related = ("assistant",)
    list_before_template = "knowledge/document_list_top.html"
    list_per_page = 50
    search_fields = ("title", "path")
    search_help_text = "Words of the title, the path or the text"
    show_full_result_count = False
    actions = ("set_superseded", "set_in_force", "export")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Document]:
        rows: QuerySet[Document] = super().get_queryset(request)
        return rows.defer("text").annotate(n_chunks=Count("chunks"))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Document], search_term: str
    ) -> tuple[QuerySet[Document], bool]:
        """Title and path by their letters, the text by its words: chunks have an index of them."""
        words = search_term.replace("\x00", " ").strip()
        found, duplicates = super().get_search_results(request, queryset, words)
        if not words:
            return found, duplicates
        asked = SearchQuery(words[:500], config="english", search_type="websearch")
        own = assistants_of(request.user, *READERS)
        saying = Chunk.objects.filter(assistant__in=own, words=asked).values("document")
        return queryset.filter(Q(pk__in=found.order_by().values("pk")) | Q(pk__in=saying)), False

    @display(description="Title", ordering="title")
    def named(self, document: Document) -> str:
        return excerpt(str(document), 80)

    @display(description="State", ordering="state", label={"ready": "success", "failed": "danger", "pending": "info"})
    def state_label(self, document: Document) -> tuple[str, str]:
        sign = {"ready": "✓ ", "failed": "✗ "}.get(document.state, "")
        return document.state, sign + document.get_state_display()

    @display(description="Chunks", ordering="n_chunks")
    def chunk_count(self, document: Any) -> int:
        return document.n_chunks

    @display(description="Note")
    def note(self, document: Document) -> str:
        masked = f"masked: {document.masked_words}" if document.masked else ""
        superseded = "◌ superseded" if document.superseded else ""
        return document.error or " · ".join(filter(None, [superseded, masked, excerpt(document.notes)]))

    @display(description="Updated", ordering="updated_at")
    def updated(self, document: Document) -> SafeString | str:
        return moment(document.updated_at)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = assistants_of(request.user, *READERS)
        documents = Document.objects.filter(assistant__in=own)
        numbers = documents.aggregate(
            n=Count("pk"), failed=Count("pk", filter=Q(state="failed")), updated=Max("updated_at")
        )
        context = {
            "numbers": {**numbers, "chunks": Chunk.objects.filter(assistant__in=own).count()},
            "uploads": Upload.objects.filter(assistant__in=own).annotate(n=Count("files"))[:3],
            "assistants": own,
            "trail": _trail(_folder_of(request)),
            "folders": _folders(request, _folder_of(request)),
            "may_upload": self.has_add_permission(request),
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        own = [
            path("search/", staff(views.search_page), name="knowledge_document_search"),
            path("<int:pk>/supersede/", staff(document_views.supersede), name="knowledge_document_supersede"),
            path(
                "<int:pk>/versions/<int:number>/",
                staff(document_views.version_page),
                name="knowledge_document_version",
            ),
        ]
        return [*own, *super().get_urls()]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return upload_views.upload_page(request)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return document_views.document_page(request, object_id)

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """Documents and a count: Django's own list would name every chunk."""
        keys = [document.pk for document in objs]
        chunks = Chunk.objects.filter(document__in=keys).count()
        allowed = Document.objects.filter(pk__in=keys, assistant__in=assistants_of(request.user, *ADMINS)).count()
        missing = {"document"} if allowed < len(keys) else set()
        return [f"{d} ({d.path})" for d in objs], {"documents": len(keys), "chunks": chunks}, missing, []

    def delete_model(self, request: HttpRequest, obj: Document) -> None:
        delete_document(document=obj, actor=_actor(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Document]) -> None:
        for document in queryset.select_related("assistant"):
            delete_document(document=document, actor=_actor(request))

    @admin.action(description="Mark as superseded")
    def set_superseded(self, request: HttpRequest, documents: QuerySet[Document]) -> None:
        self._mark(request, documents, superseded=True)

    @admin.action(description="Mark as in force")
    def set_in_force(self, request: HttpRequest, documents: QuerySet[Document]) -> None:
        self._mark(request, documents, superseded=False)

    def _mark(self, request: HttpRequest, documents: QuerySet[Document], *, superseded: bool) -> None:
        allowed = documents.filter(assistant__in=assistants_of(request.user, *ADMINS)).select_related("assistant")
        count = mark_superseded(documents=list(allowed), superseded=superseded, actor=_actor(request))
        word = "superseded" if superseded else "in force"
        self.message_user(request, f"{count} document{'' if count == 1 else 's'} changed to {word}.", messages.SUCCESS)

    @admin.action(description="Export as JSON lines")
    def export(self, request: HttpRequest, documents: QuerySet[Document]) -> HttpResponseBase | None:
        own = list(assistants_of(request.user, *ADMINS))
        keys = list(documents.filter(assistant__in=own).order_by().values_list("pk", flat=True)[: EXPORT_LIMIT + 1])
        if not keys or len(keys) > EXPORT_LIMIT:
            why = f"At most {EXPORT_LIMIT:,} documents at a time; filter the list." if keys else "Admins may export."
            self.message_user(request, why, messages.ERROR)
            return None
        chosen = Document.objects.filter(pk__in=keys).order_by("path")
        for assistant in own:
            if count := chosen.filter(assistant=assistant).count():
                audit(
                    assistant=assistant, actor=_actor(request), action="documents.exported",
                    target=f"{count} documents",
                )  # fmt: skip
        columns = (
            "path", "title", "version", "state", "error", "notes", "superseded", "superseded_by__path", "media_type",
            "size", "pages", "digest", "masked", "via", "created_at", "updated_at", "text",
        )  # fmt: skip
        times = ("created_at", "updated_at")
        rows = chosen.values(*columns).iterator(chunk_size=100)
        told = ({**row, **{name: row[name].isoformat() for name in times}} for row in rows)
        return json_lines_response(told, "documents.jsonl")


@admin.register(Chunk)
class ChunkAdmin(ScopedAdmin):
    """What retrieval finds: pieces of documents, searched by word."""

    when_empty = "Chunks are made of documents when they are loaded."
    view_roles = READERS
    list_display = ("said", "headed", "path", "tokens")
    list_display_links = ("said",)
    list_filter = ("assistant",)
    list_select_related = ("document",)
    list_per_page = 50
    search_fields = ("text", "document__path")
    search_help_text = "Words of the text, or of the path"
    show_full_result_count = False
    ordering = ("document__path", "position")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Chunk]:
        rows: QuerySet[Chunk] = super().get_queryset(request)
        return rows.defer("embedding", "sentence_embeddings", "words", "document__text")

    @display(description="Text")
    def said(self, chunk: Chunk) -> str:
        return excerpt(chunk.text)

    @display(description="Headings")
    def headed(self, chunk: Chunk) -> str:
        return excerpt(chunk.title, 90)

    @display(description="Document", ordering="document__path")
    def path(self, chunk: Chunk) -> str:
        return chunk.document.path

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return document_views.chunk_page(request, object_id)


@admin.register(Upload)
class UploadAdmin(WorkPageAdmin):
    """What was handed in, and what became of each file."""

    list_display = ("__str__", "assistant", "file_count", "state_label", "how_far", "created_by", "when", "took")
    list_filter = ("state", "assistant")
    list_select_related = ("assistant", "created_by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Upload]:
        rows: QuerySet[Upload] = super().get_queryset(request)
        return rows.annotate(n_files=Count("files"))

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        own = [
            path("<int:pk>/decide/", staff(require_POST(self.decide_view)), name="knowledge_upload_decide"),
            path("<int:pk>/files/<int:number>/", staff(self.file_view), name="knowledge_upload_file"),
        ]
        return [*own, *super().get_urls()]

    def decide_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        return upload_views.decide(request, self.readable(request, pk))

    def file_view(self, request: HttpRequest, pk: int, number: int) -> HttpResponse:
        return upload_views.file_page(request, self.readable(request, pk), number)

    @display(description="Files", ordering="n_files")
    def file_count(self, upload: Any) -> int:
        return upload.n_files

    def cancel(self, work: Upload, actor: Any) -> bool:
        asked = work.request_cancel()
        if asked:
            audit(assistant=work.assistant, actor=actor, action="upload.cancelled", target=str(work))
        return asked

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        upload = self.readable(request, object_id)
        return upload_views.uploaded_page(request, upload, self.panel(request, upload))


def _actor(request: HttpRequest) -> User | None:
    return request.user if isinstance(request.user, User) else None
