"""Training worlds of reading files: a few documents with their slots filled, and what is asked about them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from generation.prompts import Message
from training.base_model.phrasing import lower_first, upper_first, vary_question
from training.base_model.reading.fill import Filler
from training.base_model.reading.format import Asked, Document, ReadingFile
from training.base_model.worlds import Item, World

_LEFT_OUT = 0.03
"""Share of sentences that are missing from the document: their questions become near-misses."""
_NEAR_MISSES_KEPT = 0.6
"""Share of the near-misses that are asked. All of them taught the model to decline whatever it had to think about."""
_NO_KEPT = 0.7
"""Share of the no-questions that are asked: people write twice as many of them as yes-questions."""


@dataclass(frozen=True)
class _Told:
    """A filled sentence: where it stands (None: left out), its text, its questions."""

    at: int | None
    text: str
    asked: tuple[Asked, ...]


def reading_world(
    rng: random.Random, files: Sequence[ReadingFile], *, words: Sequence[str] = (), items: int = 12
) -> World:
    """Two to four neighbouring documents of one file, sometimes with a stranger from another."""
    file = rng.choice(files)
    start, count = rng.randrange(len(file.documents)), rng.randint(2, 4)
    picked = [file.documents[(start + i) % len(file.documents)] for i in range(min(count, len(file.documents)))]
    if rng.random() < 0.3:
        picked.append(rng.choice(rng.choice(files).documents))
    world, found = World(), list[Item]()
    for number, document in enumerate(picked):
        filler = Filler(rng, words if rng.random() < 0.5 else ())
        found += _add(world, number, document, filler, left_out=_LEFT_OUT)
    rng.shuffle(found)
    world.items = found[:items]
    return world


def whole_world(file: ReadingFile) -> World:
    """Every document and every question of a file without slots: an examination."""
    world, rng = World(), random.Random(file.name)
    for number, document in enumerate(file.documents):
        world.items += _add(world, number, document, Filler(rng), vary=False)
    return world


def _add(
    world: World, number: int, document: Document, filler: Filler, *, left_out: float = 0.0, vary: bool = True
) -> list[Item]:
    rng = filler.rng
    title = filler.fill(document.title, filler.scope())
    told: list[_Told] = []
    for sentence in document.sentences:
        scope = filler.scope()
        text = upper_first(filler.fill(sentence.text, scope))
        asked = tuple(
            replace(a, text=filler.fill(a.text, scope), short=filler.fill(a.short, scope)) for a in sentence.asked
        )
        at: int | None = None
        if rng.random() >= left_out and world.add(number, title, text):
            at = len(world.lines) - 1
        told.append(_Told(at, text, asked))
    items = [item for at in range(len(told)) for item in _about(rng, told, at, vary)]
    for first, second, question in document.joined:
        gold = [(t.at, t.text) for t in (told[first], told[second]) if t.at is not None]
        if len(gold) == 2:
            items.append(Item(filler.fill(question, filler.scope()), tuple(gold)))
    near_misses = [text for text in document.near_misses if not vary or rng.random() < _NEAR_MISSES_KEPT]
    items += [Item(filler.fill(text, filler.scope())) for text in near_misses]
    return items


def _about(rng: random.Random, told: Sequence[_Told], number: int, vary: bool) -> list[Item]:
    this = told[number]
    items: list[Item] = []
    for asked in this.asked:
        answer = this.text
        if asked.kind in "yn":
            answer = f"{'Yes' if asked.kind == 'y' else 'No'}, {lower_first(answer)}"
        if asked.kind == "n" and vary and rng.random() > _NO_KEPT:
            continue
        history: tuple[Message, ...] = ()
        if asked.kind == ">":
            before = _before(rng, told, number)
            if before is None:
                continue
            history = before
        question = vary_question(asked.text, rng) if vary and rng.random() < 0.4 else asked.text
        gold = ((this.at, answer),) if this.at is not None else ()
        items.append(Item(question, gold, history, asked.short))
    return items


def _before(rng: random.Random, told: Sequence[_Told], number: int) -> tuple[Message, ...] | None:
    """The exchange before a follow-up: mostly on the sentence just above, else on a neighbour."""
    order = [number - 1, number + 1, number - 2] if rng.random() < 0.8 else [number - 2, number + 1, number - 1]
    for at in order:
        if 0 <= at < len(told):
            asked = [a for a in told[at].asked if a.kind == "?"]
            if asked:
                return (
                    {"role": "user", "content": rng.choice(asked).text},
                    {"role": "assistant", "content": told[at].text},
                )
    return None
