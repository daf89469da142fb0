"""How one assistant searches: its settings, as one value with a digest.

The settings that count stand on `Assistant` (so that a question needs no further query); named, unchangeable versions
of them are `RetrievalConfiguration` rows (`knowledge.configuring`). A version is *active* when its digest is the one
that the assistant's settings have now, so nothing can disagree about which it is.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from assistants.models import Assistant
from knowledge.chunking import CHUNKER
from knowledge.embedding import embedder_digest, reranker_name
from knowledge.evidence import SENTENCES

if TYPE_CHECKING:
    from typing import Self

WORDS = "english-headings-2"
"""Names how words are indexed and weighed (`knowledge.lexicon`)."""
ON_ASSISTANT = {
    "k": "retrieval_k",
    "evidence_sentences": "evidence_sentences",
    "evidence_threshold": "evidence_threshold",
}
"""Settings with a column of their own; the others stand in `Assistant.retrieval`."""


class RetrievalSettings(BaseModel):
    """Defaults were chosen on half of Doc2Dial's conversations and of XQuAD; figures are of the other (docs/log.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: int = Field(default=6, ge=1, le=20, title="Passages", description="How many go into the prompt.")
    evidence_sentences: int = Field(
        default=8, ge=1, le=40, title="Evidence sentences", description="Offered to the model."
    )
    evidence_threshold: float = Field(
        default=0.0,
        ge=0,
        le=1,
        title="Threshold",
        description="Where not even the best sentence is as similar as this, decline; 0: always ask the model.",
    )
    words: float = Field(default=0.5, ge=0, le=1, title="Weight of words")
    vectors: float = Field(default=0.3, ge=0, le=1, title="Weight of vectors")
    sentences: float = Field(default=0.2, ge=0, le=1, title="Weight of the best sentence")
    fusion: Literal["scores", "ranks"] = Field(
        default="scores", title="Fusion", description="Scores keep how far apart two passages are; ranks forget it."
    )
    rank_constant: int = Field(default=60, ge=1, le=1000, title="Rank constant", description="Of fusion by ranks only.")
    candidates: int = Field(
        default=50,
        ge=10,
        le=200,
        title="Candidates",
        description="From words and from vectors each, before they are fused.",
    )
    reordered: int = Field(
        default=24,
        ge=1,
        le=100,
        title="Looked at closely",
        description="Candidates whose sentences are compared, or reranked.",
    )
    history: Literal["conversation", "previous", "none"] = Field(
        default="conversation", title="History", description="What of the conversation is searched with the question."
    )
    folders: tuple[str, ...] = Field(
        default=(), max_length=20, title="Only these folders", description="Beginnings of paths; empty: all documents."
    )
    superseded: bool = Field(default=True, title="Superseded documents too")
    learned: int = Field(
        default=0,
        ge=0,
        le=100_000,
        title="Learned map",
        description="Number of the map that moves questions before passages are searched; 0: none.",
    )
    rerank: bool = Field(default=False, title="Rerank", description="By the cross-encoder of RATCHET_RERANKER.")

    @model_validator(mode="after")
    def _searches_by_something(self) -> Self:
        if self.words + self.vectors <= 0:
            raise ValueError("words and vectors cannot both weigh nothing")
        if any(not 0 < len(folder) <= 500 or "\x00" in folder for folder in self.folders):
            raise ValueError("a folder is 1 to 500 characters")
        return self


class SettingsRefused(ValueError):
    """Settings that cannot be; the message is one sentence."""


def settings_of(assistant: Assistant) -> RetrievalSettings:
    """The assistant's active settings.

    Raises:
        SettingsRefused: what is stored was written by hand or by another release.
    """
    own = {name: getattr(assistant, column) for name, column in ON_ASSISTANT.items()}
    return checked({**assistant.retrieval, **own})


def checked(values: dict[str, Any]) -> RetrievalSettings:
    """
    Raises:
        SettingsRefused: a name is unknown or a value is out of bounds.
    """
    try:
        return RetrievalSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "retrieval settings"
        raise SettingsRefused(f"{where}: {first['msg']}.") from None


def put_on(assistant: Assistant, settings: RetrievalSettings) -> list[str]:
    """Writes the settings to the (unsaved) assistant; returns the fields to save."""
    values = settings.model_dump(mode="json")
    for name, column in ON_ASSISTANT.items():
        setattr(assistant, column, values.pop(name))
    defaults = RetrievalSettings().model_dump(mode="json")
    assistant.retrieval = {name: value for name, value in values.items() if value != defaults[name]}
    return [*ON_ASSISTANT.values(), "retrieval"]


def surroundings(assistant: Assistant) -> dict[str, str]:
    """What decides beside the settings, and belongs to the installation or to the assistant's glossary."""
    glossary = json.dumps(assistant.glossary, sort_keys=True).encode()
    return {
        "embedder": embedder_digest(),
        "chunker": CHUNKER,
        "sentences": SENTENCES,
        "words": WORDS,
        "glossary": hashlib.sha256(glossary).hexdigest()[:16] if assistant.glossary else "",
    }


def digest_of(settings: RetrievalSettings, around: dict[str, str]) -> str:
    """Names everything that decides what is retrieved, apart from the documents: hex, 16 digits."""
    reranker = reranker_name() if settings.rerank else ""
    parts = {"settings": settings.model_dump(mode="json"), "around": around, "reranker": reranker}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def config_digest(assistant: Assistant, settings: RetrievalSettings | None = None) -> str:
    """`digest_of` the assistant's active settings, or of others with its surroundings."""
    return digest_of(settings or settings_of(assistant), surroundings(assistant))
