"""Slots of a reading file: ``{money}`` gets a random value, the same in a sentence and its questions.

``{money#2}`` is a second value of the same kind, ``{person@a}`` one that the whole document shares.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from training.base_model import slots

_SLOT = re.compile(r"\{([a-z_]+)(?:([#@])(\w+))?\}")
_VALUES = frozenset(
    (
        "money", "span", "count", "percent", "clock", "date", "year", "weekday", "age", "weight", "length", "distance",
        "area", "height", "volume", "temperature", "speed", "power", "data", "version", "port",
    )
)  # fmt: skip
_OTHERS = frozenset(("month", "person", "role", "email", "phone", "code", "url_path", "name", "town", "company"))
_COMPANY_ENDINGS = ("Ltd", "& Sons", "Group", "GmbH", "Works", "Services", "Inc", "Partners")


def check_slots(text: str) -> None:
    """Raises ValueError for an unknown kind of slot or a brace that belongs to none."""
    for kind, _, _ in _SLOT.findall(text):
        if kind not in _VALUES | _OTHERS:
            raise ValueError(f"unknown slot {{{kind}}}")
    if re.search(r"[{}]", _SLOT.sub("", text)):
        raise ValueError(f"a brace outside of a slot: {text!r}")


class Filler:
    """Values for one document. ``words``: names may be made of any of these, so that every token becomes a target."""

    def __init__(self, rng: random.Random, words: Sequence[str] = ()) -> None:
        self.rng, self.words = rng, words
        self.shared: dict[str, str] = {}

    def scope(self) -> dict[str, str]:
        """A new sentence: its slots get new values."""
        return {}

    def fill(self, text: str, scope: dict[str, str]) -> str:
        def value(match: re.Match[str]) -> str:
            kind, mark, _ = match.groups()
            known = self.shared if mark == "@" else scope
            if match.group(0) not in known:
                known[match.group(0)] = self._value(kind)
            return known[match.group(0)]

        return _SLOT.sub(value, text)

    def _value(self, kind: str) -> str:
        rng = self.rng
        if kind in _VALUES:
            return slots.value(kind, rng)
        if kind in ("name", "town"):
            return self._name()
        if kind == "company":
            return f"{self._name()} {rng.choice(_COMPANY_ENDINGS)}"
        makers = {
            "person": slots.person, "role": slots.role, "email": slots.email, "phone": slots.phone,
            "code": slots.odd_string,
        }  # fmt: skip
        if kind == "month":
            return rng.choice(slots.MONTHS)
        if kind == "url_path":
            return f"/{slots.invented_word(rng)}/{slots.invented_word(rng)}"
        return makers[kind](rng)

    def _name(self) -> str:
        rng = self.rng
        if not self.words or rng.random() < 0.5:
            return slots.invented_name(rng)
        return " ".join(word[:1].upper() + word[1:] for word in rng.sample(self.words, rng.choice([1, 1, 2])))
