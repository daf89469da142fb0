"""Questions on a collection of documents, with the evidence that retrieval would offer for each.

Retrieval here is what the product does on a small scale: the documents with the most similar sentence, of these the
most similar sentences, most similar first. The conditions change the evidence, never the question.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from training.base_model.ranking import Ranker, line_text, query_text
from training.base_model.sessions import Example, example_of
from training.base_model.worlds import Item, Line, World

if TYPE_CHECKING:
    from numpy.typing import NDArray

DOCUMENTS, SENTENCES, NOISE = 3, 6, 4
"""Documents that are retrieved, sentences offered of them, sentences of other documents added by noise."""
DECLINE = "I could not find this in our documents."


class Condition(StrEnum):
    CLEAN = "clean"
    NOISY = "noisy"
    """`NOISE` sentences of other documents come in: half of them the most similar, half of them any."""
    MISSING = "missing oracle"
    """The sentences that answer are taken out: declining is right."""


@dataclass
class Library:
    """``lines`` of all documents; ``items`` point into them (no gold: answered nowhere)."""

    name: str
    lines: list[Line] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)

    def add_world(self, world: World) -> None:
        """Appends documents and questions; document numbers and line indexes are moved behind what is there."""
        first = len(self.lines)
        document = 1 + max((line.document for line in self.lines), default=-1)
        self.lines += [Line(line.document + document, line.title, line.text) for line in world.lines]
        self.items += [
            Item(i.question, tuple((at + first, answer) for at, answer in i.gold), i.history, i.short)
            for i in world.items
        ]


def library_examples(library: Library, ranker: Ranker, condition: Condition = Condition.CLEAN) -> list[Example]:
    """One example per question. Where the evidence lacks a needed sentence, the example expects declining."""
    lines = ranker.embed([line_text(line) for line in library.lines])
    questions = ranker.embed([query_text(item) for item in library.items])
    of_document = np.array([line.document for line in library.lines])
    world = World(library.lines)
    rng = random.Random(library.name)
    found = []
    for item, vector in zip(library.items, questions, strict=True):
        scores = lines @ vector
        hidden = {at for at, _ in item.gold} if condition is Condition.MISSING else set()
        evidence = offered(scores, of_document, hidden)
        if condition is Condition.NOISY:
            evidence = _with_noise(rng, evidence, scores, of_document)
        found.append(example_of(world, item, evidence, scores, DECLINE))
    return found


def offered(
    scores: NDArray[np.float32], of_document: NDArray[np.int64], hidden: set[int] | frozenset[int] = frozenset()
) -> list[int]:
    """Indexes of the offered lines, most similar first. ``scores``, ``of_document``: (lines,)."""
    order = [int(i) for i in (-scores).argsort(kind="stable")]
    documents: list[int] = []
    for at in order:
        if len(documents) == DOCUMENTS:
            break
        if of_document[at] not in documents:
            documents.append(int(of_document[at]))
    return [at for at in order if of_document[at] in documents and at not in hidden][:SENTENCES]


def _with_noise(
    rng: random.Random, evidence: Sequence[int], scores: NDArray[np.float32], of_document: NDArray[np.int64]
) -> list[int]:
    used = {int(of_document[at]) for at in evidence}
    others = [int(i) for i in (-scores).argsort(kind="stable") if int(of_document[i]) not in used]
    hard = others[: NOISE // 2]
    noise = [*hard, *rng.sample(others[len(hard) :], min(NOISE - len(hard), len(others) - len(hard)))]
    return sorted([*evidence, *noise], key=lambda at: -float(scores[at]))
