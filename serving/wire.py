"""The OpenAI chat-completions format: what is read of a request, what an answer looks like, errors in their shape."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from django.http import JsonResponse
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from capture.payloads import clean_text
from generation.engines import MAX_STOPS
from generation.prompts import MAX_POINTER, Message

MAX_MESSAGES = 60
DEFAULT_NEW_TOKENS = 96
"""As evaluations write (training.evaluation.asking.MAX_ANSWER_TOKENS; a test holds them equal): what was evaluated is
what is served."""
MAX_CHARS = 20_000
"""Of one message, its parts together."""
MAX_ID = 200
MAX_PASSAGES = 20
MAX_STOP_CHARS = 100


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
Text = Annotated[str, StringConstraints(max_length=MAX_CHARS), BeforeValidator(clean_text)]
Identifier = Annotated[str, Field(max_length=MAX_ID), AfterValidator(_printable)]


class TextPart(BaseModel):
    type: Literal["text"]
    text: Text


class WireMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=20)]

    @model_validator(mode="before")
    @classmethod
    def _said_nothing(cls, message: Any) -> Any:
        """OpenAI's clients send an assistant's message back as they got it, and after a call of a tool or a refusal its
        content is null or absent. Empty texts are left out of what the model reads (`ChatRequest.history`)."""
        silent = isinstance(message, dict) and message.get("role") == "assistant" and message.get("content") is None
        return {**message, "content": ""} if silent else message

    @model_validator(mode="after")
    def _not_too_long(self) -> WireMessage:
        if len(self.text) > MAX_CHARS:
            raise ValueError(f"the parts of a message may hold {MAX_CHARS} characters together")
        return self

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class Defaulted(BaseModel):
    """A field that is null counts as left out: some clients send all that they know, set or not."""

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given


class StreamOptions(Defaulted):
    include_usage: bool = False


Folder = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_printable)]


class RetrievalOptions(BaseModel):
    """For this one question, instead of what the assistant's settings say; what is not given stays as it is."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    k: Annotated[int, Field(ge=0, le=MAX_PASSAGES)] | None = None
    """Passages; 0: without retrieval."""
    evidence_sentences: Annotated[int, Field(ge=1, le=MAX_POINTER)] | None = None
    evidence_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    folders: Annotated[tuple[Folder, ...], Field(max_length=20)] | None = None
    """Only documents whose path begins with one of these."""


class ResponseFormat(BaseModel):
    type: Literal["text"]


Stop = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_CHARS)]


class ChatRequest(Defaulted):
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
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    response_format: ResponseFormat | None = None
    logprobs: Literal[False] | None = None
    modalities: list[Literal["text"]] | None = None
    retrieval: RetrievalOptions = RetrievalOptions()

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
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def max_new_tokens(self) -> int:
        return self.max_completion_tokens or self.max_tokens or DEFAULT_NEW_TOKENS


def _place(error: Any) -> str:
    """Where an error is, as a path: without what pydantic adds to a place inside "a text or a list of texts"."""
    parts = [str(part) for part in error["loc"]]
    return ".".join(part for part in parts if part not in ("str", "constrained-str") and not set(part) & set("[("))


def _telling(errors: Sequence[Any]) -> Any:
    """The first, or of "a text or a list" what is wrong with the list where one was sent."""
    first = errors[0]
    beside = [error for error in errors[1:] if error["loc"][: len(first["loc"]) - 1] == first["loc"][:-1]]
    if first["type"] != "string_type" or not beside or beside[0]["type"] == "list_type":
        return first
    return beside[0]


UNSUPPORTED = {
    "tools": "Tools are not supported here.",
    "functions": "Functions are not supported here.",
    "n": "Only n = 1 is supported: answers are greedy.",
    "response_format": "Only text is written here: response_format must be text.",
    "logprobs": "Log probabilities are not given here.",
    "modalities": "Only text is written here.",
}


def _refuse_kinds(body: Any) -> None:
    """Said by name, because "must be a text" would be no help to somebody who sends an image, nor a list of roles to
    somebody whose agent has called tools. What a tool said is not left out in silence: the answer would build on it."""
    messages = body.get("messages") if isinstance(body, dict) else None
    for i, message in enumerate(messages if isinstance(messages, list) else []):
        if not isinstance(message, dict):
            continue
        if message.get("role") in ("tool", "function"):
            raise WireError(
                400,
                "Tools are not supported here: leave out the messages that call them and what they answered.",
                param=f"messages.{i}.role",
                code="unsupported",
            )
        content = message.get("content")
        for j, part in enumerate(content if isinstance(content, list) else []):
            if isinstance(part, dict) and part.get("type") not in (None, "text"):
                raise WireError(
                    400,
                    "Only text is read here: images, audio and files are not supported.",
                    param=f"messages.{i}.content.{j}.type",
                    code="unsupported",
                )


def read_request(body: bytes) -> ChatRequest:
    """Raises WireError 400 with the field that is wrong."""
    try:
        parsed = json.loads(body)
        _refuse_kinds(parsed)
        request = ChatRequest.model_validate(parsed)
    except ValidationError as error:
        first = _telling(error.errors(include_input=False, include_url=False))
        param = _place(first)
        field = str(first["loc"][0]) if first["loc"] else ""
        if field in UNSUPPORTED:
            raise WireError(400, UNSUPPORTED[field], param=field, code="unsupported") from error
        where = f"{param}: " if param else ""
        code = "string_above_max_length" if first["type"] == "string_too_long" else None
        raise WireError(400, f"{where}{first['msg']}", param=param or None, code=code) from error
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise WireError(400, "The body is not valid JSON.") from error
    if len(request.conversation) > MAX_ID or not request.conversation.isprintable():
        sentence = f"metadata.conversation: at most {MAX_ID} characters, no control characters"
        raise WireError(400, sentence, param="metadata.conversation")
    if request.messages[-1].role != "user" or not request.question:
        raise WireError(400, "The last message must be a question of the user.", param="messages")
    return request


def chunk(
    completion_id: str, model: str, delta: dict[str, Any], finish: str | None = None, *, with_usage: bool = False
) -> dict[str, Any]:
    """``with_usage``: the last chunk will carry the usage, so this one says that it does not."""
    return {
        "id": completion_id, "object": "chat.completion.chunk", "created": int(time.time()), "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **({"usage": None} if with_usage else {}),
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
