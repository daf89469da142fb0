"""Runs an evaluation: refusals first, then conditions are frozen, arms answer, and what they said is compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import transaction

from assistants.background import BackgroundWork, WorkCancelled
from generation.engines import AdapterRefused
from training.data.leakage import find_leaks
from training.data.recipe import Recipe
from training.engine import bulk_engine
from training.evaluation import asking
from training.evaluation.after import mark_private, mark_recited
from training.evaluation.asking import Examination, Task, below, fitted_thresholds, task_prompt
from training.evaluation.conditions import freeze_conditions
from training.evaluation.few_shot import Demonstration, demonstrations
from training.evaluation.gate import GateRule
from training.evaluation.loading import AdapterGone, load_into, look_for
from training.evaluation.nli import entailment
from training.evaluation.outside import outside_benchmark
from training.evaluation.plan import Plan
from training.evaluation.sharing import ask_all, dismiss, helpers_wanted
from training.evaluation.summary import summarise
from training.models import Adapter, Arm, BenchmarkItem, Condition, Evaluation, Kind
from training.registry.lineage import datasets_of

if TYPE_CHECKING:
    from generation.engines import Engine

__all__ = ["EvaluationRefused", "Task", "perform", "task_prompt"]


class EvaluationRefused(ValueError):
    """The evaluation cannot be believed as it stands; the message says why and what to do."""


def perform(evaluation: Evaluation) -> None:
    """Answers what is not answered yet, then writes results, gate and verdict.

    Raises:
        EvaluationRefused: adapter and assistant speak different prompt formats, files or rows of the adapter are gone,
            the benchmark is empty, or the adapter has been trained on its questions.
    """
    for adapter in _adapters(evaluation):
        refuse_unfit(evaluation, adapter)
        refuse_leaks(evaluation, adapter)
    if not evaluation.benchmark.items.exists():
        raise EvaluationRefused("The benchmark has no questions. Upload one that has, and evaluate on that.")
    plan = _plan(evaluation)
    evaluation.beat(stage="freezing passages")
    freeze_conditions(
        assistant=evaluation.assistant,
        benchmark=evaluation.benchmark,
        conditions=plan.conditions,
        progress=lambda done, total: evaluation.beat(stage="freezing passages", done=done, total=total),
    )
    examination = examination_of(evaluation, evaluation)
    units = sum(1 for _ in examination.all_tasks()) // asking.BATCH + 1
    try:
        ask_all(examination, helpers=helpers_wanted(units))
    except WorkCancelled:
        dismiss(evaluation)
        raise
    latency = _timed(examination) if plan.timed else None
    evaluation.beat(stage="comparing")
    mark_recited(evaluation)
    mark_private(evaluation)
    with transaction.atomic():
        summarise(evaluation, examination.items, latency=latency)
        evaluation.hold()


def examination_of(evaluation: Evaluation, work: BackgroundWork) -> Examination:
    """What every process that asks needs, the same in each; its conditions are frozen. ``work``: who asks, and beats.

    Raises:
        EvaluationRefused, generation.engines.EngineError: the base or an adapter is not on this machine, or the
            assistant's prompt format is another one by now.
    """
    for adapter in _adapters(evaluation):
        refuse_unfit(evaluation, adapter)  # a helper starts later, when the assistant may speak another prompt format
    plan = _plan(evaluation)
    work.beat(stage="loading the model")
    engine = _engine(evaluation)
    items = _items(evaluation, plan)
    return Examination(
        evaluation=evaluation,
        engine=engine,
        plan=plan,
        items=items,
        shown=_shown(evaluation, plan),
        # Under a threshold of the plan all arms decline alike; without one, what needs no model is given its own.
        thresholds=fitted_thresholds(evaluation, items) if Arm.EXTRACTIVE in plan.arms and not plan.threshold else (),
        entails=entailment(),
    )


def _plan(evaluation: Evaluation) -> Plan:
    return Plan.from_dict(evaluation.plan).complete(GateRule.from_dict(evaluation.gate_rule))


def refuse_unfit(evaluation: Evaluation, adapter: Adapter) -> None:
    assistant = evaluation.assistant
    if evaluation.dtype != settings.RATCHET_ENGINE_DTYPE:
        raise EvaluationRefused(
            f"It was begun with RATCHET_ENGINE_DTYPE={evaluation.dtype}, and here it is "
            f"{settings.RATCHET_ENGINE_DTYPE}. Set it back, or start another evaluation."
        )
    if adapter.prompt_digest != assistant.prompt_digest:
        raise EvaluationRefused(
            f"{adapter} was trained with prompt format {adapter.prompt_digest}; the assistant now uses "
            f"{assistant.prompt_digest}. Train a new adapter, or set style, decline sentence and instructions back."
        )
    try:
        look_for(adapter)
    except (AdapterGone, AdapterRefused) as error:
        raise EvaluationRefused(str(error)) from error
    if adapter.erased_rows:
        raise EvaluationRefused(
            f"{adapter.erased_rows} rows that {adapter} has learned from were erased since; it is to be replaced and "
            "not to be promoted. Build a new dataset, train a new adapter, and evaluate that one."
        )


def refuse_leaks(evaluation: Evaluation, adapter: Adapter) -> None:
    """A dataset is guarded by the benchmark that it was built with; any other one is compared with it here, also those
    of the adapters that this one continues: it remembers their questions, too."""
    for dataset in datasets_of(adapter):
        if dataset is None or dataset.benchmark_id == evaluation.benchmark_id:
            continue
        leaks = find_leaks(
            rows=list(dataset.examples.values_list("question", "history")),
            items=list(evaluation.benchmark.items.values_list("question", "history")),
            threshold=Recipe.from_dict(dataset.recipe).near_duplicate,
        )
        if leaks:
            raise EvaluationRefused(
                f"{len(leaks)} rows of {dataset} ask what “{evaluation.benchmark}” asks; what was trained on cannot be "
                "tested. Build a dataset with this benchmark as its guard, and train on that, beginning with the base."
            )


def _adapters(evaluation: Evaluation) -> list[Adapter]:
    return [evaluation.adapter, *([evaluation.rival] if evaluation.rival else [])]


def _engine(evaluation: Evaluation) -> Engine:
    engine = bulk_engine()
    for adapter in _adapters(evaluation):
        load_into(engine, adapter)
    return engine


def _items(evaluation: Evaluation, plan: Plan) -> list[BenchmarkItem]:
    """The benchmark's questions with every condition of the plan, then those outside the domain."""
    items = list(evaluation.benchmark.items.order_by("pk"))
    if Condition.OUT_OF_DOMAIN in plan.conditions:
        items += outside_benchmark(evaluation.assistant).items.order_by("pk")
    return items


def _shown(evaluation: Evaluation, plan: Plan) -> list[Demonstration]:
    if Arm.FEW_SHOT not in plan.arms:
        return []
    shown = demonstrations(evaluation.adapter, evaluation.assistant.house)
    if not shown:
        raise EvaluationRefused(
            f"The arm with examples takes them from the dataset of {evaluation.adapter}, and there are none. Evaluate "
            "without this arm."
        )
    return shown


def _timed(examination: Examination) -> dict[str, list[float]]:
    """Seconds of single answers, candidate and today in turn, so that what else the machine does meets both."""
    answerable = [item for item in examination.items if item.kind == Kind.ANSWER and Condition.CLEAN in item.contexts]
    # What the threshold declines takes no model's time, and would hide how long the others take.
    asked = [one for one in answerable if not below(_clean(one), examination.plan.threshold)]
    chosen: Sequence[BenchmarkItem] = asked[: examination.plan.timed]
    found: dict[str, list[float]] = {Arm.BASE_RAG.value: [], Arm.ADAPTER_RAG.value: []}
    for done, item in enumerate(chosen):
        examination.evaluation.beat(stage="timing single answers", done=done, total=len(chosen))
        # Who comes first alternates: the second one may find warm what the first one has read.
        for arm, seconds in sorted(found.items(), reverse=bool(done % 2)):
            seconds.append(examination.seconds(Task(item, arm, Condition.CLEAN.value)))
    return found


def _clean(item: BenchmarkItem) -> Task:
    return Task(item, Arm.BASE_RAG.value, Condition.CLEAN.value)
