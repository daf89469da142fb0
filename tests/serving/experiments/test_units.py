"""Units are kept up with their questions: what a look adds up is what all questions together say."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from capture.erasing import erase_turns
from capture.models import Feedback, Turn
from serving.experiments import exposures
from serving.experiments.looking import look
from serving.experiments.measuring import measure
from serving.experiments.models import Experiment, ExposedUnit, Exposure
from serving.experiments.services import take_back
from serving.experiments.units import count_units, forget_ended, forget_units_of
from tests.factories import make_feedback
from tests.serving.experiments.conftest import Bot


def mean(values: Iterable[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def by_hand() -> dict[tuple[str, str], tuple[Any, ...]]:
    """{(unit, arm): (questions, responded, down, declined, trouble, failed)} from every question."""
    found: dict[tuple[str, str], list[Exposure]] = {}
    for row in Exposure.objects.all():
        found.setdefault((row.unit, row.arm), []).append(row)
    return {
        key: (
            len(rows),
            any(row.down is not None for row in rows),
            mean(row.down for row in rows if not row.failed),
            mean(row.declined for row in rows if not row.failed),
            mean(
                bool(row.down or row.corrected or row.escalated or row.reformulated)
                for row in rows
                if row.turn_id is not None and not row.failed
            ),
            mean(row.failed for row in rows if row.turn_id is not None or row.failed),
        )
        for key, rows in found.items()
    }


def kept() -> dict[tuple[str, str], tuple[Any, ...]]:
    return {
        (one.unit, one.arm): (one.questions, one.responded, one.down, one.declined, one.trouble, one.failed)
        for one in ExposedUnit.objects.all()
    }


def passed(experiment: Experiment) -> None:
    exposures.flush()
    measure(experiment, now=timezone.now())
    count_units(experiment)


def test_units_follow_every_change_of_their_questions(bot: Bot) -> None:
    experiment = bot.in_ab()
    hour = timezone.now() - timedelta(hours=1)
    turns = [bot.ask(f"unit {i % 6}", thumb=-1 if i % 4 == 0 else None, declined=i % 3 == 0) for i in range(18)]
    bot.ask("never", answered=False, at=hour)
    passed(experiment)
    assert len(kept()) == 7
    assert kept() == by_hand()

    assert turns[1] is not None
    make_feedback(turns[1], value=-1)
    bot.ask("unit 2", thumb=1, at=hour)
    passed(experiment)
    assert kept() == by_hand()
    assert (
        look(experiment, now=timezone.now())["questions"]["control"]
        + sum(one.questions for one in ExposedUnit.objects.filter(arm="candidate"))
        == len(turns) + 2
    )


def test_feedback_that_was_held_for_days_counts_when_it_is_stored(bot: Bot) -> None:
    experiment = bot.in_ab()
    turn = bot.ask("patient")
    assert turn is not None
    passed(experiment)
    assert not Exposure.objects.get().down
    long_ago = timezone.now() - timedelta(days=9)
    Feedback.objects.create(
        assistant=bot.assistant, turn=turn, kind="thumb", value=-1, given_at=long_ago, received_at=long_ago
    )
    passed(experiment)
    assert Exposure.objects.get().down
    assert ExposedUnit.objects.get().trouble == 1


def test_a_pass_without_news_reads_no_question_twice(bot: Bot) -> None:
    experiment = bot.in_ab()
    for i in range(12):
        bot.ask(f"unit {i}", thumb=1)
    passed(experiment)
    assert count_units(experiment) == 0

    def touched() -> set[int]:
        """Questions that a pass has written."""
        return set(Exposure.objects.filter(counted=False).values_list("pk", flat=True))

    measure(experiment, now=timezone.now())
    assert touched() == set()
    last = Turn.objects.order_by("-pk")[0]
    make_feedback(last, value=-1)
    measure(experiment, now=timezone.now())
    assert touched() == {Exposure.objects.get(turn=last).pk}
    with CaptureQueriesContext(connection) as few:
        look(experiment, now=timezone.now())
    for i in range(12, 40):
        bot.ask(f"unit {i}")
    passed(experiment)
    make_feedback(last, kind="correction", value=None, text="No, £40.")
    measure(experiment, now=timezone.now())
    with CaptureQueriesContext(connection) as more:
        look(experiment, now=timezone.now())
    assert len(more) == len(few)


def test_what_is_erased_leaves_its_unit(bot: Bot) -> None:
    experiment = bot.in_ab()
    turns = {name: bot.ask(name.split()[0], thumb=-1) for name in ("chatty 1", "once 1")}
    turns["chatty 2"] = bot.ask("chatty", at=timezone.now() - timedelta(minutes=30))
    passed(experiment)
    assert {one.questions for one in ExposedUnit.objects.all()} == {1, 2}
    gone = [turn.pk for name, turn in turns.items() if turn is not None and name.endswith("1")]
    forget_units_of(gone)
    erase_turns(bot.assistant, gone)
    assert not ExposedUnit.objects.exists()
    passed(experiment)
    assert kept() == by_hand()
    assert [one.questions for one in ExposedUnit.objects.all()] == [1]


@pytest.mark.django_db(transaction=True)
def test_two_passes_at_once_lose_no_question(bot: Bot) -> None:
    experiment = bot.in_ab()

    def asked() -> None:
        bot.ask("one")
        exposures.flush()

    def other_pass() -> None:
        count_units(experiment)
        connection.close()

    asked()
    slow = threading.Thread(target=other_pass)
    with transaction.atomic():
        count_units(experiment)
        meanwhile = threading.Thread(target=lambda: (asked(), connection.close()))
        for thread, seconds in ((meanwhile, 30), (slow, 1)):
            thread.start()
            thread.join(seconds)
        meanwhile = threading.Thread(target=lambda: (asked(), connection.close()))
        meanwhile.start()
        meanwhile.join(30)
        count_units(experiment)
    slow.join(30)
    assert [one.questions for one in ExposedUnit.objects.all()] == [3]


@pytest.mark.django_db(transaction=True)
def test_a_pass_waits_for_an_erasure_and_the_two_never_for_each_other(bot: Bot) -> None:
    """The pass would change the row of a question whose turn is being deleted, and others that the erasure wants."""
    experiment = bot.in_ab()
    turns = [bot.ask(name) for name in ("one", "two")]
    exposures.flush()
    errors: list[BaseException] = []

    def a_pass() -> None:
        try:
            measure(experiment, now=timezone.now())
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    other = threading.Thread(target=a_pass)
    with transaction.atomic():
        forget_units_of([turns[0].pk])  # not linked yet: the pass would find it now
        other.start()
        other.join(1)
        assert other.is_alive()
        erase_turns(bot.assistant, [turns[0].pk])
    other.join(30)
    assert errors == []
    found = dict(Exposure.objects.filter(experiment=experiment).values_list("client_id", "turn"))
    assert found == {turns[0].client_id: None, turns[1].client_id: turns[1].pk}


@pytest.mark.parametrize("runs", [True, False])
def test_units_are_kept_as_long_as_the_experiment_runs(bot: Bot, runs: bool) -> None:
    experiment = bot.in_ab()
    bot.ask("one")
    passed(experiment)
    if not runs:
        take_back(experiment=experiment, actor=bot.ada, reason="enough")
    assert forget_ended() == (0 if runs else 1)
    assert Exposure.objects.count() == 1
