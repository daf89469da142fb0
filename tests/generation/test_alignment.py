from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from generation.alignment import align_sentences, split_cited
from generation.overlap import coverage, ngram_recall, numbers, supports
from generation.prompts import PromptPassage

PASSAGES = [
    PromptPassage(1, "Fees (Blue Book)", "The exit fee is £50 per fuel. A paper statement costs £1.25."),
    PromptPassage(2, "Fees", "The early termination charge is £35 per fuel. No charge is due in the last 49 days."),
]


def test_numbers_are_compared_as_written():
    assert numbers("27.4p from 00:30, £1,250") == {"27.4", "00:30", "1250"}
    assert not supports("The fee is £35.", "The fee is £36.")


def test_each_sentence_gets_the_sentence_that_supports_it():
    answer = "The early termination charge is £35 per fuel [2]. No charge is due in the last 49 days [2]."
    assert align_sentences(answer, PASSAGES) == [
        {"text": "The early termination charge is £35 per fuel.", "refs": [[2, 0]]},
        {"text": "No charge is due in the last 49 days.", "refs": [[2, 1]]},
    ]


def test_a_wrong_citation_is_mended_where_another_passage_supports_it():
    assert align_sentences("The early termination charge is £35 per fuel. [1]", PASSAGES)[0]["refs"] == [[2, 0]]


def test_an_unsupported_sentence_has_no_reference():
    assert align_sentences("You can pay with gift vouchers. [1]", PASSAGES)[0]["refs"] == []


def test_marks_before_and_after_the_full_stop_are_read():
    assert split_cited("A b [1]. C d. [2][3] E f.") == [("A b.", [1]), ("C d.", [2, 3]), ("E f.", [])]


@given(st.text(max_size=400))
def test_splitting_loses_no_words(text: str):
    joined = " ".join(t for t, _ in split_cited(text))
    for word in text.split():
        if word.isalpha():
            assert word in joined


@given(st.text(max_size=200), st.text(max_size=200))
def test_measures_stay_between_none_and_all(a: str, b: str):
    assert 0 <= coverage(a, b) <= 1
    assert 0 <= ngram_recall(a, b) <= 1
    assert coverage(a, a) == 1
