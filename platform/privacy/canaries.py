"""Seeded people who do not exist: posted through the front door, and looked for behind it.

Deterministic: the same seed gives the same people, so nothing has to be kept to know what to look for. Their numbers
come from ranges that are set aside (telephones for drama, example domains) or fail nowhere but belong to nobody (card
numbers of a test range, IBANs of a bank code that is not given out).
"""

from __future__ import annotations

import hmac
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property

FIRST = (
    "James",
    "Maria",
    "Peter",
    "Susan",
    "Daniel",
    "Laura",
    "Michael",
    "Helen",
    "Robert",
    "Julia",
    "Thomas",
    "Karen",
)
LAST_A = ("Quarr", "Zell", "Bramb", "Thistl", "Ostr", "Wickl", "Harg", "Pellm", "Grenv", "Ludd")
LAST_B = ("ington", "eworth", "lethwaite", "ershaw", "ingham", "owby", "enfield", "astley")
STREETS = ("Harcourt", "Wellington", "Richmond", "Cavendish", "Belgrave", "Osborne")
TOWNS = (("Leeds", "LS"), ("Bristol", "BS"), ("Norwich", "NR"), ("Exeter", "EX"))
_NOT_ALNUM = re.compile(r"[\W_]+")
_SHORTEST = 7
"""Compact characters from which on a value is told from an accident."""


@dataclass(frozen=True)
class Person:
    """One canary: every value is the only one of its kind."""

    name: str
    mail: str
    phone: str
    iban: str
    card: str
    address: str

    @property
    def values(self) -> dict[str, str]:
        return dict(zip(("name", "mail", "phone", "iban", "card", "address"), astuple(self), strict=True))


@dataclass(frozen=True)
class Saying:
    """One canary turn: what is asked, answered and retrieved, and in which conversation of the set."""

    conversation: int
    question: str
    history: tuple[tuple[str, str], ...] = ()
    context: str = ""
    response: str = "Thank you. I have noted that."
    comment: str = ""


def people(seed: bytes, count: int = 3) -> list[Person]:
    """The first people of a seed.

    Raises ValueError for more than 50: names would repeat.
    """
    if not 1 <= count <= 50:
        raise ValueError("between 1 and 50 canaries")
    return [_person(random.Random(hmac.digest(seed, f"canary {i}".encode(), "sha256"))) for i in range(count)]


def _person(rng: random.Random) -> Person:
    first = rng.choice(FIRST)
    last = rng.choice(LAST_A) + rng.choice(LAST_B)
    town, code = rng.choice(TOWNS)
    digits = "4556" + "".join(str(rng.randrange(10)) for _ in range(11))
    card = digits + _luhn_digit(digits)
    account = "".join(str(rng.randrange(10)) for _ in range(14))
    postcode = f"{code}{rng.randrange(1, 9)} {rng.randrange(1, 9)}QX"
    street = f"{rng.randrange(10, 220)} {rng.choice(STREETS)} Road, {town}, {postcode}"
    return Person(
        name=f"{first} {last}",
        mail=f"{first}.{last}{rng.randrange(100, 999)}@example.org".lower(),
        phone=f"+44 7700 900{rng.randrange(100, 999)}",
        iban=_iban("GB", f"ZZZZ{account}"),
        card=" ".join(card[i : i + 4] for i in range(0, 16, 4)),
        address=street,
    )


def _luhn_digit(digits: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def _iban(country: str, account: str) -> str:
    number = int("".join(str(int(char, 36)) for char in f"{account}{country}00"))
    whole = f"{country}{98 - number % 97:02d}{account}"
    return " ".join(whole[i : i + 4] for i in range(0, len(whole), 4))


def sayings(person: Person, conversation: int) -> Iterator[Saying]:
    """Five wordings, lower case, split over turns, inside contexts, in history, answers and comments."""
    p = person
    yield Saying(
        conversation, f"Hello, my name is {p.name} and you can write to {p.mail}.", comment=f"Call me: {p.phone}"
    )
    yield Saying(
        conversation,
        f"I live at {p.address}. Please charge my card {p.card}.",
        history=(("user", f"My name is {p.name}."), ("assistant", f"Hello {p.name}, how can I help?")),
        response=f"Dear {p.name}, we will write to {p.mail}.",
    )
    yield Saying(conversation, f"my name is {p.name.lower()}, phone {p.phone.replace(' ', '')}, mail {p.mail.upper()}")
    yield Saying(
        conversation,
        "What did my last letter say?",
        context=f"Letter of 3 May.\nDear Mr {p.name},\nyour IBAN {p.iban} was changed. We called you on {p.phone}.",
    )
    first, _, last = p.name.partition(" ")
    yield Saying(conversation + 1, f"This is {first}.")
    yield Saying(
        conversation + 1, f"I am {first} {last}; the IBAN is {p.iban.replace(' ', '')}, card {p.card.replace(' ', '-')}"
    )


def compact(text: str) -> str:
    """Letters and digits only, folded: how a value is compared, however it is spaced."""
    return _NOT_ALNUM.sub("", text.casefold())


class Matcher:
    """Finds known values in texts, whatever stands between their letters and digits."""

    def __init__(self, values: Iterable[tuple[str, str]]) -> None:
        """(kind, value) of each; values too short to be told from an accident are left out."""
        self._kinds = {key: kind for kind, value in values if len(key := compact(value)) >= _SHORTEST}

    @classmethod
    def of(cls, found: Sequence[Person]) -> Matcher:
        return cls((kind, value) for person in found for kind, value in person.values.items())

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        if not self._kinds:
            return None
        return re.compile("|".join(map(re.escape, sorted(self._kinds, key=len, reverse=True))))

    def kinds(self, text: str) -> list[str]:
        """The kinds of the values that stand in the text, in order."""
        if self._pattern is None or len(text) < _SHORTEST:
            return []
        return [self._kinds[match] for match in self._pattern.findall(compact(text))]
