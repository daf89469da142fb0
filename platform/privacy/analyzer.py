"""Presidio's AnalyzerEngine without downloads: a word tokenizer with lower-case lemmas.

With a blank spaCy pipeline every lemma is empty and Presidio's context words never match, without
any warning; and its default matching takes a context word inside another word ("lic" in "public")
for context. Here lemmas are the lower-case words, matching is by whole words, and tokens are made
only when a hit asks for its context.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import Any

from presidio_analyzer import (
    AnalyzerEngine,
    EntityRecognizer,
    RecognizerRegistry,
    RecognizerResult,
)
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

from privacy.findings import Finding
from privacy.scanning import PRIVATE_KEY, Features
from privacy.wordlists import words

LANGUAGE = "en"
# Texts of at least this many characters are searched once; so many are remembered (some 10 MB).
_REMEMBER_FROM = 200
_REMEMBERED = 20_000
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_STOP_WORDS = frozenset(
    words("""
    a an and are as at be been but by can could did do does for from had has have he her his i if
    in into is it its me my no not of on or our she so than that the their them then there they
    this to us was we were what when which who will with would you your please
    """)
)


class WordArtifacts(NlpArtifacts):
    """Tokens, lemmas and features of a text, each computed when first asked for."""

    def __init__(self, text: str, engine: NlpEngine, language: str) -> None:
        # The parent's constructor wants every token up front, which is what this class avoids.
        self.features = Features(text)
        self.entities: list[Any] = []
        self.scores: list[float] = []
        self.nlp_engine = engine
        self.language = language

    @cached_property
    def _matches(self) -> list[re.Match[str]]:
        return list(_WORD.finditer(self.features.text))

    @cached_property
    def tokens(self) -> list[str]:
        """Words and punctuation marks."""
        return [match.group() for match in self._matches]

    @cached_property
    def tokens_indices(self) -> list[int]:
        """Where each token starts."""
        return [match.start() for match in self._matches]

    @cached_property
    def lemmas(self) -> list[str]:
        """Lower-case tokens: the stand-in for lemmas that context words are compared with."""
        return [token.lower() for token in self.tokens]

    @cached_property
    def keywords(self) -> list[str]:
        """Lemmas that are neither stop words nor punctuation."""
        return self.set_keywords(self.nlp_engine, self.lemmas, self.language)


class WordNlpEngine(NlpEngine):
    """An NlpEngine of one regular expression: no model, nothing to download, no growing cache."""

    def load(self) -> None:
        """Nothing to load."""

    def is_loaded(self) -> bool:
        """Always ready."""
        return True

    def process_text(self, text: str, language: str) -> WordArtifacts:
        """Artifacts of one text."""
        return WordArtifacts(text, self, language)

    def process_batch(
        self,
        texts: Iterable[str],
        language: str,
        batch_size: int = 1,
        n_process: int = 1,
        **kwargs: Any,
    ) -> Iterator[tuple[str, WordArtifacts]]:
        """(text, artifacts) of each text in order."""
        for text in texts:
            yield text, self.process_text(text, language)

    def is_stopword(self, word: str, language: str) -> bool:
        """Whether a context window passes over this word."""
        return word.lower() in _STOP_WORDS

    def is_punct(self, word: str, language: str) -> bool:
        """Whether the token is punctuation."""
        return not any(char.isalnum() for char in word)

    def get_supported_entities(self) -> list[str]:
        """None: this engine recognises nothing by itself."""
        return []

    def get_supported_languages(self) -> list[str]:
        """The language that the recognisers are registered for."""
        return [LANGUAGE]


class WholeWordEnhancer(LemmaContextAwareEnhancer):
    """Presidio's context window by whole words, found by bisection: the parent walks the whole
    text once per hit, which is quadratic on a text full of numbers."""

    def __init__(self) -> None:
        super().__init__(context_suffix_count=2, context_matching_mode="whole_word")

    def _extract_surrounding_words(self, nlp_artifacts: NlpArtifacts, word: str, start: int) -> list[str]:
        lemmas = nlp_artifacts.lemmas
        if not lemmas:
            return []
        index = max(0, bisect_right(nlp_artifacts.tokens_indices, start) - 1)
        last = max(index, bisect_right(nlp_artifacts.tokens_indices, start + len(word) - 1) - 1)
        before = _window(lemmas, range(index, -1, -1), self.context_prefix_count + 1)
        after = _window(lemmas, range(last + 1, len(lemmas)), self.context_suffix_count)
        return before + after


def _window(lemmas: list[str], order: range, count: int) -> list[str]:
    words: list[str] = []
    for position in order:
        lemma = lemmas[position]
        if len(words) == count:
            break
        if lemma not in _STOP_WORDS and lemma[0].isalnum():
            words.append(lemma)
    return words


class OfflineAnalyzer(AnalyzerEngine):
    """AnalyzerEngine over the given recognisers, with `find` as the fast way in.

    `find` reports the same spans as `analyze` for hits of at least the same score; it leaves out
    the pairwise removal of duplicates, since the scrubber merges overlaps in one sweep.
    """

    def __init__(self, recognizers: list[EntityRecognizer]) -> None:
        super().__init__(
            registry=RecognizerRegistry(recognizers=recognizers, supported_languages=[LANGUAGE]),
            nlp_engine=WordNlpEngine(),
            supported_languages=[LANGUAGE],
            context_aware_enhancer=WholeWordEnhancer(),
        )
        self._ordered = list(recognizers)
        self._known: dict[tuple[bytes, frozenset[str]], tuple[Finding, ...]] = {}

    def find(self, text: str, entity_types: Collection[str]) -> list[Finding]:
        """Everything the recognisers of these types report, before thresholds.

        Long texts are remembered by their digest: the same passages come back in most turns of a
        log. What is remembered are places and types, never text.

        Raises ScrubTimeout when one of them could not finish.
        """
        if len(text) < _REMEMBER_FROM:
            return self._search(text, entity_types)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        key = (digest, frozenset(entity_types))
        known = self._known.get(key)
        if known is None:
            known = tuple(self._search(text, entity_types))
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = known
        return list(known)

    def _search(self, text: str, entity_types: Collection[str]) -> list[Finding]:
        artifacts = self.nlp_engine.process_text(text, LANGUAGE)
        wanted = [r for r in self._ordered if r.supported_entities[0] in entity_types]
        results: list[RecognizerResult] = []
        for recognizer in wanted:
            results += recognizer.analyze(text, recognizer.supported_entities, artifacts)
        if results:
            results = self.context_aware_enhancer.enhance_using_context(
                text=text, raw_results=results, nlp_artifacts=artifacts, recognizers=wanted
            )
        return [_finding(result) for result in results]


def _finding(result: RecognizerResult) -> Finding:
    explanation = result.analysis_explanation
    return Finding(
        start=result.start,
        end=result.end,
        entity_type=result.entity_type,
        score=float(result.score),
        recognizer=f"{explanation.recognizer}:{explanation.pattern_name}",
        context_word=explanation.supportive_context_word or None,
        private=bool(result.recognition_metadata.get(PRIVATE_KEY)),
    )
