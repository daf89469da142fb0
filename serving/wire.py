"""The OpenAI chat-completions format: what is read of a request, what an answer looks like, errors in their shape."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from django.http import JsonResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from capture.payloads import clean_text
from generation.prompts import Message

MAX_MESSAGES = 60
DEFAULT_NEW_TOKENS = 96
"""As evaluations write (training.evaluation.runner.MAX_ANSWER_TOKENS; a test holds them equal): what was evaluated is
what is served."""
MAX_CHARS = 20_000
"""Of one message, its parts together."""
MAX_ID = 200


class WireError(Exception):
    """An error in OpenAI's shape. ``param``: the field that is wrong."""

    def __init__(
        self, status: int, message: str, *, kind: str = "invalid_request_error", param: str | None = None,
        code: str | None = None, headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JsonResponse:
        headers = dict(self.headers)
        if self.status in (429, 503):
            headers.setdefault("Retry-After", "2")
        return JsonResponse(self.body(), status=self.status, headers=headers)


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not hold control characters")
    return value


# As capture takes it: a stray NUL byte or half a character becomes U+FFFD, since the question is still one.
Text = Annotated[str, BeforeValidator(clean_text), Field(max_length=MAX_CHARS)]
Identifier = Annotated[str, Field(max_length=MAX_ID), AfterValidator(_printable)]


class TextPart(BaseModel):
    type: Literal["text"]
    text: Text


class WireMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=20)]

    @model_validator(mode="after")
    def _not_too_long(self) -> WireMessage:
        if len(self.text) > MAX_CHARS:
            raise ValueError(f"the parts of a message may hold {MAX_CHARS} characters together")
        return self

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """What is used of a request. Sampling settings are accepted and have no effect: answers are greedy, so that what
    was evaluated is what is served. What would change the *kind* of answer is refused rather than ignored."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    model: Annotated[str, Field(max_length=200)]
    messages: Annotated[list[WireMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2048)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2048)] | None = None
    n: Literal[1] = 1
    user: Identifier = ""
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] = {}
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None

    @property
    def question(self) -> str:
        return self.messages[-1].text.strip()

    @property
    def history(self) -> list[Message]:
        """What was said before the question; a frontend's own system message is not ours to follow."""
        return [
            {"role": "user" if m.role == "user" else "assistant", "content": m.text}
            for m in self.messages[:-1]
            if m.role in ("user", "assistant") and m.text.strip()
        ]

    @property
    def conversation(self) -> str:
        """The frontend's id of the conversation, from ``metadata``; empty: it sent none."""
        return self.metadata.get("conversation", "")

    @property
    def max_new_tokens(self) -> int:
        return self.max_completion_tokens or self.max_tokens or DEFAULT_NEW_TOKENS


def _place(error: Any) -> str:
    """Where an error is, as a path: without what pydantic adds to a place inside "a text or a list of texts"."""
    parts = [str(part) for part in error["loc"]]
    return ".".join(part for part in parts if part != "str" and not set(part) & set("[("))


def read_request(body: bytes) -> ChatRequest:
    """Raises WireError 400 with the field that is wrong."""
    try:
        request = ChatRequest.model_validate(json.loads(body))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(400, "The body is not valid JSON.") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        param = _place(first)
        if first["loc"][:1] in (("tools",), ("functions",)):
            raise WireError(400, "Tools are not supported here.", param=param, code="unsupported") from error
        if first["loc"][:1] == ("n",):
            sentence = "Only n = 1 is supported: answers are greedy."
            raise WireError(400, sentence, param="n", code="unsupported") from error
        where = f"{param}: " if param else ""
        raise WireError(400, f"{where}{first['msg']}", param=param or None) from error
    if len(request.conversation) > MAX_ID or not request.conversation.isprintable():
        sentence = f"metadata.conversation: at most {MAX_ID} characters, no control characters"
        raise WireError(400, sentence, param="metadata.conversation")
    if request.messages[-1].role != "user" or not request.question:
        raise WireError(400, "The last message must be a question of the user.", param="messages")
    return request


def chunk(completion_id: str, model: str, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {
        "id": completion_id, "object": "chat.completion.chunk", "created": int(time.time()), "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }  # fmt: skip


def completion(
    completion_id: str, model: str, message: dict[str, Any], finish: str, usage: dict[str, int]
) -> dict[str, Any]:
    return {
        "id": completion_id, "object": "chat.completion", "created": int(time.time()), "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage,
    }  # fmt: skip


def event(data: dict[str, Any] | str) -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"data: {text}\n\n".encode()
