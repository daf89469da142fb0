"""Questions by rule: each frame on a statement that it fits, and none where the statement is not plain."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.synthesis.by_rule import all_by_rule, ask_by_rule
from training.synthesis.clauses import names_in, read_clause
from training.synthesis.constructing import compared
from training.synthesis.edits import changed_value
from training.synthesis.naturalness import why_unnatural
from training.synthesis.styles import PLAIN, Style, in_style, style_of

NAMES = frozenset({"Owl", "Drift", "Lantern"})


@pytest.mark.parametrize(
    ("statement", "question"),
    [
        ("A gas safety check costs £72.", "How much does a gas safety check cost?"),
        ("Electricity on Owl costs 30p per kWh.", "How much does electricity on Owl cost?"),
        ("The trace takes up to 4 working days.", "How long does the trace take?"),
        ("Invitations are valid for 7 days.", "How long are invitations valid?"),
        ("The chat is open from 8am to 8pm.", "When is the chat open?"),
        ("Refunds are sent within 10 working days of the move.", "When are refunds sent?"),
        ("The map is refreshed every 10 minutes.", "How often is the map refreshed?"),
        ("The yield is shown under Export in the app.", "Where is the yield shown?"),
        ("The lock is switched off by pressing the button twice.", "How is the lock switched off?"),
        ("Customers can refuse an increase within 10 days.", "How long do I have to refuse an increase?"),
        ("An order can be withdrawn by calling the desk.", "How can an order be withdrawn?"),
        ("The first copy is free of charge.", "Is the first copy free?"),
        ("There is no exit fee on Owl.", "Is there an exit fee on Owl?"),
        ("A red light means that the pump is stuck.", "What does a red light mean?"),
        ("We send the statement within three weeks of your move.", "When do you send the statement?"),
        ("If your meter is faulty, we send a new one at once.", "What happens if my meter is faulty?"),
        ("To change the plan, press Plan in the app.", "How do I change the plan?"),
        ("The network has 240 lamp posts.", "How many lamp posts does the network have?"),
        ("The price is fixed until 31 March.", "Until when is the price fixed?"),
        ("Landlords must keep the paper for checks.", "Do landlords have to keep the paper for checks?"),
    ],
)
def test_a_frame_asks_for_what_a_statement_says(statement: str, question: str) -> None:
    assert question in [asked.question for asked in all_by_rule(statement, NAMES)]


@pytest.mark.parametrize(
    "statement",
    [
        "It costs £72 a year and lasts for ever.",
        "Then compare the figure with the usual use.",
        "See the page on fees.",
        "The plan [CARD_1] costs £5.",
        "Is this a question that costs £5?",
        "a" * 500 + " costs £5.",
        "",
    ],
)
def test_what_is_not_plain_is_left_alone(statement: str) -> None:
    assert all_by_rule(statement, NAMES) == []


@given(st.text(max_size=300))
def test_any_text_is_read_without_harm(text: str) -> None:
    for asked in all_by_rule(text):
        assert asked.question.endswith("?")
    assert ask_by_rule(text, random.Random(1)) == ask_by_rule(text, random.Random(1))
    changed_value(text, random.Random(1))
    why_unnatural(text, near=text)
    style_of(text)


def test_names_keep_their_capital() -> None:
    names = names_in(["The Owl plan and Owl hours.", "Call Lantern, then drift on.", "All drift away, Drift or not."])
    assert names == {"Owl", "Lantern"}
    clause = read_clause("Owl hours follow the clock.", names)
    assert clause is not None
    assert (clause.subject, clause.verb, clause.plural) == ("Owl hours", "follow", True)


@pytest.mark.parametrize(
    ("question", "reads_badly"),
    [
        ("How much does a gas safety check cost?", False),
        ("What is the off-peak window for?", False),
        ("What is the meter for the meter?", True),
        ("What is the rule for sailers who want to bring a statement?", True),
        ("What is the Plan tab holds the tariff?", True),
        ("What is the household can ask for a payment plan?", True),
        ("What is the last date that do?", True),
        ("What is the rule for defaultyyyyyyyyyyy?", True),
        ("What is the connection between the plan?", True),
        ("What is the temperature of 12?", True),
    ],
)
def test_what_no_person_would_write_is_found(question: str, reads_badly: bool) -> None:
    near = (
        "The gas safety check costs £72. The off-peak window. A statement, the meter, the Plan tab holds the tariff. "
        "The household can ask for a payment plan. The last date. The temperature."
    )
    assert bool(why_unnatural(question, known=frozenset({"gas"}), near=near)) is reads_badly


def test_parallel_statements_are_compared() -> None:
    owl, drift = (all_by_rule(f"Electricity on {name} costs 30p per kWh.", NAMES)[0] for name in ("Owl", "Drift"))
    assert compared(owl, drift) == "Which costs more, electricity on Owl or electricity on Drift?"
    assert compared(owl, owl) == ""
    check = all_by_rule("A safety check costs £3.", NAMES)[0]
    assert compared(owl, check) == ""  # nobody would set these against each other


@pytest.mark.parametrize(
    "sentence",
    [
        "A check costs £72 in all.", "The trace takes 4 working days.", "It is open from 8am.", "We close on Sunday.",
        "The offer ends on 15 May.", "The rate is 30.8p per kWh.", "The discount is 4%.",
    ],
)  # fmt: skip
def test_one_value_of_a_sentence_is_changed(sentence: str) -> None:
    for seed in range(20):
        edit = changed_value(sentence, random.Random(seed))
        assert edit is not None
        changed = sentence.replace(edit[0], edit[1], 1)
        assert changed != sentence
        assert len(changed.split()) == len(sentence.split())
        assert edit[0] in sentence
    assert changed_value("Code P05 means that 0300 440 220 is busy.", random.Random(1)) is None


def test_a_question_is_put_into_the_shape_of_logged_ones() -> None:
    assert style_of("what do i pay") == Style(lower=True, unmarked=True, words=4)
    assert style_of("owl night price") == Style(lower=True, unmarked=True, bare=True, words=3)
    assert style_of("My name is [PERSON_1]. What do I pay?") == Style(words=8)
    (asked,) = all_by_rule("The trace of a payment takes 4 days.", NAMES)
    assert in_style(asked.question, PLAIN, asked) == asked.question
    assert (
        in_style(asked.question, Style(lower=True, unmarked=True), asked) == "how long does the trace of a payment take"
    )
    assert in_style(asked.question, Style(bare=True), asked) == "how long trace of a payment"
