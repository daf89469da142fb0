"""What is learnt is what the chat asks today: below the threshold of now no model is asked, whatever was asked then."""

from __future__ import annotations

from typing import Any

import pytest

from annotations.becoming import NOT_ASKED
from annotations.drafts import Draft
from annotations.effects import effects_of
from assistants.models import Assistant
from capture.models import Turn
from tests.factories import CONTEXTS, make_assistant
from tests.training.data.test_build import (
    DECLINE,
    HANDOFF,
    build,
    check_funnel,
    curate,
    questions,
    resolved,
    synthesise,
)
from training.data.candidates import Candidate, Refused, from_turn

FAR = [{**CONTEXTS[0], "evidence": [[0, 0, 0.3], [1, 1, 0.2]]}]
QUESTION = "What does it cost to go?"
ANSWER = "A fixed plan has an exit fee of £35. [1]"


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant(decline_sentence=DECLINE, handoff_sentence=HANDOFF)


def with_threshold(assistant: Assistant, threshold: float) -> None:
    assistant.evidence_threshold = threshold
    assistant.save(update_fields=["evidence_threshold"])


def read(turn: Turn) -> Turn:
    return Turn.objects.select_related("assistant").with_contexts().get(pk=turn.pk)


def taken(turn: Turn) -> Candidate | Refused:
    turn = read(turn)
    return from_turn(turn, turn.resolution, turn.assistant)


def test_a_turn_that_was_answered_before_there_was_a_threshold_is_not_learnt(assistant: Assistant) -> None:
    curate(assistant)
    resolved(assistant, QUESTION, ANSWER, contexts=FAR)
    resolved(assistant, "And who won?", DECLINE, contexts=FAR)
    options: dict[str, Any] = {"missing_oracle_share": 0, "max_decline_share": 0.9}
    before = build(assistant, **options)
    assert questions(before) >= {QUESTION, "And who won?"}
    with_threshold(assistant, 0.45)
    after = build(assistant, **options)
    assert questions(before) - questions(after) == {QUESTION, "And who won?"}
    steps = check_funnel(after)
    assert steps["resolved turns"]["why"][NOT_ASKED] == 2
    with_threshold(assistant, 0)
    assert build(assistant, **options).content_hash == before.content_hash


def test_a_turn_that_a_higher_threshold_withheld_is_learnt_as_it_is_asked_now(assistant: Assistant) -> None:
    with_threshold(assistant, 0.2)
    turn = resolved(
        assistant, QUESTION, ANSWER, verdict="bad", logged=DECLINE, contexts=FAR, withheld=True, declined=True
    )
    made = taken(turn)
    assert isinstance(made, Candidate)
    assert made.evidence == [[1, 0, 0.3], [1, 1, 0.2]]
    assert (made.origin, made.response, made.rejected) == ("corrected", "A fixed plan has an exit fee of £35.", DECLINE)
    with_threshold(assistant, 0.45)
    assert taken(turn) == Refused(NOT_ASKED)


def test_sentences_that_were_never_ranked_lie_below_nothing(assistant: Assistant) -> None:
    with_threshold(assistant, 0.45)
    unranked = [{**CONTEXTS[0], "evidence": []}]
    assert taken(resolved(assistant, "Who won?", DECLINE, contexts=unranked)) != Refused(NOT_ASKED)
    assert taken(resolved(assistant, "Who lost?", DECLINE, contexts=unranked, withheld=True)) == Refused(NOT_ASKED)


def test_the_labelling_page_says_so(assistant: Assistant) -> None:
    turn = resolved(assistant, QUESTION, ANSWER, contexts=FAR)
    good = Draft(choice="good")
    assert effects_of(read(turn), good).effects[0].text.startswith("A good example")
    with_threshold(assistant, 0.45)
    told = effects_of(read(turn), good).effects[0].text
    assert told.startswith("The threshold declines this without asking a model")


def test_written_questions_and_missing_oracles_lie_above_it_too(assistant: Assistant) -> None:
    curate(assistant)
    synthesis = synthesise(assistant)
    far = synthesis.items.filter(dropped_by="").first()
    assert far is not None
    far.contexts["evidence"] = [[rank, sentence, 0.3] for rank, sentence, _ in far.contexts["evidence"]]
    far.save(update_fields=["contexts"])
    options: dict[str, Any] = {"synthesis": synthesis, "missing_oracle_share": 0.9, "max_decline_share": 0.9}
    before = build(assistant, **options)
    assert far.question in questions(before)
    made = {e.question for e in before.examples.filter(kind="decline") if max(s for *_, s in e.evidence) < 0.8}
    assert made
    # Where the best sentence held the answer, what is left lies below.
    with_threshold(assistant, 0.8)
    after = build(assistant, **options)
    assert far.question not in questions(after)
    steps = check_funnel(after)
    assert steps["synthetic questions"]["why"][NOT_ASKED] == 1
    assert all(max(s for *_, s in example.evidence) >= 0.8 for example in after.examples.all())
