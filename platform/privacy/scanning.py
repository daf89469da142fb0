"""Base classes of the recognisers: gated, compiled once, and failing closed on a timeout."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import regex

from privacy.features import Features, Gate
from privacy.findings import ScrubTimeout
from privacy.presidio import (
    AnalysisExplanation,
    LocalRecognizer,
    NlpArtifacts,
    Pattern,
    PatternRecognizer,
    RecognizerResult,
)

# Seconds that one pattern may take on a short text; long texts get proportionally more.
REGEX_TIMEOUT_SECONDS = 2.0
_CHARS_PER_EXTRA_SECOND = 200_000
PRIVATE_KEY = "private"


class Hit(NamedTuple):
    """What a scan reports: a stretch, how sure, by which rule, and what supported it."""

    start: int
    end: int
    score: float
    rule: str
    context_word: str | None = None
    private: bool = False


def bounded(pattern: regex.Pattern[str], text: str, start: int = 0, end: int | None = None) -> list[regex.Match[str]]:
    """Matches of a compiled pattern in text[start:end], looking behind `start` where it does.

    A list, because the clock of a lazy search would run while its matches are looked at.

    Raises ScrubTimeout instead of giving up in silence.
    """
    timeout = REGEX_TIMEOUT_SECONDS + len(text) / _CHARS_PER_EXTRA_SECOND
    try:
        return list(pattern.finditer(text, start, len(text) if end is None else end, timeout=timeout))
    except TimeoutError:
        raise ScrubTimeout("a pattern ran longer than it may; the text stays held") from None


def features_of(text: str, artifacts: NlpArtifacts | None) -> Features:
    """The features that the engine computed for this text, or new ones."""
    known = getattr(artifacts, "features", None)
    return known if isinstance(known, Features) else Features(text)


class ScanRecognizer(LocalRecognizer):
    """A recogniser of one entity type that reports hits from one scan over the text.

    Subclasses implement `scan`; `gate` says from cheap features whether scanning is worth it.
    """

    def __init__(
        self,
        entity_type: str,
        *,
        context: Sequence[str] = (),
        gate: Gate | None = None,
        language: str = "en",
    ) -> None:
        self._gate = gate
        super().__init__(
            supported_entities=[entity_type],
            supported_language=language,
            context=list(context),
        )

    def load(self) -> None:
        """Nothing to load: everything is compiled with the module."""

    @abstractmethod
    def scan(self, text: str) -> Iterator[Hit]:
        """Hits in any order. Raises ScrubTimeout when the search could not finish."""

    def read(self, features: Features) -> Iterator[Hit]:
        """`scan` for those that ask more of the text's features than the gate does."""
        return self.scan(features.text)

    def hits(self, features: Features) -> list[Hit]:
        """What `analyze` reports, without Presidio's records around it. Raises ScrubTimeout."""
        if self._gate is not None and not self._gate(features):
            return []
        return [hit for hit in self.read(features) if hit.start < hit.end]

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        """Presidio's interface to `hits`."""
        return [as_result(self, hit) for hit in self.hits(features_of(text, nlp_artifacts))]


class PatternScan(ScanRecognizer):
    """A scan with several (rule, compiled pattern, score); a group `value` narrows the span."""

    def __init__(
        self,
        entity_type: str,
        rules: Sequence[tuple[str, regex.Pattern[str], float]],
        *,
        context: Sequence[str] = (),
        gate: Gate | None = None,
        check: Callable[[str], bool] | None = None,
    ) -> None:
        self._rules = tuple(rules)
        self._check = check
        super().__init__(entity_type, context=context, gate=gate)

    def scan(self, text: str) -> Iterator[Hit]:
        """Hits of every rule whose value passes the check."""
        for rule, pattern, score in self._rules:
            group: str | int = "value" if "value" in pattern.groupindex else 0
            for match in bounded(pattern, text):
                if self._check is None or self._check(match.group(group)):
                    yield Hit(*match.span(group), score, rule)


class FailClosed(PatternRecognizer):
    """Mixed in before one of Presidio's pattern recognisers: the same patterns and checks, but a
    gate before them, and a timeout raises where Presidio logs it and skips the pattern.

    `stretches` names the only parts of a text in which a match can lie, where that is known. What
    follows such a part is not seen by the pattern, so it ends where a word does, or a check follows.
    """

    gate: Gate | None = None
    stretches: Callable[[Features], Iterable[tuple[int, int]]] | None = None

    def hits(self, features: Features) -> list[Hit]:
        """What `analyze` reports, without Presidio's records around it. Raises ScrubTimeout."""
        kind = type(self)
        if kind.gate is not None and not kind.gate(features):
            return []
        text = features.text
        stretches = [(0, len(text))] if kind.stretches is None else list(kind.stretches(features))
        found = []
        for pattern in self.patterns:
            compiled = _compiled(pattern, self.global_regex_flags)
            for start, end in stretches:
                for match in bounded(compiled, text, start, end):
                    score = self._score(pattern, match.group())
                    if match.group() and score > self.MIN_SCORE:
                        found.append(Hit(*match.span(), score, pattern.name))
        return found

    def analyze(
        self,
        text: str,
        entities: list[str],
        nlp_artifacts: NlpArtifacts | None = None,
        regex_flags: int | None = None,
    ) -> list[RecognizerResult]:
        """As PatternRecognizer.analyze. Raises ScrubTimeout."""
        return [as_result(self, hit) for hit in self.hits(features_of(text, nlp_artifacts))]

    def _score(self, pattern: Pattern, value: str) -> float:
        valid = self.validate_result(value)
        if valid is False or self.invalidate_result(value):
            return float(self.MIN_SCORE)
        return float(self.MAX_SCORE if valid else pattern.score)


def _compiled(pattern: Pattern, flags: int | None) -> regex.Pattern[str]:
    if pattern.compiled_regex is None or pattern.compiled_with_flags != flags:
        pattern.compiled_with_flags = flags
        pattern.compiled_regex = regex.compile(pattern.regex, flags=flags or 0)
    compiled: regex.Pattern[str] = pattern.compiled_regex
    return compiled


def as_result(recognizer: LocalRecognizer, hit: Hit) -> RecognizerResult:
    """A hit in Presidio's form, with the explanation that the review page shows."""
    explanation = AnalysisExplanation(recognizer=recognizer.name, original_score=hit.score, pattern_name=hit.rule)
    if hit.context_word:
        explanation.set_supportive_context_word(hit.context_word)
    return RecognizerResult(
        entity_type=recognizer.supported_entities[0],
        start=hit.start,
        end=hit.end,
        score=hit.score,
        analysis_explanation=explanation,
        recognition_metadata={
            RecognizerResult.RECOGNIZER_NAME_KEY: recognizer.name,
            RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: recognizer.id,
            PRIVATE_KEY: hit.private,
        },
    )
