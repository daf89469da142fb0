"""What the log API answers, as types: for its description, and for the columns of a Parquet export.

Answers are built as plain dicts (`capture.reading.turn_rows`), which is quicker than making these objects; a test holds
both to the same fields.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TurnMessage(_Shape):
    """An earlier message of the conversation."""

    role: str
    content: str


class TurnContext(_Shape):
    """A retrieved passage at its rank; 1 is first."""

    rank: int
    title: str
    source: str
    text: str
    score: float | None
    metadata: dict[str, Any]
    evidence: list[list[float]] = Field(
        description="Sentences that were offered to the model: [place over all passages, sentence index, similarity]."
    )


class TurnFeedback(_Shape):
    """What a user thought of the turn."""

    kind: str
    metric: str = Field(description="Name of the metric; empty for other kinds.")
    value: bool | float | None
    text: str
    time: datetime = Field(description="When it was given.")
    received_at: datetime


class TurnShape(_Shape):
    """One scrubbed turn."""

    id: str = Field(description="Ours.")
    client_id: str = Field(description="Yours; a keyed hash where it held an at-sign, a space or a telephone number.")
    conversation: str
    time: datetime = Field(description="When it was asked.")
    question: str
    history: list[TurnMessage]
    contexts: list[TurnContext]
    response: str
    citations: list[list[int]] = Field(description="[passage rank, sentence index from 0].")
    declined: bool
    model: str
    adapter: str
    prompt_digest: str
    retrieval_config: str
    withheld: bool = Field(description="Nothing was offered to a model: all evidence lay below the threshold.")
    policy_digest: str = Field(description="Of the privacy policy that scrubbed it.")
    client: str = Field(description="Name and version of the program that posted it.")
    outcome: str = Field(description="resolved, unresolved, escalated, abandoned, or empty.")
    latency_ms: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    tags: list[str]
    metadata: dict[str, Any]
    masked: list[dict[str, Any]] = Field(description="What was masked where; no values.")
    feedback: list[TurnFeedback]


class FoundTurn(TurnShape):
    """A turn of a list."""

    similarity: float | None = Field(None, description="Cosine with what like= asked for; only there.")


class TurnPage(_Shape):
    """A page of turns."""

    turns: list[FoundTurn]
    next: str | None = Field(description="Pass it as cursor for the next page; null at the end, and with like=.")


Status = Literal["created", "duplicate", "conflict", "invalid"]


class ProblemField(_Shape):
    """What is wrong, and where: ``contexts.0.text``. ``item``: the place in a batch, from 0."""

    field: str
    message: str
    item: int | None = None


class Problem(_Shape):
    """RFC 9457. Values of the request never appear in it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[ProblemField] = []


class ItemAnswer(_Shape):
    """What became of one item that was posted alone."""

    id: str
    status: Literal["created", "duplicate"]


class BatchRow(_Shape):
    """What became of one item of a batch."""

    item: int
    id: str
    status: Status
    line: int | None = Field(None, description="Of NDJSON, from 1.")
    errors: list[ProblemField] = []


class BatchAnswer(_Shape):
    """One row per item, in order, and how many there were of each kind."""

    results: list[BatchRow]
    created: int
    duplicate: int
    conflict: int
    invalid: int
