"""Each filter drops what its name says, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.synthesis.filters import EXPLAINED, first_objection, reproduced, says_something, unsupported

SENTENCE = "A fixed plan has an exit fee of £35 until 49 days before its end."
TITLE = "Leaving early"


@pytest.mark.parametrize(
    ("question", "objection"),
    [
        ("What is the exit fee of a fixed plan?", ""),
        ("How much does leaving cost?", ""),
        ("Can I leave a fixed plan without a fee?", ""),
        ("", "empty"),
        ("???", "empty"),
        ("Fee?", "empty"),
        ("The exit fee is a fee of the plan.", "empty"),
        ("What " + "fee " * 60, "empty"),
        ("What does the passage say about the exit fee?", "about the passage"),
        ("According to the document, what is the fee?", "empty"),
        ("What is the fee according to the text?", "about the passage"),
        ("Is it so that a fixed plan has an exit fee of £35 until 49 days before its end?", "verbatim"),
        ("Why is the exit fee £35?", "gives the answer"),
        ("What happens 49 days before the end?", "gives the answer"),
        ("Who won the football cup yesterday?", "off the sentence"),
        ("What is its fee?", "not standalone"),
    ],
)
def test_the_first_objection(question: str, objection: str) -> None:
    assert first_objection(question, SENTENCE, TITLE) == objection


def test_a_number_of_the_title_may_be_asked_with() -> None:
    assert first_objection("What does code 49 mean for the plan?", SENTENCE, "Code 49") == ""


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=50))
def test_any_text_gets_a_verdict_that_is_explained(question: str, sentence: str, title: str) -> None:
    objection = first_objection(question, sentence, title)
    assert objection == "" or objection in EXPLAINED


@given(st.text(max_size=120).filter(lambda text: " ".join(text.split())))
def test_any_sentence_can_be_judged(text: str) -> None:
    assert says_something(" ".join(text.split())) in (True, False)


@pytest.mark.parametrize(
    ("sentence", "usable"),
    [
        (SENTENCE, True),
        ("Press the reset button for five seconds!", True),
        ("Exit fees and notice periods of our plans", False),
        ("Tariff: Evening; Unit rate of the plan: 19 p.", False),
        ("See there.", False),
        ("It is what it is and so it was.", False),
        (" ".join(["word"] * 60) + ".", False),
    ],
)
def test_which_sentences_are_worth_a_question(sentence: str, usable: bool) -> None:
    assert says_something(sentence) is usable


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("The exit fee of a fixed plan is £35.", ""),
        ("The exit fee of a fixed plan is £36.", "“36”"),
        ("A fixed plan has an exit fee until the 3rd of May.", "“3”"),
        ("Your dog gets a blue collar and a fee.", "of its words"),
    ],
)
def test_an_answer_holds_what_its_sentences_hold(answer: str, why: str) -> None:
    assert why in unsupported(answer, [SENTENCE])
    assert bool(unsupported(answer, [SENTENCE])) == bool(why)


@pytest.mark.parametrize(
    ("said", "same"),
    [
        (SENTENCE, True),
        ("The exit fee is £35 until 49 days before the end of a fixed plan.", True),
        ("The exit fee of a fixed plan is £50 until 49 days before its end.", False),
        ("A fixed plan has an exit fee until before its end.", False),
        ("Nothing is said of that.", False),
    ],
)
def test_an_answer_is_reproduced_with_its_numbers(said: str, same: bool) -> None:
    assert reproduced(said, ["", SENTENCE]) is same
