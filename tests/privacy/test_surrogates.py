"""Invented values: the same for the same placeholder, of the right form, and nobody's."""

from __future__ import annotations

import ipaddress
import re
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generation.prompts import split_sentences
from privacy.findings import ALL_TYPES, PLACEHOLDER, placeholder
from privacy.surrogates import Surrogates

SALT = b"0123456789abcdef"
types = st.sampled_from(sorted(ALL_TYPES))
ordinals = st.integers(1, 40)
names = st.text(max_size=20)
regions = st.sampled_from(["GB", "US", "IE", "DE", "FR", "ES", "IT", "NL", "IN", "AU", "ZZ"])
quick = settings(max_examples=60, deadline=None)


def luhn(number: str) -> bool:
    digits = [int(char) for char in number if char.isdigit()]
    total = sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(reversed(digits)))
    return total % 10 == 0


@quick
@given(types, ordinals, names, regions)
def test_drawn_again_it_is_the_same_and_holds_no_placeholder(kind: str, n: int, talk: str, region: str) -> None:
    mark = placeholder(kind, n)
    first, again = (Surrogates(SALT, regions=[region]).render(f"a {mark} b {mark}", talk) for _ in range(2))
    assert first == again
    value = first[2 : (len(first) - 3) // 2 + 1]
    assert first == f"a {value} b {value}"
    assert not PLACEHOLDER.search(first)
    assert "[" not in first


@quick
@given(types, ordinals, names, regions)
def test_a_value_never_ends_a_sentence(kind: str, n: int, talk: str, region: str) -> None:
    text = f"Ask {placeholder(kind, n)} about it. Then go home."
    assert len(split_sentences(Surrogates(SALT, regions=[region]).render(text, talk))) == 2


@quick
@given(types, names, regions)
def test_those_of_one_conversation_differ(kind: str, talk: str, region: str) -> None:
    drawn = Surrogates(SALT, regions=[region])
    values = [drawn.value(kind, str(n), talk) for n in range(1, 13)]
    assert all(a != b for a, b in combinations(values, 2))


@quick
@given(ordinals, names, regions)
def test_nothing_reaches_anybody(n: int, talk: str, region: str) -> None:
    drawn = Surrogates(SALT, regions=[region])
    assert drawn.value("EMAIL", str(n), talk).endswith("@example.org")
    card = drawn.value("CREDIT_CARD", str(n), talk)
    assert re.fullmatch(r"(\d{4} ){3}\d{4}", card)
    assert not luhn(card)
    assert ipaddress.ip_address(drawn.value("IP_ADDRESS", str(n), talk)) in {
        host for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24") for host in ipaddress.ip_network(net)
    }
    phone = drawn.value("PHONE", str(n), talk)
    fiction = r"07700 900\d{3}|\(202\) 555-01\d\d|0491 570 \d{3}|030 23125 \d{3}|01 99 00 \d\d \d\d|020 910 \d{4}"
    assert re.fullmatch(fiction, phone)
    assert re.fullmatch(r"9\d\d-00-\d{4}", drawn.value("US_SSN", str(n), talk))
    assert drawn.value("URL", str(n), talk).startswith("https://example.org/")
    assert drawn.value("IBAN", str(n), talk).startswith("XX")


def test_another_salt_or_conversation_has_other_people() -> None:
    people = {
        Surrogates(salt).value("PERSON", "1", talk)
        for salt in (SALT, b"another salt, longer")
        for talk in ("conversation:a", "conversation:b")
    }
    assert len(people) == 4
    with pytest.raises(ValueError, match="16 bytes"):
        Surrogates(b"short")


def test_words_of_the_corpus_are_avoided() -> None:
    first = Surrogates(SALT).value("PERSON", "1", "c")
    given_name, family_name = first.casefold().split()[0], first.casefold().split()[-1]
    second = Surrogates(SALT, avoid={given_name, family_name}).value("PERSON", "1", "c")
    assert {given_name, family_name}.isdisjoint(second.casefold().split())


def test_names_follow_the_country() -> None:
    people = {region: Surrogates(SALT, regions=[region]).value("PERSON", "3", "c") for region in ("GB", "DE", "IT")}
    assert len(set(people.values())) == 3
    phones = {region: Surrogates(SALT, regions=[region]).value("PHONE", "3", "c") for region in ("GB", "US", "DE")}
    assert phones["GB"].startswith("07700")
    assert phones["US"].startswith("(202)")
    assert phones["DE"].startswith("030")
