"""`GET /api/v1/turns/export`: the turns that the filters of the list find, all of them, as a stream."""

from __future__ import annotations

from typing import ClassVar

from django.http import StreamingHttpResponse
from rest_framework.request import Request

from assistants.models import Scope
from capture import describing
from capture.api import LogView
from capture.exporting import CONTENT_TYPES, FORMATS, MAX_TURNS, Export, open_export
from capture.likeness import MAX_NEAREST, likeness_of, nearest
from capture.models import Turn
from capture.streaming import streamed
from capture.turn_filters import bad, one, read_filters, whole_number


class TurnExportView(LogView):
    scopes: ClassVar[dict[str, str]] = {"GET": Scope.READ}

    @describing.export_turns
    def get(self, request: Request) -> StreamingHttpResponse:
        key = self.key(request)
        query = dict(request.query_params.lists())
        filters = read_filters(query, also=("format", "like", "limit"))
        form = one(query, "format") or "jsonl"
        if form not in FORMATS:
            raise bad("format", f"must be one of {', '.join(FORMATS)}")
        like = one(query, "like")
        most = MAX_TURNS if like is None else MAX_NEAREST
        limit = whole_number("limit", one(query, "limit"), default=None, maximum=most)
        turns = filters.apply(Turn.objects.of(key.assistant))
        told = filters.for_audit()
        ordered = None
        if like is not None:
            told["like"] = f"given, {len(like)} characters"
            among = Turn.objects.of(key.assistant)
            likeness = likeness_of(like, among=among, glossary=key.assistant.glossary)
            ordered = [near.turn for near in nearest(turns, likeness, limit=limit or MAX_NEAREST)]
        if limit is not None:
            told["limit"] = limit
        export = Export(turns=turns, format=form, api_key=key, told=told, limit=limit, ordered=ordered)
        return streamed(open_export(export), content_type=CONTENT_TYPES[form], filename=f"turns.{form}")
