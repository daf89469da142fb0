"""Generated values of each type in many wordings, hostile texts, and Presidio's results without Presidio's cost."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import luhn
from stdnum.es import dni
from stdnum.iso7064 import mod_97_10

from privacy.analyzer import OfflineAnalyzer
from privacy.findings import ALL_TYPES, Finding
from privacy.normalise import normalise
from privacy.policy import Policy
from privacy.presidio_set import PresidioSet
from privacy.recognizers import get_analyzer
from privacy.remembered import Remembered

PATTERNS = ALL_TYPES - {"PERSON", "LOCATION"}
WORDINGS = (
    "{}",
    "{} thanks",
    "please note {}.",
    "it is {}, I think",
    "({})",
    "before\n{}\nafter",
    "- {}\n- nothing else",
    '"{}"',
    "Is {} right?",
    "we have {}; nothing else",
    "changed to {} yesterday!",
    "FYI: {}",
)
CASES: dict[str, tuple[str, ...]] = {
    "PHONE": ("020 7946 0{n3}", "+44 (0)20 7946 0{n3}", "(212) 555-0{n3}", "06 12 34 5{n3}", "+49-170-1234{n3}"),
    "EMAIL": ("jo.k{n3}@example.org", "jo{n3} at example dot org", "jo{n3} [at] example [dot] org",
        "jo{n3}%40example.org", "jo dot k{n3} at example dot co dot uk", "jo{n3} at gmail.com"),
    "CREDIT_CARD": ("{card}", "{card4 }", "{card4-}", "{card4.}", "{card4–}"),
    "IBAN": ("{iban}", "{iban4 }"),
    "NATIONAL_ID": ("{dni}", "NHS number 943 476 5919", "Aadhaar 2341 2341 2346", "BSN 111222333", "TFN 123 456 782"),
    "SECRET": (
        "AKIA{up16}", "ghp_{low36}", "password=Tr0ub4{n3}x", "pwd: s3cr{n3}pass", "Bearer {low36}",
        "postgres://app:pa{n3}ss@db.internal", "api key is {low36}", "mot de passe : soleil{n3}x",
    ),
    "USERNAME": ("user=annak{n3}", "login: annak{n3}", "username annak{n3}", "@anna_{n3}", "my handle is anna-k-{n3}"),
    "ADDRESS": (
        "12{n3} High Street, Leeds LS1 4AP", "Hauptstraße 5, 10{n3} Berlin", "12 rue de la Paix, 75{n3} Paris",
        "Calle Mayor 15, 28{n3} Madrid", "1{n3} Main St, Springfield, IL 62{n3}",
        "10{n3} Berlin", "D02 AF30", "SW1A 1AA",
    ),
    "IP_ADDRESS": ("10.20.30.{small}", "2a02:c7d:85a3::8a2e:370:7{n3}", "[2a00:1450:4009::{n3}]"),
    "MAC_ADDRESS": ("00:1A:2B:3C:4D:{small}", "001A.2B3C.4D{small}"),
    "DATE_OF_BIRTH": ("born on 12/05/19{small}", "DOB: 19{small}-05-12", "geboren am 12.05.19{small}",
        "d.o.b. 12/5/{small}"),
}  # fmt: skip


@pytest.fixture(scope="module")
def analyzer() -> OfflineAnalyzer:
    return get_analyzer(Policy().regions)


def filled(template: str, seed: int) -> str:
    pick = random.Random(seed)
    body = "4" + "".join(str(pick.randrange(10)) for _ in range(14))
    card = body + luhn.calc_check_digit(body)
    account = "NWBK" + "".join(str(pick.randrange(10)) for _ in range(14))
    iban = f"GB{98 - mod_97_10.checksum(account + 'GB00'):02d}{account}"
    number = f"{pick.randrange(10**8):08d}"
    values = {
        "n3": f"{pick.randrange(1000):03d}",
        "small": str(pick.randint(50, 99)),
        "card": card,
        **{f"card4{mark}": mark.join(card[i : i + 4] for i in range(0, 16, 4)) for mark in " -.–"},
        "iban": iban,
        "iban4 ": " ".join(iban[i : i + 4] for i in range(0, len(iban), 4)),
        "dni": number + dni.calc_check_digit(number),
        "up16": "".join(pick.choices("ABCDEFGHJKLMNP23456789", k=16)),
        "low36": "a1" + "".join(pick.choices("abcdefghijk0123456789", k=34)),
    }
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", value)
    return template


def masked(analyzer: OfflineAnalyzer, text: str) -> list[Finding]:
    policy = Policy()
    return [f for f in analyzer.find(normalise(text).text, PATTERNS) if f.score >= policy.threshold(f.entity_type)]


@pytest.mark.parametrize("entity_type", sorted(CASES))
def test_every_value_is_found_in_every_wording(analyzer: OfflineAnalyzer, entity_type: str) -> None:
    """At least the digits (or the last four characters) of each value lie in a finding; most by its own type."""
    own = total = 0
    for number, form in enumerate(CASES[entity_type]):
        for place, wording in enumerate(WORDINGS):
            value = filled(form, 100 * number + place)
            text = wording.format(value)
            plain = normalise(text).text
            found = masked(analyzer, text)
            tail = normalise(value).text[-4:].strip()
            end = plain.rindex(tail) + len(tail)
            assert any(f.start <= end - 2 < f.end for f in found), (form, wording)
            own += any(f.entity_type == entity_type for f in found)
            total += 1
    assert own >= 0.9 * total


@pytest.mark.parametrize(
    "text",
    [
        "the meter reads 12345 and the bill of 2024 was £35.40",
        "version 1.2.3 of 2023-04-05 fixed issue 4711",
        "call user.login() and set user=request.user",
        "@property and @lru_cache(maxsize=8) are decorators",
        "the password is wrong, reset it",
        "look at the table, dot the i, and meet at noon",
        "chapter 12 of 30, page 4 of 5, 3 rooms on 2 floors",
    ],
)
def test_ordinary_numbers_and_words_are_left(analyzer: OfflineAnalyzer, text: str) -> None:
    assert masked(analyzer, text) == []


HOSTILE = (
    "a.", "1 ", "@a", "%40", "1-", "a at ", "a dot ", "1a ", "A1 ", "1.", "::", "a:", "rue ", "12 rue ", "9", "&#64;",
    "аa", "user: a", "AB1", "(", "pass is ", "4 4", "\u00e9", " @ a", "-----BEGIN PRIVATE KEY-----", "http://a:", "12,",
    "GB82 ", "1/", "@a1", "A-1 ", "a b@c d.", "1 Main ", "\u200b1", "x1_",
)  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_grows_with_the_length(analyzer: OfflineAnalyzer, piece: str) -> None:
    """100,000 characters cost seconds of processor time at most, where a quadratic step would cost minutes."""
    text = normalise(piece * (100_000 // len(piece)) + " dot ").text
    started = time.process_time()
    analyzer.find(text, PATTERNS)
    assert time.process_time() - started < 10


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("a1@.%4&#;:/-+ \n\u200b\u202eаΑ\ue000é"), max_size=60) | st.text(max_size=60))
def test_any_text_is_read_and_leads_back(text: str) -> None:
    seen = normalise(text)
    for found in get_analyzer(Policy().regions).find(seen.text, PATTERNS):
        assert 0 <= found.start < found.end <= len(seen.text)
        start, end = seen.original_span(found.start, found.end)
        assert 0 <= start < end <= len(text)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Anna%20Keller", "Anna Keller"),
        ("jo%C3%A9%40x", "joé@x"),
        ("100%zz %ff %0a", "100%zz %ff %0a"),
        ("&#x41;nna&nbsp;K", "Anna K"),
        ("Аnnа", "Anna"),
        ("Анна", "Анна"),
        ("ｊ\u200bo", "jo"),
    ],
)
def test_disguises_are_undone(text: str, seen: str) -> None:
    assert normalise(text).text == seen


def test_what_is_remembered_is_bounded_and_the_oldest_goes() -> None:
    finding = Finding(0, 1, "PHONE", 1.0, "x")
    memory: Remembered[tuple[Finding, ...]] = Remembered(6, lambda found: len(found) + 1)
    keys = [memory.key(text, ["PHONE"]) for text in ("one", "two", "three")]
    memory.put(keys[0], (finding,))
    memory.put(keys[1], (finding,))
    memory.put(keys[0], (finding,))
    memory.put(keys[2], (finding,))
    assert memory.get(keys[1]) == (finding,)
    memory.put(memory.key("four", ["PHONE"]), (finding,))
    assert [memory.get(key) for key in keys] == [None, (finding,), (finding,)]
    assert memory.key("one", ["PHONE"]) != memory.key("one", ["EMAIL"])
    assert Remembered(6, len).key("one", ["PHONE"]) != keys[0]


def test_a_remembered_passage_gives_what_the_first_reading_gave(analyzer: OfflineAnalyzer) -> None:
    text = "Call 020 7946 0123 or write to jo@example.org about card 4111 1111 1111 1111. " * 3
    first = analyzer.find(text, PATTERNS)
    assert first
    assert analyzer.find(text, PATTERNS) == first == analyzer._search(text, PATTERNS)


@pytest.fixture(scope="module")
def vanilla() -> Any:
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpArtifacts, SpacyNlpEngine

    from privacy.presidio_set import OfflineEmail

    class Blank(SpacyNlpEngine):
        def load(self) -> None:
            self.nlp = {"en": spacy.blank("en")}

        def _doc_to_nlp_artifact(self, doc: Any, language: str) -> NlpArtifacts:
            return NlpArtifacts([], doc, [t.idx for t in doc], [t.lower_ for t in doc], self, language)

    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    left_out = {"SpacyRecognizer", "EmailRecognizer"}
    registry.recognizers = [*(r for r in registry.recognizers if r.name not in left_out), OfflineEmail()]
    nlp = Blank()
    nlp.load()
    return AnalyzerEngine(registry=registry, nlp_engine=nlp, supported_languages=["en"])


def test_the_quick_set_finds_what_presidio_finds(vanilla: Any) -> None:
    """Start, end, type and score of everything, on each generated value in each wording and on odd mixtures."""
    quick = PresidioSet()
    texts = [
        w.format(filled(form, n)) for n, w in enumerate(WORDINGS) for forms in CASES.values() for form in forms[:4]
    ]
    texts += [
        "my driver license is H1234567, bank account number is 945456787654, passport 912345678",
        "call 07700 900123/07700 900456, or 020 7946 0123 x12 (2019-2024), 00 44 20 7946 0123",
        "see http://example.org/a?b=1, 'www.example.co.uk' or os.system at 3.com; gb82 west 1234 5698 7654 32",
        "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy is a wallet, 123e4567-e89b-12d3-a456-426614174000 an id",
        "2024-05-12T10:11:12Z, 12-MAY-2024, MAY-24, 5/2024, ::1, fe80::1ff:fe23:4567:890a, ::ffff:1.2.3.4",
        "",
        "no digits here at all",
    ]
    for text in texts:
        expected = sorted((r.start, r.end, r.entity_type, r.score) for r in vanilla.analyze(text, "en"))
        assert sorted((r.start, r.end, r.entity_type, r.score) for r in quick.analyze(text)) == expected
