"""A template and random values: a labelled text, as pieces of (text, label).

A label is PERSON, LOCATION, ADDRESS, IGNORE (no loss there: another tier finds it, or opinions differ) or nothing.
Slots of one number belong to one person, so that "{full} … {first}" speaks of the same one.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import NamedTuple

from privacy.wordlists import words
from training.name_model import addresses
from training.name_model.pools import OTHER_SCRIPTS, Invented, Locale, listed_cities, locales, read_list

_SLOT = re.compile(r"\{\{|\}\}|\{(?P<case>lower_|upper_)?(?P<kind>[a-z_]+?)(?P<number>\d?)\}")
_PEOPLE = frozenset(words("name full first last title initial initials initial_last last_first nick handle spelled"))
FILLER = "\ue000"
"""What the scrubber shows in place of what it masked already."""


class Piece(NamedTuple):
    text: str
    label: str | None = None


@dataclass(frozen=True)
class Person:
    first: str
    middle: str
    last: str


class Filler:
    """Fills templates; one per side (training or held out)."""

    def __init__(self, seed: int, *, hold_out: bool) -> None:
        self.rng = random.Random(seed)
        self._locales = locales(self.rng, hold_out=hold_out)
        self._words = read_list("words")
        self._places = read_list("places")
        everyone = list(self._locales.values())
        self._invented_first = Invented(name for locale in everyone for name in locale.first if name.isalpha())
        self._invented_last = Invented(name for locale in everyone for name in locale.last if name.isalpha())
        self._names = [locale.name for locale in everyone]
        self._weights = [4 if name in {"en_US", "en_GB", OTHER_SCRIPTS} else 1 for name in self._names]

    def fill(self, template: str) -> list[Piece]:
        """The template with every slot filled. Raises KeyError for an unknown slot."""
        locale = self._locale()
        people: dict[str, Person] = {}
        cities: dict[str, str] = {}
        pieces: list[Piece] = []
        position = 0
        for slot in _SLOT.finditer(template):
            pieces.append(Piece(template[position : slot.start()]))
            position = slot.end()
            if slot.group() in {"{{", "}}"}:
                pieces.append(Piece(slot.group()[0]))
                continue
            kind, number = slot["kind"], slot["number"]
            if kind in _PEOPLE:
                made = self._person_slot(kind, people.setdefault(number, self.person(self._mixed(locale))), locale)
            else:
                made = self._other_slot(kind, number, locale, cities)
            if slot["case"]:
                made = [Piece(_cased(piece.text, slot["case"]), piece.label) for piece in made]
            pieces += made
        pieces.append(Piece(template[position:]))
        return [piece for piece in pieces if piece.text]

    def _locale(self) -> Locale:
        return self._locales[self.rng.choices(self._names, self._weights)[0]]

    def _mixed(self, locale: Locale) -> Locale:
        return locale if self.rng.random() < 0.7 else self._locale()

    def person(self, locale: Locale) -> Person:
        """Somebody; one in five has a name that stands in no list, one in eight a name that is a word as well."""
        rng = self.rng
        first, middle, last = rng.choice(locale.first), rng.choice(locale.first), rng.choice(locale.last)
        if rng.random() < 0.12:
            first = rng.choice(self._words["trap_first"])
        elif rng.random() < 0.15:
            first = self._invented_first.draw(rng)
        if rng.random() < 0.12:
            last = rng.choice(self._words["trap_last"])
        elif rng.random() < 0.2:
            last = self._invented_last.draw(rng)
        draw = rng.random()
        if draw < 0.06:
            particle = rng.choice(self._words["particle"])
            last = f"{particle}{last}" if particle[-1] in "'-c" else f"{particle} {last}"
        elif draw < 0.12:
            last = f"{last}-{rng.choice(locale.last)}"
        elif draw < 0.16 and locale.name[:2] in {"es", "pt"}:
            last = f"{last} {rng.choice(locale.last)}"
        elif draw < 0.18:
            first = f"{first}-{middle}"
        return Person(first, middle, last)

    def _full(self, person: Person) -> str:
        rng, draw = self.rng, self.rng.random()
        if draw < 0.66:
            return f"{person.first} {person.last}"
        if draw < 0.74:
            return f"{person.first} {person.middle[0]}. {person.last}"
        if draw < 0.80:
            return f"{person.first} {person.middle} {person.last}"
        if draw < 0.84:
            return f"{person.first[0]}. {person.last}"
        if draw < 0.87:
            return f"{person.first} {person.middle[0]} {person.last}"
        if draw < 0.90:
            return f"{person.first} {person.last} {rng.choice(self._words['suffix'])}"
        if draw < 0.93:
            return f'{person.first} "{rng.choice(self._words["nick"])}" {person.last}'
        return f"{person.first} {person.last}" if draw < 0.97 else f"{person.last} {person.first}"

    def _person_slot(self, kind: str, person: Person, locale: Locale) -> list[Piece]:
        rng = self.rng
        if kind == "name":
            kind = rng.choice(("full", "full", "first", "first", "last", "nick", "title", "initial_last"))
        if kind == "title":
            name = person.last if rng.random() < 0.65 else self._full(person)
            return [Piece(rng.choice(self._words["title"]) + " "), Piece(name, "PERSON")]
        if kind == "handle":
            return [Piece(*self._handle(person))]
        # Two letters with points say little about who it is, and much of technical prose looks like them.
        return [Piece(self._form(kind, person), "IGNORE" if kind == "initials" else "PERSON")]

    def _form(self, kind: str, person: Person) -> str:
        """A person's name in one of the forms of _PEOPLE. Raises KeyError for another one."""
        rng, first, middle, last = self.rng, person.first, person.middle, person.last
        if kind == "full":
            return self._full(person)
        if kind == "nick":
            return rng.choice(self._words["nick"])
        if kind == "initials":
            return f"{first[0]}{rng.choice(('.', ''))}{last[0].upper()}{rng.choice(('.', ''))}"
        if kind == "initial_last":
            return rng.choice((f"{first[0]}. {last}", f"{first[0]} {last}", f"{first[0]}.{middle[0]}. {last}", last))
        if kind == "last_first":
            return f"{last}, {first}" + rng.choice(("", "", f" {middle[0]}."))
        if kind == "spelled":
            return rng.choice(("-", " ", ".", " - ")).join(last.replace(" ", ""))
        return {"first": first, "last": last, "initial": middle[0]}[kind]

    def _handle(self, person: Person) -> tuple[str, str | None]:
        rng = self.rng
        first, last = person.first.lower().replace(" ", ""), person.last.lower().replace(" ", "")
        number = rng.choice(("", "", str(rng.randint(1, 99)), str(rng.randint(1950, 2012))))
        if rng.random() < 0.15:
            return f"{rng.choice(self._words['thing']).replace(' ', '')}{rng.randint(1, 9999)}", "IGNORE"
        parts = f"{first}.{last}", f"{first}_{last}", f"{first[0]}{last}", f"{first}{last}", f"{first}{last[0]}", first
        return rng.choice(parts) + number, "PERSON"

    def _other_slot(self, kind: str, number: str, locale: Locale, cities: dict[str, str]) -> list[Piece]:
        rng = self.rng
        if kind in self._words:
            return [Piece(rng.choice(self._words[kind]))]
        if kind == "city":
            return [Piece(cities.setdefault(number, self.city(locale)), "LOCATION")]
        if kind in {"country", "region"}:
            return [Piece(rng.choice(self._places[kind]), "LOCATION")]
        if kind == "place":
            return self._place(locale)
        if kind in {"address", "address_lines"}:
            return [Piece(addresses.address(rng, locale, self.city(locale), lines=kind == "address_lines"), "ADDRESS")]
        if kind in {"street", "street_name", "zip", "pobox"}:
            made = {
                "street": lambda: addresses.street_address(rng, locale),
                "street_name": lambda: addresses.street_name(rng, locale),
                "zip": lambda: addresses.postcode(rng, locale),
                "pobox": lambda: addresses.po_box(rng),
            }
            return [Piece(made[kind](), "ADDRESS")]
        return [self._plain(kind, locale)]

    def city(self, locale: Locale) -> str:
        """A town: well known, of the locale, or from the list of all places."""
        rng, draw = self.rng, self.rng.random()
        if draw < 0.4:
            return rng.choice(self._places["city"])
        if draw < 0.75 and locale.cities:
            return rng.choice(locale.cities)
        return rng.choice(listed_cities()) if draw < 0.95 else self._invented_last.draw(rng)

    def _place(self, locale: Locale) -> list[Piece]:
        rng, draw = self.rng, self.rng.random()
        if draw < 0.5:
            return [Piece(self.city(locale), "LOCATION")]
        if draw < 0.75:
            return [Piece(rng.choice(self._places[rng.choice(("country", "region"))]), "LOCATION")]
        inner = rng.choice(self._places[rng.choice(("country", "region"))])
        return [Piece(self.city(locale), "LOCATION"), Piece(", "), Piece(inner, "LOCATION")]

    def _plain(self, kind: str, locale: Locale) -> Piece:
        """Numbers, dates, and what the pattern tier finds. Raises KeyError for an unknown kind."""
        rng = self.rng
        year = rng.randint(1930, 2027)
        if kind == "num":
            return Piece(str(rng.randint(1, rng.choice((12, 60, 2000)))))
        if kind == "year":
            return Piece(str(year))
        if kind == "id":
            number, short = f"{rng.randint(10**5, 10**9)}", f"#{rng.randint(100, 99999)}"
            letters = f"{rng.choice('ABKRTX')}{rng.choice('CDRX')}-{rng.randint(1000, 999999)}"
            return Piece(rng.choice((number, short, letters)))
        if kind == "date":
            return Piece(self._date(year))
        if kind == "time":
            exact = f"{rng.randint(0, 23)}:{rng.randint(0, 59):02}"
            return Piece(rng.choice((exact, f"{rng.randint(1, 12)}pm", f"{rng.randint(8, 18)}h")))
        if kind == "money":
            sign, round_sum = rng.choice("£$€"), str(rng.randint(1, 900))
            return Piece(sign + rng.choice((round_sum, f"{rng.randint(1, 5000)}.{rng.randint(0, 99):02}")))
        if kind == "url":
            host = f"{rng.choice(('shop', 'www', 'docs'))}.example.{rng.choice(('com', 'org', 'net'))}"
            return Piece(f"https://{host}/{rng.randint(1, 99)}")
        return self._found_elsewhere(kind, self.person(locale), locale)

    def _date(self, year: int) -> str:
        rng, names = self.rng, self._words["month"]
        forms = (
            f"{rng.randint(1, 28)}.{rng.randint(1, 12)}.{year}",
            f"{year}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
            f"{rng.randint(1, 28)} {rng.choice(names)} {year}",
            f"{rng.randint(1, 12)}/{rng.randint(1, 28)}/{year}",
            f"{rng.choice(names)} {rng.randint(1, 28)}",
        )
        return rng.choice(forms)

    def _found_elsewhere(self, kind: str, person: Person, locale: Locale) -> Piece:
        """What other recognisers find, often masked already; firms with a person's name, of which opinions differ."""
        rng, last = self.rng, person.last
        name = f"{person.first}.{last}".lower().replace(" ", "")
        found = {
            "email": f"{name}@{rng.choice(('example.org', 'mail.example.com', 'gmail.com', 'web.de', 'corp.example'))}",
            "phone": f"+{rng.randint(1, 99)} {rng.randint(100, 999)} {rng.randint(100000, 9999999)}",
            "ip": ".".join(str(rng.randint(1, 254)) for _ in range(4)),
        }
        partners = f"{last}, {rng.choice(locale.last)} and Partners"
        firms = f"{last} & Sons", f"{last} Ltd", partners, f"{last} GmbH", f"{last} Group", f"{last} Inc."
        firm = rng.choice(firms)
        if kind == "firm":
            return Piece(firm, "IGNORE")
        return Piece(FILLER if rng.random() < 0.5 else found[kind])


def _cased(text: str, case: str) -> str:
    return text.lower() if case == "lower_" else text.upper()
