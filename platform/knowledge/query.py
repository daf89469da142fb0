"""What is searched for: a follow-up means little without what was said before it, and customers have words of their
own.

Passages are searched with the whole conversation, sentences are compared with the question and the one before it. The
earlier answers name what is talked about: with them the right document of Doc2Dial comes first for .73 of the
questions, with the user's previous question alone for .53; for choosing among sentences they are no better.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from django.conf import settings

from generation.prompts import Message
from knowledge.embedding import begin_embedding, embed

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_CHARS = 1000
ALONE = 0.6
"""Weight of the question by itself against question and previous question together. Either alone finds less: measured
on the demo's conversations, the right sentence is offered for 52 % (alone), 50 % (together) and 55 % (both)."""

TALK = 0.6
"""Weight of the whole conversation against the question by itself, in the vector that passages are searched by."""
MAX_MESSAGES = 12
"""Of the conversation, latest first: the embedder reads 256 word pieces, which is less."""
WEIGHTS = {"question": 1.0, "user": 0.5, "assistant": 0.35, "earlier user": 0.3, "earlier assistant": 0.15}
"""What a word counts by where it was said: in the question, in the last message of each side, before that."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def in_house_words(text: str, glossary: Mapping[str, str]) -> str:
    """The text with the documents' words behind it for each customers' word that it uses: the vectors and the words
    of both are searched."""
    if not glossary:
        return text
    folded = text.casefold()
    # Plain search first: compiling a pattern for each of thousands of entries would cost more than the search itself.
    used = [(said.casefold(), theirs) for said, theirs in glossary.items() if said.casefold() in folded]
    meant = [theirs for said, theirs in used if re.search(rf"(?<!\w){re.escape(said)}(?!\w)", folded)]
    return f"{text} ({', '.join(dict.fromkeys(meant))})" if meant else text


def history_query(question: str, history: Sequence[Message] = (), glossary: Mapping[str, str] | None = None) -> str:
    """The question, with the user's previous question before it when there is one.

    Only what the *user* said: earlier answers are long and pull the search towards what was already found.
    """
    earlier = [_storable(m["content"]) for m in history if m["role"] == "user"]
    parts = [*(text.strip()[-MAX_CHARS // 2 :] for text in earlier[-1:]), _storable(question).strip()[:MAX_CHARS]]
    return "\n".join(in_house_words(part, glossary or {}) for part in parts if part)


def _storable(text: str) -> str:
    """Without what neither PostgreSQL nor a tokenizer takes: NUL bytes and halves of surrogate pairs."""
    return _UNSTORABLE.sub(" ", text)


def question_vectors(
    asked: Sequence[tuple[str, Sequence[Message]]], glossary: Mapping[str, str] | None = None
) -> NDArray[np.float32]:
    """Unit vectors of (question, history) pairs, shape (n, 384): the history-aware question.

    A question without history is its own vector; a follow-up is a blend of itself and itself behind what it follows.
    """
    alone = [history_query(question, (), glossary) for question, _ in asked]
    together = [history_query(question, history, glossary) for question, history in asked]
    vectors = embed(alone + together)  # in one call: without history both are the same text, embedded once
    return _unit(ALONE * vectors[: len(asked)] + (1 - ALONE) * vectors[len(asked) :])


@dataclass(frozen=True)
class Query:
    """One question made ready to be searched.

    ``parts``: texts whose words are searched, with what a word of each counts; ``vector``: what passages are compared
    with; ``evidence``: what sentences are compared with; ``text``: what a person, or a reranker, reads.
    """

    text: str
    parts: tuple[tuple[str, float], ...]
    vector: NDArray[np.float32]
    evidence: NDArray[np.float32]

    @classmethod
    def plain(cls, text: str, vector: NDArray[np.float32]) -> Self:
        """A question without history."""
        return cls(text, ((_storable(text), 1.0),), vector, vector)


def prepare(
    asked: Sequence[tuple[str, Sequence[Message]]],
    *,
    glossary: Mapping[str, str] | None = None,
    history: str = "conversation",
    evidence: NDArray[np.float32] | None = None,
) -> list[Query]:
    """(question, history) pairs made ready, all embedded in one call.

    Args:
        history: how much of it is searched: ``conversation``, ``previous`` (the user's previous question) or ``none``.
        evidence: vectors of `question_vectors`, where they are known; passages are then searched by them too.
    """
    texts = _Texts.of(asked, glossary or {}, history)
    return texts.queries(evidence, evidence) if evidence is not None else texts.embedded(embed(texts.all))


@dataclass(frozen=True)
class Pending:
    """One question whose vectors are on their way. ``parts``: as those of `Query`; ``begun``: `time.perf_counter`."""

    parts: tuple[tuple[str, float], ...]
    begun: float
    beside: bool
    """Another process makes them meanwhile; else `ready` does."""
    ready: Callable[[], Query]
    """Waits for them. Raises as `embed` does."""


def begin(
    question: str,
    said: Sequence[Message] = (),
    *,
    glossary: Mapping[str, str] | None = None,
    history: str = "conversation",
) -> Pending:
    """As `prepare` for one question. In a web process the engine embeds it while the caller goes on: reading those
    weights takes longer than anything else between a question and its answer's first word."""
    begun = time.perf_counter()
    texts = _Texts.of([(question, said)], glossary or {}, history)
    if settings.PROCESS != "web":
        return Pending(texts.parts[0], begun, False, lambda: texts.embedded(embed(texts.all))[0])
    coming = begin_embedding(texts.all)
    return Pending(texts.parts[0], begun, True, lambda: texts.embedded(coming())[0])


@dataclass(frozen=True)
class _Texts:
    """What is embedded of some questions: each alone, behind the one before it, and with the conversation."""

    alone: list[str]
    together: list[str]
    talks: list[str]
    parts: list[tuple[tuple[str, float], ...]]

    @classmethod
    def of(cls, asked: Sequence[tuple[str, Sequence[Message]]], words: Mapping[str, str], history: str) -> Self:
        if history == "none":
            asked = [(question, ()) for question, _ in asked]
        whole = asked if history == "conversation" else ()
        return cls(
            [history_query(question, (), words) for question, _ in asked],
            [history_query(question, said, words) for question, said in asked],
            [conversation_text(question, said, words) for question, said in whole],
            [_parts(question, said, words, history) for question, said in asked],
        )

    @property
    def all(self) -> list[str]:
        return [*self.alone, *self.together, *self.talks]

    def embedded(self, vectors: NDArray[np.float32]) -> list[Query]:
        """``vectors``: of `all`, in that order."""
        own, both, talks = np.split(vectors, [len(self.alone), 2 * len(self.alone)])
        evidence = _unit(ALONE * own + (1 - ALONE) * both)
        return self.queries(_unit((1 - TALK) * own + TALK * talks) if self.talks else evidence, evidence)

    def queries(self, search: NDArray[np.float32], evidence: NDArray[np.float32]) -> list[Query]:
        return [Query(*row) for row in zip(self.together, self.parts, search, evidence, strict=True)]


def conversation_text(question: str, history: Sequence[Message], glossary: Mapping[str, str]) -> str:
    """The question and what was said before it, latest first: what does not fit the embedder is what is oldest.

    Without history the same as `history_query`, so that it is embedded once.
    """
    if not any(_storable(m["content"]).strip() for m in history):
        return history_query(question, (), glossary)
    texts = [_storable(question).strip()[:MAX_CHARS]]
    texts += [_storable(m["content"]).strip()[: MAX_CHARS // 2] for m in history[: -MAX_MESSAGES - 1 : -1]]
    return "\n".join(in_house_words(text, glossary) for text in texts if text)


def _parts(
    question: str, history: Sequence[Message], glossary: Mapping[str, str], mode: str
) -> tuple[tuple[str, float], ...]:
    parts = [(in_house_words(_storable(question).strip()[:MAX_CHARS], glossary), WEIGHTS["question"])]
    seen: set[str] = set()
    for message in history[: -MAX_MESSAGES - 1 : -1]:
        role = "user" if message["role"] == "user" else "assistant"
        if mode != "conversation" and (role == "assistant" or seen):
            continue
        text = in_house_words(_storable(message["content"]).strip()[:MAX_CHARS], glossary)
        parts.append((text, WEIGHTS[f"earlier {role}" if role in seen else role]))
        seen.add(role)
    return tuple(part for part in parts if part[0])


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)
