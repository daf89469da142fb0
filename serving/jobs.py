"""Background entry points of the serving room."""

from __future__ import annotations

from assistants.schedules import DAILY, WEEKLY, ensure_schedule
from serving import spool


def drain_spool() -> int:
    return spool.drain()


def ensure_drain() -> None:
    """Schedules the storing of spooled turns for each minute."""
    ensure_schedule("Store spooled turns", "serving.jobs.drain_spool", 1)


def step_experiments() -> int:
    """Outcomes, guardrails and steps of every running experiment. Run each minute."""
    from serving.experiments import rules

    return rules.run_all()


def answer_shadows() -> int:
    """Answers of the other arm, and what must be warm. Run each minute, apart from the guardrails: these never wait for
    an engine."""
    from serving import warming
    from serving.experiments import erasing, shadow

    erasing.forget_masked()
    if not warming.is_there():
        return 0
    warm()
    return shadow.answer_all()


def warm(assistant: int | None = None) -> int:
    """Loads into the engine what may be asked in the next second."""
    from serving import warming

    return warming.warm(assistant)


def suggest_answers() -> int:
    """Passes over queues that ask the live model for suggestions. Run each minute; other processes do the asking."""
    from serving.suggesting.services import begin_due

    return begin_due()


def report_drift() -> int:
    """A report of last week for each assistant with an adapter. Run each week."""
    from serving.drift.services import report_all

    return report_all()


def watch_alerts() -> int:
    """Raises, clears and sends. Run each minute."""
    from serving.alerts import sending, watching

    watching.look()
    return sending.send_due()


def count_traffic() -> int:
    """The hours in which something changed. Run each minute."""
    from serving.traffic.counting import count

    return count()


def forget_old_turns(begun: str = "", assistant: int = 0, asked_at: str = "", turn: str = "") -> dict[str, int]:
    """Of the assistants that keep turns for a time; and what only running experiments need. Run each day.

    Where more is left than fits in one job it queues itself again behind what waits, from that turn on; after a day the
    next day's job has taken over.
    """
    from datetime import datetime, timedelta
    from uuid import UUID

    from django.utils import timezone
    from django_q.tasks import async_task

    from serving.experiments.units import forget_ended
    from serving.retention import Place, forget_old

    after = Place(assistant, datetime.fromisoformat(asked_at), UUID(turn)) if turn else None
    if after is None:
        forget_ended()
        begun = timezone.now().isoformat()
    elif timezone.now() - datetime.fromisoformat(begun) > timedelta(days=1):
        return {}
    gone, rest = forget_old(after)
    if rest is not None:
        place = (rest.assistant, rest.asked_at.isoformat(), str(rest.turn))
        async_task("serving.jobs.forget_old_turns", begun, *place, task_name="Forget old turns")
    return gone


def ensure_schedules() -> None:
    """What runs by itself for experiments, drift and alerts."""
    for name, func, every in (
        ("Step experiments", "serving.jobs.step_experiments", 1),
        ("Answer in shadow", "serving.jobs.answer_shadows", 1),
        ("Count traffic", "serving.jobs.count_traffic", 1),
        ("Ask for suggestions", "serving.jobs.suggest_answers", 1),
        ("Watch for alerts", "serving.jobs.watch_alerts", 1),
        ("Forget old turns", "serving.jobs.forget_old_turns", DAILY),
        ("Report drift", "serving.jobs.report_drift", WEEKLY),
    ):
        ensure_schedule(name, func, every)
