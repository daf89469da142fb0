"""What patterns are sure of is masked before names are read, and nothing gets lost on the way."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy import turn as module
from privacy.documents import FILLER, Document
from privacy.findings import ALL_TYPES, Finding
from privacy.name_model.decode import Reading
from privacy.policy import Policy
from privacy.scrubber import Scrubber

MAIL, CARD = "z.tolquist@example.org", "4111 1111 1111 1111"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    plain = module.read_names

    def noted(texts: Sequence[str]) -> list[Reading]:
        seen.extend(texts)
        return plain(texts)

    monkeypatch.setattr(module, "read_names", noted)
    return seen


def test_the_name_model_reads_no_address_and_no_number_that_a_pattern_knows(read: list[str]) -> None:
    masked = Scrubber().scrub_text(f"Zbrvenka Tolquist paid with {CARD}, write to {MAIL} about it.")
    assert masked.text == "[PERSON_1] paid with [CREDIT_CARD_1], write to [EMAIL_1] about it."
    assert read[0] == f"Zbrvenka Tolquist paid with {FILLER}, write to {FILLER} about it."
    assert not any(value in text for value in (CARD, MAIL) for text in read)


def test_what_lists_found_before_stands_where_it_stood() -> None:
    text = f"Mail {MAIL} or {CARD}; my name is Joy. Yours, Anna Keller, {MAIL}"
    assert Scrubber().scrub_text(text).text == (
        "Mail [EMAIL_1] or [CREDIT_CARD_1]; my name is [PERSON_1]. Yours, [PERSON_2], [EMAIL_1]"
    )


def test_what_is_allowed_or_not_asked_for_is_left_to_stand(read: list[str]) -> None:
    assert Scrubber(Policy(allow=(MAIL,))).scrub_text(f"Write to {MAIL} today.").text == f"Write to {MAIL} today."
    types = ALL_TYPES - {"CREDIT_CARD"}
    assert Scrubber(Policy(entity_types=types)).scrub_text(f"I paid with {CARD}.").text == f"I paid with {CARD}."
    assert any(CARD in text for text in read)


@given(st.text("ab 1", min_size=1, max_size=30), st.lists(st.tuples(st.integers(0, 29), st.integers(1, 9)), max_size=5))
def test_a_place_in_the_view_is_the_way_back_of_its_source(text: str, stretches: list[tuple[int, int]]) -> None:
    document = Document(text, trusted=False, types=ALL_TYPES)
    for start, size in stretches:
        end = min(len(document.view.text), start + size)
        if start < end:
            document.add([(Finding(start, end, "SECRET", 1.0, "test"), None)])
    masked = {place for span in document.spans for place in range(span.start, span.end)}
    for source, char in enumerate(document.normalised.text):
        place = document.view.place(source)
        assert (place is None) == (source in masked)
        if place is not None:
            assert document.view.source(place) == source
            assert document.view.text[place] == char
