"""The API of documents for its description (OpenAPI)."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from pydantic import BaseModel

from knowledge.api.shapes import (
    Decided,
    Decision,
    Deleted,
    DocumentDetail,
    DocumentPage,
    DocumentQuery,
    UploadQuery,
    UploadShape,
)

_PROBLEM = "application/problem+json"
_WHEN = {
    401: "No key, an unknown, revoked or expired one.",
    403: "The key lacks the scope.",
    404: "There is no such document or upload.",
    409: "The upload is being worked on, or nothing of it waits.",
    413: "Larger than an upload or a document may be.",
    415: "Not a content type that is taken here.",
    422: "A field or parameter is not valid; `errors` names it.",
    429: "Too many requests; `Retry-After` says how long to wait.",
    503: "The database does not answer; `Retry-After`.",
}


def problems(*statuses: int) -> dict[tuple[int, str], Any]:
    """Answers of these statuses, and of those that every operation has. Their shape is described beside the log API."""
    shape = {"$ref": "#/components/schemas/Problem"}
    return {
        (status, _PROBLEM): OpenApiResponse(shape, description=_WHEN[status])
        for status in sorted({401, 403, 429, 503, *statuses})
    }


def parameters(model: type[BaseModel]) -> list[OpenApiParameter]:
    """Of a query, from its model."""
    described = model.model_json_schema()["properties"]
    found = []
    for name, schema in described.items():
        kinds = [kind for kind in schema.pop("anyOf", []) if kind.get("type") != "null"]
        plain = {key: value for key, value in schema.items() if key in ("type", "enum", "minimum", "maximum")}
        kind = {**plain, **(kinds[0] if kinds else {})}
        default = schema.get("default")
        description = schema.get("description", "") or (f"Default: {default}." if default else "")
        found.append(OpenApiParameter(name, kind, description=description))
    return found


_ID = OpenApiParameter("id", {"type": "integer", "minimum": 1}, "path")
_PATH = OpenApiParameter(
    "path", {"type": "string", "minLength": 1, "maxLength": 300}, "path",
    description="Of the document, with its folders: tariffs/fees.md",
)  # fmt: skip
_TEXT = OpenApiParameter("text", bool, description="Also the text, as it was masked.")
_FILES = {
    "multipart/form-data": {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "Repeat it."},
            "path": {
                "type": "array", "items": {"type": "string"},
                "description": "What each file is called, in the same order; else the names of the files.",
            },
            "folder": {"type": "string", "description": "Put before every path."},
            "preview": {"type": "boolean", "description": "Only show what would be taken."},
        },
    }
}  # fmt: skip

post_documents = extend_schema(
    operation_id="documents_create",
    tags=["Documents"],
    summary="Load files",
    description="Markdown, text, HTML, PDF, Word, CSV, or .zip archives of them. A path that is there already becomes "
    "its next version; the same text changes nothing. 202: taken, and read in the background; ask for the upload.",
    request=_FILES,
    responses={202: UploadShape, **problems(413, 415, 422)},
)
list_documents = extend_schema(
    operation_id="documents_list",
    tags=["Documents"],
    summary="List documents",
    parameters=parameters(DocumentQuery),
    responses={200: DocumentPage, **problems(422)},
)
get_document = extend_schema(
    operation_id="documents_retrieve",
    tags=["Documents"],
    summary="One document with its versions",
    parameters=[_ID, _TEXT],
    responses={200: DocumentDetail, **problems(404, 422)},
)
delete_document = extend_schema(
    operation_id="documents_destroy",
    tags=["Documents"],
    summary="Delete a document with its chunks and versions",
    parameters=[_ID],
    responses={200: Deleted, **problems(404)},
)
put_at = extend_schema(
    operation_id="documents_at_update",
    tags=["Documents"],
    summary="Create or replace the document at a path",
    description="The body is the file itself; the ending of the path says of which kind. 202 as when files are loaded.",
    parameters=[_PATH],
    request={"application/octet-stream": OpenApiTypes.BINARY},
    responses={202: UploadShape, **problems(413, 422)},
)
get_at = extend_schema(
    operation_id="documents_at_retrieve",
    tags=["Documents"],
    summary="The document at a path",
    parameters=[_PATH, _TEXT],
    responses={200: DocumentDetail, **problems(404, 422)},
)
delete_at = extend_schema(
    operation_id="documents_at_destroy",
    tags=["Documents"],
    summary="Delete the document at a path",
    parameters=[_PATH],
    responses={200: Deleted, **problems(404, 422)},
)
get_upload = extend_schema(
    operation_id="uploads_retrieve",
    tags=["Documents"],
    summary="How far an upload is, and what became of each file",
    parameters=[_ID, *parameters(UploadQuery)],
    responses={200: UploadShape, **problems(404, 422)},
)
cancel_upload = extend_schema(
    operation_id="uploads_cancel",
    tags=["Documents"],
    summary="Stop an upload; what was loaded stays",
    parameters=[_ID],
    responses={202: UploadShape, **problems(404, 409)},
)
decide_upload = extend_schema(
    operation_id="uploads_decide",
    tags=["Documents"],
    summary="Take or discard the files of a preview",
    parameters=[_ID, OpenApiParameter("act", str, "path", enum=["take", "discard"])],
    request={"application/json": Decision},
    responses={200: Decided, **problems(404, 409, 413, 415, 422)},
    examples=[OpenApiExample("All that wait", {}, request_only=True)],
)
