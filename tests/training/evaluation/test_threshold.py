"""An evaluation under the assistant's threshold: all arms decline alike, no model is asked, and what is right stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from assistants.models import Assistant
from serving.services import PromotionRefused, promote
from tests.training.evaluation.conftest import ITEMS, evaluate
from training.data.benchmark import freeze_benchmark, read_items
from training.evaluation.plan import Plan, PlanError
from training.evaluation.seeds import same_recipe
from training.models import Adapter, Benchmark, EvaluationAnswer, GateVerdict
from training.services import start_evaluation


def best_of(benchmark: Benchmark, condition: str = "clean") -> dict[str, float]:
    return {
        item.key: max(similarity for _, _, similarity in item.contexts[condition]["evidence"])
        for item in benchmark.items.all()
        if condition in item.contexts
    }


@pytest.fixture
def between(frozen: Benchmark) -> float:
    """A threshold that declines the question out of scope and one that could be answered."""
    ordered = sorted(best_of(frozen).values())
    return (ordered[1] + ordered[2]) / 2


def answers(evaluation_id: int) -> Iterator[EvaluationAnswer]:
    yield from EvaluationAnswer.objects.filter(evaluation=evaluation_id).select_related("item")


def test_every_arm_with_retrieval_declines_below_it_and_only_there(
    tuned: Adapter, frozen: Benchmark, between: float, house: Assistant
) -> None:
    near = {condition: best_of(frozen, condition) for condition in ("clean", "missing_oracle")}
    evaluation = evaluate(tuned, frozen, plan=Plan(threshold=between))
    assert evaluation.error == ""
    seen = 0
    for answer in answers(evaluation.pk):
        below = answer.arm not in ("base", "adapter") and near[answer.condition][answer.item.key] < between
        seen += below
        if below:
            assert answer.text == answer.completion == house.decline_sentence
            assert answer.declined
            assert answer.completion_tokens == 0
            assert "tokens" not in answer.measures
        elif answer.arm != "extractive":
            assert answer.completion_tokens > 0
        else:
            assert not answer.declined  # the threshold is the same for it, and no other one is fitted
    assert seen >= 6
    # A question whose sentence was found is still to be answered: the threshold loses by declining it.
    lost = [a for a in answers(evaluation.pk) if a.condition == "clean" and "over_refusal" in a.measures and a.declined]
    refused = {answer.arm: answer.measures["over_refusal"] for answer in lost}
    assert refused["base_rag"] == refused["adapter_rag"] == refused["extractive"] == 1.0
    assert {answer.measures["grounded_correct"] for answer in lost} == {0.0}


def test_freezing_does_not_depend_on_the_threshold(house: Assistant, frozen: Benchmark) -> None:
    house.evidence_threshold = 1.0
    house.save()
    again = freeze_benchmark(assistant=house, name="again", items=read_items(ITEMS.splitlines()))
    assert list(again.items.order_by("key").values_list("contexts")) == list(
        frozen.items.order_by("key").values_list("contexts")
    )


def test_an_evaluation_is_started_under_what_serves_and_says_so(
    house: Assistant, tuned: Adapter, frozen: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.services._start", lambda *_: None)
    house.evidence_threshold = 0.4
    house.save()
    under = start_evaluation(assistant=house, adapter=tuned, benchmark=frozen)
    always = start_evaluation(assistant=house, adapter=tuned, benchmark=frozen, threshold=0.0)
    assert (under.threshold, always.threshold) == (0.4, 0.0)
    for wrong in (-0.1, 2, True, "x"):
        with pytest.raises(PlanError):
            Plan.from_dict({"threshold": wrong})


def test_a_verdict_under_another_threshold_opens_no_way(house: Assistant, tuned: Adapter, frozen: Benchmark) -> None:
    evaluation = evaluate(tuned, frozen, plan=Plan(threshold=0.3))
    evaluation.verdict = GateVerdict.PASSED
    evaluation.save()
    with pytest.raises(PromotionRefused, match=r"was 0\.3 when"):
        promote(assistant=house, adapter=tuned, evaluation=evaluation, actor=None)
    house.evidence_threshold = 0.3
    house.save()
    tuned.refresh_from_db()
    assert not promote(assistant=house, adapter=tuned, evaluation=evaluation, actor=None).overrides_gate
    assert same_recipe(evaluation) == [evaluation]
