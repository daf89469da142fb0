"""Which sentences questions are written for: every document gets its turn, sentences that say little get none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from assistants.models import Assistant
from generation.prompts import split_sentences
from knowledge.models import Chunk, Document
from training.data.split import bucket
from training.synthesis.filters import says_something


@dataclass(frozen=True)
class Source:
    """One sentence (index into the chunk's sentences) to write a question for."""

    chunk: Chunk
    path: str
    sentences: tuple[str, ...]
    index: int

    @property
    def sentence(self) -> str:
        return self.sentences[self.index]


def sources(assistant: Assistant, seed: int) -> Iterator[Source]:
    """Sentences worth a question, document by document in turns, in an order that depends on the seed only."""
    documents = Document.objects.in_force().filter(assistant=assistant)
    chunks = Chunk.objects.filter(document__in=documents).select_related("document").defer("embedding", "words")
    per_document: dict[str, list[Source]] = {}
    for chunk in chunks:
        sentences = tuple(split_sentences(chunk.text))
        usable = [
            Source(chunk, chunk.document.path, sentences, i) for i, s in enumerate(sentences) if says_something(s)
        ]
        per_document.setdefault(chunk.document.path, []).extend(usable)
    for listed in per_document.values():
        listed.sort(key=lambda s: bucket(f"{s.path}\x1f{s.chunk.position}\x1f{s.index}", seed))
    rounds = max(map(len, per_document.values()), default=0)
    paths = sorted(per_document, key=lambda path: bucket(path, seed))
    for turn in range(rounds):
        for path in paths:
            if turn < len(per_document[path]):
                yield per_document[path][turn]
