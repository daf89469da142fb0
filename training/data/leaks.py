"""The leak audit of a dataset: every row is read by the strict rules before the version counts as frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from capture.leak_reports import LeakReport
from capture.leaks import CHUNK, Audit, Row, TrustedTexts, context_texts, leaves
from capture.models import Turn
from privacy.leaks import AuditText
from training.models import DatasetVersion, Example, Origin


def audit_rows(
    dataset: DatasetVersion, examples: Sequence[Example], *, content_hash: str, beat: Callable[[int], object]
) -> LeakReport:
    """The report on rows in memory, not yet saved. ``beat(rows read)`` is called between batches.

    Raises:
        privacy.findings.ScrubError: a row cannot be read, so nobody can say that it is clean.
    """
    found = Audit(dataset.assistant, str(dataset))
    for start in range(0, len(examples), CHUNK):
        part = examples[start : start + CHUNK]
        trusted = TrustedTexts(dataset.assistant, (c for example in part for c in example.contexts))
        names = _conversations(part)
        found.read([_row(example, trusted, names) for example in part])
        beat(min(start + CHUNK, len(examples)))
    return found.report(content_hash=content_hash, created_by=dataset.created_by)


def _conversations(examples: Sequence[Example]) -> dict[Any, str]:
    keys = {example.turn_id for example in examples if example.turn_id}
    return dict(Turn.objects.filter(pk__in=keys).values_list("pk", "conversation__external_id"))


def _row(example: Example, trusted: TrustedTexts, conversations: dict[Any, str]) -> Row:
    return Row(
        name=str(example.position),
        texts=list(_texts(example, trusted)),
        conversation=conversations.get(example.turn_id, ""),
        turn=str(example.turn_id or ""),
    )


def _texts(example: Example, trusted: TrustedTexts) -> Iterator[AuditText]:
    # What is written from documents says what documents say: their passages are there as they were loaded.
    own = example.origin == Origin.SYNTHETIC
    yield AuditText("question", example.question)
    for field, text in leaves("history", "history", example.history):
        yield AuditText(field, text)
    for place, sentence in enumerate(example.sentences):
        yield AuditText(f"response.{place}", sentence["text"])
    yield AuditText("rejected", example.rejected)
    for context in example.contexts:
        yield from context_texts(context, own or trusted.holds(context))
