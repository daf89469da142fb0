"""Presidio's pattern recognisers behind gates and failing closed, for `privacy.presidio_set`."""

from __future__ import annotations

import regex
from presidio_analyzer import AnalysisExplanation, LocalRecognizer, Pattern, PatternRecognizer, RecognizerResult

from privacy.features import Features, Gate
from privacy.scanning import Hit, Stretches, bounded


class FailClosed(PatternRecognizer):
    """Mixed in before one of Presidio's pattern recognisers: the same patterns and checks, but a
    gate before them, and a timeout raises where Presidio logs it and skips the pattern.

    `stretches` names the only parts of a text in which a match can lie, where that is known. What
    follows such a part is not seen by the pattern, so it ends where a word does, or a check follows.
    """

    gate: Gate | None = None
    stretches: Stretches | None = None

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
    """A hit in Presidio's form."""
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
        },
    )
