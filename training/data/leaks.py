"""The leak audit of a dataset: every row is read by the strict rules before the version counts as frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from assistants.models import Assistant
from capture.leaks import Audit, Row, TrustedTexts, context_texts, leaves
from capture.models import Turn
from privacy.leaks import AuditText
from training.data.candidates import Candidate
from training.models import Origin


def read_rows(found: Audit, assistant: Assistant, rows: Sequence[Candidate], *, first: int) -> None:
    """Reads one part of the rows, which are named by their position from ``first``: a few queries.

    Raises:
        privacy.findings.ScrubError: a row cannot be read, so nobody can say that it is clean.
    """
    trusted = TrustedTexts(assistant, (context for row in rows for context in row.contexts))
    names = _conversations(rows)
    found.read([_row(row, first + i, trusted, names) for i, row in enumerate(rows)])


def _conversations(rows: Sequence[Candidate]) -> dict[Any, str]:
    keys = {row.turn_id for row in rows if row.turn_id}
    return dict(Turn.objects.filter(pk__in=keys).values_list("pk", "conversation__external_id"))


def _row(row: Candidate, position: int, trusted: TrustedTexts, conversations: dict[Any, str]) -> Row:
    return Row(
        name=str(position),
        texts=list(_texts(row, trusted)),
        conversation=conversations.get(row.turn_id, ""),
        turn=str(row.turn_id or ""),
    )


def _texts(row: Candidate, trusted: TrustedTexts) -> Iterator[AuditText]:
    # What is written from documents says what documents say: their passages are there as they were loaded.
    own = row.origin == Origin.SYNTHETIC
    yield AuditText("question", row.question)
    for field, text in leaves("history", "history", row.history):
        yield AuditText(field, text)
    for place, sentence in enumerate(row.sentences):
        yield AuditText(f"response.{place}", sentence["text"])
    yield AuditText("rejected", row.rejected)
    for context in row.contexts:
        yield from context_texts(context, own or trusted.holds(context))
