"""One evaluation, several processes: every unit once, the same answers to the byte, whoever dies."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest
from django.db import connection

from assistants.background import BackgroundWork, WorkCancelled
from assistants.models import Assistant
from tests.training.evaluation.conftest import evaluate
from training.evaluation import asking, runner, sharing
from training.evaluation.gate import GateRule
from training.evaluation.models import EvaluationHelper, EvaluationUnit
from training.evaluation.plan import Plan
from training.evaluation.runner import examination_of
from training.evaluation.sharing import cut, help_out, helpers_wanted, lease, store
from training.models import Adapter, Benchmark, Evaluation


def answers(evaluation: Evaluation) -> dict[Any, Any]:
    rows = evaluation.answers.select_related("item")
    return {(a.item.key, a.arm, a.condition): (a.completion, a.text, a.measures) for a in rows}


def queued(adapter: Adapter, benchmark: Benchmark) -> Evaluation:
    rule = GateRule()
    return Evaluation.objects.create(
        assistant=adapter.assistant, adapter=adapter, benchmark=benchmark, gate_rule=rule.as_dict(),
        plan=Plan().complete(rule).as_dict(), prompt_digest=adapter.prompt_digest, base_digest=adapter.base_digest,
    )  # fmt: skip


def helper_of(evaluation: Evaluation, place: int = 1) -> EvaluationHelper:
    made = EvaluationHelper.objects.create(evaluation=evaluation, assistant=evaluation.assistant, place=place)
    assert made.claim()
    return made


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "BATCH", 2)
    monkeypatch.setattr(sharing, "PAUSE_SECONDS", 0.0)


@pytest.mark.usefixtures("small")
def test_shared_it_says_what_one_process_says(tuned: Adapter, frozen: Benchmark) -> None:
    alone = evaluate(tuned, frozen)
    shared = queued(tuned, frozen)
    assert shared.claim()
    mine = examination_of(shared, shared)
    cut(mine)
    cut(mine)  # a second attempt makes none twice
    first, second = helper_of(shared), helper_of(shared, 2)
    theirs = {helper.pk: examination_of(shared, helper) for helper in (first, second)}
    units = shared.units.count()
    assert units == len({(u.arm, u.condition, u.start) for u in shared.units.all()}) > 6
    # Unit by unit in turn; the second helper asks the last ones first.
    held = [unit for _ in range(units) if (unit := lease(shared, second))]
    assert lease(shared, first) is None
    for unit in reversed(held[3:]):
        assert store(unit, second, theirs[second.pk]) > 0
    EvaluationHelper.objects.filter(pk=second.pk).update(token=None, state="queued")  # killed with three in hand
    assert store(held[0], second, theirs[second.pk]) == 0 or second.token is not None
    unit = lease(shared, first)
    assert unit is not None
    assert store(unit, first, theirs[first.pk]) > 0
    BackgroundWork.finish(first, BackgroundWork.State.SUCCEEDED)
    shared.release()
    runner.perform(claimed(shared))
    shared.refresh_from_db()
    assert answers(shared) == answers(alone)
    assert shared.units.count() == 0
    for name in ("results", "gate", "verdict"):
        assert getattr(shared, name) == getattr(alone, name), name
    told, same = dict(shared.comparison), dict(alone.comparison)
    told.pop("attempts"), same.pop("attempts")
    assert told == same
    assert shared.progress["done"] == shared.progress["total"] == shared.answers.count()


def claimed(evaluation: Evaluation) -> Evaluation:
    fresh = Evaluation.objects.get(pk=evaluation.pk)
    assert fresh.claim()
    return fresh


@pytest.mark.usefixtures("small")
def test_a_unit_is_free_when_who_has_it_is_gone_and_what_a_ghost_brings_is_dropped(
    tuned: Adapter, frozen: Benchmark
) -> None:
    evaluation = queued(tuned, frozen)
    assert evaluation.claim()
    examination = examination_of(evaluation, evaluation)
    cut(examination)
    dead, living = helper_of(evaluation), helper_of(evaluation, 2)
    taken = lease(evaluation, dead)
    assert taken is not None
    other = lease(evaluation, living)
    assert other is not None
    assert other.pk != taken.pk
    EvaluationHelper.objects.filter(pk=dead.pk).update(token=uuid.uuid4())  # the sweep gave its work to another process
    again = lease(evaluation, living)
    assert again is not None
    assert again.pk == taken.pk
    assert store(taken, dead, examination) == 0
    assert evaluation.answers.count() == 0
    assert store(again, living, examination) == 2
    # Nobody asks for what was cancelled; while its own process is replaced others go on.
    Evaluation.objects.filter(pk=evaluation.pk).update(state="queued", token=None)
    assert lease(evaluation, living) is not None
    Evaluation.objects.filter(pk=evaluation.pk).update(state="cancelled")
    assert lease(evaluation, living) is None


@pytest.mark.usefixtures("small")
def test_a_helper_asks_what_is_free_and_loads_no_model_for_nothing(
    tuned: Adapter, frozen: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = queued(tuned, frozen)
    assert evaluation.claim()
    cut(examination_of(evaluation, evaluation))
    helper = helper_of(evaluation)
    help_out(helper)
    assert not EvaluationUnit.objects.filter(evaluation=evaluation, done=False).exists()
    assert evaluation.answers.count() == helper.progress["done"] > 20
    late = helper_of(evaluation, 2)
    monkeypatch.setattr(runner, "examination_of", None)
    help_out(late)


def test_single_answers_are_timed_when_the_helpers_are_gone(
    tuned: Adapter, frozen: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that still loads its model takes the processor from what is measured."""
    evaluation = queued(tuned, frozen)
    assert evaluation.claim()
    loading = helper_of(evaluation)
    waiting = EvaluationHelper.objects.create(evaluation=evaluation, assistant=evaluation.assistant, place=2)
    looks: list[str] = []

    def leave(seconds: float) -> None:
        evaluation.refresh_from_db()
        looks.append(evaluation.progress["stage"])
        if len(looks) == 3:  # the model is there, and its next beat notices that nobody waits for it
            with pytest.raises(WorkCancelled):
                loading.beat(stage="answering")
            loading.finish(BackgroundWork.State.CANCELLED)

    monkeypatch.setattr(sharing.time, "sleep", leave)
    sharing.see_off(evaluation)
    waiting.refresh_from_db()
    assert waiting.state == BackgroundWork.State.CANCELLED  # it never loads anything
    assert looks == ["waiting for helpers to end"] * 3
    # One that was killed is not waited for longer than that.
    EvaluationHelper.objects.filter(pk=loading.pk).update(state="running")
    monkeypatch.setattr(sharing, "LEAVE_SECONDS", 0.0)
    sharing.see_off(evaluation)
    assert len(looks) == 3


def test_a_helper_that_comes_after_the_prompt_format_has_changed_asks_nothing(
    tuned: Adapter, frozen: Benchmark
) -> None:
    """Else one evaluation would hold answers to two prompts."""
    evaluation = queued(tuned, frozen)
    assert evaluation.claim()
    cut(examination_of(evaluation, evaluation))
    Assistant.objects.filter(pk=evaluation.assistant_id).update(decline_sentence="Our documents do not say.")
    with pytest.raises(runner.EvaluationRefused, match="prompt format"):
        help_out(helper_of(evaluation))
    assert not evaluation.answers.exists()


def test_a_helper_that_computes_in_another_number_format_asks_nothing(
    tuned: Adapter, frozen: Benchmark, settings: Any
) -> None:
    evaluation = queued(tuned, frozen)
    assert evaluation.claim()
    cut(examination_of(evaluation, evaluation))
    settings.RATCHET_ENGINE_DTYPE = "bfloat16"
    with pytest.raises(runner.EvaluationRefused, match="RATCHET_ENGINE_DTYPE=float32"):
        help_out(helper_of(evaluation))
    assert not evaluation.answers.exists()


def test_as_many_as_are_set_and_never_more_than_there_is_to_ask(settings: Any) -> None:
    settings.RATCHET_EVALUATION_WORKERS = 4
    settings.RATCHET_FOREGROUND = False
    assert [helpers_wanted(units) for units in (0, 1, 3, 99)] == [0, 0, 2, 3]
    settings.RATCHET_FOREGROUND = True
    assert helpers_wanted(99) == 0


@pytest.mark.usefixtures("small")
def test_helpers_are_queued_once_and_dismissed_with_their_evaluation(
    tuned: Adapter, frozen: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[Any] = []
    monkeypatch.setattr(sharing, "launch", launched.append)
    evaluation = queued(tuned, frozen)
    sharing._call(evaluation, 2)
    sharing._call(evaluation, 2)  # the evaluation's process was replaced
    assert [helper.place for helper in launched] == [1, 2]
    EvaluationHelper.objects.filter(place=2).update(state="failed", error="no room")
    sharing._call(evaluation, 2)
    assert [helper.place for helper in launched] == [1, 2, 2]
    sharing.dismiss(evaluation)
    assert {helper.state for helper in EvaluationHelper.objects.all()} == {"cancelled"}


@pytest.mark.django_db(transaction=True)
def test_two_that_look_at_the_same_instant_get_two_units() -> None:
    from tests.factories import make_adapter, make_assistant, make_evaluation

    evaluation = make_evaluation(make_adapter(make_assistant()), state="queued")
    assert evaluation.claim()
    EvaluationUnit.objects.bulk_create(
        EvaluationUnit(evaluation=evaluation, number=n, arm="base", condition="clean", start=n) for n in range(40)
    )
    workers = [helper_of(evaluation, place) for place in range(1, 5)]
    got: dict[int, list[int]] = {}
    gate = threading.Barrier(len(workers))

    def take(helper: EvaluationHelper) -> None:
        gate.wait()
        found = []
        while (unit := lease(evaluation, helper)) is not None:
            found.append(unit.pk)
        got[helper.place] = found
        connection.close()

    threads = [threading.Thread(target=take, args=(helper,)) for helper in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [pk for found in got.values() for pk in found]
    assert len(everything) == len(set(everything)) == 40


def test_what_one_process_holds_is_said(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    from tests.tiny_model import shared_base

    settings.RATCHET_BASE_MODEL = str(shared_base())
    held = sharing.memory_of_one()
    assert held is not None
    assert sharing.LIBRARY_BYTES < held < sharing.LIBRARY_BYTES + 10 * 1024**2
    model = AutoModelForCausalLM.from_pretrained(shared_base())
    weights, head = model.num_parameters(), model.lm_head.weight.numel()
    layers = sum(parameter.numel() for parameter in model.model.layers.parameters())
    assert held == sharing.LIBRARY_BYTES + 4 * (weights + layers + head)
    monkeypatch.setattr(sharing, "PACKED_BYTES", 0)  # as of a large one: its layers are there once
    one = sum(parameter.numel() for parameter in model.model.layers[0].parameters())  # lent to a pass of its own
    assert sharing.memory_of_one() == sharing.LIBRARY_BYTES + 4 * (weights + one + head)
    settings.RATCHET_ENGINE_DTYPE = "bfloat16"
    assert sharing.memory_of_one() == sharing.LIBRARY_BYTES + 2 * (weights + one) + 4 * head
    settings.RATCHET_OPENAI_BASE_URL = "http://127.0.0.1:9/v1"
    assert sharing.memory_of_one() is None
    settings.RATCHET_OPENAI_BASE_URL = ""
    settings.RATCHET_BASE_MODEL = "/nowhere/at/all"
    assert sharing.memory_of_one() is None
