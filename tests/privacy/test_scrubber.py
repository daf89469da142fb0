"""One conversation: ordinals, links, trusted contexts, later turns, and any text at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.entities import EntityTable, Value
from privacy.findings import PLACEHOLDER, ScrubError, TextTooLong
from privacy.gazetteer import fold
from privacy.measure import _read, measure, over_scrub, standard_library_prose
from privacy.normalise import normalise
from privacy.policy import Policy
from privacy.scrubber import Scrubber, ScrubText
from privacy.values import words_of

from .conftest import KEY

SNIPPETS = [
    "my name is john smith", "John", "Smith", "Mary Brown", "Will", " ", "\n", ", ", "Dear ", ". ",
    "jo@example.org", "jo%40example.org", "020 7946 0958", "[PERSON_1]", "[PERSON_", "[EMAIL_2]",
    "1]", "24 high street", "London SW1A 1AA", "4111 1111 1111 1111", "password is hunter2",
    "\u200b", "\u202e", "\x00", "\ud800", "\ue000", "é", "e\u0301", "ﬁ", "１２", "🙂", "x=1", "'s",
]  # fmt: skip
any_text = st.text(st.characters(codec=None), max_size=60)
chat_text = st.lists(st.sampled_from(SNIPPETS) | st.text(max_size=3), max_size=14).map("".join)


def texts(scrubber: Scrubber, table: EntityTable, *parts: tuple[str, str]) -> list[str]:
    turn = [ScrubText(kind, text) for kind, text in parts]  # type: ignore[arg-type]
    return [masked.text for masked in scrubber.scrub_turn(turn, table)]


def test_ordinals_follow_reading_order_and_links(scrubber: Scrubber, table: EntityTable) -> None:
    assert texts(
        scrubber,
        table,
        ("user", "My name is John Smith and my wife is Mary Brown."),
        ("response", "Hello Mary, John's bill was sent to JOHN  SMITH and Anna Keller."),
    ) == [
        "My name is [PERSON_1] and my wife is [PERSON_2].",
        "Hello [PERSON_2], [PERSON_1]'s bill was sent to [PERSON_1] and [PERSON_3].",
    ]


def test_a_first_name_with_two_owners_is_not_linked(table: EntityTable) -> None:
    names = ["John", "John Smith", "John Brown", "Brown"]
    ordinals = [e.ordinal for e in table.assign([Value("PERSON", name) for name in names])]
    assert ordinals == [1, 2, 3, 3]


def test_a_unique_first_name_is_linked_forwards(table: EntityTable) -> None:
    names = ["john", "John Smith", "Mr Smith", "Dr. John Smith's"]
    assert {e.ordinal for e in table.assign([Value("PERSON", name) for name in names])} == {1}


def test_a_value_found_once_is_masked_everywhere(scrubber: Scrubber, table: EntityTable) -> None:
    first, second = texts(scrubber, table, ("user", "ok so zbynek it is"), ("user", "my name is zbynek kral"))
    assert second == "my name is [PERSON_1]"
    first, second = texts(scrubber, table, ("response", "Noted, Zbynek Kral."), ("user", "zbynek kral again"))
    assert (first, second) == ("Noted, [PERSON_1].", "[PERSON_1] again")


def test_later_turns_find_the_same_people_through_hashes(scrubber: Scrubber, table: EntityTable) -> None:
    texts(scrubber, table, ("user", "my name is Zbynek Kral, mail z.kral@example.org"))
    stored = json.dumps(table.to_dict())
    assert "kral" not in stored.lower()
    assert "zbynek" not in stored.lower()
    again = EntityTable.from_dict(json.loads(stored), key=KEY)
    assert texts(scrubber, again, ("user", "any news for zbynek kral? Z.KRAL@EXAMPLE.ORG")) == [
        "any news for [PERSON_1]? [EMAIL_1]"
    ]
    assert again.to_dict() == table.to_dict()


def test_a_table_refuses_another_key(table: EntityTable) -> None:
    with pytest.raises(ValueError, match="another key"):
        EntityTable.from_dict(table.to_dict(), key=b"b" * 32)
    with pytest.raises(ValueError, match="at least"):
        EntityTable(b"short")


def test_trusted_contexts_keep_contacts_but_no_secrets(scrubber: Scrubber, table: EntityTable) -> None:
    context = (
        "Contact Sarah Jones at help@example.com or 0800 123 4567. Refunds are paid from GB82 WEST 1234 5698 7654 32."
    )
    question, kept, answer = texts(
        scrubber,
        table,
        ("user", "I'm Peter Novak. Is help@example.com right, or p.novak@example.org?"),
        ("context", context),
        ("response", "Peter, write to Sarah Jones at help@example.com."),
    )
    assert question == "I'm [PERSON_1]. Is help@example.com right, or [EMAIL_1]?"
    assert kept == context.replace("GB82 WEST 1234 5698 7654 32", "[IBAN_1]")
    assert answer == "[PERSON_1], write to Sarah Jones at help@example.com."


def test_what_users_say_about_themselves_is_masked_in_documents_too(scrubber: Scrubber, table: EntityTable) -> None:
    assert texts(
        scrubber,
        table,
        ("user", "my name is Sarah Jones"),
        ("context", "Ask Sarah Jones at the desk."),
    ) == ["my name is [PERSON_1]", "Ask [PERSON_1] at the desk."]


def test_an_untrusted_context_is_read_like_a_user(scrubber: Scrubber, table: EntityTable) -> None:
    text = ScrubText("context", "Ask Sarah Jones at help@example.com.", trusted=False)
    assert scrubber.scrub_turn([text], table)[0].text == "Ask [PERSON_1] at [EMAIL_1]."


def test_what_is_given_is_masked_whatever_the_types_and_as_what_it_is() -> None:
    policy = Policy(entity_types=frozenset({"IBAN"}), deny=("Zaphod Beeble",))
    given = ["zed.q@example.org", "07700 900123"]
    text = "Zaphod Beeble or zed.q@example.org or 07700 900123 or Mary Smith or mary@example.org"
    masked = Scrubber(policy).scrub_text(text, deny=given)
    assert masked.text == "[PERSON_1] or [EMAIL_1] or [PHONE_1] or Mary Smith or mary@example.org"


def test_a_given_address_keeps_its_number_where_it_is_only_found(table: EntityTable) -> None:
    text = [ScrubText("user", "Write to zed.q@example.org.")]
    assert Scrubber().scrub_turn(text, table, deny=["zed.q@example.org"])[0].text == "Write to [EMAIL_1]."
    assert Scrubber().scrub_turn(text, table)[0].text == "Write to [EMAIL_1]."


def test_allow_and_deny_lists(table: EntityTable) -> None:
    scrubber = Scrubber(Policy(allow=("Sarah Jones",), deny=("Brightwell",)))
    turn = [ScrubText("user", "Sarah Jones met Brightwell and tolly vance.")]
    masked = scrubber.scrub_turn(turn, table, deny=["Tolly Vance"])[0]
    assert masked.text == "Sarah Jones met [PERSON_1] and [PERSON_2]."


def test_placeholders_in_the_text_keep_their_numbers(scrubber: Scrubber, table: EntityTable) -> None:
    text = "[PERSON_1] and [EMAIL_3] wrote to Sarah Jones [ERROR_4]"
    masked = scrubber.scrub_turn([ScrubText("user", text)], table)[0]
    assert masked.text == "[PERSON_1] and [EMAIL_3] wrote to [PERSON_2] [ERROR_4]"


def test_spans_point_into_both_texts(scrubber: Scrubber) -> None:
    text = "I'm Ngozi, mail jo%40example.org"
    masked = scrubber.scrub_text(text)
    shown = [masked.text[span.start : span.end] for span in masked.spans]
    stood = [text[span.original_start : span.original_end] for span in masked.spans]
    assert shown == ["[PERSON_1]", "[EMAIL_1]"]
    assert stood == ["Ngozi", "jo%40example.org"]
    assert masked.spans[0].context_word == "i'm"


def test_too_long_and_broken_texts_are_refused_without_quoting_them(
    scrubber: Scrubber, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TextTooLong):
        Scrubber(Policy(max_chars=10)).scrub_text("x" * 11)
    broken = Scrubber()
    analyzer = broken._analyzer

    def fail(text: str, types: object) -> None:
        raise RuntimeError(f"cannot read {text}")

    monkeypatch.setattr(analyzer, "find", fail)
    with pytest.raises(ScrubError) as caught:
        broken.scrub_text("my name is John Smith")
    assert "John" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(any_text | chat_text)
def test_normalised_offsets_lead_back(text: str) -> None:
    normalised = normalise(text)
    previous = 0
    for position in range(len(normalised.text)):
        start, end = normalised.original_span(position, position + 1)
        assert 0 <= start < end <= len(text)
        assert start >= previous
        previous = start


@settings(max_examples=150, deadline=None)
@given(any_text | chat_text)
def test_scrubbing_twice_changes_nothing_more(text: str) -> None:
    scrubber = Scrubber()
    once = scrubber.scrub_text(text)
    for span in once.spans:
        assert PLACEHOLDER.fullmatch(normalise(once.text[span.start : span.end]).text)
    assert scrubber.scrub_text(once.text).text == once.text


@settings(max_examples=60, deadline=None)
@given(st.lists(chat_text, max_size=4))
def test_new_ordinals_appear_in_reading_order(parts: list[str]) -> None:
    plain = [PLACEHOLDER.sub("", part) for part in parts]
    plain = [part for part in plain if not PLACEHOLDER.search(normalise(part).text)]
    masked = Scrubber().scrub_turn([ScrubText("user", part) for part in plain], EntityTable(KEY))
    seen: dict[str, int] = {}
    for text in masked:
        for span in text.spans:
            assert span.ordinal <= seen.get(span.entity_type, 0) + 1
            seen[span.entity_type] = max(seen.get(span.entity_type, 0), span.ordinal)


def test_hostile_texts_take_linear_time(scrubber: Scrubber) -> None:
    """100,000 characters each; a quadratic step would run into the pattern timeout."""
    for piece in ("a.", "1 ", "@a", "John ", "%40", "[PERSON_1", "e\u0301\u0323", "{", "Mr ", "1-"):
        scrubber.scrub_text(piece * (100_000 // len(piece)))


def test_policy_survives_json_and_changes_its_digest() -> None:
    policy = Policy(allow=("Help Desk",), thresholds={"PERSON": 0.8})
    assert Policy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    assert policy.digest() == Policy.from_dict(policy.to_dict()).digest() != Policy().digest()
    for wrong in ({"entity_types": ["NAME"]}, {"thresholds": {"PERSON": 2}}, {"colour": 1}):
        with pytest.raises(ValueError):
            Policy.from_dict(wrong)


def test_technical_prose_is_left_alone(scrubber: Scrubber) -> None:
    # The text on addresses names the authors of its standards: people. Which texts these are depends on the Python.
    prose = [text for text in standard_library_prose() if "Berners-Lee" not in text]
    assert over_scrub(prose[::8], scrubber)["share"] < 0.005


@pytest.mark.skipif("RATCHET_SHARED_DATA" not in os.environ, reason="RATCHET_SHARED_DATA names no data folder")
def test_recall_on_labelled_texts(scrubber: Scrubber) -> None:
    folder = Path(os.environ["RATCHET_SHARED_DATA"])
    records = _read(folder / "pii" / "presidio_research_synth_v2.json.gz")
    figures = measure(records[::5], scrubber)
    assert figures["promised"]["masked"] > 0.97
    assert figures["promised"]["texts_leaking"] < 0.05
    for label in ("CREDIT_CARD", "EMAIL_ADDRESS", "IBAN_CODE", "US_SSN", "IP_ADDRESS"):
        assert figures["recall"][label] == 1.0


@settings(deadline=None)
@given(st.text(st.sampled_from("aZs'’ İıſßÉe\u0301éﬁΣς한글.\ue000S-1_")) | st.text())
def test_a_word_of_a_text_is_in_the_folded_text(text: str) -> None:
    """So texts without a value are told by one look, and words need not be made of them."""
    assert all(word.folded in fold(text) for word in words_of(text))


def test_few_values_and_many_are_masked_wherever_they_stand() -> None:
    """Few are looked for one by one before the words of a text are made."""
    for count in (1, 300):
        names = ["Zbrvenka Tolquist", *(f"Qorvath{chr(945 + number)} Mendrick" for number in range(1, count))]
        asked, answered = "ask zbrvenka tolquist", "or £5 to Zbrvenka Tolquist, not me"
        texts = [ScrubText("user", asked), ScrubText("response", answered)]
        masked = [item.text for item in Scrubber().scrub_turn(texts, EntityTable(b"k" * 32), deny=names)]
        assert masked == ["ask [PERSON_1]", "or £5 to [PERSON_1], not me"]
