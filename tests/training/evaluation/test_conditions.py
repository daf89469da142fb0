"""Passages under other conditions: what each changes, what it must keep, and that it is frozen once."""

from __future__ import annotations

import random
from typing import Any

import pytest

from assistants.background import launch
from assistants.models import Assistant
from generation.local import TransformersEngine
from generation.prompts import split_sentences
from knowledge.services import load_document
from tests.factories import make_adapter
from tests.tiny_model import shared_base
from tests.training.evaluation.conftest import evaluate
from tests.training.finetune.conftest import make_dataset
from training.evaluation import asking
from training.evaluation.asking import Examination, Task, task_prompt
from training.evaluation.conditions import MAKERS, freeze_conditions, is_gold, sentence_of
from training.evaluation.counterfactual import edited
from training.evaluation.extractive import thresholds
from training.evaluation.few_shot import Demonstration
from training.evaluation.outside import outside_benchmark
from training.evaluation.plan import Plan
from training.evaluation.scoring import expected, gold_of
from training.evaluation.services import resume_evaluation
from training.models import Adapter, Arm, Benchmark, BenchmarkItem, Condition, Evaluation, Kind, Run
from training.services import NotPossible, start_evaluation

ALL = tuple(MAKERS)


def offered(item: BenchmarkItem, condition: str) -> list[str]:
    frozen = item.contexts[condition]
    return [sentence_of(frozen, entry) for entry in frozen["evidence"]]


@pytest.fixture
def items(house: Assistant, frozen: Benchmark) -> dict[str, BenchmarkItem]:
    freeze_conditions(assistant=house, benchmark=frozen, conditions=ALL)
    return {item.key: item for item in frozen.items.all()}


def test_what_each_condition_offers(items: dict[str, BenchmarkItem]) -> None:
    fee = items["a1"]
    clean = offered(fee, "clean")
    assert offered(fee, "gold_only") == ["A fixed plan has an exit fee of £35."]
    assert sorted(offered(fee, "shuffled")) == sorted(clean)
    for noisy in ("noisy_hard", "noisy_random"):
        assert set(clean) < set(offered(fee, noisy))
        noise = set(offered(fee, noisy)) - set(clean)
        assert not any(is_gold(sentence, fee.gold) for sentence in noise)
        assert fee.contexts[noisy]["has_gold"] is True
    for condition in ALL:
        frozen = fee.contexts[condition]
        ranks = [p["rank"] for p in frozen["passages"]]
        assert ranks == list(range(1, len(ranks) + 1))
        assert expected(fee, "adapter_rag", condition) == Kind.ANSWER
    assert expected(items["d1"], "adapter_rag", "noisy_random") == Kind.DECLINE
    assert not {"gold_only", "counterfactual"} & set(items["d1"].contexts)


def test_a_counterfactual_passage_says_otherwise_and_following_it_is_right(items: dict[str, BenchmarkItem]) -> None:
    fee, day = items["a1"], items["a3"]
    edit = fee.contexts["counterfactual"]["edit"]
    assert edit["from"] == "35"
    gold = gold_of(fee, "counterfactual")
    assert gold.must_contain == [[f"£{edit['to']}"]]
    assert "35" in gold.must_not_contain
    assert not any("£35" in sentence for sentence in offered(fee, "counterfactual"))
    assert any(f"£{edit['to']}" in sentence for sentence in offered(fee, "counterfactual"))
    assert gold_of(fee, "clean").must_contain == [["£35"]]
    assert day.contexts["counterfactual"]["edit"]["from"] == "Monday"
    assert "counterfactual" not in items["a2"].contexts  # nothing in it can be changed


def test_they_are_frozen_once_whatever_becomes_of_the_documents(
    house: Assistant, frozen: Benchmark, items: dict[str, BenchmarkItem]
) -> None:
    before = {key: item.contexts for key, item in items.items()}
    load_document(assistant=house, path="leaving.md", data=b"# Leaving early\n\nIt is free to leave. Nobody pays.")
    freeze_conditions(assistant=house, benchmark=frozen, conditions=ALL)
    assert {item.key: item.contexts for item in frozen.items.all()} == before


def test_drawing_depends_on_the_question_alone(house: Assistant, frozen: Benchmark) -> None:
    freeze_conditions(assistant=house, benchmark=frozen, conditions=ALL)
    first = {item.key: item.contexts for item in frozen.items.all()}
    for item in frozen.items.all():
        item.contexts = {name: item.contexts[name] for name in ("clean", "missing_oracle") if name in item.contexts}
        item.save()
    freeze_conditions(assistant=house, benchmark=frozen, conditions=ALL)
    assert {item.key: item.contexts for item in frozen.items.all()} == first


def change(answer: str, *, gold: str = "", must: list[list[str]] | None = None, seed: int = 1) -> Any:
    text = gold or answer
    frozen = {"passages": [{"rank": 1, "title": "T", "source": "s", "text": text}], "evidence": [[1, 0, 0.5]]}
    return edited(
        frozen=frozen, gold=split_sentences(text), answers=[answer], must_contain=must or [], must_not_contain=[],
        draw=random.Random(seed),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("It costs £1,250 a year.", r"\d,\d{3}|\d{3}"), ("It opens at 14:30 sharp.", r"\d{2}:30"),
        ("It was built in 1987 here.", r"(19|20)\d\d"), ("A unit costs 27.4 pence.", r"\d{2}\.\d"),
    ],
)  # fmt: skip
def test_numbers_keep_their_form(answer: str, form: str) -> None:
    import re

    for seed in range(5):
        found = change(answer, seed=seed)
        new = found["edit"]["to"]
        assert new != found["edit"]["from"]
        assert re.fullmatch(form, new), new
        assert new in found["passages"][0]["text"]


@pytest.mark.parametrize(
    "answer", ["It comes on the 15th.", "It opens at 8am.", "Nothing changes.", "Model X200 it is."]
)
def test_what_would_break_a_sentence_is_left(answer: str) -> None:
    assert change(answer) is None


def test_only_what_stands_in_the_gold_is_changed() -> None:
    assert change("It costs 5 pounds.", gold="It costs five pounds.") is None
    assert change("It costs 5 pounds.", must=[["five pounds"]]) is None  # what counts as right would not notice


def test_thresholds_are_fitted_on_other_documents() -> None:
    """Similar questions are answered rightly, dissimilar ones wrongly: every fold learns to decline these."""
    items = [BenchmarkItem(key=str(i), question="?") for i in range(40)]
    near = [0.8 if i % 2 else 0.3 for i in range(40)]
    clusters = [f"doc-{i}" for i in range(40)]

    def worth(item: BenchmarkItem, declined: bool) -> float:
        return float(declined != bool(int(item.key) % 2))

    found = thresholds(items, near, clusters, worth)
    assert len(found) == 5
    assert all(0.3 < threshold < 0.8 for threshold in found)
    assert thresholds(items, near, clusters, lambda item, declined: float(not declined)) == [0.0] * 5
    assert thresholds([], [], [], worth) == [0.0] * 5


def test_the_most_similar_sentence_is_an_arm_of_its_own(tuned: Adapter, frozen: Benchmark) -> None:
    evaluation = evaluate(tuned, frozen, plan=Plan(arms=[], conditions=[]))
    said = {
        a.item.key: a for a in evaluation.answers.filter(arm="extractive", condition="clean").select_related("item")
    }
    assert set(said) == {"a1", "a2", "a3", "d1"}
    assert said["a1"].text == "A fixed plan has an exit fee of £35. [1]"
    assert said["a1"].measures["grounded_correct"] == 1.0
    assert said["a1"].seconds == said["a1"].completion_tokens == 0
    assert set(evaluation.results) == {"extractive", "base_rag", "adapter_rag"}
    assert evaluation.comparison["interaction"] is None


def test_every_arm_and_condition_at_once(house: Assistant, tuned: Adapter, frozen: Benchmark) -> None:
    dataset = make_dataset(house)
    tuned.run = Run.objects.create(assistant=house, dataset=dataset, prompt_digest=tuned.prompt_digest, base_model="b")
    tuned.save()
    rival = make_adapter(house, number=2, seed=2)
    plan = Plan(arms=Arm.values, conditions=Condition.values, timed=20)
    evaluation = evaluate(tuned, frozen, plan=plan, rival=rival)
    assert evaluation.error == ""
    assert set(evaluation.results) == set(Arm.values)
    assert set(evaluation.results["adapter_rag"]) == set(Condition.values)
    assert set(evaluation.results["base"]) == {"clean"}
    said = {
        arm: dict(evaluation.answers.filter(arm=arm, condition="clean").values_list("item__key", "completion"))
        for arm in ("base_rag", "few_shot", "adapter_rag", "rival_rag")
    }
    assert said["base_rag"] != said["few_shot"]  # the examples are read
    assert said["adapter_rag"] != said["rival_rag"]
    assert evaluation.results["base_rag"]["out_of_domain"]["grounded_correct"]["n"] == 40
    comparison = evaluation.comparison
    assert set(comparison["robustness"]) == {"noisy_hard", "noisy_random", "shuffled", "counterfactual"}
    assert comparison["latency"]["adapter_rag"]["n"] == 3  # as many as there are to answer
    assert comparison["retrieval"]["recall@1"]["n"] == 3
    assert set(comparison["by_document"]) == {"leaving.md", "meters.md", "paying.md"}
    assert set(comparison["by_topic"]) == {"fees"}
    assert all("p_holm" in row and row["p_holm"] >= row["p_permutation"] for row in comparison["secondary"].values())
    clean = evaluation.answers.filter(arm="adapter_rag", condition="clean")
    assert all({"recites", "private"} <= set(answer.measures) for answer in clean)
    again = evaluate(tuned, frozen, plan=plan, rival=rival)
    texts = [
        list(one.answers.order_by("item_id", "arm", "condition").values_list("completion", "measures"))
        for one in (evaluation, again)
    ]
    assert texts[0] == texts[1]


def test_questions_outside_the_domain_are_the_assistants_own_copy(house: Assistant) -> None:
    first = outside_benchmark(house)
    assert outside_benchmark(house) == first
    assert (first.sanity, first.items.count()) == (True, 40)
    answerable = first.items.filter(kind="answer")
    assert sum(item.contexts["out_of_domain"]["has_gold"] for item in answerable) >= 24  # retrieval is not the question
    house.evidence_sentences = 5
    house.save()
    assert outside_benchmark(house) != first
    assert not Evaluation.objects.exists()


def test_a_prompt_that_does_not_fit_loses_what_is_not_gold(tuned: Adapter, frozen: Benchmark) -> None:
    for item in frozen.items.all():
        clean = item.contexts["clean"]
        extra = [f"Sentence number {i} says nothing that matters to anybody at all here." for i in range(60)]
        clean["passages"].append({"rank": 9, "title": "Long", "source": "l", "text": " ".join(extra)})
        clean["evidence"] = [[9, i, 0.2] for i in range(36)] + clean["evidence"]
        item.save()
    long = task_prompt(Evaluation(assistant=tuned.assistant), Task(frozen.items.get(key="a1"), "base_rag", "clean"))
    assert len(long.messages[-1]["content"]) > 2500  # of a tiny tokenizer, for a context of 1,024 tokens
    evaluation = evaluate(tuned, frozen, plan=Plan(arms=[], conditions=[]))
    assert evaluation.state == "succeeded", evaluation.error
    assert evaluation.results["base_rag"]["clean"]["grounded_correct"]["n"] == 4


def test_an_adapter_that_is_gone_or_holds_erased_rows_is_refused_and_goes_on_when_it_is_back(
    house: Assistant, tuned: Adapter, frozen: Benchmark, settings: Any
) -> None:
    from pathlib import Path

    folder = Path(settings.VAR_DIR) / tuned.folder
    away = folder.with_name("away")
    folder.rename(away)
    evaluation = evaluate(tuned, frozen, plan=Plan(arms=[], conditions=[]))
    assert evaluation.state == "failed"
    assert "Restore its folder" in evaluation.error
    away.rename(folder)
    resume_evaluation(evaluation=evaluation, actor=None)
    launch(evaluation, foreground=True)
    evaluation.refresh_from_db()
    assert (evaluation.state, evaluation.error) == ("succeeded", "")
    dataset = make_dataset(house)
    dataset.erased_rows = 3
    dataset.save()
    tuned.run = Run.objects.create(assistant=house, dataset=dataset, prompt_digest=tuned.prompt_digest, base_model="b")
    tuned.save()
    erased = evaluate(tuned, frozen)
    assert erased.state == "failed"
    assert "3 rows that Adapter 1 has learned from were erased" in erased.error
    with pytest.raises(NotPossible, match="erased since"):
        start_evaluation(assistant=house, adapter=tuned, benchmark=frozen)


def test_examples_are_shown_as_if_no_other_arm_had_been_asked(
    house: Assistant, tuned: Adapter, frozen: Benchmark
) -> None:
    """Else an answer would depend on which process has asked which arm."""
    plan = Plan(arms=[Arm.BASE_RAG.value], conditions=[Condition.CLEAN.value])
    evaluation = evaluate(tuned, frozen, plan=plan)
    item = frozen.items.get(key="a1")
    pair: Demonstration = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No"})
    engine = TransformersEngine(shared_base())

    def asked(*arms: Arm) -> int:
        examination = Examination(evaluation, engine, plan, [item], shown=[pair] * 3)
        for arm in arms:
            _, (result,) = examination._generated([Task(item, arm.value, Condition.CLEAN.value)])
        return result.prompt_tokens

    whole = asked(Arm.BASE_RAG)
    examples = asked(Arm.FEW_SHOT) - whole
    assert examples > 0
    lengths = set()
    for room in range(whole - 60, whole + examples, 3):
        engine.context = room + asking.MAX_ANSWER_TOKENS
        lengths.add(asked(Arm.FEW_SHOT))
        assert asked(Arm.BASE_RAG, Arm.FEW_SHOT) == asked(Arm.FEW_SHOT) <= room
    assert len(lengths) > 4  # fewer sentences, no examples, one, two
