from __future__ import annotations

import pytest

from annotations.models import Reason, Resolution, Verdict
from annotations.resolving import Vote, Wording, decide, response_to_learn

DECLINE = "I can't find that in the documents."
WORDING = Wording(decline=DECLINE, handoff="I'll pass you to a colleague.")
LOGGED = "The fee is £30. [1]"


def good(key: int = 1, **fields: object) -> Vote:
    return Vote(key=key, verdict="good", **fields)  # type: ignore[arg-type]


def bad(key: int = 1, reasons: tuple[str, ...] = ("wrong",), correction: str = "", **fields: object) -> Vote:
    return Vote(key=key, verdict="bad", reasons=reasons, correction=correction, **fields)  # type: ignore[arg-type]


def test_one_good_label_keeps_the_logged_answer() -> None:
    decision = decide([good(relevant=frozenset({1}))], logged=LOGGED, wording=WORDING)
    assert decision is not None
    assert (decision.verdict, decision.response, decision.how) == ("good", LOGGED, Resolution.How.SINGLE)
    assert decision.relevant_ranks == (1,)
    assert decision.counted == (1,)


def test_labels_that_agree() -> None:
    decision = decide([good(1), good(2)], logged=LOGGED, wording=WORDING)
    assert decision is not None
    assert decision.how == Resolution.How.AGREED


def test_majority_names_the_labels_that_counted() -> None:
    decision = decide([good(1), bad(2), good(3)], logged=LOGGED, wording=WORDING)
    assert decision is not None
    assert (decision.how, decision.counted) == (Resolution.How.MAJORITY, (1, 3))


@pytest.mark.parametrize("votes", [[], [good(1), bad(2)], [good(1), bad(2), good(3), bad(4)]])
def test_a_tie_waits(votes: list[Vote]) -> None:
    assert decide(votes, logged=LOGGED, wording=WORDING) is None


def test_bad_without_correction_teaches_nothing() -> None:
    decision = decide([bad()], logged=LOGGED, wording=WORDING)
    assert decision is not None
    assert decision.response == ""


def test_should_have_declined_teaches_the_decline_sentence() -> None:
    decision = decide([bad(reasons=("should_have_declined",))], logged=LOGGED, wording=WORDING)
    assert decision is not None
    assert decision.response == DECLINE


def test_a_correction_goes_before_the_decline_sentence() -> None:
    vote = bad(reasons=("should_have_declined",), correction="I'll pass you to a colleague.")
    decision = decide([vote], logged=LOGGED, wording=WORDING)
    assert decision is not None
    assert decision.response == "I'll pass you to a colleague."


@pytest.mark.parametrize(
    ("correction", "learnt"),
    [
        ("", DECLINE),
        ("The fee is £35.", DECLINE),  # known from elsewhere: never taught
        ("I'll pass you to a colleague. They call back today.", "I'll pass you to a colleague. They call back today."),
    ],
)
def test_a_turn_that_retrieval_missed_never_teaches_an_answer(correction: str, learnt: str) -> None:
    reasons = [Reason.RETRIEVAL_MISSED.value]
    assert learnt == response_to_learn(
        verdict=Verdict.BAD, reasons=reasons, correction=correction, logged=LOGGED, wording=WORDING
    )


def test_declining_against_a_correction_is_a_split() -> None:
    votes = [bad(1, ("should_have_declined",)), bad(2, ("wrong",), "The fee is £35. [1]")]
    assert decide(votes, logged=LOGGED, wording=WORDING) is None
    decision = decide([*votes, bad(3, ("wrong",), "£35. [1]")], logged=LOGGED, wording=WORDING)
    assert decision is not None
    assert decision.response == "The fee is £35. [1]"
    assert decision.reasons == ("wrong",)


def test_the_most_typical_correction_is_taken() -> None:
    votes = [
        bad(1, ("wrong",), "Something else entirely."),
        bad(2, ("wrong",), "The exit fee is £35. [1]"),
        bad(3, ("wrong",), "The fee is £35. [1]"),
    ]
    decision = decide(votes, logged=LOGGED, wording=WORDING)
    assert decision is not None
    assert decision.response == "The exit fee is £35. [1]"


def test_reasons_need_half_of_the_labels_or_all_are_kept() -> None:
    votes = [bad(1, ("wrong", "tone")), bad(2, ("wrong",)), bad(3, ("wrong", "incomplete"))]
    decision = decide(votes, logged=LOGGED, wording=WORDING)
    assert decision is not None
    assert decision.reasons == ("wrong",)
    apart = decide([bad(1, ("tone",)), bad(2, ("wrong",)), bad(3, ("citation",))], logged=LOGGED, wording=WORDING)
    assert apart is not None
    assert apart.reasons == ("wrong", "citation", "tone")


def test_relevant_ranks_by_majority_of_marks() -> None:
    votes = [
        good(1, relevant=frozenset({1, 2}), not_relevant=frozenset({3})),
        good(2, relevant=frozenset({1}), not_relevant=frozenset({2, 3})),
        good(3, relevant=frozenset({3}), not_relevant=frozenset()),
    ]
    decision = decide(votes, logged=LOGGED, wording=WORDING)
    assert decision is not None
    assert decision.relevant_ranks == (1,)
