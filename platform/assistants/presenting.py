"""Small things that lists and pages of every room show alike: moments, excerpts, downloads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

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


def json_lines_response(rows: Iterable[Mapping[str, Any]], filename: str) -> StreamingHttpResponse:
    """A download with one JSON object on each line. ``filename`` is ours, never a person's text."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    response = StreamingHttpResponse(lines, content_type="application/x-ndjson; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response
