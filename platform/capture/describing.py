"""The log API for its description (OpenAPI): what each operation takes and answers, with examples.

Here and not at the views, which stay short; the shapes are those that the views check and answer with.
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from pydantic import RootModel, create_model

from capture.exporting import MAX_TURNS
from capture.likeness import MAX_NEAREST
from capture.payloads import FeedbackItem, TurnItem, UpdateItem
from capture.shapes import BatchAnswer, ItemAnswer, Problem, TurnPage, TurnShape
from capture.turn_filters import FEEDBACK, MAX_VALUE

_PROBLEM = "application/problem+json"

TURN = {
    "id": "web-4711",
    "conversation": "chat-82",
    "question": "What does leaving early cost?",
    "contexts": [
        {
            "title": "Leaving early",
            "source": "leaving.md",
            "score": 0.81,
            "text": "A fixed plan has an exit fee of £35. No fee is due in its last 49 days.",
        }
    ],
    "response": "A fixed plan has an exit fee of £35. [1]",
    "model": "our-bot-3",
    "latency_ms": 840,
}
THUMB = {"turn": "web-4711", "kind": "thumb", "value": -1}

_WHEN = {
    401: "No key, an unknown, revoked or expired one.",
    403: "The key lacks the scope.",
    404: "There is no such turn, or it has not been scrubbed yet (title “Not yet”).",
    409: "The id was used before with other content; nothing changed.",
    413: "Larger than 8 MB, or more than 1,000 items.",
    415: "Not a content type that is taken here.",
    422: "A field or parameter is not valid; `errors` names it.",
    429: "Too many requests; `Retry-After` says how long to wait.",
    501: "The server cannot write Parquet (pyarrow is missing).",
    503: "Database or engine do not answer, or too much waits; `Retry-After`.",
}


def problems(*statuses: int) -> dict[tuple[int, str], Any]:
    """Answers of these statuses, and of those that every operation has."""
    return {
        (status, _PROBLEM): OpenApiResponse(Problem, description=_WHEN[status])
        for status in sorted({401, 403, 429, 503, *statuses})
    }


def _query(name: str, description: str, kind: Any = str, **more: Any) -> OpenApiParameter:
    return OpenApiParameter(name, kind, description=description, **more)


_TEXT = {"type": "string", "maxLength": MAX_VALUE}
FILTERS = [
    _query("q", 'Words of question and answer, as in a web search: "exit fee" -meter', _TEXT),
    _query("since", "A date or a time in ISO 8601.", str),
    _query("until", "As since; excluded.", str),
    _query("adapter", "Exactly; empty is the base model.", _TEXT),
    _query("model", "Exactly.", _TEXT),
    _query("conversation", "Your id of it.", _TEXT),
    _query("tag", "Exactly; given several times, all of them.", {"type": "array", "items": _TEXT, "maxItems": 20}),
    _query("declined", "Whether the answer declined.", bool),
    _query("feedback", "Thumbs and ratings; any, none: all kinds but metrics.", str, enum=FEEDBACK),
    _query(
        "like",
        "A text, our id of a turn, or `turn:` and your id of one: the turns with the most similar questions, most "
        f"similar first, at most {MAX_NEAREST}.",
        {"type": "string", "minLength": 1, "maxLength": 1000},
    ),
]


def _limit(maximum: int, default: str) -> OpenApiParameter:
    return _query("limit", f"Default: {default}.", {"type": "integer", "minimum": 1, "maximum": maximum})


def _batch(item: type, name: str) -> dict[str, Any]:
    """Up to 1,000 items: as an array, as an object, or one per line."""
    return {
        "type": "array",
        "minItems": 1,
        "maxItems": 1000,
        "items": {"$ref": f"#/components/schemas/{item.__name__}"},
        "description": f'Also {{"{name}": […]}}.',
    }


_NAME = OpenApiParameter(
    "name", {"type": "string", "minLength": 1, "maxLength": 200}, "path", description="Ours or yours."
)
_UPDATE = create_model(
    "TurnUpdate",
    __config__=UpdateItem.model_config,
    __doc__=UpdateItem.__doc__,
    **{name: (info.annotation, info) for name, info in UpdateItem.model_fields.items() if name != "turn"},
)  # type: ignore[call-overload]
"""The address names the turn."""


class TurnUpdates(RootModel[list[UpdateItem]]):
    """Up to 1,000 updates, each of which names its turn. Also {"updates": […]}."""


post_turn = extend_schema(
    operation_id="turns_create",
    tags=["Log"],
    summary="Post one turn",
    description="201 created, 200 known already with the same content, 409 known with other content.",
    request={"application/json": TurnItem},
    responses={201: ItemAnswer, 200: ItemAnswer, **problems(409, 413, 415, 422)},
    examples=[
        OpenApiExample("A turn with one passage", TURN, request_only=True),
        OpenApiExample(
            "Stored", {"id": "web-4711", "status": "created"}, response_only=True, status_codes=["201", "200"]
        ),
    ],
)

list_turns = extend_schema(
    operation_id="turns_list",
    tags=["Read"],
    summary="List turns, newest first; or search them",
    description="All parameters must hold. With `like` the nearest come first, each with its similarity, and there is "
    "no next page.",
    parameters=[*FILTERS, _query("cursor", "`next` of the page before.", str), _limit(MAX_NEAREST, "50")],
    responses={200: TurnPage, **problems(422)},
)

post_turns = extend_schema(
    operation_id="turns_batch_create",
    tags=["Log"],
    summary="Post up to 1,000 turns",
    description="207 with one result per item, in order: created, duplicate, conflict or invalid. A bad item does not "
    "stop the others. The body may be gzipped.",
    request={"application/json": _batch(TurnItem, "turns"), "application/x-ndjson": OpenApiTypes.STR},
    responses={207: BatchAnswer, **problems(413, 415, 422)},
    examples=[OpenApiExample("Two turns", [TURN, {**TURN, "id": "web-4712"}], request_only=True,
                             media_type="application/json")],
)  # fmt: skip

get_turn = extend_schema(
    operation_id="turns_retrieve",
    tags=["Read"],
    summary="One turn, by our id or yours",
    description="With its passages, where the answer came from, what was masked, and its feedback.",
    parameters=[_NAME],
    responses={200: TurnShape, **problems(404)},
)

patch_turn = extend_schema(
    operation_id="turns_update",
    tags=["Log"],
    summary="Add what became known of a turn later",
    description="Measures, outcome, tags and metadata; what was asked, retrieved and answered never changes. 202: "
    "taken, and applied once it has been scrubbed; 200: known already.",
    parameters=[_NAME],
    request={"application/json": _UPDATE},
    responses={202: ItemAnswer, 200: ItemAnswer, **problems(404, 409, 413, 415, 422)},
    examples=[OpenApiExample("How it ended", {"outcome": "resolved", "latency_ms": 910}, request_only=True)],
)

patch_turns = extend_schema(
    operation_id="turns_batch_update",
    tags=["Log"],
    summary="Add what became known of up to 1,000 turns later",
    description="As for one turn; each item names its `turn`. 207 with one result per item, in order.",
    request={"application/json": TurnUpdates, "application/x-ndjson": OpenApiTypes.STR},
    responses={207: BatchAnswer, **problems(413, 415, 422)},
    examples=[OpenApiExample("How one ended", [{"turn": "web-4711", "outcome": "resolved"}], request_only=True,
                             media_type="application/json")],
)  # fmt: skip

export_turns = extend_schema(
    operation_id="turns_export",
    tags=["Read"],
    summary="All turns that the filters find, as a stream",
    description="Newest first. One turn per line as the list has them, or a Parquet file (metadata and masked as JSON "
    "text). A stream that breaks off has no regular end: the connection is closed.",
    parameters=[
        _query("format", "Default: jsonl.", str, enum=("jsonl", "parquet")),
        *FILTERS,
        _limit(MAX_TURNS, "all"),
    ],
    responses={
        (200, "application/x-ndjson"): OpenApiTypes.STR,
        (200, "application/vnd.apache.parquet"): OpenApiTypes.BINARY,
        **problems(409, 422, 501),
    },
)

post_feedback = extend_schema(
    operation_id="feedback_create",
    tags=["Log"],
    summary="Post feedback on a turn",
    description='An object; or up to 1,000 in an array, as lines of JSON, or as `{"feedback": […]}`: then the answer '
    "is 207 with one result per item.",
    request={"application/json": FeedbackItem, "application/x-ndjson": OpenApiTypes.STR},
    responses={201: ItemAnswer, 200: ItemAnswer, 207: BatchAnswer, **problems(404, 409, 413, 415, 422)},
    examples=[OpenApiExample("Thumbs down", THUMB, request_only=True, media_type="application/json")],
)
