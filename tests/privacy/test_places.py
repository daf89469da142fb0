"""What is asked of a text before its patterns are searched never hides what they would have found."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import phonenumbers
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import address_places, addresses, national_numbers, telephone
from privacy.analyzer import LANGUAGE, WholeWordEnhancer, WordArtifacts, WordNlpEngine
from privacy.features import Features
from privacy.policy import Policy

_PIECES = (
    "12", "9", "7a", "44-46", "0605", "90210", "12345-6789", "1012 AB", "1012", "3", "2019", "100", "1st", "22nd",
    "Main Street", "High St", "Old Mill Lane", "the long road", "Hauptstr.", "Haupt str.", "Musterweg", "all",
    "Keizersgracht", "rue de la Paix", "via Dante", "Rua Igreja", "Calle Mayor", "Amsterdam", "Springfield", "CA", "TX",
    "SW1A 1AA", "ls2 9jt", "K1A 0B1", "D02 X285", "Apt", "apt.", "Suite #", "flat", "House No.", "plot number:",
    "h. no", "Sector 7", "PO Box", "moved to", "address is now", "lives at", "sent to number", "deliver to", "from",
    "please", "£12.50", "at", "x", "corner of", "zip code", "12345678Z", "X1234567L", "X-1234567-L", "1234567FA",
    "1 85 05 2A 006 084 36", "185052A00608436", "943 476 5919", "2345-6789-0124", "123 456 782", "111.222.333",
)  # fmt: skip
_JOINS = (" ", ", ", ",", "\n", "  ", ". ", "-", "\u00a0", "/", "")
texts = st.lists(st.tuples(st.sampled_from(_PIECES), st.sampled_from(_JOINS)), max_size=9).map(
    lambda parts: "".join(itertools.chain.from_iterable(parts))
)

Starts = Callable[[Features], object]
_STARTS: tuple[tuple[regex.Pattern[str], Starts], ...] = (
    (addresses._ENGLISH, address_places.houses),
    (addresses._LOWER, address_places.houses_before_letters),
    (addresses._BEFORE_LOWER, address_places.houses_before_letters),
    (addresses._TWO_NUMBERS, address_places.houses_before_letters),
    (addresses._ZIP_PLACE, address_places.before_places),
    (addresses._ZIP, address_places.zips),
)
_GATES: tuple[tuple[regex.Pattern[str], Callable[[Features], bool]], ...] = (
    (addresses._STATE_ZIP, address_places.states),
    (addresses._ZIP_CITY, address_places.behind_commas),
    (addresses._CANADA, address_places.canadian),
    (addresses._DOOR, address_places.doors),
    (addresses._BEFORE_LOWER, address_places.has_prefix),
    (addresses._CUE, address_places.cued),
    (addresses._EIRCODE, address_places.routed),
)


@settings(deadline=None, max_examples=150)
@given(texts)
def test_rules_for_addresses_are_asked_wherever_they_find_something(text: str) -> None:
    features = Features(text)
    for pattern, starts in _STARTS:
        found = [match.span() for match in addresses._matches(pattern, text, starts(features))]  # type: ignore[arg-type]
        assert found == [match.span() for match in pattern.finditer(text)]
    for pattern, gate in _GATES:
        assert gate(features) or pattern.search(text) is None
    inside = [
        match.span()
        for start, end in address_places.behind_street_ends(features)
        for match in addresses._AFTER.finditer(text, start, end)
    ]
    assert inside == [match.span() for match in addresses._AFTER.finditer(text)]


@settings(deadline=None, max_examples=150)
@given(texts)
def test_national_numbers_are_searched_wherever_there_is_one(text: str) -> None:
    hits = national_numbers.NationalScan().scan(text)
    assert {(hit.start, hit.end, hit.rule) for hit in hits if hit.rule != "no check digit"} == {
        (*match.span(), rule.name)
        for rule in national_numbers._RULES
        for match in rule.pattern.finditer(text)
        if rule.valid(match.group())
    }


@settings(deadline=None, max_examples=100)
@given(
    st.text("0123456789", min_size=6, max_size=15), st.sampled_from((*Policy().regions, "BR", "MX", "AR", "JP", "RU"))
)
def test_a_number_that_a_plan_excludes_is_none_of_its_region(digits: str, region: str) -> None:
    if telephone._plan(region).excludes(digits):
        assert not _valid(digits, region)


def _valid(number: str, region: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


@pytest.mark.parametrize("number", ["020 7946 0958", "030 901820", "(212) 736-5000", "01 23 45 67 89", "06 12345678"])
def test_numbers_of_the_known_regions_are_valid_by_some_plan(number: str) -> None:
    assert any(telephone._is_valid(number, region) for region in Policy().regions)


_WORDS = ("my", "phone", "number", "is", "don't", "(tel.)", "call", "the", "and", "x" * 70, "12345", "7/8,", "…", "née")


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(_WORDS), max_size=60), st.lists(st.sampled_from(_WORDS), max_size=12), st.booleans())
def test_the_words_beside_a_hit_are_those_of_the_whole_text(before: list[str], after: list[str], apart: bool) -> None:
    hit = "020 7946 0958"
    join = " " if apart else ""
    text = " ".join(before) + join + hit + join + " ".join(after)
    start = len(" ".join(before) + join)
    enhancer = WholeWordEnhancer()
    near = enhancer.words_near(WordArtifacts(text, WordNlpEngine(), LANGUAGE), start, start + len(hit))
    whole = WordArtifacts(text, WordNlpEngine(), LANGUAGE)
    assert near == enhancer._extract_surrounding_words(whole, hit, start)
