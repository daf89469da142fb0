"""Questions with known sources, asked of an assistant's documents: what comes back, and at which rank.

A file holds one JSON object per line: ``question``, perhaps ``history`` (chat messages, oldest first) and ``id``, and
``gold``: what is right. A gold is a document (``"tariffs/leaving.md"`` or ``{"path": …}``), a sentence of a document
(``{"path": …, "sentence": …}``) or a text wherever it stands (``{"text": …}``). Other keys are ignored, so the files of
benchmarks are such files too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from assistants.models import Assistant
from generation.overlap import ngram_recall
from generation.prompts import Message
from knowledge import metrics
from knowledge.configuration import RetrievalSettings, settings_of
from knowledge.query import prepare
from knowledge.retrieval import RetrievedPassage, retrieve

MAX_QUESTIONS = 20_000
MAX_LINE = 200_000
BATCH = 64
"""Questions that are embedded in one call."""
SAYS = 0.8
"""Share of a gold sentence's word pairs that a passage must hold."""

Progress = Callable[[int, int], None]


class UnreadableBenchmark(ValueError):
    """A file that is no list of questions; the message names the first wrong lines and quotes nothing."""


class Gold(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    path: str = Field(default="", max_length=500)
    sentence: str = Field(default="", max_length=4000)
    text: str = Field(default="", max_length=4000)

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.path or self.text):
            raise ValueError("a gold needs a path or a text")
        return self

    def is_in(self, passage: RetrievedPassage) -> bool:
        wanted = self.sentence or self.text
        if self.path and passage.source != self.path:
            return False
        return not wanted or " ".join(wanted.split()) in " ".join(passage.text.split()) or (
            ngram_recall(wanted, passage.text) > SAYS
        )  # fmt: skip


class Question(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    id: str = Field(default="", max_length=200)
    question: str = Field(min_length=1, max_length=4000)
    history: list[Message] = Field(default_factory=list, max_length=100)
    gold: list[Gold] = Field(default_factory=list, max_length=50)


@dataclass(frozen=True)
class Outcome:
    """``ranks``: of each gold among what was retrieved, 0 where it is not; empty for a question without gold.
    ``similarity``: of the best sentence that would be offered."""

    question: Question
    ranks: tuple[int, ...]
    similarity: float
    seconds: float

    @property
    def measures(self) -> dict[str, float]:
        return metrics.of_question(self.ranks)

    @property
    def cluster(self) -> str:
        """Questions on one document are alike."""
        return next((gold.path for gold in self.question.gold), "") or self.question.id


def read_questions(lines: Sequence[str]) -> list[Question]:
    """
    Raises:
        UnreadableBenchmark: with line number and field of up to five wrong lines.
    """
    questions: list[Question] = []
    wrong: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if len(line) > MAX_LINE or len(questions) >= MAX_QUESTIONS:
            raise UnreadableBenchmark(
                f"line {number}: at most {MAX_QUESTIONS:,} lines of {MAX_LINE:,} characters are read"
            )
        try:
            questions.append(Question.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            wrong.append(f"line {number}: {'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}")
    if wrong:
        raise UnreadableBenchmark("; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""))
    if not any(question.gold for question in questions):
        raise UnreadableBenchmark("No question says where its answer stands (gold).")
    return questions


def ask(
    *,
    assistant: Assistant,
    questions: Sequence[Question],
    settings: RetrievalSettings | None = None,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Retrieves for each question, by the assistant's active settings or by others. Changes nothing."""
    settings = settings or settings_of(assistant)
    for start in range(0, len(questions), BATCH):
        batch = questions[start : start + BATCH]
        queries = prepare(
            [(q.question, q.history) for q in batch], glossary=assistant.glossary, history=settings.history
        )
        for question, query in zip(batch, queries, strict=True):
            found = retrieve(
                assistant=assistant, question=question.question, query=query, settings=settings, k=metrics.DEPTH
            )
            best = max((sentence.similarity for sentence in (found.evidence or found.below)), default=0.0)
            yield Outcome(question, ranks_of(question.gold, found.passages), best, found.seconds)
        if progress:
            progress(min(start + BATCH, len(questions)), len(questions))


def ranks_of(gold: Sequence[Gold], passages: Sequence[RetrievedPassage]) -> tuple[int, ...]:
    """The rank of each gold, 0 where it is not. Where every gold is a whole document, documents are ranked."""
    if all(not g.sentence and not g.text for g in gold):
        documents = list(dict.fromkeys(passage.source for passage in passages))
        return tuple(documents.index(g.path) + 1 if g.path in documents else 0 for g in gold)
    return tuple(next((p.rank for p in passages if g.is_in(p)), 0) for g in gold)
