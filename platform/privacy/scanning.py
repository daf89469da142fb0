"""Base classes of the recognisers: gated, compiled once, and failing closed on a timeout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import regex

from privacy.features import Features, Gate
from privacy.findings import ScrubTimeout

# Seconds that one pattern may take on a short text; long texts get proportionally more.
REGEX_TIMEOUT_SECONDS = 2.0
_CHARS_PER_EXTRA_SECOND = 200_000

Stretches = Callable[[Features], Iterable[tuple[int, int]]]
Rule = tuple[str, regex.Pattern[str], float]
"""Name, compiled pattern, score; a group `value` narrows the span."""


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


class Scan(ABC):
    """A recogniser of one entity type that reports hits from one scan over the text.

    Subclasses implement `scan`; `gate` says from cheap features whether scanning is worth it. A word of `context` near
    a hit raises its score (`privacy.context`).
    """

    def __init__(self, entity_type: str, *, context: Sequence[str] = (), gate: Gate | None = None) -> None:
        self.entity_type = entity_type
        self.context = tuple(context)
        self._gate = gate

    @property
    def name(self) -> str:
        """What reviewers are shown."""
        return type(self).__name__

    @abstractmethod
    def scan(self, text: str) -> Iterator[Hit]:
        """Hits in any order. Raises ScrubTimeout when the search could not finish."""

    def read(self, features: Features) -> Iterator[Hit]:
        """`scan` for those that ask more of the text's features than the gate does."""
        return self.scan(features.text)

    def hits(self, features: Features) -> list[Hit]:
        """The hits in a text, if its features let there be any. Raises ScrubTimeout."""
        if self._gate is not None and not self._gate(features):
            return []
        return [hit for hit in self.read(features) if hit.start < hit.end]


class PatternScan(Scan):
    """A scan by rules. `check` may refuse a value; `stretches` are the only parts of a text in which a match can lie,
    where that is known. A pattern does not see what follows such a part, so parts end where words do."""

    def __init__(
        self,
        entity_type: str,
        rules: Sequence[Rule],
        *,
        context: Sequence[str] = (),
        gate: Gate | None = None,
        check: Callable[[str], bool] | None = None,
        stretches: Stretches | None = None,
    ) -> None:
        self._rules = tuple(rules)
        self._check = check
        self._stretches = stretches
        super().__init__(entity_type, context=context, gate=gate)

    def scan(self, text: str) -> Iterator[Hit]:
        """Hits of every rule whose value passes the check."""
        return self.read(Features(text))

    def read(self, features: Features) -> Iterator[Hit]:
        """As `scan`, within the stretches."""
        text = features.text
        parts = [(0, len(text))] if self._stretches is None else list(self._stretches(features))
        for rule, pattern, score in self._rules:
            group: str | int = "value" if "value" in pattern.groupindex else 0
            for start, end in parts:
                for match in bounded(pattern, text, start, end):
                    if self._check is None or self._check(match.group(group)):
                        yield Hit(*match.span(group), score, rule)
