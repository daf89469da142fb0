"""One answer against one item: what was right here, and was it that?"""

from __future__ import annotations

from typing import Any

import pytest

from assistants.models import Assistant
from generation.prompts import PromptPassage, build_prompt, parse_answer
from training.data.render import offered
from training.evaluation.scoring import expected, measure, passages_of
from training.models import BenchmarkItem

DECLINE = "I can't find that in the documents."
HANDOFF = "I'll pass you to a colleague."
PASSAGES = [
    {"rank": 1, "title": "Leaving", "source": "a", "text": "Ask us first. A fixed plan has an exit fee of £35."},
    {"rank": 2, "title": "Meters", "source": "b", "text": "Read the meter on the first day of the month."},
]


def item(kind: str = "answer", *, has_gold: bool = True, **fields: Any) -> BenchmarkItem:
    frozen = {"passages": PASSAGES, "evidence": [[1, 1, 0.8], [1, 0, 0.6], [2, 0, 0.4]], "has_gold": has_gold}
    return BenchmarkItem(
        key="k", question="What is the exit fee?", kind=kind,
        **{"answers": ["The exit fee is £35."], "must_contain": [["£35", "35 pounds"]], "must_not_contain": ["£40"],
           "contexts": {"clean": frozen, "missing_oracle": {**frozen, "has_gold": False}}, **fields},
    )  # fmt: skip


def measured(
    completion: str, *, one: BenchmarkItem | None = None, arm: str = "adapter_rag", condition: str = "clean",
    style: str = "sentences",
) -> dict[str, float]:  # fmt: skip
    one = one or item()
    assistant = Assistant(decline_sentence=DECLINE, handoff_sentence=HANDOFF, prompt_style=style)
    passages = passages_of(one, arm, condition)
    prompt = build_prompt(
        house=assistant.house, question=one.question, passages=passages,
        **offered(one.contexts[condition]["evidence"] if passages else []),
    )  # fmt: skip
    answer = parse_answer(house=assistant.house, prompt=prompt, completion=completion)
    return measure(item=one, arm=arm, condition=condition, answer=answer, assistant=assistant)


def test_what_is_right_depends_on_what_was_offered() -> None:
    assert expected(item(), "adapter_rag", "clean") == "answer"
    assert expected(item(has_gold=False), "adapter_rag", "clean") == "decline"
    assert expected(item(), "base_rag", "missing_oracle") == "decline"
    assert expected(item(), "adapter", "clean") == "answer"
    assert expected(item("handoff"), "adapter_rag", "missing_oracle") == "handoff"
    assert expected(item("decline"), "base", "clean") == "decline"


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("[1] A fixed plan has an exit fee of £35.", 1.0),
        ("[1] A fixed plan has an exit fee of 35 pounds.", 1.0),
        ("[1] A fixed plan has an exit fee of £40.", 0.0),
        ("[1] A fixed plan has an exit fee of £35. [3] It is £40.", 0.0),  # the superseded value besides
        ("[3] A fixed plan has an exit fee of £35.", 0.0),  # right, but not from there
        ("[7] A fixed plan has an exit fee of £35.", 0.0),  # invented pointer
        ("A fixed plan has an exit fee of £35.", 0.0),  # no pointer at all
        ("[1] A fixed plan has an exit fee of £35. [3] The moon is made of green cheese.", 0.0),
        (DECLINE, 0.0),
        ("", 0.0),
    ],
)
def test_grounded_and_correct(completion: str, right: float) -> None:
    assert measured(completion)["grounded_correct"] == right


def test_measures_that_do_not_apply_are_left_out() -> None:
    good = measured("[1] A fixed plan has an exit fee of £35.")
    assert good["citation_recall"] == good["citation_precision"] == good["answer_presence"] == 1.0
    assert (good["over_refusal"], good["declined"], good["unsupported_numbers"]) == (0.0, 0.0, 0.0)
    declined = measured(DECLINE)
    assert "citation_recall" not in declined
    assert (declined["over_refusal"], declined["f1"], declined["declined"]) == (1.0, 0.0, 1.0)
    missing = measured(DECLINE, condition="missing_oracle")
    assert missing["rightly_declined"] == missing["grounded_correct"] == 1.0
    assert "over_refusal" not in missing
    alone = measured("The exit fee is £35.", arm="adapter")
    assert "citation_recall" not in alone
    assert alone["answer_presence"] == 1.0


def test_handing_over() -> None:
    handed = measured(HANDOFF, one=item("handoff"))
    assert handed["rightly_handed_off"] == handed["grounded_correct"] == handed["handed_off"] == 1.0
    assert measured(DECLINE, one=item("handoff"))["grounded_correct"] == 0.0
    assert measured(HANDOFF)["over_refusal"] == 1.0


def test_numbers_from_nowhere_are_counted() -> None:
    assert measured("[1] A fixed plan has an exit fee of £36 and 17 p.")["unsupported_numbers"] == 2.0


def test_without_strings_the_reference_decides() -> None:
    one = item(must_contain=[], answers=["A fixed plan has an exit fee of £35."])
    assert measured("[1] A fixed plan has an exit fee of £35.", one=one)["grounded_correct"] == 1.0
    assert measured("[1] Ask us first.", one=one)["answer_presence"] == 0.0


def test_a_citation_of_a_whole_passage_may_stand_for_any_of_its_sentences() -> None:
    good = measured("A fixed plan has an exit fee of £35. [1]", style="passages")
    assert good["citation_recall"] == good["citation_precision"] == good["grounded_correct"] == 1.0
    assert measured("A fixed plan has an exit fee of £35. [2]", style="passages")["grounded_correct"] == 0.0


def test_passages_are_shown_to_arms_with_retrieval_only() -> None:
    assert passages_of(item(), "base", "clean") == []
    assert passages_of(item(), "base_rag", "clean")[0] == PromptPassage(1, "Leaving", PASSAGES[0]["text"])


def test_a_decline_that_goes_on_is_none() -> None:
    found = measured(f"{DECLINE} But the fee is usually £40.", one=item(has_gold=False))
    assert (found["declined"], found["grounded_correct"]) == (0.0, 0.0)


def test_served_answers_may_be_as_long_as_evaluated_ones() -> None:
    from serving.wire import DEFAULT_NEW_TOKENS
    from training.evaluation.asking import MAX_ANSWER_TOKENS

    assert DEFAULT_NEW_TOKENS == MAX_ANSWER_TOKENS
