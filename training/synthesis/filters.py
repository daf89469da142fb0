"""What a written question must survive. Each filter has a name that the funnel counts and the page explains."""

from __future__ import annotations

import re
from collections.abc import Sequence

from generation.overlap import content_words, ngram_recall, numbers, words

EXPLAINED = {
    "empty": "nothing, or no question, was written",
    "about the passage": "it speaks of “the passage” or “the sentence”, which a user does not see",
    "verbatim": "it repeats the sentence instead of asking for it",
    "gives the answer": "it holds the number that is asked for",
    "off the sentence": "it shares no word with the sentence or its heading",
    "not standalone": "it points to something that is not named (it, they, this)",
    "not retrieved": "the production retriever does not find the sentence with it",
    "asked already": "a kept question is nearly the same",
}

VERBATIM_RUN = 5
"""Words in a row that a question does not share with its sentence by chance."""
MIN_WORDS, MAX_WORDS = 6, 40
MIN_CONTENT_WORDS = 4
_ABOUT_PASSAGE = re.compile(r"\b(passage|sentence|document|text|context|paragraph|marked|according to)s?\b", re.I)
_STARTS = (  # noqa: SIM905 - words are easier to read than literals
    "what when where which who whose why how can could do does did is are am was were will would should may must has "
    "have tell explain"
).split()
_PRONOUN_ONLY = re.compile(r"\b(it|its|they|them|this|that|these|those)\b", re.I)


def says_something(sentence: str) -> bool:
    """A whole sentence with enough in it to be asked for: no heading, no table row, no pointer to another page."""
    count = len(words(sentence))
    return (
        MIN_WORDS <= count <= MAX_WORDS
        and sentence[-1] in ".!"
        and ": " not in sentence[:20]
        and len(content_words(sentence)) >= MIN_CONTENT_WORDS
    )


def first_objection(question: str, sentence: str, title: str) -> str:
    """The name of the first filter that drops the question, or an empty string. Looks at the texts alone."""
    asked = words(question)
    if len(asked) < 3 or len(asked) > 40 or asked[0] not in _STARTS:
        return "empty"
    if _ABOUT_PASSAGE.search(question):
        return "about the passage"
    if len(asked) >= VERBATIM_RUN and ngram_recall(question, sentence, VERBATIM_RUN) > 0.6:
        return "verbatim"
    if numbers(question) & (numbers(sentence) - numbers(title)):
        return "gives the answer"
    meant = content_words(question)
    if not meant & (content_words(sentence) | content_words(title)):
        return "off the sentence"
    if len(meant) < 2 and _PRONOUN_ONLY.search(question):
        return "not standalone"
    return ""


def is_found(ref: Sequence[int] | None, evidence: Sequence[Sequence[int]]) -> bool:
    """Round trip: the sentence is among those that production would offer for this question."""
    return ref is not None and list(ref) in [list(pair) for pair in evidence]
