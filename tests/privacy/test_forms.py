"""Numbers and addresses with a form of their own: Presidio's recognisers, which ours replaced, find nothing more."""

from __future__ import annotations

import random
from typing import Any

import pytest

from privacy.analyzer import OfflineAnalyzer
from privacy.policy import Policy
from privacy.recognizers import get_analyzer

MARKS = ("{}", "it is {} I think", "({}) then", "x={};", "see {}.", "{}, and", "[{}]:443")
LETTERS = "ABCDEFGHJKLMNPRSTWXYZabcdefg"


@pytest.fixture(scope="module")
def analyzer() -> OfflineAnalyzer:
    return get_analyzer(Policy().regions)


class Forms:
    """Seeded values of one kind, most of them right, some nearly."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)

    def of(self, kinds: str, size: int) -> str:
        return "".join(self.pick.choices(kinds, k=size))

    def digits(self, size: int) -> str:
        return self.of("0123456789", size)

    def hexadecimal(self, size: int) -> str:
        return self.of("0123456789abcdefABCDEF", size)

    def ip_v6(self) -> str:
        groups = [self.hexadecimal(self.pick.randint(1, 4)) for _ in range(8)]
        first = self.pick.randint(0, 5)
        short = ":".join(groups[:first]) + "::" + ":".join(groups[first : first + self.pick.randint(0, 5 - first)])
        dotted = f"{self.pick.randrange(260)}.2.3.4"
        return self.pick.choice((":".join(groups), short, f"{short}%eth0", f"{short}/64", f"::ffff:{dotted}"))

    def ip_v4(self) -> str:
        size = self.pick.choice((3, 4, 4, 4))
        return ".".join(str(self.pick.randrange(270)) for _ in range(size)) + self.pick.choice(
            ("", "/24", "/40", ":80")
        )

    def mac(self) -> str:
        mark = self.pick.choice(":-.")
        groups = self.pick.choice((3, 6, 7))
        return mark.join(self.hexadecimal(4 if mark == "." else 2) for _ in range(groups))

    def nino(self) -> str:
        digits = self.pick.choice((self.digits(6), f"{self.digits(2)} {self.digits(2)} {self.digits(2)}"))
        return f"{self.of(LETTERS, 2)}{digits}{self.pick.choice('ABCDE')}"

    def licence(self) -> str:
        one, two = self.of(LETTERS, 1), self.of(LETTERS, 2)
        value = self.pick.choice((
            one + self.digits(self.pick.randint(3, 14)), two + self.digits(6), f"{one}{self.digits(6)}R",
            self.digits(8) + two, f"{one}1{one}2{one}", f"{self.digits(3)}{two}{self.digits(4)}",
            self.digits(2) + self.of(LETTERS, 3) + self.digits(5), one + self.digits(18),
            self.digits(self.pick.randint(5, 16)),
        ))  # fmt: skip
        return f"driver {value}"

    def passport(self) -> str:
        return "passport " + self.pick.choice((self.digits(9), self.of(LETTERS, 1) + self.digits(8), self.digits(8)))

    def account(self) -> str:
        return f"account {self.digits(self.pick.randint(7, 18))}"


@pytest.mark.parametrize(
    ("form", "theirs", "ours"),
    [
        ("ip_v4", "IpRecognizer", "IP_ADDRESS"),
        ("ip_v6", "IpRecognizer", "IP_ADDRESS"),
        ("mac", "MacAddressRecognizer", "MAC_ADDRESS"),
        ("nino", "UkNinoRecognizer", "UK_NINO"),
        ("licence", "UsLicenseRecognizer", "DRIVER_LICENSE"),
        ("passport", "UsPassportRecognizer", "PASSPORT"),
        ("account", "UsBankRecognizer", "BANK_ACCOUNT"),
    ],
)
def test_what_presidio_finds_is_found(analyzer: OfflineAnalyzer, form: str, theirs: str, ours: str) -> None:
    """Each of their stretches lies in one of ours with at least their score, but for addresses that are nobody's."""
    from presidio_analyzer import predefined_recognizers

    made = Forms(5)
    yardstick: Any = getattr(predefined_recognizers, theirs)()
    compared = 0
    for number in range(400):
        text = MARKS[number % len(MARKS)].format(getattr(made, form)())
        found = analyzer.find(text, {ours})
        for hit in yardstick.analyze(text, yardstick.supported_entities, None):
            value = text[hit.start : hit.end]
            groups = [group for group in value.split("/")[0].split("%")[0].split(":") if group]
            if form == "ip_v6" and (len(groups) < 3 or max(map(len, groups)) < 2):
                continue
            if form == "ip_v4" and value.startswith(("0.", "127.")):
                continue
            assert any(f.start <= hit.start and hit.end <= f.end and f.score >= hit.score for f in found), text
            compared += 1
    assert compared > 90


@pytest.mark.parametrize(
    "text",
    [
        "cut[1::2] and [::3]", "at 12:34:56 and 10:11", "::", "fe80", "a::b::c", "version 10.2.3",
        "localhost 127.0.0.1", "Mobile: 03.93.92.16.85",
        "ff:ff:ff:ff:ff:ff", "00-00-00-00-00-00", "permit B4 for licence V2",
    ],
)  # fmt: skip
def test_what_only_looks_like_one_is_left(analyzer: OfflineAnalyzer, text: str) -> None:
    kinds = {"IP_ADDRESS", "MAC_ADDRESS", "DRIVER_LICENSE"}
    assert [f for f in analyzer.find(text, kinds) if f.score >= Policy().threshold(f.entity_type)] == []


def test_marks_of_the_sentence_do_not_hide_an_address(analyzer: OfflineAnalyzer) -> None:
    for address in ("2a02:c7d:85a3::8a2e:370:7334", "fe80:ab::12%eth0", "2001:db8:85a3::/64", "2001:db8:85a3::"):
        for marks in ("{}", "{}.", "{}:", "({})", "[{}]", "{},", "to {}: nothing"):
            text = marks.format(address)
            (found,) = [f for f in analyzer.find(text, {"IP_ADDRESS"}) if f.recognizer == "IpScan:IPv6"]
            assert text[found.start : found.end].rstrip(":") == address.rstrip(":"), text


def test_text_of_the_characters_of_addresses_is_read_in_linear_time(analyzer: OfflineAnalyzer) -> None:
    for piece in ("a:", "::", "1.", "%", "a::1/", "00-"):
        assert len(analyzer.find(piece * (100_000 // len(piece)), {"IP_ADDRESS", "MAC_ADDRESS"})) <= 40_000
