"""What the API takes as the label of a program or judge, and what it answers with."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, StringConstraints, model_validator

from annotations.choices import Reason
from annotations.machine.models import MAX_EXPLANATION, MAX_NAME, MAX_VERSION
from capture.payloads import Identifier, Name, clean_text

ReasonName = Literal[
    "not_supported",
    "wrong",
    "incomplete",
    "should_have_declined",
    "should_have_answered",
    "citation",
    "tone",
    "unsafe",
    "retrieval_missed",
]
"""`Reason` as types are written; a test holds both to the same words."""


def _machine(value: Any) -> Any:
    if isinstance(value, str) and value.upper() == "HUMAN":
        raise ValueError("people label on the labelling page; a program is LLM or CODE")
    return value


class MachineLabelItem(BaseModel):
    """What a program or judge says of a turn. ``turn``: your id of it, ours, or the id of a completion of our chat."""

    # Values never go into an error message: it is answered, and perhaps logged, in clear.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: Identifier
    turn: Identifier
    kind: Annotated[Literal["LLM", "CODE"], BeforeValidator(_machine)]
    name: Annotated[Name, StringConstraints(min_length=1, max_length=MAX_NAME)]
    version: Annotated[Name, StringConstraints(max_length=MAX_VERSION)] = ""
    verdict: Literal["good", "bad"] | None = None
    score: Annotated[FiniteFloat, Field(ge=0, le=1, description="1 is best.")] | None = None
    reasons: Annotated[list[ReasonName], Field(max_length=len(Reason))] = []
    explanation: Annotated[
        Annotated[str, StringConstraints(max_length=MAX_EXPLANATION)], BeforeValidator(clean_text)
    ] = ""

    @model_validator(mode="after")
    def _fits(self) -> MachineLabelItem:
        if self.verdict is None and self.score is None:
            raise ValueError("verdict: give a verdict or a score")
        if self.reasons and self.verdict != "bad":
            raise ValueError("reasons: go with the verdict bad")
        if {Reason.SHOULD_HAVE_DECLINED, Reason.SHOULD_HAVE_ANSWERED} <= set(self.reasons):
            raise ValueError("reasons: it cannot both have to decline and have to answer")
        return self

    def canonical(self) -> bytes:
        """The same bytes for the same content; fields left at their default do not count."""
        return self.model_dump_json(exclude_defaults=True).encode()


class MachineLabelShape(BaseModel):
    """A stored label of a program or judge."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(description="Yours; a keyed hash where it held an at-sign, a space or a telephone number.")
    turn: str = Field(description="Our id of the turn.")
    turn_client_id: str
    kind: Literal["LLM", "CODE"]
    name: str
    version: str
    verdict: Literal["good", "bad"] | None
    score: float | None
    reasons: list[ReasonName]
    explanation: str = Field(description="Scrubbed.")
    time: datetime = Field(description="When it came.")


class MachineLabelPage(BaseModel):
    """A page of labels."""

    model_config = ConfigDict(extra="forbid")

    annotations: list[MachineLabelShape]
    next: str | None = Field(description="Pass it as cursor for the next page; null at the end.")
