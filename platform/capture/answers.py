"""What the log API answers to items that were posted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rest_framework.response import Response

from assistants.errors import ApiError, FieldError
from capture.bodies import Batch
from capture.receiving import ItemResult, Status

_STATUSES: tuple[Status, ...] = ("created", "duplicate", "conflict", "invalid")


class ItemRefused(ApiError):
    """One item was refused, and counted as such."""


def take(batch: Batch, receive: Callable[[Sequence[Any]], list[ItemResult]]) -> list[ItemResult]:
    """Hands over what could be read; one result per item of the batch, in order."""
    if not batch.unreadable:
        return receive(batch.items)
    results = iter(receive([item for place, item in enumerate(batch.items) if place not in batch.unreadable]))
    return [
        ItemResult("", "invalid", [batch.unreadable[place]]) if place in batch.unreadable else next(results)
        for place in range(len(batch.items))
    ]


def one(result: ItemResult, *, created: int = 201) -> Response:
    """Raises:
    assistants.errors.ApiError: 404 there is no such turn, 409 a conflict, 422 not valid.
    """
    if result.status == "conflict":
        raise ItemRefused(409, detail="This id was used before with other content.", errors=result.errors)
    if result.status == "invalid":
        first = result.errors[0]
        unknown = first["field"] == "turn" and "no such" in first["message"]
        place = f"{first['field']}: " if first["field"] else ""
        raise ItemRefused(404 if unknown else 422, detail=f"{place}{first['message']}", errors=result.errors)
    body = {"id": result.client_id, "status": result.status}
    return Response(body, status=created if result.status == "created" else 200)


def many(results: Sequence[ItemResult], lines: Sequence[int] = ()) -> Response:
    """207 with one row per item; ``lines``: where each of them stood."""
    counts = Counter(result.status for result in results)
    rows = [_row(place, result) for place, result in enumerate(results)]
    for row, line in zip(rows, lines, strict=False):
        row["line"] = line
    return Response({"results": rows, **{status: counts[status] for status in _STATUSES}}, 207)


def _row(place: int, result: ItemResult) -> dict[str, Any]:
    row: dict[str, Any] = {"item": place, "id": result.client_id, "status": result.status}
    if result.errors:
        errors: list[FieldError] = [{**error, "item": place} for error in result.errors]
        row["errors"] = errors
    return row
