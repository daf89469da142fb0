"""Before and after on a small benchmark with a tiny base and adapter: every answer once, the same every time."""

from __future__ import annotations

from typing import Any

import pytest

from assistants.background import BackgroundWork, launch
from assistants.models import Assistant
from generation.prompts import parse_answer
from knowledge.services import load_document
from tests.factories import make_adapter, make_assistant, make_benchmark
from tests.tiny_model import shared_base
from tests.training.finetune.conftest import make_dataset
from training.data.benchmark import freeze_benchmark, read_items
from training.evaluation import asking
from training.evaluation.gate import GateRule, GateRuleError, standard_margins
from training.evaluation.plan import STANDARD_ARMS
from training.evaluation.runner import Task, task_prompt
from training.evaluation.summary import cluster_of
from training.models import (
    Adapter,
    Benchmark,
    BenchmarkItem,
    Condition,
    Evaluation,
    EvaluationAnswer,
    Kind,
    Run,
)

DOCUMENTS = {
    "leaving.md": "# Leaving early\n\nA fixed plan has an exit fee of £35. No fee is due in its last 49 days.",
    "meters.md": "# Meter readings\n\nRead the meter on the first day of the month. Send the figures before the dot.",
    "moving.md": "# Moving house\n\nTell us 10 days before you move. Your plan can move with you to the new address.",
}
ITEMS = """
{"id": "a1", "question": "What does it cost to leave a fixed plan early?", "kind": "answer", "answers": ["£35"], "must_contain": [["£35"]], "gold": [{"path": "leaving.md", "sentence": "A fixed plan has an exit fee of £35."}], "slice": "plain"}
{"id": "a2", "question": "When do I read the meter?", "kind": "answer", "answers": ["On the first day of the month."], "gold": [{"path": "meters.md", "sentence": "Read the meter on the first day of the month."}], "slice": "plain"}
{"id": "a3", "question": "How long before moving must I tell you?", "kind": "answer", "answers": ["10 days"], "must_contain": [["10 days", "ten days"]], "gold": [{"path": "moving.md", "sentence": "Tell us 10 days before you move."}], "history": [{"role": "user", "content": "I am moving to Leeds."}]}
{"id": "d1", "question": "Who won the cup final?", "kind": "decline"}
{"id": "h1", "question": "I want to talk to somebody about my late father's account.", "kind": "handoff"}
"""  # noqa: E501 - one item a line, as in a file
EXPECTED = (
    5 * 2 + 5 * 3 + 3 * 3
)  # every arm on all under clean; the arms with retrieval on answerable ones without oracle


@pytest.fixture
def assistant(db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Assistant:
    monkeypatch.setattr(asking, "MAX_ANSWER_TOKENS", 12)  # a random model never ends by itself
    settings.RATCHET_BASE_MODEL_PATH = settings.RATCHET_BASE_MODEL = str(shared_base())
    assistant = make_assistant(retrieval_k=2, handoff_sentence="I'll pass you to a colleague.")
    for path, text in DOCUMENTS.items():
        load_document(assistant=assistant, path=path, data=text.encode())
    return assistant


@pytest.fixture
def benchmark(assistant: Assistant) -> Benchmark:
    return freeze_benchmark(assistant=assistant, name="b", items=read_items(ITEMS.splitlines()))


@pytest.fixture
def adapter(assistant: Assistant) -> Adapter:
    return make_adapter(assistant, seed=1)


def start(adapter: Adapter, benchmark: Benchmark, **fields: Any) -> Evaluation:
    return Evaluation.objects.create(
        assistant=adapter.assistant, adapter=adapter, benchmark=benchmark, gate_rule=GateRule().as_dict(),
        prompt_digest=adapter.prompt_digest, **fields,
    )  # fmt: skip


def run(evaluation: Evaluation) -> Evaluation:
    launch(evaluation, foreground=True)
    evaluation.refresh_from_db()
    return evaluation


def answers(evaluation: Evaluation) -> dict[tuple[str, str, str], tuple[str, str, Any]]:
    rows = evaluation.answers.select_related("item")
    return {(a.item.key, a.arm, a.condition): (a.completion, a.text, a.measures) for a in rows}


def test_all_arms_answer_all_items_once_and_the_verdict_is_written(adapter: Adapter, benchmark: Benchmark) -> None:
    evaluation = run(start(adapter, benchmark))
    assert (evaluation.state, evaluation.error) == ("succeeded", "")
    found = answers(evaluation)
    assert len(found) == evaluation.answers.count() == EXPECTED
    for arm in STANDARD_ARMS:
        assert {key for key, a, c in found if (a, c) == (arm, "clean")} == {"a1", "a2", "a3", "d1", "h1"}
    missing = {(key, arm) for key, arm, condition in found if condition == Condition.MISSING_ORACLE}
    with_retrieval = ("base_rag", "adapter_rag", "extractive")
    assert missing == {(key, arm) for key in ("a1", "a2", "a3") for arm in with_retrieval}
    differ = [
        key
        for key in ("a1", "a2", "a3", "d1", "h1")
        if found[key, "base", "clean"][0] != found[key, "adapter", "clean"][0]
    ]
    assert differ  # the adapter speaks
    assert evaluation.progress["done"] == evaluation.progress["total"] == EXPECTED

    assert evaluation.verdict == "not_proven"
    assert evaluation.gate[0]["name"] == "primary"
    assert [line["name"] for line in evaluation.gate] == ["primary", *standard_margins()]
    not_shown = [line for line in evaluation.gate if line["value"] is None]
    assert "recited" in {line["name"] for line in not_shown}  # no dataset is known of this adapter
    assert all(not line["passed"] and line["reason"].startswith("not shown. ") for line in not_shown)
    assert evaluation.sentence.startswith("Adapter 1 answers ")
    assert "n = 5" in evaluation.sentence
    assert "not proven" in evaluation.sentence
    assert set(evaluation.results) == set(STANDARD_ARMS)
    primary = evaluation.results["base_rag"]["clean"]["grounded_correct"]
    assert set(primary) == {"value", "low", "high", "n", "clusters"}
    assert primary["n"] == 5
    assert evaluation.comparison["grounded_correct"]["difference"]["n"] == 5
    assert set(evaluation.comparison["by_kind"]) == {"answer", "decline", "handoff"}
    assert evaluation.comparison["by_slice"]["plain"]["n"] == 2
    assert "interaction" in evaluation.comparison


def test_a_second_evaluation_is_identical_to_the_byte(adapter: Adapter, benchmark: Benchmark) -> None:
    first, second = run(start(adapter, benchmark)), run(start(adapter, benchmark))
    assert answers(first) == answers(second)
    for name in ("results", "gate", "verdict", "sentence"):
        assert getattr(first, name) == getattr(second, name)
    # It knows that it was measured before, and that this is no further attempt.
    before = [first.comparison.pop("attempts"), second.comparison.pop("attempts")]
    assert [(one["number"], len(one["earlier"])) for one in before] == [(1, 0), (1, 1)]
    assert first.comparison == second.comparison


def test_killed_it_goes_on_and_answers_nothing_twice(
    adapter: Adapter, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(start(adapter, benchmark))
    monkeypatch.setattr(asking, "BATCH", 4)
    real, asked = asking.Examination.answer, []

    def killed(self: asking.Examination, batch: list[Task]) -> list[EvaluationAnswer]:
        if len(asked) == 3:
            asked.append([])
            raise KeyboardInterrupt
        asked.append(batch)
        return real(self, batch)

    monkeypatch.setattr(asking.Examination, "answer", killed)
    evaluation = start(adapter, benchmark)
    with pytest.raises(KeyboardInterrupt):
        launch(evaluation, foreground=True)
    evaluation.refresh_from_db()
    assert (evaluation.state, evaluation.answers.count(), evaluation.verdict) == ("running", 8, "")  # 4 + 1 + 3
    Evaluation.objects.filter(pk=evaluation.pk).update(state=BackgroundWork.State.QUEUED, token=None)
    evaluation.refresh_from_db()
    run(evaluation)
    tasks = [(task.item.key, task.arm, task.condition) for batch in asked for task in batch]
    assert len(tasks) == len(set(tasks)) == EXPECTED
    texts = {key: value[0] for key, value in answers(evaluation).items()}
    assert texts == {key: value[0] for key, value in answers(expected).items()}
    assert (evaluation.results, evaluation.sentence) == (expected.results, expected.sentence)


def test_arms_with_retrieval_see_the_frozen_contexts_and_the_others_none(
    adapter: Adapter, benchmark: Benchmark
) -> None:
    evaluation = start(adapter, benchmark)
    item = benchmark.items.get(key="a1")
    clean, missing, alone = (
        task_prompt(evaluation, Task(item, arm, condition))
        for arm, condition in (("adapter_rag", "clean"), ("adapter_rag", "missing_oracle"), ("adapter", "clean"))
    )
    assert "£35" in clean.messages[-1]["content"]
    assert "£35" not in missing.messages[-1]["content"]
    assert alone.messages[-1]["content"] == f"Question: {item.question}"
    load_document(
        assistant=adapter.assistant, path="leaving.md", data=b"# Leaving\n\nIt is free now to leave us early."
    )
    again = Evaluation.objects.get(pk=evaluation.pk)
    assert task_prompt(again, Task(benchmark.items.get(key="a1"), "adapter_rag", "clean")) == clean
    both = [task_prompt(evaluation, Task(item, arm, "clean")) for arm in ("base_rag", "adapter_rag")]
    assert both[0] == both[1]


def test_what_was_said_is_what_a_reader_would_see(adapter: Adapter, benchmark: Benchmark) -> None:
    evaluation = run(start(adapter, benchmark))
    for answer in evaluation.answers.select_related("item"):
        prompt = task_prompt(evaluation, Task(answer.item, answer.arm, answer.condition))
        read = parse_answer(house=adapter.assistant.house, prompt=prompt, completion=answer.completion)
        assert (answer.text, answer.declined) == (read.marked, read.declined)
        assert (answer.completion_tokens > 0) is (answer.arm != "extractive")


def test_refusals(adapter: Adapter, benchmark: Benchmark) -> None:
    empty = run(start(adapter, make_benchmark(adapter.assistant)))
    assert empty.state == "failed"
    assert empty.error.startswith("The benchmark has no questions.")
    Adapter.objects.filter(pk=adapter.pk).update(prompt_digest="f" * 16)
    adapter.refresh_from_db()
    other_format = run(start(adapter, benchmark))
    assert other_format.state == "failed"
    assert "Train a new adapter" in other_format.error
    assert other_format.answers.count() == 0


def test_what_was_trained_on_is_no_test(adapter: Adapter, benchmark: Benchmark) -> None:
    """The dataset was built without this benchmark as its guard."""
    dataset = make_dataset(adapter.assistant)
    dataset.examples.filter(position=0).update(question="what does it cost to leave a fixed plan early")
    adapter.run = Run.objects.create(
        assistant=adapter.assistant, dataset=dataset, prompt_digest=adapter.prompt_digest, base_model="b"
    )
    adapter.save()
    evaluation = run(start(adapter, benchmark))
    assert evaluation.state == "failed"
    assert evaluation.error.startswith("1 rows of Dataset")
    assert evaluation.answers.count() == 0
    child = make_adapter(adapter.assistant, number=2, seed=2, parent=adapter)
    child.run = Run.objects.create(
        assistant=adapter.assistant, dataset=make_dataset(adapter.assistant),
        prompt_digest=adapter.prompt_digest, base_model="b", parent=adapter,
    )  # fmt: skip
    child.save()
    assert run(start(child, benchmark)).error.startswith(f"1 rows of {dataset} ask")  # what it continues remembers, too
    dataset.examples.filter(position=0).delete()
    assert run(start(adapter, benchmark)).state == "succeeded"


def test_an_adapter_for_another_base_is_refused(adapter: Adapter, benchmark: Benchmark) -> None:
    Adapter.objects.filter(pk=adapter.pk).update(base_digest="e" * 64)
    adapter.refresh_from_db()
    evaluation = run(start(adapter, benchmark))
    assert evaluation.state == "failed"
    assert evaluation.error
    assert evaluation.answers.count() == 0


@pytest.mark.parametrize("values", [{"metric": 1}, {"margins": {"speed": 1.0}}])
def test_a_rule_that_cannot_be_meant(values: dict[str, Any]) -> None:
    with pytest.raises(GateRuleError):
        GateRule.from_dict(values)
    assert GateRule.from_dict(GateRule(alpha=0.01).as_dict()) == GateRule(alpha=0.01)
    assert GateRule.from_dict({}) == GateRule()


def test_questions_on_one_document_are_one_cluster() -> None:
    assert cluster_of(BenchmarkItem(key="x", gold=[{"path": "a.md", "sentence": "s"}])) == "a.md"
    assert cluster_of(BenchmarkItem(key="x", kind=Kind.DECLINE)) == "item:x"
