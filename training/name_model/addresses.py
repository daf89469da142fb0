"""Postal addresses in the forms of many countries, from the values of a locale."""

from __future__ import annotations

import random

from training.name_model.pools import Locale, read_list

_PARTS = read_list("addresses")
_FAMILIES = {name: kind.removeprefix("like ") for kind in _PARTS if kind.startswith("like ") for name in _PARTS[kind]}
_LETTERS_OF_AREAS = "ABCDEGHKLMNPRSTW"
_LETTERS_INWARD = "ABDEFGHJLNPQRSTUWXYZ"
_UNITS = ("Apt", "Unit", "Suite", "#", "Apartment", "Ste")
_HOUSES = ("Cottage", "House", "Lodge", "Farm", "Barn")
_BOXES = ("PO Box", "P.O. Box", "P.O.Box", "Postfach", "BP", "Apartado", "Private Bag")


def english_street(rng: random.Random, locale: Locale) -> str:
    """A street name in the English manner."""
    draw = rng.random()
    if draw < 0.05:
        return rng.choice(_PARTS["plain"])
    if draw < 0.12:
        number = rng.randint(1, 120)
        ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number // 10 != 1 else 0, "th")
        return f"{number}{ending} {rng.choice(_PARTS['kind'][:8])}"
    stem = rng.choice(_PARTS["stem"]) if draw < 0.6 else rng.choice(locale.last or _PARTS["stem"])
    return f"{stem} {rng.choice(_PARTS['kind'])}"


def street_name(rng: random.Random, locale: Locale) -> str:
    """A street without a number."""
    if locale.streets and not locale.name.startswith("en_") and rng.random() < 0.7:
        return rng.choice(locale.streets)
    return english_street(rng, locale)


def postcode(rng: random.Random, locale: Locale) -> str:
    """A postcode of the locale, or a British or American one."""
    draw = rng.random()
    if locale.postcodes and draw < 0.6:
        return rng.choice(locale.postcodes)
    if draw < 0.8:
        return _british(rng)
    return f"{rng.randint(0, 99999):05}" if draw < 0.95 else f"{rng.randint(0, 99999):05}-{rng.randint(0, 9999):04}"


def street_address(rng: random.Random, locale: Locale) -> str:
    """Street and number."""
    street, number = street_name(rng, locale), rng.randint(1, rng.choice((30, 200, 3000, 20000)))
    family = _family(locale)
    if family in {"en_US", "en_GB", "asia"} or (family == "fr" and rng.random() < 0.8):
        flat = f" Apt. {rng.randint(1, 900)}", f", Flat {rng.randint(1, 40)}", f" Suite {rng.randint(1, 900)}"
        return f"{number} {street}{rng.choice(('', '', '', '', *flat))}"
    return f"{street} {min(number, 250)}{rng.choice(('', '', '', 'a', ' B'))}"


def address(rng: random.Random, locale: Locale, city: str, *, lines: bool = False) -> str:
    """A whole address with `city`, on one line or (`lines`) on two to four."""
    if locale.addresses and rng.random() < 0.2:
        text = rng.choice(locale.addresses)
        return text if lines else text.replace("\n", rng.choice((", ", " ")))
    text = _filled(rng, locale, city, rng.choice(_PARTS[f"form {_family(locale)}"]))
    if "|" in text or not lines:
        return text.replace("|", "\n" if lines else rng.choice((", ", " ", "\n")))
    return text.replace(", ", "\n") if rng.random() < 0.5 else text.replace(", ", "\n", 1)


def po_box(rng: random.Random) -> str:
    """A post box."""
    return f"{rng.choice(_BOXES)} {rng.randint(1, 9999)}"


def _filled(rng: random.Random, locale: Locale, city: str, form: str) -> str:
    last = rng.choice(locale.last)
    number = rng.randint(1, rng.choice((99, 999, 9999)))
    return form.format(
        n=number,
        k=rng.randint(1, 199),
        k2=rng.randint(1, 12),
        street=street_name(rng, locale),
        city=city,
        st=rng.choice(_PARTS["state"]),
        zip5=f"{rng.randint(0, 99999):05}",
        zip6=f"{rng.randint(100000, 999999)}",
        zip3=f"{rng.randint(100, 999)}",
        zip4=f"{rng.randint(0, 9999):04}",
        pc=_british(rng),
        dir=rng.choice("NSEW"),
        zip=rng.choice(locale.postcodes) if locale.postcodes else f"{rng.randint(1000, 99999)}",
        abc=rng.choice("ABCDabcd"),
        unit=rng.choice(_UNITS),
        last=last,
        first=rng.choice(locale.first),
        house=f"{rng.choice(_PARTS['stem'])} {rng.choice(_HOUSES)}",
        area=rng.choice(_PARTS["area"]),
        ward=rng.choice(_PARTS["ward"]),
    )


def _british(rng: random.Random) -> str:
    area = "".join(rng.choice(_LETTERS_OF_AREAS) for _ in range(rng.choice((1, 2))))
    inward = "".join(rng.choice(_LETTERS_INWARD) for _ in range(2))
    return f"{area}{rng.randint(1, 28)} {rng.randint(1, 9)}{inward}"


def _family(locale: Locale) -> str:
    return _FAMILIES.get(locale.name) or _FAMILIES.get(locale.name[:2]) or "en_US"
