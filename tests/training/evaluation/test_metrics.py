from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from generation.prompts import House, PromptPassage, SentenceRef, build_prompt, parse_answer
from training.evaluation.metrics import answer_presence, citation_quality, exact_match, holds, normalise, token_f1

HOUSE = House(decline="That is not in our pages.")
PASSAGES = [PromptPassage(1, "Fees", "The exit fee is £35 per fuel. A paper bill costs £1.50.")]
PROMPT = build_prompt(house=HOUSE, question="?", passages=PASSAGES, evidence=[SentenceRef(1, 1), SentenceRef(1, 0)])


def answer(text: str):
    return parse_answer(house=HOUSE, prompt=PROMPT, completion=text)


def test_normalising_keeps_decimals_and_drops_articles():
    assert normalise("The Rate is 27.4p, from 00:30!") == "rate is 27.4p from 00:30"
    assert exact_match("the exit fee", ["Exit fee."]) == 1.0


def test_f1_is_the_harmonic_mean_of_shared_tokens():
    assert token_f1("exit fee is £35", ["exit fee is £50"]) == 0.75
    assert token_f1("nothing", ["exit"]) == 0.0


def test_a_phrase_is_found_as_whole_words_only():
    assert holds("It costs £35 per fuel", "£35")
    assert not holds("It costs £350", "£35")
    assert not holds("It costs £35.50", "£35")
    assert not holds("It costs 27.35p", "35p")
    assert holds("It costs £35.", "£35")
    assert not holds("Whatever it says", "the")  # nothing is left of it
    assert answer_presence("within 14 days, £12", [["14 days", "two weeks"], ["£12"]])


def test_a_right_pointer_earns_both_citation_measures():
    cites = citation_quality(answer("[2] The exit fee is £35 per fuel."), PASSAGES)
    assert (cites.recall, cites.precision) == (1.0, 1.0)


def test_a_pointer_to_another_sentence_earns_none():
    cites = citation_quality(answer("[1] The exit fee is £35 per fuel."), PASSAGES)
    assert (cites.recall, cites.precision) == (0.0, 0.0)


def test_an_answer_without_pointer_is_not_supported():
    assert citation_quality(answer("The exit fee is £35 per fuel."), PASSAGES).recall == 0.0


@given(st.text(max_size=100), st.text(max_size=100))
def test_f1_is_symmetric_and_bounded(a: str, b: str):
    assert token_f1(a, [b]) == token_f1(b, [a])
    assert 0 <= token_f1(a, [b]) <= 1
