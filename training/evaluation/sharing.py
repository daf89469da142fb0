"""One evaluation asked by several processes, on one machine or more: as many models in memory, the same answers.

The questions are cut into units, each of them one call of an engine: who is asked beside whom does not depend on who
asks, so the answers are the same to the byte. A process takes the next free unit under a row lock that others skip,
and stores its answers and that it is done in one transaction. A unit belongs to a piece of running work, by its token:
killed at any instant, the work loses its token (`assistants.background.sweep`), and the unit is free again. The
evaluation's own process freezes the conditions before and compares at the end, alone.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connection, transaction

from assistants.background import BackgroundWork, launch
from generation.engines import EngineError
from generation.fusing import HEAD_BYTES, PACKED_BYTES
from training.evaluation import asking
from training.evaluation.models import EvaluationHelper, EvaluationUnit
from training.finetune.bases import base_folder
from training.finetune.sizes import shapes_of
from training.models import Evaluation, EvaluationAnswer

if TYPE_CHECKING:
    from training.evaluation.asking import Examination, Task

PAUSE_SECONDS = 1.0
"""Between two looks at what others still ask."""
LEAVE_SECONDS = 120.0
"""Of waiting for helpers before single answers are timed: as long as a large model takes to load."""
LIBRARY_BYTES = 700 * 1024**2
"""Of torch, transformers and this project in a process of its own (measured: docs/log.md)."""
HEADS = ("embed_tokens.weight", "lm_head.weight")
"""Names of the output layer's weights: mostly they are those of the embeddings."""
HELPED = (Evaluation.State.QUEUED, Evaluation.State.RUNNING)
"""While its own process is replaced an evaluation is queued, and its helpers go on."""


def cut(examination: Examination) -> None:
    """Makes the units that are not there yet. What was answered before there were units is not asked again."""
    wanted = []
    for arm, condition in examination.plan.pairs():
        count = sum(condition in item.contexts for item in examination.items)
        wanted += [(arm, condition, start) for start in range(0, count, asking.BATCH)]
    EvaluationUnit.objects.bulk_create(
        (
            EvaluationUnit(evaluation=examination.evaluation, number=number, arm=arm, condition=condition, start=start)
            for number, (arm, condition, start) in enumerate(wanted)
        ),
        ignore_conflicts=True,
    )


def ask_all(examination: Examination, *, helpers: int) -> None:
    """Asks until nothing is left, with up to ``helpers`` processes beside this one.

    Raises:
        WorkCancelled, WorkLost: as `BackgroundWork.beat`; helpers then stop by themselves.
    """
    evaluation = examination.evaluation
    cut(examination)
    total = sum(1 for _ in examination.all_tasks())
    _show(evaluation, total)
    if helpers:
        _call(evaluation, helpers)
    while evaluation.units.filter(done=False).exists():
        unit = lease(evaluation, evaluation)
        if unit is None:
            time.sleep(PAUSE_SECONDS)  # others ask what is left; what a dead one had is free after the next sweep
        else:
            store(unit, evaluation, examination)
        _show(evaluation, total)
    # What no unit holds: a question that was added by hand, say.
    left = examination.tasks()
    for start in range(0, len(left), asking.BATCH):
        EvaluationAnswer.objects.bulk_create(
            examination.answer(left[start : start + asking.BATCH]), ignore_conflicts=True
        )
        _show(evaluation, total)
    evaluation.units.all().delete()
    if examination.plan.timed:
        see_off(evaluation)


def help_out(helper: EvaluationHelper) -> None:
    """What a helper's process does: asks unit after unit until none is free.

    Raises:
        training.evaluation.runner.EvaluationRefused, generation.engines.EngineError: its model or adapter is not here.
    """
    from training.evaluation.runner import examination_of

    evaluation = Evaluation.objects.select_related("assistant", "adapter", "benchmark", "rival").get(
        pk=helper.evaluation_id
    )
    if not _free(evaluation):
        return
    examination = examination_of(evaluation, helper)
    done = 0
    helper.beat(stage="answering", done=done)
    while (unit := lease(evaluation, helper)) is not None:
        done += store(unit, helper, examination)
        helper.beat(done=done)


def lease(evaluation: Evaluation, work: BackgroundWork) -> EvaluationUnit | None:
    """The next free unit, held by ``work`` from now on; None where there is none, or nobody wants its answers any more.

    Others that look at the same instant skip the row and take the next one.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE training_evaluationunit SET token = %s WHERE id = (
                SELECT unit.id FROM training_evaluationunit unit
                WHERE unit.evaluation_id = %s AND NOT unit.done
                  AND EXISTS (SELECT 1 FROM training_evaluation WHERE id = %s AND state = ANY(%s))
                  AND (unit.token IS NULL OR NOT (
                    EXISTS (SELECT 1 FROM training_evaluationhelper WHERE token = unit.token AND state = 'running')
                    OR EXISTS (SELECT 1 FROM training_evaluation WHERE token = unit.token AND state = 'running')
                  ))
                ORDER BY unit.number LIMIT 1 FOR UPDATE OF unit SKIP LOCKED
            ) RETURNING id
            """,
            [work.token, evaluation.pk, evaluation.pk, [state.value for state in HELPED]],
        )
        found = cursor.fetchone()
    return EvaluationUnit.objects.get(pk=found[0]) if found else None


def store(unit: EvaluationUnit, work: BackgroundWork, examination: Examination) -> int:
    """Asks a unit's questions and stores the answers; how many. Nothing where the unit was taken away meanwhile: this
    process was thought dead, and another one asks it again."""
    tasks = list(tasks_of(unit, examination))
    known = set(
        examination.evaluation.answers.filter(arm=unit.arm, condition=unit.condition).values_list("item_id", flat=True)
    )
    answers = examination.answer([task for task in tasks if task.item.pk not in known])
    with transaction.atomic():
        if not EvaluationUnit.objects.filter(pk=unit.pk, token=work.token, done=False).update(done=True):
            return 0
        EvaluationAnswer.objects.bulk_create(answers, ignore_conflicts=True)
    return len(answers)


def tasks_of(unit: EvaluationUnit, examination: Examination) -> Iterator[Task]:
    items = [item for item in examination.items if unit.condition in item.contexts]
    for item in items[unit.start : unit.start + asking.BATCH]:
        yield asking.Task(item, unit.arm, unit.condition)


def helpers_wanted(units: int) -> int:
    """How many processes are worth starting beside the evaluation's own: each loads a model of its own."""
    if settings.RATCHET_FOREGROUND:
        return 0
    return max(0, min(settings.RATCHET_EVALUATION_WORKERS, units) - 1)


def memory_of_one() -> int | None:
    """Bytes that one process holds, about: weights in the number format of the setting, what `generation.fusing` keeps
    beside them (a small model's layers, or the one layer of a large one that is lent to a pass of its own; the output
    layer in float32), and the libraries. None where another server has
    the model, or the base is not here."""
    if settings.RATCHET_OPENAI_BASE_URL:
        return None
    try:
        shapes = [item for path in base_folder().glob("*.safetensors") for item in shapes_of(path).items()]
    except (EngineError, OSError, ValueError):
        return None
    bytes_each = 2 if settings.RATCHET_ENGINE_DTYPE == "bfloat16" else 4
    held = bytes_each * sum(math.prod(shape) for _, shape in shapes)
    each: Counter[str] = Counter()
    for name, shape in shapes:
        if ".layers." in name:
            each[name.partition(".layers.")[2].partition(".")[0]] += bytes_each * math.prod(shape)
    layers = each.total()
    if layers > PACKED_BYTES:
        held += max(each.values())
    elif bytes_each == 4:
        held += layers
    head = 4 * max((math.prod(shape) for name, shape in shapes if name.endswith(HEADS)), default=0)
    return LIBRARY_BYTES + held + (head if head <= HEAD_BYTES else 0)


def dismiss(evaluation: Evaluation) -> None:
    """Asks helpers to stop that are still at it; they notice it at their next beat."""
    for helper in evaluation.helpers.active():
        helper.request_cancel()


def see_off(evaluation: Evaluation) -> None:
    """Sends helpers home and waits until they are gone: one that loads its model beside what is timed next would be in
    the times. Not for ever: one that was killed counts as running until the sweep sees it.

    Raises:
        WorkCancelled, WorkLost: as `BackgroundWork.beat`.
    """
    dismiss(evaluation)
    end = time.monotonic() + LEAVE_SECONDS
    while evaluation.helpers.active().exists() and time.monotonic() < end:
        evaluation.beat(stage="waiting for helpers to end")
        time.sleep(PAUSE_SECONDS)


def _call(evaluation: Evaluation, helpers: int) -> None:
    """Queues helpers; those of an earlier attempt that are still at it are not doubled."""
    for place in range(1, helpers + 1):
        helper, made = EvaluationHelper.objects.get_or_create(
            evaluation=evaluation, place=place, defaults={"assistant_id": evaluation.assistant_id}
        )
        ended = not made and not helper.is_active
        if ended:
            again: dict[str, Any] = {"state": BackgroundWork.State.QUEUED, "attempt": 0, "error": "", "token": None}
            EvaluationHelper.objects.filter(pk=helper.pk, state=helper.state).update(
                **again, cancel_requested_at=None, finished_at=None
            )
            helper.refresh_from_db()
        if made or ended:
            launch(helper)


def _free(evaluation: Evaluation) -> bool:
    return evaluation.state in HELPED and evaluation.units.filter(done=False).exists()


def _show(evaluation: Evaluation, total: int) -> None:
    beside = evaluation.helpers.filter(state=BackgroundWork.State.RUNNING).count()
    stage = f"answering in {1 + beside} processes" if beside else "answering"
    evaluation.beat(stage=stage, done=evaluation.answers.count(), total=total)
