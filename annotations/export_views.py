"""Downloads of labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect

from annotations.export import export_lines, opened
from annotations.export_shapes import argilla_pieces, label_studio_pieces
from annotations.models import Annotation
from assistants.models import Assistant
from assistants.services import audit
from capture.export_guard import ExportBlocked
from capture.streaming import streamed


@dataclass(frozen=True)
class Format:
    title: str
    ending: str
    content_type: str
    pieces: Callable[[QuerySet[Annotation]], Iterator[str]]


FORMATS = {
    "jsonl": Format("JSON lines", "jsonl", "application/x-ndjson; charset=utf-8", export_lines),
    "argilla": Format("Argilla", "argilla.json", "application/json; charset=utf-8", argilla_pieces),
    "label-studio": Format("Label Studio", "label-studio.json", "application/json; charset=utf-8", label_studio_pieces),
}
DEFAULT = "jsonl"


def export_response(
    request: HttpRequest, rows: QuerySet[Annotation], *, name: str, target: str, back: str
) -> HttpResponseBase:
    """A download in the format that ``?format=`` names, noted in the audit trail of each assistant that it touches; to
    ``back`` with the reason, when the format is unknown or the leak audit objects.

    Args:
        name: of the file, without its ending.
        target: what the audit trail says was exported.
    """
    asked = request.GET.get("format", DEFAULT)
    if asked not in FORMATS:
        messages.error(request, f"There is no such format: choose one of {', '.join(FORMATS)}.")
        return HttpResponseRedirect(back)
    chosen = FORMATS[asked]
    try:
        pieces = opened(chosen.pieces(rows))
    except ExportBlocked as blocked:
        messages.error(request, str(blocked))
        return HttpResponseRedirect(back)
    counts = list(rows.order_by().values_list("turn__assistant").annotate(n=Count("pk")))
    by_assistant = Assistant.objects.in_bulk([key for key, _ in counts])
    for key, n in counts:
        audit(
            assistant=by_assistant[key], actor=cast("User", request.user), action="annotations.exported",
            target=target, details={"labels": n, "format": asked},
        )  # fmt: skip
    encoded = (piece.encode() for piece in pieces)
    return streamed(encoded, content_type=chosen.content_type, filename=f"{name}.{chosen.ending}")
