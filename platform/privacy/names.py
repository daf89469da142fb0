"""Names of people and places by word lists and cues: the tier that needs no model.

A capitalised word counts as evidence when Faker's lists know it and everyday language does not;
after a cue ("my name is", "Dear", "Mr", "name:") less evidence is enough, and lower case too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import regex

from privacy.cues import CUES, PLACE_CUE, TITLES, Cue, speaks_of_places
from privacy.features import Features
from privacy.gazetteer import FUNCTION_WORDS, Gazetteer, fold, gazetteer
from privacy.name_runs import MAX_NAME_WORDS, RUN_GAP, Word, joined, people_in_run
from privacy.name_verbs import people_by_verbs
from privacy.scanning import Hit, bounded

_WORD = r"\p{L}[\p{L}\p{M}]*(?:['’\-]\p{L}[\p{L}\p{M}]*)*"
# A word in a call, an attribute, an index or an identifier is code, not a name.
_CAPITALISED = regex.compile(rf"(?<![\w.`\\$]|\w[\-'’])(?=\p{{Lu}}|\p{{Lt}}){_WORD}(?![\w\\`(\[=]|\.\p{{Ll}}|::|-\w)")
_LOWER_WORD = regex.compile(rf"(?<![\w.`\\$@/\-]){_WORD}(?![\w\\`(\[=@]|\.\p{{Ll}}|::|-\w)")
_LIST_GAP = regex.compile(r",? (?:and|or|&) |, ?|/")
_ANY_WORD = regex.compile(_WORD)
_CUE_GAP = regex.compile(r"[\s:,*\"'“”‘\-–>]{0,4}")
_MAX_PLACE_WORDS = 4
_RUNS = "runs of capitalised words"


class NameFinder:
    """Finds PERSON and LOCATION stretches in a text (offsets of that text)."""

    def __init__(self, lists: Gazetteer | None = None) -> None:
        self._lists = lists or gazetteer()

    def people(self, features: Features) -> Iterator[Hit]:
        """Hits from cues and from runs of capitalised words, in no particular order."""
        text = features.text
        for cue in CUES:
            if cue.gate(features):
                yield from self._after_cue(text, cue)
        runs = self._runs_of(features)
        found = [hit for run in runs for hit in people_in_run(run)]
        yield from found
        yield from _listed_beside(text, runs, found)
        yield from people_by_verbs(text)
        if text.islower():
            yield from self._people_in_lower_case(text)

    def _people_in_lower_case(self, text: str) -> Iterator[Hit]:
        """First names nobody uses as words, with a last name after them, in all-lower-case text."""
        words = [self._word(text, *match.span()) for match in bounded(_LOWER_WORD, text)]
        position = 0
        while position < len(words):
            word, end = words[position], position + 1
            if word.strong_first and len(word.folded) > 3:
                while (
                    end < len(words)
                    and joined(text, words[end - 1], words[end])
                    and (words[end].strong_last or words[end].strong_first)
                ):
                    end += 1
                score = 0.7 if end - position > 1 else 0.5
                yield Hit(word.start, words[end - 1].end, score, "name lists, lower case")
            position = end

    def places(self, features: Features) -> Iterator[Hit]:
        """Hits for capitalised place names, the longest first where several fit."""
        if speaks_of_places(features):
            yield from self._after_place_cue(features.text)
        for run in self._runs_of(features):
            position = 0
            while position < len(run):
                length = self._place_length(run, position)
                if length:
                    words = run[position : position + length]
                    score = 0.5 if length == 1 and words[0].known else 0.55
                    yield Hit(words[0].start, words[-1].end, score, "place list")
                position += length or 1

    def _after_place_cue(self, text: str) -> Iterator[Hit]:
        for match in bounded(PLACE_CUE, text):
            words: list[Word] = []
            position = match.end()
            while len(words) < _MAX_PLACE_WORDS:
                found = _ANY_WORD.match(text, position)
                if found is None:
                    break
                word = self._word(text, *found.span())
                if word.folded in FUNCTION_WORDS or not (word.capital or self._is_place(word)):
                    break
                if word.common and not words and not self._is_place(word):
                    break
                words.append(word)
                position = word.end + 1
                if text[word.end : word.end + 1] != " ":
                    break
            if words:
                label = " ".join(match.group().lower().split())
                yield Hit(words[0].start, words[-1].end, 0.6, "place cue", label)

    def _is_place(self, word: Word) -> bool:
        return not word.common and len(word.folded) > 3 and word.folded in self._lists.places

    def _place_length(self, run: list[Word], position: int) -> int:
        if run[position].folded not in self._lists.place_starts:
            return 0
        for length in range(min(_MAX_PLACE_WORDS, len(run) - position), 0, -1):
            words = run[position : position + length]
            listed = " ".join(word.folded for word in words) in self._lists.places
            if listed and (length > 1 or not (words[0].common or len(words[0].folded) < 4)):
                return length
        return 0

    def _runs_of(self, features: Features) -> list[list[Word]]:
        """Looked for once for people and places."""
        if _RUNS not in features.shared:
            features.shared[_RUNS] = list(self._runs(features.text))
        runs: list[list[Word]] = features.shared[_RUNS]
        return runs

    def _runs(self, text: str) -> Iterator[list[Word]]:
        """Capitalised words that stand next to each other."""
        run: list[Word] = []
        for match in bounded(_CAPITALISED, text):
            word = self._word(text, match.start(), match.end())
            if run and not joined(text, run[-1], word):
                yield run
                run = []
            run.append(word)
        if run:
            yield run

    def _word(self, text: str, start: int, end: int) -> Word:
        value = text[start:end]
        if value[-2:] in {"'s", "’s", "'S", "’S"}:
            value, end = value[:-2], end - 2
        folded = fold(value)
        lists = self._lists
        parts = folded.split("-") if "-" in folded else (folded,)
        acronym = len(value) <= 4 and value.isupper() and len(value) > 1
        return Word(
            start,
            end,
            folded,
            value[:1].isupper(),
            _listed(folded, parts, lists.first),
            _listed(folded, parts, lists.last),
            acronym
            or any(part in lists.common or part in FUNCTION_WORDS for part in parts)
            or ("'" in folded and folded.split("'")[0] in FUNCTION_WORDS),
        )

    def _after_cue(self, text: str, cue: Cue) -> Iterator[Hit]:
        for match in bounded(cue.pattern, text):
            words = self._name_words(text, match.end(), cue)
            if words:
                score = cue.score if words[0].capital else cue.score - 0.15
                start, end = words[0].start, words[-1].end
                label = " ".join(match.group().lower().split()).strip(" :=,.!\"'")
                yield Hit(start, end, score, "cue", label, cue.self_introduction)

    def _name_words(self, text: str, position: int, cue: Cue) -> list[Word]:
        gap = _CUE_GAP.match(text, position)
        if gap is not None and gap.end() > position:
            position = gap.end()
        elif text[position - 1].isalnum():
            return []  # the cue was the beginning of a longer word
        words: list[Word] = []
        for _ in range(MAX_NAME_WORDS + 1):
            match = _ANY_WORD.match(text, position)
            if match is None or text[match.end() : match.end() + 1] in {"_", "(", "=", "@"}:
                break
            word = self._word(text, match.start(), match.end())
            if not words and word.folded in TITLES:
                gap = regex.match(r"\.?\s", text[word.end : word.end + 2])
                position = word.end + (gap.end() if gap else 1)
                cue = cue.with_title()
                continue
            if not _fits(word, words, cue):
                break
            words.append(word)
            step = RUN_GAP.match(text, word.end)
            if step is None or (text[word.end] == "." and not word.initial):
                break
            position = step.end()
        while words and words[-1].initial and len(words) > 1:
            words.pop()
        return [] if words and words[0].initial else words


def _listed(folded: str, parts: Sequence[str], names: frozenset[str]) -> bool:
    if folded in FUNCTION_WORDS:
        return False
    return folded in names or (len(parts) > 1 and all(part in names for part in parts))


def _fits(word: Word, before: list[Word], cue: Cue) -> bool:
    """Whether a word after a cue (and after the words `before` it) belongs to a name."""
    if word.folded in FUNCTION_WORDS:
        return False
    if before and not before[0].capital:
        return word.strong_last or word.strong_first or (cue.strong and not word.common)
    if before:
        return word.capital and (word.known or word.initial or not word.common)
    if word.capital:
        if word.common:
            return cue.takes_common and (word.first or (word.last and cue.strong))
        return word.known or cue.takes_unknown
    if word.initial or len(word.folded) < 3 or not cue.takes_common:
        return False
    return word.strong_first or (cue.strong and (word.first or not word.common))


def _listed_beside(text: str, runs: list[list[Word]], found: list[Hit]) -> Iterator[Hit]:
    """Words that stand in a list with a person: "Anna, Zbynek and Tom"."""
    people = {hit.start: hit for hit in found if hit.score >= 0.6}
    ends = {hit.end for hit in people.values()}
    for before, after in pairwise(runs):
        if not _LIST_GAP.fullmatch(text, before[-1].end, after[0].start):
            continue
        for person, other in ((before[-1].end in ends, after), (after[0].start in people, before)):
            if person and len(other) <= 2 and not any(w.common or w.initial for w in other):
                yield Hit(other[0].start, other[-1].end, 0.55, "beside a person")
