"""Classes of personal data that were once missed, or masked in vain: what must be found, and what must stay."""

from __future__ import annotations

import pytest

from privacy.findings import ALL_TYPES
from privacy.name_model.decode import _without_foreign
from privacy.policy import Policy
from privacy.recognizers import get_analyzer
from privacy.scrubber import Scrubber


def found(text: str) -> set[tuple[str, str]]:
    """What patterns and lists find at the policy's thresholds, without the name model."""
    policy = Policy()
    return {
        (one.entity_type, text[one.start : one.end])
        for one in get_analyzer(policy.regions).find(text, ALL_TYPES)
        if one.score >= policy.threshold(one.entity_type)
    }


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("call me on oh seven seven double oh nine hundred four six one ok", "PHONE",
         "oh seven seven double oh nine hundred four six one"),
        ("zero two zero, seven nine four six, zero one two three", "PHONE",
         "zero two zero, seven nine four six, zero one two three"),
        ("Meine Handynummer ist null eins fünf eins zwei drei vier fünf sechs sieben.", "PHONE",
         "null eins fünf eins zwei drei vier fünf sechs sieben"),
        ("mi telefono: seis uno dos tres cuatro cinco seis siete ocho", "PHONE",
         "seis uno dos tres cuatro cinco seis siete ocho"),
        ("phone: o7700 9oo 461 (my keyboard writes o)", "PHONE", "o7700 9oo 461"),
        ("you can reach me at tina dot turnip at example dot org after six", "EMAIL",
         "tina dot turnip at example dot org"),
        ("The passport L01X00T47 was lost", "PASSPORT", "L01X00T47"),
        ("Mein Reisepass: C01X0006H", "PASSPORT", "C01X0006H"),
        ("P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<", "PASSPORT", "P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<"),
        ("L898902C36UTO7408122F1204159ZE184226B<<<<<10", "PASSPORT", "L898902C36UTO7408122F1204159ZE184226B<<<<<10"),
        ("ma carte d'identité est 880692310285", "NATIONAL_ID", "880692310285"),
        ("NI number QQ 12 34 56 C", "UK_NINO", "QQ 12 34 56 C"),
        ("my card 4929 1234 5678 9012 was refused", "CREDIT_CARD", "4929 1234 5678 9012"),
        ("the pin for the door is 4471", "SECRET", "4471"),
        ("Die PIN lautet 4471.", "SECRET", "4471"),
        ("refund to bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq please", "BANK_ACCOUNT",
         "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"),
        ("0x52908400098527886E0F7030069857D2E4169EE7 is mine", "BANK_ACCOUNT",
         "0x52908400098527886E0F7030069857D2E4169EE7"),
        (r"C:\Users\henrik.lundqvist\Documents\a.pdf", "USERNAME", "henrik.lundqvist"),
        ("/home/fatimazahra/projects/rag/main.py", "USERNAME", "fatimazahra"),
        ("my login works but the pw is Tr0ub4dor&3", "SECRET", "Tr0ub4dor&3"),
        ("codice fiscale SPSGCR80A01F839X", "NATIONAL_ID", "SPSGCR80A01F839X"),
        ("n° de sécu 2 85 05 78 006 084 91", "NATIONAL_ID", "2 85 05 78 006 084 91"),
        ("Mitt personnummer: 19900101-1234", "NATIONAL_ID", "19900101-1234"),
        ("hetuni on 131052-308T", "NATIONAL_ID", "131052-308T"),
        ("rodné číslo 855214/1234", "NATIONAL_ID", "855214/1234"),
        ("Tel.: 0221 / 47 11 - 0", "PHONE", "0221 / 47 11 - 0"),
        ("mobil 20 12 34 56", "PHONE", "20 12 34 56"),
        ("mon numéro: zéro six, trente-neuf, quatre-vingt-dix-huit, zéro un, vingt-trois", "PHONE",
         "zéro six, trente-neuf, quatre-vingt-dix-huit, zéro un, vingt-trois"),
    ],
)  # fmt: skip
def test_is_found(text: str, kind: str, value: str) -> None:
    assert (kind, value) in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "count with me: one, two, three, four, five, six, seven, eight, nine",
        "one of two or three of the seven are enough, and zero is not",
        "In nine out of ten cases two or three days are enough, four at most.",
        "git shows <<<<<<< HEAD and >>>>>>> main where both changed it",
        "if a << 2 and b << 3: print('<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<')",
        "/home/user/app/main.py, /home/ubuntu/run.sh and https://example.com/home/contact/us",
        r"C:\Users\Public\Desktop",
        "GET /home/dashboard/settings returns 200",
        "batch 4929 1234 5678 9012 left the plant",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8 and 0x80070005",
        "part l00 of lot O1, model iO5O0l2",
        "the pin of the plug is bent and the code of practice has 12 parts",
        "the passport office opens at 9 in building B12",
        "my iban is wrong and the esim does not work",
        "the meter says 00482913 since monday",
        "see DOI 10.1000/182 and version 10.4.2.1 of the firmware",
        "order id 285057800608491 is a person of interest",
        "deux ou trois fois sur dix, vingt ou trente jours, et zéro frais",
        "the pw column has 12 rows",
    ],
)
def test_stays(text: str) -> None:
    assert {kind for kind, _ in found(text)} <= {"PERSON", "LOCATION"}


@pytest.mark.parametrize(
    ("text", "stays", "goes"),
    [
        ("Guten Tag, hier ist Jörg Hohenfels. Meine Rechnung fehlt noch.", ("Meine",), ("Jörg", "Hohenfels")),
        ("Bonjour, je m'appelle Aurélie Quéméneur et ma facture manque.", ("facture",), ("Aurélie", "Quéméneur")),
        ("Dag, met Sjoerd van der Meulen, betalen kan binnen 30 dagen.", ("30 dagen",), ("Sjoerd", "Meulen")),
    ],
)
def test_words_of_other_languages_stay_and_the_name_goes(
    text: str, stays: tuple[str, ...], goes: tuple[str, ...]
) -> None:
    masked = Scrubber().scrub_text(text).text
    assert all(word in masked for word in stays)
    assert not any(word in masked for word in goes)


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("my iban is not working and nobody can tell me why", "iban"),
        ("please send the klarna form to the office", "klarna"),
        ("ask gunicorn to reload, then look at grafana", "gunicorn"),
        ("Date: Tue, 3 Nov 2026 10:22:01 +0100", "Tue"),
        ("uuid and sha256 of the file", "sha256"),
    ],
)
def test_things_are_nobody(text: str, stays: str) -> None:
    assert stays in Scrubber().scrub_text(text).text


def test_the_first_half_of_a_name_is_no_word_of_another_language() -> None:
    words = ["so", "’", "odatu", "zubairu"]
    assert _without_foreign(words, "PERSON") == (0, 0)
    assert _without_foreign(["j", "'", "habite"], "PERSON") == (3, 0)
    assert _without_foreign(["je", "m", "'", "appelle", "Anne", "Warren"], "PERSON") == (4, 0)
    assert _without_foreign(["binnen", "30", "dagen"], "ADDRESS") == (3, 0)
    assert _without_foreign(["ul", ".", "Sądowa", "7"], "ADDRESS") == (0, 0)


def test_numbers_in_words_are_told_apart() -> None:
    """Both were the number without a digit, and so one and the same."""
    first, second = "zero seven seven double oh nine one two three", "zero two one three five seven eight nine zero"
    text = f"My phone number is {first}. My brother's phone number is {second}. Mine again: {first.upper()}."
    assert [(one.entity_type, one.ordinal) for one in Scrubber().scrub_text(text).spans] == [
        ("PHONE", 1), ("PHONE", 2), ("PHONE", 1),
    ]  # fmt: skip


def test_a_long_text_of_digits_in_words_takes_linear_time() -> None:
    # Fails by the time limit of `bounded` where a pattern goes back and forth.
    for text in (
        "one two three " * 20_000,
        "oO1l " * 20_000,
        "A1<" * 30_000,
        "/home/" * 20_000,
        "pin for the " * 20_000,
    ):
        found(text)
