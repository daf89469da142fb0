"""Annotations on their way out: records of labels with their turn and passages, in batches that guards have seen.

Batches are read by key, one after the other. A cursor of the database would hold one snapshot and one connection for as
long as the slowest reader takes; this holds neither between batches, and what is erased meanwhile is not exported.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, cast
from uuid import UUID

from django.db.models import Prefetch, QuerySet

from annotations.models import Annotation, AnnotationQuerySet, ContextMark
from assistants.models import Assistant
from capture import export_guard
from capture.models import Retrieval

LABELS_AT_ONCE = 500
TURNS_AT_ONCE = 200


def export_lines(annotations: QuerySet[Annotation]) -> Iterator[str]:
    """JSON lines, one label each with its turn and its passages, in order of their ids; also labels that do not count.

    Raises:
        capture.export_guard.ExportBlocked: something in a batch leaks; nothing of the batch has left.
    """
    last = 0
    while batch := list(_readable(annotations).filter(pk__gt=last).order_by("pk")[:LABELS_AT_ONCE]):
        last = batch[-1].pk
        yield "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in checked(batch))


def export_turns(annotations: QuerySet[Annotation]) -> Iterator[list[list[dict[str, Any]]]]:
    """Batches of turns, each with the records of its labels that count, oldest first.

    Raises:
        capture.export_guard.ExportBlocked: as `export_lines`.
    """
    current = cast("AnnotationQuerySet", annotations).current()
    keys = current.order_by("turn_id").values_list("turn_id", flat=True).distinct()  # "turn" would mean its own order
    last: UUID | None = None
    while turns := list((keys if last is None else keys.filter(turn_id__gt=last))[:TURNS_AT_ONCE]):
        last = turns[-1]
        labels = list(_readable(current).filter(turn__in=turns).order_by("turn_id", "pk"))
        records = itertools.groupby(checked(labels), key=lambda record: record["turn"])
        yield [list(group) for _, group in records]


def opened(pieces: Iterator[str]) -> Iterator[str]:
    """The same pieces, with the first made already: what is refused at the start is refused here.

    Raises:
        capture.export_guard.ExportBlocked: as `export_lines`.
    """
    return itertools.chain(list(itertools.islice(pieces, 1)), pieces)


def checked(labels: list[Annotation]) -> list[dict[str, Any]]:
    """The records of a batch, after the guards of its assistants have seen them.

    Raises:
        capture.export_guard.ExportBlocked: one of them objects.
    """
    by_assistant: dict[Assistant, list[dict[str, Any]]] = {}
    records = []
    for label in labels:
        record = export_record(label)
        by_assistant.setdefault(label.turn.assistant, []).append(record)
        records.append(record)
    for assistant, own in by_assistant.items():
        export_guard.check(assistant, own)
    return records


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
        "suggested": label.suggested,
        "missed": [{"source": p.source, "title": p.title, "digest": p.digest} for p in label.missed.all()],
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


def _readable(annotations: QuerySet[Annotation]) -> QuerySet[Annotation]:
    """With all that a record needs, in a fixed number of queries."""
    contexts = Retrieval.objects.select_related("passage").order_by("rank")
    return (
        annotations.select_related("turn__assistant", "turn__conversation", "annotator", "queue")
        .prefetch_related(
            Prefetch("turn__retrievals", queryset=contexts),
            Prefetch("marks", queryset=ContextMark.objects.select_related("retrieval")),
            "missed",
        )
        .defer("turn__embedding")
    )
