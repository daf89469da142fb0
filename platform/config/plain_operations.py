"""The addresses that are plain views, for the description of the API: traces and the OpenAI-compatible chat.

They have the shapes of other people's protocols, so Django REST framework has no part in them and its schema generator
does not see them.
"""

from __future__ import annotations

from typing import Any

from serving.wire import ChatRequest

_REF = "#/components/schemas/{model}"
_KEY: list[dict[str, list[str]]] = [{"ApiKey": []}]
_OBJECT = {"type": "object", "additionalProperties": True}
_OTLP = ("application/x-protobuf", "application/json")
_OPENAI_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_COMPLETION = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "chat.completion"},
        "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {"type": "array", "items": _OBJECT},
        "usage": _OBJECT,
    },
}
_MODELS = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": _OBJECT}},
}


def with_plain_views(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A hook of drf-spectacular: the description with these operations in it."""
    chat = ChatRequest.model_json_schema(ref_template=_REF)
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(chat.pop("$defs", {}))
    schemas["ChatRequest"] = chat
    schemas["OpenAIError"] = _OPENAI_ERROR
    paths = result["paths"]
    paths["/v1/traces"] = {"post": _traces()}
    paths["/v1/chat/completions"] = {"post": _chat()}
    paths["/v1/models"] = {"get": _models()}
    return result


def _traces() -> dict[str, Any]:
    kinds = {
        "application/x-protobuf": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {"schema": _OBJECT},
    }
    said = {400: "Not such a message.", 401: "No valid key.", 403: "The key lacks the scope log.", 413: "Too large.",
            415: "Another encoding.", 429: "Too many requests.", 503: "Too much waits; Retry-After."}  # fmt: skip
    return {
        "operationId": "traces_create",
        "tags": ["Log"],
        "summary": "OpenTelemetry spans (OTLP over HTTP); also at /api/v1/traces",
        "description": "An ExportTraceServiceRequest, plain or with gzip; answers and errors have the shapes of OTLP.",
        "security": _KEY,
        "requestBody": {"required": True, "content": kinds},
        "responses": {
            "200": {"description": "Taken; partial_success counts what was left out.", "content": kinds},
            **{str(status): {"description": text, "content": kinds} for status, text in said.items()},
        },
    }


def _chat() -> dict[str, Any]:
    said = {400: "A field is not valid.", 401: "No valid key.", 403: "The key lacks the scope chat.",
            404: "No such model.", 405: "Not a POST.", 409: "The adapter was trained for another prompt format.",
            413: "Too large.", 429: "Too many requests.", 503: "The engine does not answer; Retry-After."}  # fmt: skip
    return {
        "operationId": "chat_completions_create",
        "tags": ["Ask"],
        "summary": "Ask the assistant, in OpenAI's format",
        "description": "With stream: true the answer comes as server-sent events.",
        "security": _KEY,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(model="ChatRequest")}}},
        },
        "responses": {
            "200": {
                "description": "The answer with its citations.",
                "content": {
                    "application/json": {"schema": _COMPLETION},
                    "text/event-stream": {"schema": {"type": "string"}},
                },
            },
            **_openai_errors(said),
        },
    }


def _models() -> dict[str, Any]:
    said = {401: "No valid key.", 403: "The key lacks the scope chat.", 405: "Not a GET.", 429: "Too many requests.",
            503: "The database does not answer."}  # fmt: skip
    return {
        "operationId": "models_list",
        "tags": ["Ask"],
        "summary": "The names that may be asked",
        "security": _KEY,
        "responses": {
            "200": {"description": "The list.", "content": {"application/json": {"schema": _MODELS}}},
            **_openai_errors(said),
        },
    }


def _openai_errors(said: dict[int, str]) -> dict[str, Any]:
    schema = {"$ref": _REF.format(model="OpenAIError")}
    return {
        str(status): {"description": text, "content": {"application/json": {"schema": schema}}}
        for status, text in said.items()
    }
