"""The one interface to whatever writes text, its data and its errors.

Three engines speak it: `generation.local.TransformersEngine` (in this process), `generation.client.EngineClient` (our
engine process) and `generation.openai_compatible.OpenAIEngine` (any server with the OpenAI wire format).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from generation.prompts import House, Message

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FinishReason = Literal["stop", "length", "deadline", "cancelled"]
"""``stop``: the model ended or looped, or a stop text came; ``length``: max_new_tokens; ``deadline``: time was up."""

MAX_NEW_TOKENS = 4096
MAX_MESSAGES = 64
MAX_STOPS = 4


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One completion to write, greedily (the most probable token at every step)."""

    messages: Sequence[Message]
    adapter: str | None = None
    """Name under which the adapter was loaded; None: the base model."""
    max_new_tokens: int = 96
    stop: Sequence[str] = ()
    """The text ends before the first of these."""
    deadline: float | None = None
    """Seconds from acceptance until the text must be finished; None: no limit in process, the server's own over HTTP.
    A request that still waits then fails with `EngineBusy`; one that runs ends with finish_reason ``deadline``."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.messages) <= MAX_MESSAGES:
            raise ValueError(f"a request holds 1 to {MAX_MESSAGES} messages, not {len(self.messages)}")
        if not 1 <= self.max_new_tokens <= MAX_NEW_TOKENS:
            raise ValueError(f"max_new_tokens is 1 to {MAX_NEW_TOKENS}, not {self.max_new_tokens}")
        if len(self.stop) > MAX_STOPS or not all(self.stop):
            raise ValueError(f"stop holds at most {MAX_STOPS} texts, none of them empty")


@dataclass(frozen=True, kw_only=True)
class GenerationResult:
    text: str
    prompt_tokens: int
    completion_tokens: int
    """Tokens of the text, without the end token."""
    finish_reason: FinishReason
    seconds: float
    """From acceptance to the last token, waiting included."""
    looped: bool = False
    """The model repeated a few tokens without end (`generation.loops`): the text has them once."""


def declining(house: House) -> GenerationResult:
    """What counts as the answer where nothing was near enough to be offered: no engine is asked."""
    return GenerationResult(text=house.decline, prompt_tokens=0, completion_tokens=0, finish_reason="stop", seconds=0.0)


@dataclass(frozen=True, kw_only=True)
class LoadedAdapter:
    name: str
    digest: str
    """sha256 of the adapter's weights file; empty where a foreign server does not tell."""
    base_digest: str = ""
    prompt_digest: str = ""


@dataclass(frozen=True, kw_only=True)
class EngineHealth:
    ready: bool
    base: str
    base_digest: str
    context: int
    """Longest prompt plus completion in tokens; 0: unknown."""
    device: str
    dtype: str
    adapters: tuple[str, ...] = field(default=())
    running: int = 0
    waiting: int = 0
    changed: tuple[str, ...] = field(default=())
    """Adapters whose files are not what they were when they were loaded; what was loaded goes on answering."""


class EngineError(Exception):
    """Something the engine could not do: one sentence, and a hint at what helps."""

    code = "engine_error"
    status = 500
    quotes = False
    """The sentence names a server that is not ours, or repeats what it has said: for the log and for admins, not for
    whoever asks. Such words may hold addresses, keys, or another one's question."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.sentence} {self.hint}".strip()


class EngineUnavailable(EngineError):
    """The engine cannot be reached, is not ready, or broke."""

    code = "unavailable"
    status = 503


class EngineBusy(EngineError):
    """Too much waits already. ``retry_after``: seconds after which a new attempt makes sense."""

    code = "busy"
    status = 503

    def __init__(self, sentence: str, hint: str = "", *, retry_after: float = 1.0) -> None:
        super().__init__(sentence, hint)
        self.retry_after = retry_after


class AdapterRefused(EngineError):
    """The adapter folder is not what it should be. ``reason``: a short machine-readable word."""

    code = "adapter_refused"
    status = 422

    def __init__(self, sentence: str, hint: str = "", *, reason: str = "invalid") -> None:
        super().__init__(sentence, hint)
        self.reason = reason


class UnknownAdapter(EngineError):
    """No adapter of that name is loaded: `Engine.load_adapter` it, then ask again."""

    code = "unknown_adapter"
    status = 404


class PromptTooLong(EngineError):
    """Prompt and completion do not fit the model's context. Nothing is ever cut silently.

    ``tokens``: of the prompt; ``limit``: what the prompt may have; ``index``: which request of the call.
    """

    code = "prompt_too_long"
    status = 413

    def __init__(self, sentence: str, hint: str = "", *, tokens: int = 0, limit: int = 0, index: int = 0) -> None:
        super().__init__(sentence, hint)
        self.tokens = tokens
        self.limit = limit
        self.index = index


class BadRequest(EngineError):
    """The request itself is wrong."""

    code = "bad_request"
    status = 422


class Engine(Protocol):
    """Writes text with a base model and its adapters. All calls raise `EngineError`s."""

    def generate(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        """All completions, in the order of the requests."""
        ...

    def stream(self, request: GenerationRequest) -> AsyncIterator[str]:
        """The completion piece by piece. Closing the iterator stops the work."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (n, dimensions of the embedder: 384 for the bundled one)."""
        ...

    def adapters(self) -> list[LoadedAdapter]:
        """What is loaded, in order of loading."""
        ...

    def load_adapter(
        self, name: str, folder: Path, *, base_digest: str | None = None, prompt_digest: str | None = None
    ) -> LoadedAdapter:
        """Loads a folder under a name; loading the same weights under the same name again changes nothing.

        Raises:
            AdapterRefused: a file too many, a wrong digest, another base or prompt, a kind that cannot be served.
        """
        ...

    def unload_adapter(self, name: str) -> None:
        """Raises UnknownAdapter when no such adapter is loaded."""
        ...

    def health(self) -> EngineHealth:
        """Raises EngineUnavailable when there is no answer."""
        ...
