"""Passages that retrieval missed, in the admin: questions with what should have been found, to measure retrieval by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.utils.safestring import SafeString
from unfold.decorators import display

from annotations.models import MissedPassage
from assistants.models import Assistant, Role
from assistants.presenting import moment
from assistants.scoped_admin import OwnRowsFilter, ScopedAdmin
from assistants.services import audit
from assistants.viewing import AuditedViews
from capture import export_guard
from capture.streaming import streamed

BATCH = 500


@admin.register(MissedPassage)
class MissedPassageAdmin(AuditedViews, ScopedAdmin):
    """Of labels that stand: what was replaced or taken back is not data."""

    when_empty = "Passages that annotators name as missing from what was retrieved."
    viewed_as = "missed_passage"
    assistant_path = "annotation__turn__assistant"
    view_roles = (Role.REVIEWER.value, Role.ADMIN.value)
    list_display = ("question", "passage", "source", "there", "annotator", "added_at")
    list_filter = (("annotation__queue", OwnRowsFilter), ("annotation__created_at", admin.DateFieldListFilter))
    list_select_related = ("annotation__turn__assistant", "annotation__annotator", "chunk")
    list_per_page = 50
    show_full_result_count = False
    search_fields = ("annotation__turn__question", "title", "source", "annotation__annotator__username")
    ordering = ("-pk",)
    actions = ("export_selected",)
    fields = ("question", "passage", "source", "digest", "text", "annotator", "added_at")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request).filter(annotation__replaced_by=None, annotation__withdrawn_at=None)
        return rows.defer(
            "annotation__turn__embedding", "annotation__turn__words", "chunk__embedding", "chunk__sentence_embeddings"
        )

    @display(description="Question")
    def question(self, missed: MissedPassage) -> str:
        return missed.annotation.turn.question[:90]

    @display(description="Passage that was missed")
    def passage(self, missed: MissedPassage) -> str:
        return missed.title or missed.source

    @display(description="Still in the knowledge base", boolean=True)
    def there(self, missed: MissedPassage) -> bool:
        return missed.chunk_id is not None

    @display(description="Text")
    def text(self, missed: MissedPassage) -> str:
        return missed.chunk.text if missed.chunk else "The document was loaded anew or taken away since."

    @display(description="Added by")
    def annotator(self, missed: MissedPassage) -> str:
        return missed.annotation.annotator.get_username()

    @display(description="Added", ordering="annotation__created_at")
    def added_at(self, missed: MissedPassage) -> SafeString | str:
        return moment(missed.annotation.created_at)

    @admin.action(description="Export as JSON lines")
    def export_selected(self, request: HttpRequest, rows: QuerySet[MissedPassage]) -> HttpResponseBase | None:
        """Question, history and the passage of each; nothing leaves when the leak audit objects."""
        try:
            lines = list(missed_lines(rows))
        except export_guard.ExportBlocked as blocked:
            messages.error(request, str(blocked))
            return None
        counts = rows.order_by().values_list("annotation__turn__assistant").annotate(n=Count("pk"))
        by_assistant = Assistant.objects.in_bulk([key for key, _ in counts])
        for key, n in counts:
            audit(
                assistant=by_assistant[key], actor=cast("User", request.user), action="missed_passages.exported",
                details={"passages": n},
            )  # fmt: skip
        encoded = (line.encode() for line in lines)
        return streamed(encoded, content_type="application/x-ndjson; charset=utf-8", filename="missed-passages.jsonl")


def missed_lines(rows: QuerySet[MissedPassage]) -> Iterator[str]:
    """One record a line: {turn, question, history, source, title, digest, text}; ``text`` is null where the document
    has been loaded anew since.

    Raises:
        capture.export_guard.ExportBlocked: something in it leaks.
    """
    records: dict[Assistant, list[dict[str, Any]]] = {}
    for missed in rows.iterator(chunk_size=BATCH):
        turn = missed.annotation.turn
        records.setdefault(turn.assistant, []).append(
            {
                "turn": str(turn.pk),
                "question": turn.question,
                "history": turn.history,
                "source": missed.source,
                "title": missed.title,
                "digest": missed.digest,
                "text": missed.chunk.text if missed.chunk else None,
            }
        )
    for assistant, own in records.items():
        export_guard.check(assistant, own)
        yield from (json.dumps(record, ensure_ascii=False) + "\n" for record in own)
