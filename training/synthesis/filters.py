"""What a written question must survive. Each filter has a name that the funnel counts and the page explains."""

from __future__ import annotations

import re
from collections.abc import Sequence

from generation.overlap import content_words, coverage, ngram_recall, numbers, words

NO_REPLY = "no usable reply"
EMPTY = "empty"
ABOUT_PASSAGE = "about the passage"
READS_BADLY = "reads badly"
VERBATIM = "verbatim"
GIVES_ANSWER = "gives the answer"
OFF_SENTENCE = "off the sentence"
NOT_STANDALONE = "not standalone"
OTHER_LANGUAGE = "other language"
NOT_SUPPORTED = "not supported"
ASKED_ALREADY = "asked already"
HELD_OUT = "held out"
NOT_RETRIEVED = "not retrieved"
BELOW_THRESHOLD = "below the threshold"
PERSONAL_DATA = "personal data"
NOT_REPRODUCED = "answer not reproduced"
MAY_BE_ANSWERED = "may be answered"

EXPLAINED = {
    NO_REPLY: "the teacher did not answer in time, was too busy, or wrote something else than was asked for",
    EMPTY: "nothing, or no question, was written",
    ABOUT_PASSAGE: "it speaks of “the passage” or “the sentence”, which a user does not see",
    READS_BADLY: "no person would write it: it repeats itself, invents words, or stops in the middle",
    VERBATIM: "it repeats the sentence instead of asking for it",
    GIVES_ANSWER: "it holds the number that is asked for",
    OFF_SENTENCE: "it shares no word with the sentence or its heading",
    NOT_STANDALONE: "it points to something that is not named (it, they, this)",
    OTHER_LANGUAGE: "it is clearly not in the language of its passage",
    NOT_SUPPORTED: "the answer holds a number or date that its sentences do not hold, or too few of their words",
    ASKED_ALREADY: "a kept question is nearly the same, by its words or by its meaning",
    HELD_OUT: "a benchmark holds this question, or nearly this one",
    NOT_RETRIEVED: "the production retriever does not find the sentence with it",
    BELOW_THRESHOLD: "nothing that is found is as similar as the threshold asks: no model would be asked",
    PERSONAL_DATA: "question or answer hold personal data that the documents do not print; its text is not kept",
    NOT_REPRODUCED: "from the passage alone the model answers something else",
    MAY_BE_ANSWERED: "it was to be declined, and what is retrieved may answer it after all",
}

VERBATIM_RUN = 5
"""Words in a row that a question does not share with its sentence by chance."""
SUPPORTED = 0.6
"""Share of words, as a person's answer must have it (`generation.overlap.supports`)."""
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
        return EMPTY
    if _ABOUT_PASSAGE.search(question):
        return ABOUT_PASSAGE
    if len(asked) >= VERBATIM_RUN and ngram_recall(question, sentence, VERBATIM_RUN) > 0.6:
        return VERBATIM
    if numbers(question) & (numbers(sentence) - numbers(title)):
        return GIVES_ANSWER
    meant = content_words(question)
    if not meant & (content_words(sentence) | content_words(title)):
        return OFF_SENTENCE
    if len(meant) < 2 and _PRONOUN_ONLY.search(question):
        return NOT_STANDALONE
    return ""


def is_no_question(question: str) -> str:
    """As `first_objection`, for a question that has no sentence: one that is to be declined."""
    asked = words(question)
    if not 3 <= len(asked) <= 40:
        return EMPTY
    return ABOUT_PASSAGE if _ABOUT_PASSAGE.search(question) else ""


def unsupported(answer: str, sentences: Sequence[str]) -> str:
    """What of an answer its sentences do not hold: a number or date, or most of its words; empty: nothing."""
    source = " ".join(sentences)
    if strange := sorted(numbers(answer) - numbers(source)):
        return f"“{strange[0][:40]}” does not stand in its sentences"
    share = coverage(answer, source)
    return f"{share:.0%} of its words stand in its sentences" if share < SUPPORTED else ""


def reproduced(said: str, answer: Sequence[str]) -> bool:
    """Whether an answer gives one of the expected sentences: no other number, one of its numbers where it has any, and
    most of its words."""
    return any(
        numbers(said) <= numbers(expected)
        and bool(numbers(said)) == bool(numbers(expected))
        and coverage(expected, said) >= SUPPORTED
        for expected in answer
        if expected
    )
