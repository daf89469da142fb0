"""What is found, what is left, and the traps of the engine underneath."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from privacy import scanning
from privacy.findings import ALL_TYPES, ScrubTimeout
from privacy.identity_numbers import luhn_valid
from privacy.policy import Policy
from privacy.scrubber import Scrubber

ROOT = Path(__file__).resolve().parents[2]


def found(scrubber: Scrubber, text: str) -> list[tuple[str, str]]:
    return [
        (span.entity_type, text[span.original_start : span.original_end]) for span in scrubber.scrub_text(text).spans
    ]


@pytest.mark.parametrize(
    ("text", "entity_type", "value"),
    [
        ("write to jo.bloggs+gas@mail.example.co.uk today", "EMAIL", "jo.bloggs+gas@mail.example.co.uk"),
        ("mail jo%2Ebloggs%40example.org please", "EMAIL", "jo%2Ebloggs%40example.org"),
        ("jo&#64;example.org", "EMAIL", "jo&#64;example.org"),
        ("reach me at jo (at) example (dot) org", "EMAIL", "jo (at) example (dot) org"),
        ("j\u200bo\u202e@example.org", "EMAIL", "j\u200bo\u202e@example.org"),
        ("call 020 7946 0958 after six", "PHONE", "020 7946 0958"),
        ("ring +1-984-182-0190", "PHONE", "+1-984-182-0190"),
        ("(212) 555-0199 is my number", "PHONE", "(212) 555-0199"),
        ("my mobile:07700900123", "PHONE", "07700900123"),
        ("paid with 4111 1111 1111 1111", "CREDIT_CARD", "4111 1111 1111 1111"),
        ("IBAN gb82 west 1234 5698 7654 32 thanks", "IBAN", "gb82 west 1234 5698 7654 32"),
        ("my ssn is 078-05-1120", "US_SSN", "078-05-1120"),
        ("my NI is AB 12 34 56 C.", "UK_NINO", "AB 12 34 56 C"),
        ("it came from 82.34.11.9 last night", "IP_ADDRESS", "82.34.11.9"),
        ("mac 00:1A:2B:3C:4D:5E", "MAC_ADDRESS", "00:1A:2B:3C:4D:5E"),
        ("my driver license is H1234567", "DRIVER_LICENSE", "H1234567"),
        ("bank account number is 945456787654", "BANK_ACCOUNT", "945456787654"),
        ("I was born on 12/05/1984", "DATE_OF_BIRTH", "12/05/1984"),
        ("my password is hunter2", "SECRET", "hunter2"),
        ("user kestrel_dad77 pass Sommer!1999x wont let me in", "SECRET", "Sommer!1999x"),
        ("user kestrel_dad77 pass Sommer!1999x wont let me in", "USERNAME", "kestrel_dad77"),
        ("login with pw Blau#22meise please", "SECRET", "Blau#22meise"),
        ("export API_KEY=ab12cd34ef56", "SECRET", "ab12cd34ef56"),
        ("use AKIAABCDEFGHIJKLMNOP here", "SECRET", "AKIAABCDEFGHIJKLMNOP"),
        ("postgres://app:s3cr3t@db/app", "SECRET", "s3cr3t"),
        ("the key safe code is 4821", "SECRET", "4821"),
        ("username: jbloggs84", "USERNAME", "jbloggs84"),
        ("see https://shop.example/order?email=jo", "URL", "https://shop.example/order?email=jo"),
        ("I live at 24 high street", "ADDRESS", "24 high street"),
        ("moved to Flat 3, 17 Elm Grove, Leeds LS6 2AB", "ADDRESS", "Flat 3, 17 Elm Grove, Leeds LS6 2AB"),
        ("postcode SW1A 1AA", "ADDRESS", "SW1A 1AA"),
        ("12 rue de la Paix", "ADDRESS", "12 rue de la Paix"),
        ("Hauptstraße 12, 10115 Berlin", "ADDRESS", "Hauptstraße 12, 10115 Berlin"),
        ("send it to PO Box 104", "ADDRESS", "PO Box 104"),
    ],
)  # fmt: skip
def test_finds(scrubber: Scrubber, text: str, entity_type: str, value: str) -> None:
    assert (entity_type, value) in found(scrubber, text)


@pytest.mark.parametrize(
    ("prefix", "length"),
    [("4", 13), ("4", 19), ("2131", 15), ("2221", 16), ("34", 15), ("36", 14), ("6304", 17)],
)
def test_finds_cards_of_every_length(scrubber: Scrubber, prefix: str, length: int) -> None:
    body = (prefix + "7302864915028374")[: length - 1].ljust(length - 1, "5")
    number = next(body + digit for digit in "0123456789" if luhn_valid(body + digit))
    wrong = body + str((int(number[-1]) + 5) % 10)
    assert found(scrubber, f"it says {number} there") == [("CREDIT_CARD", number)]
    assert ("CREDIT_CARD", wrong) not in found(scrubber, f"it says {wrong} there")


def test_a_number_that_is_only_luhn_valid_needs_a_word_about_cards(scrubber: Scrubber) -> None:
    number = next(f"10020030040{digit}" for digit in range(10) if luhn_valid(f"10020030040{digit}"))
    assert found(scrubber, f"meter point {number} there") == []
    assert found(scrubber, f"my card {number} there") == [("CREDIT_CARD", number)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hi, my name is john smith and I moved", "john smith"),
        ("my name is zbynek", "zbynek"),
        ("this is sarah from Leeds", "sarah"),
        ("I'm Ngozi, the new tenant", "Ngozi"),
        ("Dear Mrs Okonkwo-Reyes, thank you", "Okonkwo-Reyes"),
        ("please ask Mr. Tremblay", "Tremblay"),
        ("Name: Einojuhani Pyysalo", "Einojuhani Pyysalo"),
        ("thanks,\nTom Bramley", "Tom Bramley"),
        ("kind regards\nwill", "will"),
        ("Will Henderson called", "Will Henderson"),
        ("my wife María José said so", "María José"),
        ("SARAH JONES has not paid", "SARAH JONES"),
        ("we spoke to Anna van der Berg about it", "Anna van der Berg"),
    ],
)
def test_finds_names(scrubber: Scrubber, text: str, name: str | None) -> None:
    people = [value for kind, value in found(scrubber, text) if kind == "PERSON"]
    assert people == ([name] if name else [])


@pytest.mark.parametrize(
    "text",
    [
        "The duplicate policy M2 was public in build B43.",
        "Will my bill go up in May? Mark it as paid.",
        "I am not happy, this is wrong and I'm still waiting.",
        "Hi there, thank you for your help. Dear customer, thanks a lot.",
        "It was taken care of. Best not to fuse the boiler.",
        "The unit rate is 24.5p and the standing charge 0.53 a day from 1 April 2024.",
        "Order the reader with True or List[str] via self.read and os.system.",
        "The password is incorrect. Set token: str = None, then password=get_password().",
        "Pass timeout=30 on, and pass it?1 when x!=1. You pass 50% of them! Boarding pass GX12B? Password reset2? Yes.",
        "Let the user input1 and read the user story 12 in user_v2.",
        "Take x[1::2] at 127.0.0.1 and version 1.2.3.",
        "Our site is https://www.example.com/help.",
        "3 minutes down the road there is a meter.",
        "Readings of 12345 and 23456 on 2024-01-02 10:30.",
    ],
)
def test_leaves_ordinary_text(scrubber: Scrubber, text: str) -> None:
    assert scrubber.scrub_text(text).text == text


def test_context_words_match_whole_words_only(scrubber: Scrubber) -> None:
    """ "lic" is a context word of driving licences and a part of "public"."""
    assert found(scrubber, "the public republic H1234567") == []
    assert found(scrubber, "driver lic H1234567") == [("DRIVER_LICENSE", "H1234567")]


def test_find_agrees_with_presidios_analyze(scrubber: Scrubber) -> None:
    analyzer = scrubber._analyzer
    texts = [
        "my driver license is H1234567 and my ssn is 078-05-1120",
        "mail jo@example.org or call 020 7946 0958 from 82.34.11.9",
        "Dear Sarah, pay GB82 WEST 1234 5698 7654 32. Tom Bramley, 12 High Street, Leeds",
    ]
    for text in texts:
        slow = {
            (r.entity_type, r.start, r.end, round(r.score, 6))
            for r in analyzer.analyze(text, "en", entities=sorted(ALL_TYPES))
        }
        fast = {(f.entity_type, f.start, f.end, round(f.score, 6)) for f in analyzer.find(text, ALL_TYPES)}
        assert slow
        assert slow <= fast


def test_a_timed_out_pattern_fails_closed(scrubber: Scrubber, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "REGEX_TIMEOUT_SECONDS", 1e-6)
    monkeypatch.setattr(scanning, "_CHARS_PER_EXTRA_SECOND", 10**15)
    with pytest.raises(ScrubTimeout):
        scrubber.scrub_text("call 020 7946 0958 and mail jo@example.org " * 200)


def test_nothing_is_looked_up_on_the_network(tmp_path: Path) -> None:
    """A fresh process without sockets scrubs an e-mail address, the case that makes Presidio ask
    for the public suffix list."""
    code = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from privacy.scrubber import Scrubber
print(Scrubber().scrub_text("my name is Jo, mail jo@example.org or +44 20 7946 0958").text)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform"), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "my name is [PERSON_1], mail [EMAIL_1] or [PHONE_1]", done.stderr
    assert socket.getaddrinfo is not None


def test_importing_the_service_imports_no_engine() -> None:
    code = (
        "import sys, privacy.scrubber, privacy.entities\n"
        "print(sorted({'presidio_analyzer', 'spacy', 'torch', 'django'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_regions_decide_national_formats() -> None:
    text = "0131 496 0123 is right"
    assert "PHONE" in str(Scrubber(Policy(regions=("GB",))).scrub_text(text).spans)
    assert Scrubber(Policy(regions=("US",))).scrub_text(text).text == text
