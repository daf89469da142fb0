"""Runs an evaluation: every arm answers every item under every condition, then the arms are compared in pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import transaction

from generation.engines import GenerationRequest
from generation.prompts import Prompt, build_prompt, parse_answer
from training.data.leakage import find_leaks
from training.data.recipe import Recipe
from training.data.render import offered
from training.engine import bulk_engine
from training.evaluation.scoring import RETRIEVAL_ARMS, measure, passages_of
from training.evaluation.summary import summarise
from training.models import Arm, BenchmarkItem, Condition, Evaluation, EvaluationAnswer

if TYPE_CHECKING:
    from generation.engines import Engine

BATCH = 64
MAX_ANSWER_TOKENS = 96
ADAPTER_ARMS = frozenset({Arm.ADAPTER.value, Arm.ADAPTER_RAG.value})


class EvaluationRefused(ValueError):
    """The evaluation cannot be believed as it stands; the message says why and what to do."""


@dataclass(frozen=True)
class Task:
    item: BenchmarkItem
    arm: str
    condition: str


def perform(evaluation: Evaluation) -> None:
    """Answers what is not answered yet, then writes results, gate and verdict.

    Raises:
        EvaluationRefused: adapter and assistant speak different prompt formats, the benchmark is empty, or the adapter
            has been trained on its questions.
    """
    refuse_mismatch(evaluation)
    refuse_leaks(evaluation)
    engine = bulk_engine()
    name = evaluation.adapter.engine_name
    engine.load_adapter(
        name,
        Path(settings.VAR_DIR) / evaluation.adapter.folder,
        base_digest=evaluation.adapter.base_digest,
        prompt_digest=evaluation.adapter.prompt_digest,
    )
    items = list(evaluation.benchmark.items.order_by("pk"))
    todo = list(_tasks(evaluation, items))
    total = len(todo) + evaluation.answers.count()
    evaluation.beat(stage="answering", done=total - len(todo), total=total)
    for start in range(0, len(todo), BATCH):
        batch = todo[start : start + BATCH]
        answers = _answer(engine, evaluation, batch)
        EvaluationAnswer.objects.bulk_create(answers, ignore_conflicts=True)
        evaluation.beat(stage="answering", done=total - len(todo) + start + len(batch))
    evaluation.beat(stage="comparing")
    with transaction.atomic():
        summarise(evaluation, items)


def refuse_mismatch(evaluation: Evaluation) -> None:
    adapter, assistant = evaluation.adapter, evaluation.assistant
    if adapter.prompt_digest != assistant.prompt_digest:
        raise EvaluationRefused(
            f"{adapter} was trained with prompt format {adapter.prompt_digest}; the assistant now uses "
            f"{assistant.prompt_digest}. Train a new adapter, or set style, decline sentence and instructions back."
        )
    if not evaluation.benchmark.items.exists():
        raise EvaluationRefused("The benchmark has no questions.")


def refuse_leaks(evaluation: Evaluation) -> None:
    """A dataset is guarded by the benchmark that it was built with; any other one is compared with it here."""
    run = evaluation.adapter.run
    if run is None or run.dataset.benchmark_id == evaluation.benchmark_id:
        return
    leaks = find_leaks(
        rows=list(run.dataset.examples.values_list("question", "history")),
        items=list(evaluation.benchmark.items.values_list("question", "history")),
        threshold=Recipe.from_dict(run.dataset.recipe).near_duplicate,
    )
    if leaks:
        raise EvaluationRefused(
            f"{len(leaks)} rows of {run.dataset} ask what “{evaluation.benchmark}” asks; what was trained on cannot be "
            "tested. Build a dataset with this benchmark as its guard, and train on that."
        )


def _tasks(evaluation: Evaluation, items: Sequence[BenchmarkItem]) -> Iterator[Task]:
    """What is left to answer, arm by arm: batches of one arm have prompts of like length."""
    done = set(evaluation.answers.values_list("item_id", "arm", "condition"))
    for arm in Arm.values:
        conditions = Condition.values if arm in RETRIEVAL_ARMS else [Condition.CLEAN.value]
        for condition in conditions:
            for item in items:
                if condition in item.contexts and (item.pk, arm, condition) not in done:
                    yield Task(item, arm, condition)


def task_prompt(evaluation: Evaluation, task: Task) -> Prompt:
    """The prompt of one task: what serving would build for these passages."""
    passages = passages_of(task.item, task.arm, task.condition)
    evidence = task.item.contexts[task.condition]["evidence"] if passages else []
    return build_prompt(
        house=evaluation.assistant.house,
        question=task.item.question,
        passages=passages,
        **offered(evidence),
        history=task.item.history,
    )


def _answer(engine: Engine, evaluation: Evaluation, batch: Sequence[Task]) -> list[EvaluationAnswer]:
    prompts = [task_prompt(evaluation, task) for task in batch]
    requests = [
        GenerationRequest(
            messages=prompt.messages,
            adapter=evaluation.adapter.engine_name if task.arm in ADAPTER_ARMS else None,
            max_new_tokens=MAX_ANSWER_TOKENS,
        )
        for task, prompt in zip(batch, prompts, strict=True)
    ]
    answers = []
    for task, prompt, result in zip(batch, prompts, engine.generate(requests), strict=True):
        answer = parse_answer(house=evaluation.assistant.house, prompt=prompt, completion=result.text)
        measures = measure(
            item=task.item, arm=task.arm, condition=task.condition, answer=answer, assistant=evaluation.assistant
        )
        stored = EvaluationAnswer(
            evaluation=evaluation, item=task.item, arm=task.arm, condition=task.condition,
            completion=result.text, text=answer.marked, declined=answer.declined, measures=measures,
            seconds=result.seconds, completion_tokens=result.completion_tokens,
        )  # fmt: skip
        answers.append(stored)
    return answers
