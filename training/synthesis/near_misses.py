"""Near misses: the right thing, and a detail of it that no document gives, though others of its sort have it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from generation.overlap import content_words
from training.data.split import bucket
from training.synthesis.drafts import Task
from training.synthesis.sentences import Material, Source
from training.synthesis.shapes import DENIES, MOMENT, MONEY, SPAN, Asked, behind, head

SAYS_NAMED, SAYS = 0.6, 0.5
"""Share of the words of a thing with which a sentence speaks of it: of a property of something named, of another."""
MAX_WORDS = 16
VALUES = {"amount": MONEY, "how long": SPAN, "when": MOMENT}
_USUAL = {
    "How much does _ cost?": ("How long does _ take?", "how long"),
    "How long does _ take?": ("How much does _ cost?", "amount"),
}
"""Of what somebody does ("moving a meter") both may be asked, whatever the documents say of the like."""
_NAMED = re.compile(r"(?:of|on|for|in) (?:the )?[A-Z]")


class Wanted(NamedTuple):
    """``frame``: the question with _ for the thing; ``kind``: what value would answer it."""

    thing: str
    frame: str
    kind: str

    @property
    def question(self) -> str:
        return self.frame.replace("_", self.thing)


class NearMisses:
    """``asked``: statements with their questions by rule."""

    def __init__(self, material: Material, asked: Sequence[tuple[Source, Asked]]) -> None:
        self.seed = material.seed
        self._said: dict[str, dict[str, tuple[Source, Asked]]] = {}
        """Thing → frame → what says it."""
        self._of_head: defaultdict[str, dict[str, str]] = defaultdict(dict)
        """Head word → frame → kind."""
        self._of_sort: defaultdict[str, defaultdict[Wanted, set[str]]] = defaultdict(lambda: defaultdict(set))
        """Words before names ("on the") → property → the names that have it."""
        self._of_tail: defaultdict[str, set[Wanted]] = defaultdict(set)
        for source, one in asked:
            if one.frame in VALUES and one.subject in one.question:
                self._note(source, one)
        self._lines: list[str] = []
        self._index: defaultdict[str, set[int]] = defaultdict(set)
        for listed in material.chunks.values():
            for sentence in listed[0].sentences:
                for word in content_words(f"{listed[0].chunk.title} {sentence}"):
                    self._index[word].add(len(self._lines))
                self._lines.append(sentence)

    def tasks(self) -> Iterator[Task]:
        """At most one for each thing, no question twice."""
        before: set[str] = set()
        for thing in sorted(self._said, key=lambda thing: bucket(f"thing {thing}", self.seed)):
            source, _ = next(iter(self._said[thing].values()))
            for wanted in [*self._of_its_sort(thing), *self._of_its_name(thing)]:
                question = wanted.question
                if question in before or len(question.split()) > MAX_WORDS or self._is_said(wanted):
                    continue
                before.add(question)
                name = f"{source.key}:{re.sub(r'[^a-z]', '', question.lower())[:24]}"
                yield Task("near_miss", (source,), name=name, plain=question, subjects=(wanted.thing,))
                break

    def _note(self, source: Source, one: Asked) -> None:
        frame, tail = one.question.replace(one.subject, "_"), behind(one.subject)
        self._said.setdefault(one.subject, {}).setdefault(frame, (source, one))
        self._of_head[head(one.subject)][frame] = one.frame
        if sort := _sort(tail):
            wanted = Wanted(one.subject.removesuffix(tail).strip(), frame, one.frame)
            self._of_sort[sort][wanted].add(tail)
            self._of_tail[tail].add(wanted)

    def _of_its_sort(self, thing: str) -> Iterator[Wanted]:
        """What things with the same head word have."""
        own = self._said[thing]
        frames = dict(self._of_head[head(thing)])
        if thing.split(maxsplit=1)[0].endswith("ing"):
            frames |= dict(_USUAL[frame] for frame in own if frame in _USUAL)
        _, asked = next(iter(own.values()))
        for frame in sorted(frames.keys() - own.keys(), key=lambda frame: bucket(f"{thing} {frame}", self.seed)):
            if _agree(frame, asked):
                yield Wanted(thing, frame, frames[frame])

    def _of_its_name(self, thing: str) -> Iterator[Wanted]:
        """For "the excess on Basic": what other names have that share a property with this one."""
        tail = behind(thing)
        properties: Mapping[Wanted, set[str]] = self._of_sort.get(_sort(tail), {})
        alike = {other for wanted in self._of_tail[tail] for other in properties.get(wanted, ())} - {tail}
        for wanted in sorted(properties, key=lambda wanted: bucket(str(wanted), self.seed)):
            if tail not in properties[wanted] and properties[wanted] & alike:
                yield wanted._replace(thing=f"{wanted.thing} {tail}")

    def _is_said(self, wanted: Wanted) -> bool:
        """Whether a sentence that speaks of the thing, by itself or by its heading, gives such a value or denies it.
        Too careful rather than not careful enough: one near miss that can be answered teaches to decline."""
        tail = behind(wanted.thing)
        named = bool(_NAMED.match(tail))
        # What is said of a Tern holds for "a Tern with 6 kWh", and of both Fix tariffs for "Fix 12".
        asked = _wordy(wanted.thing if named else wanted.thing.removesuffix(tail))
        name = _wordy(tail) if named else frozenset()
        told = Counter(place for word in asked for place in self._index[word])
        least = (SAYS_NAMED if named else SAYS) * len(asked)
        return not asked or any(
            n >= least
            and all(place in self._index[word] for word in name)
            and re.search(rf"{VALUES[wanted.kind]}|{DENIES}", self._lines[place])
            for place, n in told.items()
        )


def _wordy(text: str) -> frozenset[str]:
    return frozenset(word for word in content_words(text) if not any(c.isdigit() for c in word))


def _sort(tail: str) -> str:
    """ "on the Owl" → "on the": names behind the same words are of one sort."""
    found = _NAMED.match(tail)
    return found.group(0)[:-1] if found else ""


def _agree(frame: str, asked: Asked) -> bool:
    """A frame made for one thing is not asked of several."""
    many = bool(re.search(r"\b(?:are|do) _", asked.question.replace(asked.subject, "_")))
    return many == bool(re.search(r"\b(?:are|do) _", frame))
