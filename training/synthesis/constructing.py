"""Questions that are built and not written: what a small model cannot do, and what is right by construction.

Several passages, comparisons and follow-ups join two statements; a near miss asks one thing for what the documents say
of another; a counterfactual changes a value in the passage and in the answer alike.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from generation.overlap import content_words
from generation.prompts import Message
from training.data.split import bucket
from training.synthesis.drafts import Task
from training.synthesis.edits import changed_value
from training.synthesis.near_misses import NearMisses
from training.synthesis.sentences import Material, Source
from training.synthesis.shapes import Asked, behind, head

MAX_PAIRS = 5_000
_FILE = Path(__file__).parent / "out_of_scope.txt"
Pair = tuple[Source, Asked, Source, Asked]


class Constructor:
    """Tasks of each form, in an order that depends on material and seed only."""

    def __init__(self, material: Material) -> None:
        self.material = material
        self.seed = material.seed
        self.asked = [
            (source, asked) for source in material.sources if (asked := material.one_asked(source)) is not None
        ]
        self.asked.sort(key=lambda pair: bucket(f"{pair[0].path}\x1f{pair[0].sentence}", self.seed))

    def tasks(self, form: str) -> Iterator[Task]:
        makers: dict[str, Callable[[], Iterator[Task]]] = {
            "several": self._several, "comparison": self._comparisons, "follow_up": self._follow_ups,
            "near_miss": lambda: NearMisses(self.material, self.asked).tasks(),
            "out_of_scope": out_of_scope_tasks, "counterfactual": self._counterfactuals,
        }  # fmt: skip
        return makers[form]()

    def pairs(self) -> Iterator[Pair]:
        """Two statements of which the subjects share a word, different ones, each statement in a few pairs at most."""
        by_word: defaultdict[str, list[int]] = defaultdict(list)
        for index, (_, asked) in enumerate(self.asked):
            for word in content_words(asked.subject):
                by_word[word].append(index)
        uses: defaultdict[int, int] = defaultdict(int)
        seen: set[tuple[int, int]] = set()
        for word in sorted(by_word, key=lambda w: bucket(f"word {w}", self.seed)):
            listed = by_word[word][:40]
            for one, two in pairwise(listed):
                if (one, two) in seen or uses[one] >= 3 or uses[two] >= 3 or len(seen) >= MAX_PAIRS:
                    continue
                seen.add((one, two))
                uses[one] += 1
                uses[two] += 1
                (source, asked), (other, asked_too) = self.asked[one], self.asked[two]
                if source.sentence != other.sentence:
                    yield source, asked, other, asked_too

    def _several(self) -> Iterator[Task]:
        """Two questions in one about the same thing, or about two of the same name."""
        for source, asked, other, too in self.pairs():
            shared = (_names_of(asked.subject) & _names_of(too.subject)) - self.material.everywhere
            same = asked.subject == too.subject or shared
            if source.chunk.pk == other.chunk.pk or not same or "what if" in (asked.frame, too.frame):
                continue
            second = _again(too, asked.subject)
            if second and asked.frame != too.frame:
                question = f"{asked.question.rstrip('?')}, and {_lower(second)}"
                if len(question.split()) <= 24:
                    names = (asked.subject, too.subject)
                    yield Task("several", (source, other), plain=question, subjects=names)

    def _comparisons(self) -> Iterator[Task]:
        for source, asked, other, too in self.pairs():
            question = compared(asked, too)
            if question:
                yield Task("comparison", (source, other), plain=question, subjects=(asked.subject, too.subject))

    def _follow_ups(self) -> Iterator[Task]:
        for source, asked, other, too in self.pairs():
            question = _after(asked, too, same_place=source.chunk.pk == other.chunk.pk)
            if question:
                history: tuple[Message, ...] = (
                    {"role": "user", "content": asked.question},
                    {"role": "assistant", "content": source.sentence},
                )
                # The sentence that answers comes first; the other one is what was said before.
                names = (asked.subject, too.subject)
                yield Task("follow_up", (other, source), plain=question, history=history, subjects=names)

    def _counterfactuals(self) -> Iterator[Task]:
        for source, asked in self.asked:
            if asked.frame in ("amount", "how long", "when", "how often"):
                edit = changed_value(source.sentence, random.Random(f"{self.seed} edit {source.key}"))
                if edit is not None and edit[0] not in source.chunk.title:
                    yield Task("counterfactual", (source,), plain=asked.question, asked=asked, edit=edit)


def compared(one: Asked, two: Asked) -> str:
    """A question that sets two parallel statements against each other; empty where they are not parallel."""
    same = one.question.replace(one.subject, "_") == two.question.replace(two.subject, "_")
    if not same or not _parallel(one.subject, two.subject) or _nested(one.subject, two.subject):
        return ""
    first, second = one.subject, two.subject
    if re.match(r"How much do(?:es)? _ cost", one.question.replace(first, "_")):
        return f"Which costs more, {first} or {second}?"
    if re.match(r"How long do(?:es)? _ (take|last|run)\?", frame := one.question.replace(first, "_")):
        verb = re.sub(r".*_ (\w+)\?", r"\1", frame)
        return f"Which {verb}s longer, {first} or {second}?"
    if one.frame == "amount" and head(first) == head(second):
        return f"What is the difference between {first} and {second}?"
    return ""


def _parallel(one: str, two: str) -> bool:
    """ "gas on Owl" and "gas on Drift", "gas on Drift" and "electricity on Drift", or with one other word."""
    tail, other = behind(one), behind(two)
    if tail and other and (one.removesuffix(tail) == two.removesuffix(other) or tail == other):
        return True
    pairs = list(zip(one.split(), two.split(), strict=False))
    return len(one.split()) == len(two.split()) and sum(a != b for a, b in pairs) == 1


def out_of_scope_tasks() -> Iterator[Task]:
    for number, question in enumerate(_out_of_scope()):
        yield Task("out_of_scope", (), name=f"listed {number}", plain=question)


@cache
def _out_of_scope() -> tuple[str, ...]:
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def _after(before: Asked, now: Asked, *, same_place: bool) -> str:
    """The second question as one asks it right behind the first; empty where it would not follow."""
    if now.subject == before.subject:
        return _again(now, before.subject) if now.frame != before.frame else ""
    parallel = before.question.replace(before.subject, "_") == now.question.replace(now.subject, "_")
    if parallel and head(now.subject) == head(before.subject):
        return "" if _nested(now.subject, before.subject) else f"And {now.subject}?"
    return f"And {_lower(now.question)}" if same_place else ""


def _again(asked: Asked, known: str) -> str:
    """The question with a pronoun for what was named before; empty where none fits."""
    if asked.subject != known:
        return asked.question
    before, found, after = asked.question.partition(asked.subject)
    if not found or re.search(r"\b(?:a|an|any) $", before) or asked.subject in ("I", "you"):
        return ""
    many = re.search(r"\b(?:are|do|have) $", before)
    return f"{before}{'they' if many else 'it'}{after}"


def _names_of(subject: str) -> frozenset[str]:
    return frozenset(word for word in subject.split() if word[:1].isupper())


def _nested(one: str, two: str) -> bool:
    return content_words(one) <= content_words(two) or content_words(two) <= content_words(one)


def _lower(question: str) -> str:
    return question[:1].lower() + question[1:]
