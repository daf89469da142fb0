"""What is searched for: a follow-up means little without what was said before it, and customers have words of their
own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from generation.prompts import Message
from knowledge.embedding import embed

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_CHARS = 1000
ALONE = 0.6
"""Weight of the question by itself against question and previous question together. Either alone finds less: measured
on the demo's conversations, the right sentence is offered for 52 % (alone), 50 % (together) and 55 % (both)."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def in_house_words(text: str, glossary: Mapping[str, str]) -> str:
    """The text with the documents' words behind it for each customers' word that it uses: the vectors and the words
    of both are searched."""
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
    blend = ALONE * vectors[: len(asked)] + (1 - ALONE) * vectors[len(asked) :]
    lengths = np.linalg.norm(blend, axis=1, keepdims=True)
    return np.asarray(blend / np.maximum(lengths, 1e-12), dtype=np.float32)
