"""Machine labels as the API lists them."""

from __future__ import annotations

import base64
import binascii
import uuid
from datetime import datetime
from typing import Any

from django.utils.timezone import is_naive

from annotations.machine.models import MachineKind, MachineLabel, MachineLabelQuerySet
from annotations.machine.receiving import turns_named
from assistants.models import Assistant
from capture.turn_filters import Query, bad, one, plain, whole_number

DEFAULT_LIMIT, MAX_LIMIT = 50, 200
PARAMETERS = ("cursor", "kind", "limit", "name", "turn", "version")


def list_labels(*, assistant: Assistant, query: Query) -> dict[str, Any]:
    """A page of machine labels, newest first: ``{"annotations": […], "next": cursor or None}``.

    Raises:
        assistants.errors.ApiError: 422, a parameter is unknown, given twice, or has a bad value.
    """
    for name, values in query.items():
        if name not in PARAMETERS:
            known = ", ".join(PARAMETERS)
            raise bad(name[:64] if name.isprintable() else "?", f"There is no such parameter; choose from {known}")
        if len(values) > 1:
            raise bad(name, "is given more than once")
    limit = whole_number("limit", one(query, "limit"), default=DEFAULT_LIMIT, maximum=MAX_LIMIT) or DEFAULT_LIMIT
    labels = _filtered(MachineLabel.objects.of(assistant), assistant, query)
    if cursor := one(query, "cursor"):
        labels = labels.older_than(*_read_cursor(cursor))
    rows = list(labels.newest_first().select_related("turn").only(*_FIELDS)[: limit + 1])
    more = len(rows) > limit
    return {
        "annotations": [label_json(label) for label in rows[:limit]],
        "next": _write_cursor(rows[limit - 1]) if more else None,
    }


_FIELDS = (
    "client_id", "kind", "name", "version", "verdict", "score", "reasons", "explanation", "created_at",
    "turn__client_id",
)  # fmt: skip


def label_json(label: MachineLabel) -> dict[str, Any]:
    return {
        "id": label.client_id,
        "turn": str(label.turn_id),
        "turn_client_id": label.turn.client_id,
        "kind": label.kind,
        "name": label.name,
        "version": label.version,
        "verdict": label.verdict or None,
        "score": label.score,
        "reasons": label.reasons,
        "explanation": label.explanation,
        "time": label.created_at.isoformat(),
    }


def _filtered(labels: MachineLabelQuerySet, assistant: Assistant, query: Query) -> MachineLabelQuerySet:
    kind = one(query, "kind")
    if kind is not None:
        if kind not in MachineKind.values:
            raise bad("kind", f"must be {' or '.join(MachineKind.values)}")
        labels = labels.filter(kind=kind)
    for name in ("name", "version"):
        value = one(query, name)
        if value is not None:
            labels = labels.filter(**{name: plain(name, value)})
    turn = one(query, "turn")
    if turn is not None:
        found = turns_named(assistant, [plain("turn", turn)])
        labels = labels.filter(turn__in=[row.pk for row in found.values()])
    return labels


def _write_cursor(label: MachineLabel) -> str:
    return base64.urlsafe_b64encode(f"{label.created_at.isoformat()}|{label.pk}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[datetime, uuid.UUID]:
    try:
        text, _, pk = base64.urlsafe_b64decode(cursor.encode()).decode().partition("|")
        moment = datetime.fromisoformat(text)
        if is_naive(moment):
            raise ValueError
        return moment, uuid.UUID(pk)
    except (ValueError, OverflowError, binascii.Error):
        raise bad("cursor", "must be the value of next in the page before") from None
