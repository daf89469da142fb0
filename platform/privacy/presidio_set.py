"""Presidio's own default recognisers for English without its name model, several times faster, with the same results.

A second opinion that shares no pattern with ours. The means: gates on cheap features of the text, patterns searched
only in the words that have digits, one search for telephone candidates instead of one per region, and words looked at
only where a hit's recogniser has context words in the text. `bench/scrub.py` compares every result with that of
`AnalyzerEngine`.

No policy of ours uses it: it is the yardstick of tests and of that benchmark. It stays beside what it is measured with
because it is made of it (gates, features, scans), is typed and linted with it, and both need the same code; a folder of
`bench/` on the path of tests would put its `capture.py` before the package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import tldextract

from privacy.features import Features, Gate
from privacy.network_ids import address_chunks
from privacy.presidio import English, EntityRecognizer, LemmaContextAwareEnhancer, RecognizerResult
from privacy.presidio import predefined_recognizers as presidio
from privacy.presidio_phone import SharedPhone
from privacy.scanning import FailClosed, Hit, as_result

_DOT_IN_WORD = re.compile(r"[\w.\-]\.\w")
_LONG_WORD = re.compile(r"[^\W_]{26}")
_WORDS_KNOWN = 50_000
_FLAGS = re.IGNORECASE | re.MULTILINE | re.DOTALL  # as Presidio's default registry sets them
Stretches = Callable[[Features], Iterable[tuple[int, int]]]
# Without a list from the network: Presidio would ask for one at the first address.
_SUFFIXES = tldextract.TLDExtract(suffix_list_urls=())


class OfflineEmail(presidio.EmailRecognizer):
    """E-mail addresses by the suffix list that tldextract brings along."""

    def validate_result(self, pattern_text: str) -> bool:
        """Whether the domain ends in a public suffix."""
        return _SUFFIXES(pattern_text).fqdn != ""


def _dates(features: Features) -> bool:
    text = features.text
    return any(
        (text[end : end + 1] in {"-", "/", "."} and text[end + 1 : end + 2].isalnum()) or text[start - 1 : start] == "-"
        for start, end in features.runs
    )


def _dotted_words(features: Features) -> list[tuple[int, int]]:
    return list(features.chunks(match.start() for match in _DOT_IN_WORD.finditer(features.text)))


def _words_from(length: int) -> Stretches:
    return lambda features: [(start, end) for start, end in features.digit_words if end - start >= length]


def _licence_words(features: Features) -> list[tuple[int, int]]:
    text = features.text
    return [(s, e) for s, e in features.digit_words if e - s >= 6 or (e - s > 1 and not text[s:e].isdigit())]


class _Kind(NamedTuple):
    presidio: type[Any]
    gate: Gate
    stretches: Stretches | None = None


_KINDS = (
    _Kind(presidio.CreditCardRecognizer, lambda features: features.longest_chain >= 12),
    _Kind(presidio.UsBankRecognizer, lambda features: features.longest_run >= 8, _words_from(8)),
    _Kind(presidio.UsLicenseRecognizer, lambda f: f.letters_and_digits or f.longest_run >= 6, _licence_words),
    _Kind(presidio.UsItinRecognizer, lambda features: features.longest_chain >= 9),
    _Kind(presidio.UsPassportRecognizer, lambda features: features.longest_run >= 8, _words_from(9)),
    # Groups of digits with one separator may also be words of their own, so the whole text is searched.
    _Kind(presidio.UsSsnRecognizer, lambda features: features.longest_chain >= 9),
    _Kind(presidio.NhsRecognizer, lambda features: features.longest_chain >= 10),
    _Kind(presidio.CryptoRecognizer, lambda f: _LONG_WORD.search(f.text) is not None),
    _Kind(presidio.DateRecognizer, _dates),
    _Kind(OfflineEmail, lambda features: features.at_sign),
    _Kind(presidio.IpRecognizer, lambda features: bool(address_chunks(features)), address_chunks),
    _Kind(presidio.MedicalLicenseRecognizer, lambda features: features.longest_run >= 7, _words_from(9)),
    _Kind(presidio.MacAddressRecognizer, lambda features: features.hexadecimal_pair),
    _Kind(presidio.UuidRecognizer, lambda features: "-" in features.text),
    _Kind(presidio.UrlRecognizer, lambda f: _DOT_IN_WORD.search(f.text) is not None, _dotted_words),
)


class _Member:
    """One recogniser: gated, and its results without duplicates as Presidio's own have none."""

    def __init__(self, recognizer: Any, gate: Gate, hits: Callable[[Features], Sequence[Hit]] | None) -> None:
        self.recognizer = recognizer
        self.context = tuple(str(word).lower() for word in recognizer.context or ())
        self._gate = gate
        self._hits = hits

    def results(self, features: Features) -> list[RecognizerResult]:
        if not self._gate(features):
            return []
        if self._hits is None:
            found: list[RecognizerResult] = self.recognizer.analyze(
                features.text, self.recognizer.supported_entities, None
            )
            return found
        found = [as_result(self.recognizer, hit) for hit in self._hits(features)]
        return EntityRecognizer.remove_duplicates(found) if len(found) > 1 else found


def _members() -> list[_Member]:
    members: list[_Member] = []
    for kind in _KINDS:
        body = {"gate": None, "stretches": staticmethod(kind.stretches) if kind.stretches else None}
        recognizer = type(f"Quick{kind.presidio.__name__}", (FailClosed, kind.presidio), body)()
        members.append(_Member(recognizer, kind.gate, recognizer.hits))
    # Presidio looks for IBANs inside candidates by a search of its own.
    members.append(
        _Member(presidio.IbanRecognizer(regex_flags=_FLAGS), lambda features: features.country_and_check, None)
    )
    phone = SharedPhone()
    members.append(_Member(phone, lambda features: features.digit, phone.hits))
    return members


class _Words:
    """The words of a text as Presidio's enhancer sees them, when a hit asks for them."""

    def __init__(self, text: str) -> None:
        self._doc = _tokenizer()(text)

    @cached_property
    def lemmas(self) -> list[str]:
        return [token.lower_ for token in self._doc]

    @cached_property
    def keywords(self) -> frozenset[str]:
        kept = {lemma for lemma in self.lemmas if _is_keyword(lemma)}
        return frozenset(part for lemma in kept for part in lemma.split(":"))

    def before(self, start: int, count: int) -> list[str]:
        """The word at `start` and the last `count` keywords before it."""
        token = self._doc.char_span(start, start + 1, alignment_mode="expand")
        index = token[0].i
        found = [self.lemmas[index]] if self.lemmas[index] in self.keywords else []
        for lemma in reversed(self.lemmas[:index]):
            if len(found) > count:
                break
            if lemma in self.keywords:
                found.append(lemma)
        return found


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    return English().tokenizer


@lru_cache(maxsize=_WORDS_KNOWN)
def _is_keyword(lemma: str) -> bool:
    lexeme = _tokenizer().vocab[lemma]
    return not lexeme.is_stop and not lexeme.is_punct and lemma not in {"-PRON-", "be"}


class PresidioSet:
    """`analyze` reports what `AnalyzerEngine.analyze` of the same recognisers does; nothing is kept between calls."""

    def __init__(self) -> None:
        self._members = _members()
        self._enhancer = LemmaContextAwareEnhancer()

    def analyze(self, text: str) -> list[RecognizerResult]:
        """Results (start, end, type, score) as Presidio orders them. Raises ScrubTimeout."""
        features = Features(text)
        found: list[RecognizerResult] = []
        words: _Words | None = None
        for member in self._members:
            results = member.results(features)
            if results and features.any_of(member.context):
                words = words or _Words(text)
                for result in results:
                    self._raise(result, member, words)
            found += results
        return EntityRecognizer.remove_duplicates(found) if len(found) > 1 else found

    def _raise(self, result: RecognizerResult, member: _Member, words: _Words) -> None:
        around = words.before(result.start, self._enhancer.context_prefix_count)
        if any(word in lemma for word in member.context for lemma in around):
            raised = max(
                result.score + self._enhancer.context_similarity_factor,
                self._enhancer.min_score_with_context_similarity,
            )
            result.score = min(raised, self._enhancer.MAX_SCORE)
