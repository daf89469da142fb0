from __future__ import annotations

import pytest

from annotations.agreement import agreement_of, cohen_kappa, krippendorff_alpha, percent_agreement
from annotations.services import submit
from tests.factories import make_assistant, make_queue, make_turn, make_user

# The worked example of Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): nominal α .743
OBSERVERS = {
    "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    "C": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
}
LABELS = {
    unit: {who: str(values[unit]) for who, values in OBSERVERS.items() if values[unit] is not None}
    for unit in range(12)
}


def test_alpha_of_a_published_example() -> None:
    alpha = krippendorff_alpha(LABELS)
    assert alpha.value == pytest.approx(0.743, abs=0.001)
    assert alpha.n == 11  # the twelfth unit has one label only
    assert alpha.low is not None
    assert alpha.high is not None
    assert alpha.low < 0.743 < alpha.high


def test_kappa_of_a_published_example() -> None:
    # 50 proposals, two readers: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no → κ .40
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    kappa = cohen_kappa(first, second)
    assert kappa.value == pytest.approx(0.4, abs=1e-9)
    assert kappa.low is not None
    assert kappa.high is not None
    assert kappa.low < 0.4 < kappa.high


def test_what_is_not_defined_says_so() -> None:
    assert krippendorff_alpha({}).value is None
    assert percent_agreement({1: {"a": "good"}}).value is None
    same = {1: {"a": "good", "b": "good"}, 2: {"a": "good", "b": "good"}}
    assert krippendorff_alpha(same).value is None
    assert percent_agreement(same).value == 1.0
    assert cohen_kappa(["good"], ["good"]).value is None
    with pytest.raises(ValueError, match="cannot be compared"):
        cohen_kappa(["good"], [])


def test_intervals_do_not_flicker() -> None:
    assert krippendorff_alpha(LABELS) == krippendorff_alpha(LABELS)


@pytest.mark.django_db
def test_agreement_of_a_queue() -> None:
    assistant = make_assistant()
    ann, bob = make_user("ann"), make_user("bob")
    turns = [make_turn(assistant) for _ in range(4)]
    queue = make_queue(assistant, turns=turns, labels_needed=2)
    for i, turn in enumerate(turns):
        submit(turn=turn, annotator=ann, verdict="good", queue=queue, marks={1: "relevant", 2: "unsure"})
        if i < 2:
            submit(turn=turn, annotator=bob, verdict="good", queue=queue, marks={1: "relevant"})
        else:
            submit(turn=turn, annotator=bob, verdict="bad", reasons=["wrong"], queue=queue, marks={1: "not_relevant"})
    verdict, relevance = agreement_of(queue)
    assert verdict.percent.value == 0.5
    assert (verdict.pairs[0].first, verdict.pairs[0].second) == ("ann", "bob")
    assert verdict.pairs[0].kappa.value == 0.0
    assert relevance.percent.n == 4
