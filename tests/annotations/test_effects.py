from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotations.becoming import NoRow, Row
from annotations.drafts import Draft
from annotations.effects import effects_of
from annotations.services import submit
from assistants.models import Assistant
from capture.models import Turn
from tests.factories import CONTEXTS, make_assistant, make_turn, make_user
from training.data.candidates import Candidate, Refused, from_turn

pytestmark = pytest.mark.django_db
HANDOFF = "I will pass you on to a person."


@pytest.fixture
def assistant() -> Assistant:
    return make_assistant(handoff_sentence=HANDOFF)


def read(turn: Turn) -> Turn:
    return Turn.objects.with_contexts().select_related("assistant", "conversation").get(pk=turn.pk)


def said(turn: Turn, draft: Draft, **options: Any) -> list[str]:
    return [effect.text for effect in effects_of(read(turn), draft, **options).effects]


DECLINE = "decline"
CASES: dict[str, tuple[dict[str, Any], Draft]] = {
    "good": ({}, Draft(choice="good")),
    "good but unsupported": ({"response": "The exit fee is £99. [1]"}, Draft(choice="good")),
    "good but not offered": ({"response": "Send the figures before the dot only. [3]"}, Draft(choice="good")),
    "good and empty": ({"response": ""}, Draft(choice="good")),
    "rightly declined": ({"response": "@decline", "declined": True}, Draft(choice="good")),
    "rightly handed over": ({"response": HANDOFF}, Draft(choice="good")),
    "bad": ({}, Draft(choice="bad", reasons=("wrong",))),
    "bad with a better answer": (
        {"response": "It is £99. [1]"},
        Draft(choice="bad", reasons=("wrong",), correction="A fixed plan has an exit fee of £35. [1]"),
    ),
    "bad with an answer that nothing supports": (
        {}, Draft(choice="bad", reasons=("wrong",), correction="The exit fee is £77 in May. [1]"),
    ),
    "bad with one supported sentence of two": (
        {}, Draft(choice="bad", reasons=("incomplete",), correction="The exit fee is £35. [1] Penguins fly south."),
    ),
    "bad with the same answer": ({}, Draft(choice="bad", reasons=("tone",), correction="The exit fee is £35. [1]")),
    "should have declined": ({}, Draft(choice=DECLINE)),
    "should hand over": ({}, Draft(choice="bad", reasons=("unsafe",), correction=HANDOFF)),
    "retrieval missed it": ({}, Draft(choice="bad", reasons=("retrieval_missed",), missed=(4,))),
    "retrieval missed it, answered all the same": (
        {}, Draft(choice="bad", reasons=("retrieval_missed",), correction="The exit fee is £35. [1]"),
    ),
    "nothing was retrieved": ({"contexts": ()}, Draft(choice="good")),
}  # fmt: skip


@pytest.mark.parametrize("style", ["sentences", "passages"])
@pytest.mark.parametrize("case", CASES)
def test_what_the_page_says_is_what_the_dataset_takes(case: str, style: str) -> None:
    """The label is stored and resolved, and the dataset's own rules are asked what became of it."""
    assistant = make_assistant(handoff_sentence=HANDOFF, prompt_style=style)
    fields, draft = CASES[case]
    fields = {"contexts": CONTEXTS, **fields}
    if fields.get("response") == "@decline":
        fields["response"] = assistant.decline_sentence
    turn = make_turn(assistant, **fields)
    told = effects_of(read(turn), draft)

    submit(
        turn=turn, annotator=make_user(), verdict=draft.verdict, reasons=draft.all_reasons,
        correction=draft.used_correction,
    )  # fmt: skip
    labelled = read(turn)
    taken = from_turn(labelled, labelled.resolution, assistant)

    if isinstance(taken, Refused):
        assert isinstance(told.made, NoRow)
        assert told.made.why == taken.why
        assert told.effects[0].text.startswith("A verdict only")
    elif taken.origin == "bad":
        assert isinstance(told.made, NoRow)
        assert told.effects[0].text.startswith("An example of what not to say")
    else:
        assert isinstance(told.made, Row)
        assert (told.made.kind, told.made.sentences) == (taken.kind, taken.sentences)
        words = {"good": "A good example", "corrected": "A corrected example", "declined": "A declining example"}
        handed = "An example of handing over"
        assert told.effects[0].text.startswith(handed if taken.kind == "handoff" else words[taken.origin])
    pair = any("preference pair" in effect.text for effect in told.effects)
    assert pair == (isinstance(taken, Candidate) and taken.origin != "bad" and bool(taken.rejected))


def test_every_kind_of_outcome_is_among_the_cases(assistant: Assistant) -> None:
    """Else the test above could pass without ever seeing one of them."""
    outcomes = set()
    for fields, draft in CASES.values():
        response = assistant.decline_sentence if fields.get("response") == "@decline" else None
        turn = make_turn(assistant, **{**fields, **({"response": response} if response else {})})
        made = effects_of(read(turn), draft).made
        outcomes.add(made.kind if isinstance(made, Row) else made and made.why)
    assert outcomes == {
        "answer", "decline", "handoff", "bad without a correction", "answer not supported by its passages",
        "the sentence that answers was not offered",
    }  # fmt: skip


def test_each_sentence_of_the_better_answer_is_checked(assistant: Assistant) -> None:
    turn = read(make_turn(assistant))
    text = "A fixed plan has an exit fee of £35. [2] Send the figures before the dot only. [3] It is £99. [1]"
    checks = effects_of(turn, Draft(choice="bad", reasons=("wrong",), correction=text)).checks
    assert [(check.rank, check.cited, check.moved, check.offered) for check in checks] == [
        (1, (2,), True, True),  # supported, by another passage than the cited one
        (3, (3,), False, False),  # supported, by what the model was not offered
        (None, (1,), False, True),
    ]
    assert checks[0].source == "A fixed plan has an exit fee of £35."


def test_what_else_a_label_is_worth(assistant: Assistant) -> None:
    turn = make_turn(assistant)
    draft = Draft(choice="bad", reasons=("retrieval_missed",), missed=(3, 9), marks={1: "not_relevant", 2: "unsure"})
    told = said(turn, draft, labels_needed=2)
    assert told[0] == "A declining example: the assistant learns to decline here."
    assert "A case for retrieval: nothing that was retrieved answers it." in told
    assert "2 passages that retrieval should have found." in told
    assert "Marks of retrieval: not relevant 1; unsure 2." in told
    assert told[-1] == "It counts when 2 labels agree."


def test_nothing_is_said_before_a_verdict(assistant: Assistant) -> None:
    turn = make_turn(assistant)
    assert said(turn, Draft(marks={1: "relevant"})) == []
    assert said(turn, Draft(choice="excellent")) == []


def test_no_queries_and_no_time_for_a_long_answer(assistant: Assistant) -> None:
    contexts = [{"text": " ".join(f"Fact {i}.{j} of tariff {j} says {i * j}." for j in range(12))} for i in range(15)]
    turn = read(make_turn(assistant, contexts=contexts))
    long = " ".join(f"The tariff number {i} costs £{i} in month {i % 12}." for i in range(2000))
    with CaptureQueriesContext(connection) as captured:
        effects_of(turn, Draft(choice="bad", reasons=("wrong",), correction=long))
    assert len(captured) == 0


@pytest.mark.parametrize(
    ("citations", "marks", "warned"),
    [
        ([[1, 0]], {1: "not_relevant"}, "the only passage it cites, [1], as not relevant"),
        ([[1, 0], [2, 0], [2, 1]], {1: "not_relevant", 2: "not_relevant"}, "all passages that it cites, [1], [2], as"),
        ([[1, 0], [2, 0]], {1: "not_relevant", 2: "relevant"}, ""),
        ([[1, 0], [2, 0]], {1: "not_relevant"}, ""),
        ([[1, 0]], {2: "not_relevant"}, ""),
        ([], {1: "not_relevant"}, ""),
    ],
)
def test_a_good_answer_out_of_passages_beside_the_point_is_pointed_out(
    assistant: Assistant, citations: list[list[int]], marks: dict[int, str], warned: str
) -> None:
    turn = make_turn(assistant, citations=citations)
    lines = effects_of(read(turn), Draft(choice="good", marks=marks)).effects
    warnings = [line.text for line in lines if line.sign == "warning"]
    assert len(warnings) == bool(warned)
    assert warned in "".join(warnings)
    bad = effects_of(read(turn), Draft(choice="bad", reasons=("wrong",), marks=marks)).effects
    assert not [line for line in bad if line.sign == "warning"]
