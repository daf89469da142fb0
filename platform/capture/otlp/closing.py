"""Traces that are whole, or have waited long enough, become quarantined turns; in the worker.

The turn is taken in, and the spans are destroyed, in one transaction: killed at any moment, nothing is lost or doubled.
The turn has the id of its trace, so that the same trace, exported once more, is a duplicate. What cannot be read stays
held until a person decides; so does what nobody has foreseen.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from assistants.models import ApiKey, Assistant
from assistants.services import audit
from assistants.vault import PayloadUnreadable
from capture import room
from capture.imports.units import Converted, Refused
from capture.models import WaitingSpans
from capture.otlp.joining import NOTHING, converted
from capture.otlp.spans import Span
from capture.receiving import ItemResult, receive_feedback, receive_turns
from capture.sealing import content_of

logger = logging.getLogger(__name__)

BATCH = 64
BATCH_BYTES = 16 * 1024 * 1024
UNREADABLE = "No key opens these spans. Put the old key behind the new one in RATCHET_DATA_KEY."


@dataclass
class CloseReport:
    """``turns`` and ``feedback`` that were new; ``refused`` traces that could become no turn; ``silent`` traces that
    held nothing of a conversation; ``held`` until a person decides; ``closed`` traces in all; ``more``: time ran out.
    """

    turns: int = 0
    feedback: int = 0
    refused: int = 0
    silent: int = 0
    held: int = 0
    closed: int = 0
    more: bool = False

    @property
    def sentence(self) -> str:
        counts = f"{self.turns} turns, {self.feedback} feedback, {self.refused} refused, {self.held} held"
        return f"{counts}, {self.silent} without a conversation" + (", more waiting" if self.more else "")


@dataclass
class _Closing:
    """Traces of one assistant that were locked and opened."""

    assistant: Assistant
    converted: list[tuple[str, int | None, Converted]] = field(default_factory=list)
    done: list[int] = field(default_factory=list)


def close_traces(*, seconds: float | None = None) -> CloseReport:
    """Closes what is due, batch by batch, until nothing is or ``seconds`` are over."""
    report = CloseReport()
    end = time.monotonic() + seconds if seconds is not None else None
    while batches := list(_batches()):
        before = report.closed
        for assistant_id, traces in batches:
            _close(Assistant.objects.get(pk=assistant_id), traces, report)
        if report.closed == before:  # another worker has them
            return report
        if end is not None and time.monotonic() > end:
            report.more = True
            return report
    return report


def _batches() -> Iterator[tuple[int, list[str]]]:
    """(assistant, traces) of the longest waiting, as many as are opened at a time; of none whose quarantine is full,
    so that what comes too fast stays where it is until its own bound is reached, and is refused at the door then."""
    chosen: dict[int, list[str]] = {}
    size = 0
    due = WaitingSpans.objects.exclude(assistant__in=room.full_assistants()).due(timezone.now())
    for row in due[:BATCH]:
        size += row["bytes"]
        if chosen and size > BATCH_BYTES:
            break
        chosen.setdefault(row["assistant_id"], []).append(row["trace"])
    yield from chosen.items()


@transaction.atomic
def _close(assistant: Assistant, traces: Collection[str], report: CloseReport) -> None:
    """Rows that another worker closes just now are left to it."""
    rows = WaitingSpans.objects.filter(assistant=assistant, trace__in=traces).order_by("pk")
    by_trace: dict[str, list[WaitingSpans]] = {}
    for row in rows.select_for_update(skip_locked=True, of=("self",)):
        by_trace.setdefault(row.trace, []).append(row)
    closing = _Closing(assistant)
    for trace, found in by_trace.items():
        _open(closing, trace, found, report)
        report.closed += 1
    _take(closing, report)
    WaitingSpans.objects.filter(pk__in=closing.done).delete()


def _open(closing: _Closing, trace: str, rows: list[WaitingSpans], report: CloseReport) -> None:
    keys = [row.pk for row in rows]
    try:
        found = converted(trace, _spans(rows))
    except PayloadUnreadable:
        _hold(trace, keys, UNREADABLE, report)
    except Refused as refused:
        closing.done += keys
        if refused.reason == NOTHING:
            report.silent += 1
        else:
            report.refused += 1
            logger.warning("Trace %s became no turn: %s.", trace, refused.reason)
    except Exception as error:
        _hold(trace, keys, f"The spans cannot be joined ({type(error).__name__}).", report)
    else:
        closing.done += keys
        closing.converted.append((trace, rows[0].api_key_id, found))
        if found.notes:
            logger.info("Trace %s: %s.", trace, "; ".join(found.notes))


def _spans(rows: Iterable[WaitingSpans]) -> Iterator[Span]:
    for row in rows:
        yield from json.loads(content_of(row.payload))


def _hold(trace: str, keys: list[int], sentence: str, report: CloseReport) -> None:
    WaitingSpans.objects.filter(pk__in=keys).update(error=sentence)
    report.held += 1
    logger.warning("Trace %s is held: %s", trace, sentence)


def _take(closing: _Closing, report: CloseReport) -> None:
    keys = ApiKey.objects.in_bulk({key for _, key, _ in closing.converted if key})
    for api_key in [*keys.values(), None]:
        mine = [(trace, found) for trace, key, found in closing.converted if keys.get(key or 0) == api_key]
        turns = [(trace, turn) for trace, found in mine for turn in found.turns]
        feedback = [(trace, item) for trace, found in mine for item in found.feedback]
        if turns:
            results = receive_turns(assistant=closing.assistant, api_key=api_key, items=[turn for _, turn in turns],
                                    client="otlp")  # fmt: skip
            report.turns += _count(turns, results, report)
        if feedback:
            given = [item for _, item in feedback]
            results = receive_feedback(assistant=closing.assistant, api_key=api_key, items=given)
            report.feedback += _count(feedback, results, report)


def _count(items: list[tuple[str, Any]], results: Iterable[ItemResult], report: CloseReport) -> int:
    """How many were new. What is wrong with the others is logged without any of the text."""
    created = 0
    for (trace, _), result in zip(items, results, strict=True):
        created += result.status == "created"
        if result.status == "invalid":
            report.refused += 1
            wrong = "; ".join(f"{error['field']}: {error['message']}" for error in result.errors)
            logger.warning("Something of trace %s was refused: %s.", trace, wrong)
    return created


@transaction.atomic
def retry_spans(*, assistant: Assistant, items: Collection[int], actor: User | None, reason: str = "") -> int:
    """Lets held spans be joined once more, with all that is held of their traces; how many rows."""
    held = WaitingSpans.objects.held().filter(assistant=assistant)
    traces = set(held.filter(pk__in=items).values_list("trace", flat=True))
    count = held.filter(trace__in=traces).update(error="")
    if count:
        audit(
            assistant=assistant, actor=actor, action="spans.retried", target=f"{count} rows", reason=reason,
            details={"traces": sorted(traces)},
        )  # fmt: skip
        from capture.jobs import enqueue_close

        transaction.on_commit(enqueue_close)
    return count


@transaction.atomic
def delete_spans(*, assistant: Assistant, items: Collection[int], actor: User | None, reason: str = "") -> int:
    """Destroys waiting or held spans for good; how many rows."""
    rows = WaitingSpans.objects.filter(assistant=assistant, pk__in=items)
    count = rows.delete()[0]
    if count:
        audit(
            assistant=assistant, actor=actor, action="spans.deleted", target=f"{count} rows", reason=reason,
            details={"items": sorted(items)},
        )  # fmt: skip
    return count
