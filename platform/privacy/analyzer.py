"""Presidio's AnalyzerEngine without downloads: a word tokenizer with lower-case lemmas.

With a blank spaCy pipeline every lemma is empty and Presidio's context words never match, without
any warning; and its default matching takes a context word inside another word ("lic" in "public")
for context. Here lemmas are the lower-case words, matching is by whole words, and tokens are made
only when a hit asks for its context.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import Any

from privacy.features import Features
from privacy.findings import Finding
from privacy.presidio import (
    AnalyzerEngine,
    EntityRecognizer,
    LemmaContextAwareEnhancer,
    NlpArtifacts,
    NlpEngine,
    RecognizerRegistry,
    RecognizerResult,
)
from privacy.remembered import Remembered
from privacy.scanning import PRIVATE_KEY, FailClosed, Hit, ScanRecognizer
from privacy.wordlists import words

LANGUAGE = "en"
# Texts of at least this many characters are searched once, as long as they are remembered.
_REMEMBER_FROM = 64
# A finding takes some 150 bytes and an entry without findings about as much, so this is at most some 6 MB.
_ROOM = 40_000
# What mostly holds the words beside a hit that are asked for, and how far a token may go over its ends.
_REACH_BEFORE, _REACH_BEHIND, _REACH = 90, 30, 60
_FEW_HITS = 3
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

    @property
    def cut(self) -> bool:
        """Whether the text has been cut into tokens, so that they cost nothing more."""
        return "_matches" in self.__dict__

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

    def words_near(self, artifacts: WordArtifacts, start: int, end: int) -> list[str]:
        """As above, of a hit at text[start:end], without the tokens of the whole text where those beside it suffice."""
        text = artifacts.features.text
        low, high = _space_before(text, start - _REACH_BEFORE), _space_behind(text, end + _REACH_BEHIND)
        if low is None or high is None or artifacts.cut:
            return self._extract_surrounding_words(artifacts, text[start:end], start)
        found = list(_WORD.finditer(text, low, high))
        places = [match.start() for match in found]
        lemmas = [match.group().lower() for match in found]
        index = max(0, bisect_right(places, start) - 1)
        last = max(index, bisect_right(places, end - 1) - 1)
        before = _window(lemmas, range(index, -1, -1), self.context_prefix_count + 1)
        after = _window(lemmas, range(last + 1, len(lemmas)), self.context_suffix_count)
        enough = (not low or len(before) > self.context_prefix_count) and (
            high == len(text) or len(after) == self.context_suffix_count
        )
        return before + after if enough else self._extract_surrounding_words(artifacts, text[start:end], start)


def _space_before(text: str, place: int) -> int | None:
    """Where a token may begin, at `place` or a little before; None where none does."""
    if place <= 0:
        return 0
    return next((at + 1 for at in range(place, max(-1, place - _REACH), -1) if text[at].isspace()), None)


def _space_behind(text: str, place: int) -> int | None:
    """Where a token may end, at `place` or a little behind; None where none does."""
    if place >= len(text):
        return len(text)
    return next((at for at in range(place, min(len(text), place + _REACH)) if text[at].isspace()), None)


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
        # Asking each what it is costs more than most of them take on a text.
        self._kinds = [
            (r, str(r.supported_entities[0]), r if isinstance(r, ScanRecognizer | FailClosed) else None)
            for r in recognizers
        ]
        self._context_words = {r.id: _word_search(r.context) for r in recognizers if r.context}
        self._known: Remembered[tuple[Finding, ...]] = Remembered(_ROOM, lambda found: len(found) + 1)

    def find(self, text: str, entity_types: Collection[str]) -> list[Finding]:
        """Everything the recognisers of these types report, before thresholds.

        Texts of some length are remembered by a keyed digest: the same passages come back in most
        turns of a log. What is remembered are places and types, never text.

        Raises ScrubTimeout when one of them could not finish.
        """
        if len(text) < _REMEMBER_FROM:
            return self._search(text, entity_types)
        key = self._known.key(text, entity_types)
        known = self._known.get(key)
        if known is None:
            known = tuple(self._search(text, entity_types))
            self._known.put(key, known)
        return list(known)

    def _search(self, text: str, entity_types: Collection[str]) -> list[Finding]:
        artifacts = WordArtifacts(text, self.nlp_engine, LANGUAGE)
        found: list[Finding] = []
        for recognizer, kind, quick in self._kinds:
            if kind not in entity_types:
                continue
            if quick is not None:
                hits = quick.hits(artifacts.features)
                if hits:
                    found += self._with_context(quick, hits, artifacts)
            else:
                results = recognizer.analyze(text, recognizer.supported_entities, artifacts)
                found += map(_finding, self._enhance_using_context(text, results, artifacts, [recognizer]))
        return found

    def _has_context(self, recognizer: ScanRecognizer | FailClosed, features: Features, hits: int) -> bool:
        """Whether one of the recogniser's context words may stand in the text as a word."""
        if not recognizer.context:
            return False
        lowered, pattern = self._context_words[recognizer.id]
        # The words beside a few hits are found sooner than one among all words of the text.
        return features.any_of(lowered) and (hits <= _FEW_HITS or pattern.search(features.lower) is not None)

    def _with_context(
        self, recognizer: ScanRecognizer | FailClosed, hits: list[Hit], artifacts: WordArtifacts
    ) -> Iterator[Finding]:
        """The hits as findings, their scores raised where a context word stands near.

        What Presidio's enhancer does, without its copies of everything, and without looking for
        words around hits in a text that has none of the recogniser's.
        """
        enhancer = self.context_aware_enhancer
        near = self._has_context(recognizer, artifacts.features, len(hits))
        for hit in hits:
            score, word = hit.score, ""
            if near:
                around = enhancer.words_near(artifacts, hit.start, hit.end)
                word = next((word for word in self._context_words[recognizer.id][0] if word in around), "")
            if word:
                raised = max(score + enhancer.context_similarity_factor, enhancer.min_score_with_context_similarity)
                score = min(raised, enhancer.MAX_SCORE)
            yield Finding(
                start=hit.start,
                end=hit.end,
                entity_type=recognizer.supported_entities[0],
                score=float(score),
                recognizer=f"{recognizer.name}:{hit.rule}",
                context_word=word or hit.context_word,
                private=hit.private,
            )


def _word_search(context: Iterable[str]) -> tuple[tuple[str, ...], re.Pattern[str]]:
    lowered = tuple(word.lower() for word in context)
    return lowered, re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, lowered))})(?!\w)")


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
