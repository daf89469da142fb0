"""What chats, scans and hurried fingers do to a text; labels move along with their characters."""

from __future__ import annotations

import random
import unicodedata
from typing import NamedTuple

from training.name_model.fill import Piece

_SCAN = {"o": "0", "O": "0", "l": "1", "I": "l", "S": "5", "B": "8", "e": "c", "a": "o", "t": "f", "i": "1", "g": "q"}


class Cell(NamedTuple):
    """A character with its label."""

    char: str
    label: str | None


def cells(pieces: list[Piece]) -> list[Cell]:
    """The characters of the pieces; two names of people with only a blank between them become one."""
    merged = list(pieces)
    for i in range(1, len(pieces) - 1):
        if pieces[i].text == " " and pieces[i - 1].label == pieces[i + 1].label == "PERSON":
            merged[i] = Piece(" ", "PERSON")
    return [Cell(char, piece.label) for piece in merged for char in piece.text]


def disturb(text: list[Cell], rng: random.Random) -> list[Cell]:
    """Mostly nothing; else a case, missing punctuation, missing accents, typing errors or a poor scan."""
    draw = rng.random()
    if draw < 0.15:
        text = [Cell(_same_length(c.char, c.char.lower()), c.label) for c in text]
    elif draw < 0.20:
        text = [Cell(_same_length(c.char, c.char.upper()), c.label) for c in text]
    elif draw < 0.22:
        text = _title(text)
    if rng.random() < 0.10:
        text = [c for c in text if c.char not in ".,;:!?'\"" or rng.random() < 0.2]
    if rng.random() < 0.25:
        text = [Cell(_bare(c.char), c.label) for c in text]
    draw = rng.random()
    if draw < 0.05:
        text = [Cell(_SCAN.get(c.char, c.char), c.label) if rng.random() < 0.08 else c for c in text]
    elif draw < 0.13:
        text = _mistyped(text, rng)
    if rng.random() < 0.06:
        text = [Cell("\n" if c.char == " " and rng.random() < 0.08 else c.char, c.label) for c in text]
    if rng.random() < 0.15:
        text = [Cell("’" if c.char == "'" else c.char, c.label) for c in text]
    return text


def _same_length(char: str, changed: str) -> str:
    return changed if len(changed) == 1 else char


def _title(text: list[Cell]) -> list[Cell]:
    return [
        Cell(_same_length(c.char, c.char.upper()) if i == 0 or not text[i - 1].char.isalpha() else c.char, c.label)
        for i, c in enumerate(text)
    ]


def _bare(char: str) -> str:
    return unicodedata.normalize("NFKD", char)[0] if not char.isascii() and char.isalpha() else char


def _mistyped(text: list[Cell], rng: random.Random) -> list[Cell]:
    made = list(text)
    for _ in range(max(1, len(text) // 60)):
        i = rng.randrange(max(1, len(made) - 1))
        if i + 1 >= len(made) or not (made[i].char.isalpha() and made[i + 1].char.isalpha()):
            continue
        kind = rng.choice(("swap", "drop", "double"))
        if kind == "swap" and made[i].label == made[i + 1].label:
            made[i], made[i + 1] = made[i + 1], made[i]
        elif kind == "drop":
            del made[i]
        else:
            made.insert(i, made[i])
    return made
