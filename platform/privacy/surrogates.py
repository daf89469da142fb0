"""Invented values in the place of placeholders: same type, plausible form, the same value for the same placeholder.

Texts to train on read naturally with them, and what the scrubber missed hides among them. A value is drawn by an HMAC
of (salt, conversation, placeholder), so that a file can be made again to the byte and nobody without the salt can tell
which name stands for which number. Nothing here can reach anybody: mails end in example.org, telephone numbers lie in
ranges kept for fiction, cards and bank numbers fail their check digits, IP addresses are those of documentation.
"""

from __future__ import annotations

import hmac
import random
import threading
from collections.abc import Callable, Collection, Container
from typing import Any

from privacy.findings import PLACEHOLDER

_TRIES = 50
# Faker's locale of each country whose telephone formats a policy may name; others read as British.
_LOCALES = {
    "GB": "en_GB", "US": "en_US", "IE": "en_IE", "AU": "en_AU", "CA": "en_CA", "NZ": "en_NZ", "IN": "en_IN",
    "DE": "de_DE", "AT": "de_AT", "CH": "de_CH", "FR": "fr_FR", "ES": "es_ES", "IT": "it_IT", "NL": "nl_NL",
    "PL": "pl_PL", "PT": "pt_PT", "SE": "sv_SE", "DK": "da_DK", "NO": "no_NO", "FI": "fi_FI",
}  # fmt: skip
# Kept for films and books by the regulators; {} is filled with digits. Elsewhere: the British one.
_PHONES = {
    "GB": "07700 900###", "US": "(202) 555-01##", "CA": "(613) 555-01##", "AU": "0491 570 ###", "DE": "030 23125 ###",
    "FR": "01 99 00 ## ##", "IE": "020 910 ####",
}  # fmt: skip
_AUSTRALIAN = ("006", "156", "157", "158", "159", "110", "313", "737", "266", "491")


class Surrogates:
    """Draws values for one dataset.

    Args:
        salt: secret, at least 16 bytes; another dataset has another one.
        regions: ISO 3166 codes; the first decides which country's names and formats are drawn.
        avoid: casefolded words of the corpus: no name is drawn that has one of them.

    Raises ValueError for a short salt.
    """

    def __init__(self, salt: bytes, *, regions: Collection[str] = ("GB",), avoid: Container[str] = frozenset()) -> None:
        if len(salt) < 16:
            raise ValueError("the salt of surrogates has at least 16 bytes")
        self._salt = salt
        self._region = next(iter(regions), "GB")
        self._avoid = avoid
        self._given: dict[str, dict[str, str]] = {}

    def render(self, text: str, conversation: str) -> str:
        """The text with an invented value for every placeholder: the same one for the same of a conversation."""
        return PLACEHOLDER.sub(lambda match: self.value(match.group(1), match.group(2), conversation), text)

    def value(self, entity_type: str, ordinal: str, conversation: str) -> str:
        """What stands for one placeholder of one conversation. No two of a conversation are the same."""
        known = self._given.setdefault(conversation, {})
        mark = f"{entity_type}_{ordinal}"
        if mark not in known:
            known[mark] = self._draw(entity_type, f"{conversation}\0{mark}", set(known.values()))
        return known[mark]

    def _draw(self, entity_type: str, seed: str, taken: set[str]) -> str:
        make = _MAKERS.get(entity_type, _code)
        value = ""
        for attempt in range(_TRIES):
            digest = hmac.digest(self._salt, f"{seed}\0{attempt}".encode("utf-8", "surrogatepass"), "sha256")
            rng = random.Random(int.from_bytes(digest, "big"))
            value = make(rng, self._region)
            if value not in taken and not any(word in self._avoid for word in value.casefold().split()):
                return value
        return value if value not in taken else f"{value} {len(taken)}"


class _Fakers(threading.local):
    """By region, one of each thread: between seeding and drawing nobody else may draw."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}


_fakers = _Fakers()


def _faker(region: str) -> Any:
    if region not in _fakers.known:
        from faker import Faker

        # A generator of its own: Faker's shared one would change what others of this process draw.
        _fakers.known[region] = Faker(_LOCALES.get(region, "en_GB"), use_weighting=False)
    return _fakers.known[region]


def _seeded(rng: random.Random, region: str) -> Any:
    faker = _faker(region)
    faker.seed_instance(rng.getrandbits(64))
    return faker


def _plain(text: str) -> str:
    """On one line and without full stops: a sentence must not end within a name."""
    return " ".join(text.replace(".", "").replace("[", "").replace("]", "").split())


def _person(rng: random.Random, region: str) -> str:
    faker = _seeded(rng, region)
    return _plain(f"{faker.first_name()} {faker.last_name()}")


def _location(rng: random.Random, region: str) -> str:
    return _plain(_seeded(rng, region).city())


def _address(rng: random.Random, region: str) -> str:
    faker = _seeded(rng, region)
    return _plain(f"{faker.street_address()}, {faker.city()}")


def _email(rng: random.Random, region: str) -> str:
    word = _seeded(rng, region).last_name().encode("ascii", "ignore").decode().lower()
    letters = "".join(char for char in word if char.isalpha()) or "someone"
    return f"{letters}{rng.randrange(10, 1000)}@example.org"


def _username(rng: random.Random, region: str) -> str:
    return _email(rng, region).partition("@")[0]


def _phone(rng: random.Random, region: str) -> str:
    if region == "AU":
        return f"0491 570 {rng.choice(_AUSTRALIAN)}"
    return _digits(rng, _PHONES.get(region, _PHONES["GB"]))


def _digits(rng: random.Random, pattern: str) -> str:
    return "".join(str(rng.randrange(10)) if char == "#" else char for char in pattern)


def _card(rng: random.Random, _region: str) -> str:
    """Sixteen digits of no issuer whose check digit is wrong."""
    digits = [9, *(rng.randrange(10) for _ in range(14))]
    total = sum(d if i % 2 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits))
    right = -total % 10
    digits.append((right + rng.randrange(1, 10)) % 10)
    number = "".join(map(str, digits))
    return " ".join(number[i : i + 4] for i in range(0, 16, 4))


def _iban(rng: random.Random, _region: str) -> str:
    """Of a country that does not exist."""
    return _digits(rng, "XX## #### #### #### ####")


def _ip(rng: random.Random, _region: str) -> str:
    return f"{rng.choice(('192.0.2', '198.51.100', '203.0.113'))}.{rng.randrange(1, 255)}"


def _mac(rng: random.Random, _region: str) -> str:
    return "02:00:5e:" + ":".join(f"{rng.randrange(256):02x}" for _ in range(3))


def _url(rng: random.Random, _region: str) -> str:
    return f"https://example.org/{rng.getrandbits(32):08x}"


def _birth(rng: random.Random, _region: str) -> str:
    return f"{rng.randrange(1, 29):02}/{rng.randrange(1, 13):02}/{rng.randrange(1940, 2006)}"


def _secret(rng: random.Random, _region: str) -> str:
    return f"example-{rng.getrandbits(64):016x}"


def _ssn(rng: random.Random, _region: str) -> str:
    """Area 9xx was never given out, and group 00 never will be."""
    return _digits(rng, "9##-00-####")


def _nino(rng: random.Random, _region: str) -> str:
    """No number begins with QQ."""
    return _digits(rng, "QQ ## ## ## C")


def _account(rng: random.Random, _region: str) -> str:
    return _digits(rng, "00######")


def _code(rng: random.Random, _region: str) -> str:
    return _digits(rng, "XX0######")


_MAKERS: dict[str, Callable[[random.Random, str], str]] = {
    "PERSON": _person,
    "LOCATION": _location,
    "ADDRESS": _address,
    "EMAIL": _email,
    "USERNAME": _username,
    "PHONE": _phone,
    "CREDIT_CARD": _card,
    "IBAN": _iban,
    "BANK_ACCOUNT": _account,
    "IP_ADDRESS": _ip,
    "MAC_ADDRESS": _mac,
    "URL": _url,
    "DATE_OF_BIRTH": _birth,
    "SECRET": _secret,
    "US_SSN": _ssn,
    "UK_NINO": _nino,
}
