"""Annotations as JSON lines, one label with its turn and its passages per line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from django.db.models import Prefetch, QuerySet

from annotations.models import Annotation, ContextMark
from assistants.models import Assistant
from capture import export_guard
from capture.models import Retrieval

CHUNK = 500


def export_lines(annotations: QuerySet[Annotation]) -> Iterator[str]:
    """Streams labels in the order given, `CHUNK` rows at a time.

    Raises:
        capture.export_guard.ExportBlocked: something in a batch leaks; nothing of the batch has left.
    """
    contexts = Retrieval.objects.select_related("passage").order_by("rank")
    rows = annotations.select_related("turn__assistant", "turn__conversation", "annotator", "queue").prefetch_related(
        Prefetch("turn__retrievals", queryset=contexts),
        Prefetch("marks", queryset=ContextMark.objects.select_related("retrieval")),
    )
    batch: list[Annotation] = []
    for label in rows.defer("turn__embedding").iterator(chunk_size=CHUNK):
        batch.append(label)
        if len(batch) == CHUNK:
            yield from _checked(batch)
            batch = []
    yield from _checked(batch)


def opened(lines: Iterator[str]) -> Iterator[str]:
    """The same lines, with the first made already: what is refused at the start is refused here.

    Raises:
        capture.export_guard.ExportBlocked: as `export_lines`.
    """
    return itertools.chain(list(itertools.islice(lines, 1)), lines)


def _checked(labels: list[Annotation]) -> Iterator[str]:
    """The lines of a batch, after the guards of its assistants have seen them."""
    records: dict[Assistant, list[dict[str, Any]]] = {}
    lines: list[str] = []
    for label in labels:
        record = export_record(label)
        records.setdefault(label.turn.assistant, []).append(record)
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    for assistant, own in records.items():
        export_guard.check(assistant, own)
    yield from lines


def export_record(label: Annotation) -> dict[str, Any]:
    """One label as a plain record."""
    turn = label.turn
    marks = {mark.retrieval.rank: mark.relevance for mark in label.marks.all()}
    return {
        "id": label.pk,
        "turn": str(turn.pk),
        "client_id": turn.client_id,
        "conversation": turn.conversation.external_id,
        "queue": label.queue.name if label.queue else None,
        "annotator": label.annotator.get_username(),
        "verdict": label.verdict,
        "reasons": label.reasons,
        "correction": label.correction,
        "note": label.note,
        "seconds": label.seconds,
        "created_at": label.created_at.isoformat(),
        "counts": label.replaced_by_id is None and label.withdrawn_at is None,
        "history": turn.history,
        "question": turn.question,
        "response": turn.response,
        "declined": turn.declined,
        "contexts": [
            {
                "rank": retrieval.rank,
                "title": retrieval.passage.title,
                "source": retrieval.source,
                "score": retrieval.score,
                "text": retrieval.passage.text,
                "relevance": marks.get(retrieval.rank),
            }
            for retrieval in turn.retrievals.all()
        ],
    }
