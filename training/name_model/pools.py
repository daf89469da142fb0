"""Names and places to fill templates with: Faker's lists of many locales, own lists, and names that nobody has.

One name in twelve, chosen by a hash, is held out: held-out texts are filled with those only, so that
what is measured on them is names that were never seen.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
OTHER_SCRIPTS = "other"
"""Key of the names of languages in another script, in Latin letters."""
_HELD_OUT_SHARE = 12
_DRAWS = 250


@dataclass
class Locale:
    """Values of one locale; every list has at least one entry."""

    name: str
    first: list[str] = field(default_factory=list)
    last: list[str] = field(default_factory=list)
    cities: list[str] = field(default_factory=list)
    streets: list[str] = field(default_factory=list)
    postcodes: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)


def held_out(value: str) -> bool:
    """Whether a name belongs to the held-out twelfth."""
    return hashlib.sha256(value.casefold().encode()).digest()[0] % _HELD_OUT_SHARE == 0


def read_list(name: str) -> dict[str, list[str]]:
    """`lists/NAME.txt`: "kind: a; b; c" per line, joined by kind."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (FOLDER / "lists" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            kind, _, values = line.partition(":")
            found[kind.strip()] += [value.strip() for value in values.split(";") if value.strip()]
    return dict(found)


def templates(*, hold_out: bool) -> list[tuple[str, str]]:
    """(file, template) pairs; every twelfth template of a file is held out. ``\\n`` in a file is a line break."""
    found = []
    for path in sorted((FOLDER / "templates").glob("*.txt")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            if line.strip() and (number % _HELD_OUT_SHARE == 5) == hold_out:
                found.append((path.stem, line.replace("\\n", "\n")))
    return found


def locales(rng: random.Random, *, hold_out: bool) -> dict[str, Locale]:
    """The values of every locale, names of the wanted side only."""
    known = read_list("locales")
    found = {name: _faker_locale(name, rng.randrange(2**32), name in known["real cities"]) for name in known["all"]}
    other = read_list("names")
    found[OTHER_SCRIPTS] = Locale(OTHER_SCRIPTS, other["first"], other["last"])
    for locale in found.values():
        locale.first = _side(locale.first, hold_out)
        locale.last = _side(locale.last, hold_out)
    return found


def _side(values: Sequence[str], hold_out: bool) -> list[str]:
    kept = [value for value in values if held_out(value) == hold_out]
    return kept or list(values[:1])


def _faker_locale(name: str, seed: int, real_cities: bool) -> Locale:
    from faker import Faker

    fake = Faker(name)
    fake.seed_instance(seed)

    def draw(method: str, count: int = _DRAWS) -> list[str]:
        values = {getattr(fake, method)() for _ in range(count)}
        return sorted(value for value in values if _latin(value))

    return Locale(
        name,
        draw("first_name", 4 * _DRAWS),
        draw("last_name", 4 * _DRAWS),
        draw("city") if real_cities or name.startswith("en_") else [],
        draw("street_name"),
        draw("postcode"),
        draw("address"),
    )


def _latin(value: str) -> bool:
    return all(ord(char) < 0x250 or 0x1E00 <= ord(char) < 0x1F00 or not char.isalpha() for char in value)


class Invented:
    """Names that stand in no list, letter by letter after the manner of listed ones (third-order chains)."""

    def __init__(self, names: Iterable[str]) -> None:
        self._next: dict[str, list[str]] = defaultdict(list)
        for name in names:
            padded = f"^^{name.lower()}$"
            for i in range(len(padded) - 2):
                self._next[padded[i : i + 2]].append(padded[i + 2])

    def draw(self, rng: random.Random) -> str:
        """A capitalised name of four to eleven letters."""
        while True:
            text = "^^"
            while text[-1] != "$" and len(text) < 15:
                text += rng.choice(self._next[text[-2:]])
            name = text[2:-1]
            if text[-1] == "$" and 4 <= len(name) <= 11 and name.isalpha():
                return name.capitalize()


@lru_cache(maxsize=1)
def listed_cities() -> tuple[str, ...]:
    """Place names of all locales, folded in the gazetteer, written with capitals."""
    from privacy.gazetteer import gazetteer

    lists = gazetteer()
    return tuple(sorted(place.title() for place in lists.places if len(place) > 3 and place not in lists.common))
