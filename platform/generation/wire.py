"""What goes over the socket between `client` and `server`: JSON forms of requests, results and errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from generation.engines import (
    AdapterRefused,
    BadRequest,
    EngineBusy,
    EngineError,
    EngineUnavailable,
    GenerationRequest,
    PromptTooLong,
    UnknownAdapter,
)
from generation.prompts import Message

MAX_REQUESTS = 32
"""Completions in one call."""
MAX_TEXTS = 256
"""Texts to embed in one call."""
MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_DEADLINE = 600.0
ROLES = ("system", "user", "assistant")
DETAILS = ("retry_after", "reason", "tokens", "limit", "index")
KINDS: dict[str, type[EngineError]] = {
    kind.code: kind
    for kind in (EngineUnavailable, EngineBusy, AdapterRefused, UnknownAdapter, PromptTooLong, BadRequest, EngineError)
}


def request_to_json(request: GenerationRequest) -> dict[str, Any]:
    return {**asdict(request), "messages": [dict(message) for message in request.messages]}


def request_from_json(value: Any) -> GenerationRequest:
    """Raises BadRequest that names the field."""
    if not isinstance(value, Mapping):
        raise BadRequest("A request must be a JSON object.")
    known = {"messages", "adapter", "max_new_tokens", "stop", "deadline"}
    if unknown := sorted(set(value) - known):
        raise BadRequest(f"Unknown field {unknown[0][:60]!r}.", f"Fields are {', '.join(sorted(known))}.")
    adapter = value.get("adapter")
    if adapter is not None and not _text(adapter):
        raise BadRequest("adapter must be a text or null.")
    stop = value.get("stop") or ()
    if not _texts(stop):
        raise BadRequest("stop must be a list of texts.")
    length = value.get("max_new_tokens", 96)
    if isinstance(length, bool) or not isinstance(length, int):
        raise BadRequest("max_new_tokens must be a whole number.")
    try:
        return GenerationRequest(
            messages=_messages(value.get("messages")),
            adapter=adapter,
            max_new_tokens=length,
            stop=tuple(stop),
            deadline=_deadline(value.get("deadline")),
        )
    except ValueError as error:
        raise BadRequest(f"{error}.") from error


def texts_from_json(value: Any) -> list[str]:
    """Raises BadRequest."""
    texts = value.get("texts") if isinstance(value, Mapping) else None
    if texts is None or not _texts(texts) or len(texts) > MAX_TEXTS:
        raise BadRequest(f"texts must be a list of at most {MAX_TEXTS} texts.")
    return list(texts)


def error_to_json(error: EngineError) -> dict[str, Any]:
    body: dict[str, Any] = {"code": error.code, "message": error.sentence, "hint": error.hint}
    body.update({key: getattr(error, key) for key in DETAILS if hasattr(error, key)})
    return {"error": body}


def error_from_json(value: Any) -> EngineError:
    """The error as the engine raised it; something clear also when ``value`` is no error of ours."""
    body = value.get("error") if isinstance(value, Mapping) else None
    if not isinstance(body, Mapping):
        return EngineError("The engine gave an answer that is not its own.", "Check the address of the engine.")
    kind = KINDS.get(str(body.get("code")), EngineError)
    error = kind(str(body.get("message", "")), str(body.get("hint", "")))
    for key in DETAILS:
        if key in body and hasattr(error, key):
            setattr(error, key, body[key])
    return error


def _texts(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes) and all(_text(t) for t in value)


def _text(value: Any) -> bool:
    """A text that can be written down: JSON can carry halves of characters, which no tokenizer takes."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _messages(value: Any) -> list[Message]:
    if not isinstance(value, list):
        raise BadRequest("messages must be a list.")
    for i, message in enumerate(value):
        good = isinstance(message, dict) and set(message) == {"role", "content"} and message["role"] in ROLES
        if not good or not _text(message["content"]):
            raise BadRequest(f"messages[{i}] must be {{role, content}}, role one of {', '.join(ROLES)}.")
    return value


def _deadline(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise BadRequest("deadline must be a number of seconds above 0, or null.")
    return min(float(value), MAX_DEADLINE)
