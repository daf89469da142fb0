"""Small things that lists and pages of every room show alike: moments, excerpts, downloads."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

EXCERPT = 110


def excerpt(text: str, length: int = EXCERPT) -> str:
    """The first words, on one line."""
    line = " ".join(text[: length * 2].split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def moment(at: datetime | None) -> SafeString | str:
    """How long ago, with the exact time on hover; a dash where nothing has happened yet."""
    if at is None:
        return "–"
    return format_html(
        '<time datetime="{}" title="{}">{} ago</time>',
        at.isoformat(), at.strftime("%Y-%m-%d %H:%M:%S %Z"), timesince(at, depth=1),
    )  # fmt: skip


class PiecewiseResponse(StreamingHttpResponse):
    """Of a synchronous iterator, which Django would collect whole before it sends the first byte of it."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces: Any = self.streaming_content
        while (piece := await sync_to_async(lambda: next(pieces, None))()) is not None:
            yield piece


def json_lines_response(rows: Iterable[Mapping[str, Any]], filename: str) -> StreamingHttpResponse:
    """A download with one JSON object on each line. ``filename`` is ours, never a person's text."""
    response = PiecewiseResponse(_lines(rows), content_type="application/x-ndjson; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response


def _lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A hundred at a time: each piece goes to the event loop and back."""
    rest = iter(rows)
    while part := list(islice(rest, 100)):
        yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
