"""Our own JSONL: what the log API takes, and what our export gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capture.imports.units import Converted, Payload, Refused
from capture.imports.values import content_id, is_missing
from capture.payloads import FeedbackItem, TurnItem

_KINDS = ("thumb", "rating", "correction", "comment", "escalation", "metric")
_OF_EXPORT = {"client_id", "masked", "declined", "policy_digest", "feedback"}
_FIELDS = TurnItem.model_fields.keys()
_OPINION = FeedbackItem.model_fields.keys()


def recognises(record: Mapping[str, Any]) -> bool:
    return {"question", "response"} <= record.keys() or ("turn" in record and record.get("kind") in _KINDS)


def convert(record: Any) -> Converted:
    """A turn, a turn of an export with its feedback, or one piece of feedback ({"turn", "kind", …}).

    Fields that the log API does not know are refused there. In an export, ``client_id`` is the id, and what the server
    adds (``masked``, ``declined``, …) is dropped: it is found again.

    Raises:
        Refused: not an object.
    """
    if not isinstance(record, Mapping):
        raise Refused("not an object")
    if "turn" in record and "kind" in record and "question" not in record:
        return Converted(feedback=[dict(record)])
    exported = "client_id" in record
    turn = {key: value for key, value in record.items() if not exported or key not in _OF_EXPORT}
    if exported:
        turn["id"] = record["client_id"]
        turn = {key: value for key, value in turn.items() if value is not None and key in _FIELDS}
        turn["contexts"] = [_without_empty(context) for context in _list(turn.get("contexts"))]
    elif "feedback" in turn:
        del turn["feedback"]
    if is_missing(turn.get("id")):
        turn["id"] = content_id("record", {key: value for key, value in turn.items() if key != "id"})
    opinions = [part for part in _list(record.get("feedback")) if isinstance(part, Mapping)]
    return Converted(turns=[turn], feedback=[_opinion(turn["id"], place, part) for place, part in enumerate(opinions)])


def _opinion(turn: Any, place: int, given: Mapping[str, Any]) -> Payload:
    found = {key: value for key, value in given.items() if key in _OPINION and not is_missing(value)}
    if found.get("metric") == "":  # as an export writes it for other kinds
        del found["metric"]
    found.setdefault("id", content_id("feedback", turn, place, found))
    return {**found, "turn": turn}


def _without_empty(context: Any) -> Any:
    """Parquet fills every field of every row; one without a value is one that was not there."""
    return {k: v for k, v in context.items() if v is not None} if isinstance(context, Mapping) else context


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
