"""Questions that are built and not written: what a small model cannot do, and what is right by construction.

Several passages, comparisons and follow-ups join two statements; a near miss asks one thing for what the documents say
of another; a counterfactual changes a value in the passage and in the answer alike.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path

from generation.overlap import content_words
from generation.prompts import Message
from training.data.split import bucket
from training.synthesis.drafts import Task
from training.synthesis.edits import changed_value
from training.synthesis.sentences import Material, Source
from training.synthesis.shapes import DENIES, MOMENT, MONEY, SPAN, Asked, behind, head

MAX_PAIRS = 5_000
SAYS = 0.6
"""Share of the words of a thing with which a sentence speaks of it."""
_FILE = Path(__file__).parent / "out_of_scope.txt"
_VALUES = {"amount": MONEY, "how long": SPAN, "when": MOMENT}
_USUAL = {"How much does _ cost?": "How long does _ take?", "How long does _ take?": "How much does _ cost?"}
"""Of what somebody does ("moving a meter") both may be asked, whatever the documents say of the like."""
Pair = tuple[Source, Asked, Source, Asked]
Said = Mapping[str, Mapping[str, tuple[Source, Asked]]]


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
            "near_miss": self._near_misses, "out_of_scope": out_of_scope_tasks, "counterfactual": self._counterfactuals,
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

    def _near_misses(self) -> Iterator[Task]:
        """One thing asked for what is only said of others of its sort: of things with the same head word, or, for "the
        excess on HearthGuard Basic", of other names."""
        said: defaultdict[str, dict[str, tuple[Source, Asked]]] = defaultdict(dict)
        for source, asked in self.asked:
            if asked.frame in _VALUES and asked.subject in asked.question:
                said[asked.subject].setdefault(asked.question.replace(asked.subject, "_"), (source, asked))
        unsaid, asked_for = self._unsaid(), set[str]()
        for subject in sorted(said, key=lambda s: bucket(f"thing {s}", self.seed)):
            source, asked = next(iter(said[subject].values()))
            for question, frame in [*self._of_its_sort(subject, said), *self._of_its_name(subject, said)]:
                if question[0] not in asked_for and unsaid(question[1], frame) and len(question[0].split()) <= 16:
                    asked_for.add(question[0])
                    name = f"{source.key}:{_short(question[0])}"
                    yield Task("near_miss", (source,), name=name, plain=question[0], subjects=(question[1],))
                    break

    def _of_its_sort(self, subject: str, said: Said) -> Iterator[tuple[tuple[str, str], str]]:
        """((question, thing), what is asked for): frames that things with the same head have and this one has not."""
        own, kind = said[subject], head(subject)
        frames = {f: a.frame for other in said if head(other) == kind for f, (_, a) in said[other].items()}
        if subject.split(maxsplit=1)[0].endswith("ing"):
            frames |= {_USUAL[f]: "how long" if "long" in _USUAL[f] else "amount" for f in own if f in _USUAL}
        asked = next(iter(own.values()))[1]
        for frame in sorted(frames.keys() - own.keys(), key=lambda f: bucket(f"{subject} {f}", self.seed)):
            if _agree(frame, asked):
                yield (frame.replace("_", subject), subject), frames[frame]

    def _of_its_name(self, subject: str, said: Said) -> Iterator[tuple[tuple[str, str], str]]:
        """The same for a property: what a name has that shares another property with this one, and this one has not."""
        tail = behind(subject)
        if not _NAMED.match(tail):
            return
        names: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
        for other, frames in said.items():
            for frame, (_, asked) in frames.items():
                if _sort(behind(other)) == _sort(tail):
                    names[other.removesuffix(behind(other)).strip(), frame, asked.frame].add(behind(other))
        alike = set().union(*(tails for tails in names.values() if tail in tails)) - {tail}
        for (thing, frame, kind), tails in sorted(names.items(), key=lambda row: bucket(str(row[0]), self.seed)):
            if tail not in tails and tails & alike:
                yield (frame.replace("_", f"{thing} {tail}"), f"{thing} {tail}"), kind

    def _unsaid(self) -> Callable[[str, str], bool]:
        """Whether no sentence that speaks of a thing, by itself or by its heading, gives a value of a kind. Too careful
        rather than not careful enough: one near miss that can be answered teaches to decline."""
        index: defaultdict[str, set[int]] = defaultdict(set)
        lines: list[str] = []
        for listed in self.material.chunks.values():
            title = listed[0].chunk.title
            for sentence in listed[0].sentences:
                for word in content_words(f"{title} {sentence}"):
                    index[word].add(len(lines))
                lines.append(sentence)

        def unsaid(thing: str, kind: str) -> bool:
            # What is said of a Tern holds for "a Tern with 6 kWh", and of both Fix tariffs for "Fix 12".
            tail = behind(thing)
            named = bool(_NAMED.match(tail))
            asked = _wordy(thing if named else thing.removesuffix(tail))
            name = _wordy(tail) if named else frozenset()
            told = Counter(place for word in asked for place in index[word])
            least = (SAYS if named else 0.5) * len(asked)
            return bool(asked) and not any(
                n >= least
                and all(place in index[word] for word in name)
                and re.search(rf"{_VALUES[kind]}|{DENIES}", lines[place])
                for place, n in told.items()
            )

        return unsaid


_NAMED = re.compile(r"(?:of|on|for|in) (?:the )?[A-Z]")


def _wordy(text: str) -> frozenset[str]:
    return frozenset(word for word in content_words(text) if not any(c.isdigit() for c in word))


def _sort(tail: str) -> str:
    """ "on the Owl" → "on the": names behind the same words are of one sort."""
    found = _NAMED.match(tail)
    return found.group(0)[:-1] if found else ""


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


def _agree(frame: str, asked: Asked) -> bool:
    """A frame made for one thing is not asked of several."""
    many = bool(re.search(r"\b(?:are|do) _", asked.question.replace(asked.subject, "_")))
    return many == bool(re.search(r"\b(?:are|do) _", frame))


def _nested(one: str, two: str) -> bool:
    return content_words(one) <= content_words(two) or content_words(two) <= content_words(one)


def _lower(question: str) -> str:
    return question[:1].lower() + question[1:]


def _short(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())[:24]
