"""Which sentences questions are written for: every chunk gets its turn, the least covered first; sentences that say
little get none."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from assistants.models import Assistant
from generation.overlap import content_words, words
from generation.prompts import split_sentences
from knowledge.models import Chunk, Document
from training.data.split import bucket
from training.synthesis.by_rule import all_by_rule
from training.synthesis.clauses import names_in
from training.synthesis.filters import says_something
from training.synthesis.shapes import Asked

MAX_CHUNKS = 20_000
"""Of a larger archive so many are drawn by the seed, documents in turns: more would not fit into memory, and nobody
wants more questions than that."""


MANY_DOCUMENTS = 2
EVERYWHERE = 0.2
LEAST_BEGINNING = 4
"""Words before a number that say what it is of: "The Kestrel costs" is followed by prices of its parts as well."""


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

    @property
    def key(self) -> str:
        return f"{self.chunk.pk}.{self.index}"

    @property
    def place(self) -> list[object]:
        """For the lineage: chunk, document, sentence."""
        return [self.chunk.pk, self.path, self.index]


class Material:
    """The sentences of an assistant's documents in force, read once, with what the documents say of words."""

    def __init__(self, assistant: Assistant, seed: int) -> None:
        self.seed = seed
        self.chunks: dict[int, list[Source]] = {}
        """Chunk → its usable sentences in an order that depends on the seed only."""
        self.texts: list[str] = []
        for chunk in _chunks(assistant, seed):
            listed = tuple(split_sentences(chunk.text))
            self.texts += listed
            usable = [Source(chunk, chunk.document.path, listed, i) for i, s in enumerate(listed) if says_something(s)]
            if usable:
                usable.sort(key=lambda s: bucket(f"{s.path}\x1f{s.chunk.position}\x1f{s.index}", seed))
                self.chunks[chunk.pk] = usable
        self._asked: dict[str, list[Asked]] = {}

    @cached_property
    def names(self) -> frozenset[str]:
        return names_in(self.texts)

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        return frozenset(word for text in self.texts for word in words(text))

    @cached_property
    def everywhere(self) -> frozenset[str]:
        """Names in so many documents that they say nothing of a subject, as the house's own."""
        most = max(2.0, EVERYWHERE * len({listed[0].path for listed in self.chunks.values()}))
        return frozenset(n for n in self.names if any(self._documents_with[w] > most for w in content_words(n)))

    def is_vague(self, subject: str) -> bool:
        """ "the test" where several documents have a test: nobody could tell which one is meant."""
        bare = re.sub(r"^(?:a|an|the|each|every|any|all|some|most|many|other) ", "", subject)
        if len(bare.split()) != 1 or not bare.islower():
            return False
        return any(self._documents_with[word] >= MANY_DOCUMENTS for word in content_words(bare))

    def is_one_of_several(self, source: Source, question: str) -> bool:
        """ "What is the standing charge?" of "The standing charge is 54p for electricity." beside "… is 31p for gas.":
        the documents say it of several things, and the question names none of them."""
        others = [one for one in self._beginning_as(source) if one.sentence != source.sentence]
        told = set(content_words(source.sentence)).difference(*(content_words(one.sentence) for one in others))
        return bool(others) and not told & content_words(question)

    def _beginning_as(self, source: Source) -> list[Source]:
        start = _before_number(source.sentence)
        return self._by_beginning[start] if len(start.split()) >= LEAST_BEGINNING else []

    @cached_property
    def _by_beginning(self) -> dict[str, list[Source]]:
        found: dict[str, list[Source]] = defaultdict(list)
        for source in self.sources:
            found[_before_number(source.sentence)].append(source)
        return found

    @cached_property
    def _documents_with(self) -> Counter[str]:
        """Word without its ending → in how many documents it stands."""
        found: dict[str, set[str]] = defaultdict(set)
        for listed in self.chunks.values():
            for sentence in listed[0].sentences:
                for word in content_words(sentence):
                    found[word].add(listed[0].path)
        return Counter({word: len(paths) for word, paths in found.items()})

    @cached_property
    def _order(self) -> list[int]:
        """Chunks by their place in their document, not by their key: loaded again, they are asked about alike."""
        return sorted(self.chunks, key=lambda pk: bucket(_name(self.chunks[pk][0].chunk), self.seed))

    @property
    def sources(self) -> Iterator[Source]:
        return (source for listed in self.chunks.values() for source in listed)

    def asked(self, source: Source) -> list[Asked]:
        """Questions by rule, the best ones: those that ask for a value before those that ask whether."""
        found = self._asked.get(source.key)
        if found is None:
            found = all_by_rule(source.sentence, self.names)
            best = min((asked.rank for asked in found), default=0)
            self._asked[source.key] = found = [asked for asked in found if asked.rank == best]
        return found

    def one_asked(self, source: Source) -> Asked | None:
        listed = self.asked(source)
        return random.Random(f"{self.seed} {source.path} {source.sentence}").choice(listed) if listed else None

    def least_covered(
        self, kept: Mapping[int, int], tried: Mapping[int, int], done: Iterable[str], *, by_rule_only: bool
    ) -> Iterator[Source]:
        """One sentence of each chunk, chunks with the fewest kept and then the fewest tried questions first; among
        equals documents take turns. ``done``: keys of sentences that had their turn."""
        finished = set(done)
        place: Counter[tuple[str, int, int]] = Counter()
        ordered: list[tuple[int, int, int, float, Source]] = []
        for pk in self._order:
            free = (s for s in self.chunks[pk] if s.key not in finished and (not by_rule_only or self.asked(s)))
            source = next(free, None)
            if source is None:
                continue
            level = (source.path, kept.get(pk, 0), tried.get(pk, 0))
            ordered.append((level[1], level[2], place[level], bucket(source.path, self.seed), source))
            place[level] += 1
        ordered.sort(key=lambda row: row[:4])
        return (row[4] for row in ordered)


def _name(chunk: Chunk) -> str:
    return f"{chunk.document.path}\x1f{chunk.position}"


def _chunks(assistant: Assistant, seed: int) -> list[Chunk]:
    documents = Document.objects.in_force().filter(assistant=assistant)
    rows = Chunk.objects.filter(document__in=documents).order_by("document__path", "position")
    by_document: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for pk, path, position in rows.values_list("pk", "document__path", "position"):
        by_document[path].append((bucket(f"{path}\x1f{position}", seed), pk))
    ordered = [sorted(listed) for listed in by_document.values()]
    chosen: list[int] = []
    turn = 0
    while len(chosen) < MAX_CHUNKS and any(turn < len(listed) for listed in ordered):
        chosen += [listed[turn][1] for listed in ordered if turn < len(listed)]
        turn += 1
    found = rows.filter(pk__in=chosen[:MAX_CHUNKS]).select_related("document")
    return list(found.only("pk", "position", "headings", "text", "assistant_id", "document__path", "document__title"))


def sources(assistant: Assistant, seed: int) -> Iterator[Source]:
    """Every sentence worth a question, each chunk in its turn."""
    material = Material(assistant, seed)
    done: set[str] = set()
    tried: Counter[int] = Counter()
    while batch := list(material.least_covered({}, tried, done, by_rule_only=False)):
        for source in batch:
            done.add(source.key)
            tried[source.chunk.pk] += 1
            yield source


def _before_number(sentence: str) -> str:
    """Up to the first value; empty where there is none."""
    place = re.search(r"\W?\d", sentence)
    return sentence[: place.start()] if place else ""
