"""A piece of work and the draft that comes of it, whoever writes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from generation.prompts import Message
from training.synthesis.sentences import Source
from training.synthesis.shapes import Asked


@dataclass(frozen=True)
class Task:
    """One question to write. ``places``: the sentences it is about, the one that answers first; ``plain``: by rule,
    for forms that are built and not written; ``name`` is the same whenever the work is done again."""

    form: str
    places: tuple[Source, ...] = ()
    name: str = ""
    plain: str = ""
    asked: Asked | None = None
    subjects: tuple[str, ...] = ()
    """What it is about: a number in there is a name, not the answer."""
    history: tuple[Message, ...] = ()
    edit: tuple[str, str] | None = None
    """Counterfactual: the value in the sentence, and what stands there instead."""
    attempt: int = 1
    objection: str = ""

    @property
    def key(self) -> str:
        return f"{self.form}:{self.name or '+'.join(place.key for place in self.places)}"[:64]

    @property
    def place(self) -> str:
        """Form and place in the documents: the same when they are loaded anew, which the key is not."""
        where = [f"{s.path}\x1f{s.chunk.position}\x1f{s.index}" for s in self.places]
        return "\x1f".join([self.form, *where, self.plain])


@dataclass
class Draft:
    """``gold``: the sentences that answer, in the order of the answer; empty where declining is right."""

    task: Task
    question: str = ""
    gold: tuple[Source, ...] = ()
    answer: str = ""
    """Of a teacher, where the house cites whole passages; else the gold sentences are the answer."""
    history: tuple[Message, ...] = ()
    plain: str = ""
    """The question before it was put into a style: what the filters of the text read."""
    lineage: dict[str, Any] = field(default_factory=dict)
    subjects: tuple[str, ...] = ()
    dropped_by: str = ""
    note: str = ""

    @property
    def declines(self) -> bool:
        return self.task.form in ("near_miss", "out_of_scope")

    @property
    def texts(self) -> list[str]:
        """The sentences of the answer, edited where the passage is."""
        return [edited(source.sentence, self.task.edit) for source in self.gold]

    def drop(self, why: str, note: str = "") -> None:
        self.dropped_by, self.note = why, " ".join(note.split())[:300]


def edited(sentence: str, edit: tuple[str, str] | None) -> str:
    return sentence.replace(edit[0], edit[1], 1) if edit else sentence
