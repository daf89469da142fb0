"""What needs no test: shares of a window beside those of the dataset, and documents that changed since the training."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from annotations.languages import language_of
from assistants.models import Assistant
from capture.models import PLAYGROUND_TAG, Turn
from knowledge.models import Document
from serving.drift.sample import best_similarities
from training.models import DatasetVersion, Example

LOW = 0.05
"""A passage is called no good when only this share of the dataset's questions had a worse one."""
LANGUAGES_OF = 300
NAMED = 50


def behaviour(assistant: Assistant, since: datetime, until: datetime) -> dict[str, Any]:
    """Of all turns that users asked in the window: {"turns", "declined": share, "rated": turns with a thumb or a
    rating, "down": share of these}. One statement, over the index of the newest turns."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*), avg(declined::int), count(said.down), avg(said.down::int)
            FROM capture_turn AS turn
            LEFT JOIN LATERAL (
                SELECT bool_or(CASE given.kind WHEN 'thumb' THEN given.value < 0
                                               WHEN 'rating' THEN given.value <= 2 END) AS down
                FROM capture_feedback AS given WHERE given.turn_id = turn.id
            ) AS said ON true
            WHERE turn.assistant_id = %s AND turn.asked_at >= %s AND turn.asked_at < %s
                AND NOT (turn.tags @> ARRAY[%s]::varchar[] AND turn.api_key_id IS NULL)
            """,
            [assistant.pk, since, until, PLAYGROUND_TAG],
        )
        turns, declined, rated, down = cursor.fetchone()
    return {"turns": turns, "declined": _share(declined), "rated": rated, "down": _share(down)}


def passages(now: Sequence[UUID], before: Sequence[int]) -> dict[str, Any]:
    """How many questions found no good passage: {"limit": similarity, "now": share, "before": share, "n": of the
    window}; empty where either side has no similarities."""
    found = list(best_similarities(now).values())
    learnt = [
        max(float(row[2]) for row in evidence)
        for evidence in Example.objects.filter(pk__in=before).values_list("evidence", flat=True)
        if evidence
    ]
    if len(found) < 20 or len(learnt) < 20:
        return {}
    limit = sorted(learnt)[int(LOW * len(learnt))]
    return {
        "limit": round(limit, 3),
        "now": round(sum(value < limit for value in found) / len(found), 4),
        "before": round(sum(value < limit for value in learnt) / len(learnt), 4),
        "n": len(found),
    }


def wording(now: Sequence[UUID], before: Sequence[int]) -> dict[str, Any]:
    """Length in words and language: {"now"/"before": {"median_words", "long_words": 9 in 10 are shorter,
    "languages": {code: share}}}. Languages are guessed from the first 300 of each side."""
    asked = Turn.objects.filter(pk__in=now).order_by("pk").values_list("question", "metadata")
    learnt: list[tuple[str, Any]] = [(question, {}) for question in _questions(before)]
    return {"now": _words(list(asked)), "before": _words(learnt)}


def documents(assistant: Assistant, dataset: DatasetVersion) -> dict[str, Any]:
    """Of the documents that the dataset cites: {"cited", "changed": n, "gone": n, "paths": the first changed ones}."""
    cited = list(dataset.documents)
    rows = Document.objects.filter(assistant=assistant, path__in=cited).values_list("path", "updated_at", "superseded")
    there = {path: at > dataset.created_at or superseded for path, at, superseded in rows}
    changed = sorted(path for path, is_changed in there.items() if is_changed)
    gone = sorted(set(cited) - set(there))
    return {"cited": len(cited), "changed": len(changed), "gone": len(gone), "paths": [*changed, *gone][:NAMED]}


def _questions(rows: Sequence[int]) -> list[str]:
    return list(Example.objects.filter(pk__in=rows).order_by("pk").values_list("question", flat=True))


def _words(asked: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if not asked:
        return {}
    lengths = sorted(len(question.split()) for question, _ in asked)
    codes = Counter(
        language_of(metadata=metadata, question=question, response="") or "?"
        for question, metadata in asked[:LANGUAGES_OF]
    )
    total = sum(codes.values())
    return {
        "median_words": statistics.median(lengths),
        "long_words": lengths[int(0.9 * (len(lengths) - 1))],
        "languages": {code: round(n / total, 3) for code, n in codes.most_common(6)},
    }


def _share(value: Any) -> float | None:
    return None if value is None else round(float(value), 4)
