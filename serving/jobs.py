"""Background entry points of the serving room."""

from __future__ import annotations

from serving import spool


def drain_spool() -> int:
    return spool.drain()


def ensure_drain() -> None:
    """Schedules the storing of spooled turns for each minute."""
    from django_q.models import Schedule

    Schedule.objects.get_or_create(
        name="Store spooled turns",
        defaults={"func": "serving.jobs.drain_spool", "schedule_type": Schedule.MINUTES, "minutes": 1, "repeats": -1},
    )


def step_experiments() -> int:
    """Outcomes, guardrails and steps of every running experiment. Run each minute."""
    from serving.experiments import rules

    return rules.run_all()


def answer_shadows() -> int:
    """Answers of the other arm, and what must be warm. Run each minute, apart from the guardrails: these never wait for
    an engine."""
    from serving.experiments import erasing, shadow

    erasing.forget_masked()
    warm()
    return shadow.answer_all()


def warm(assistant: int | None = None) -> int:
    """Loads into the engine what may be asked in the next second."""
    from serving import warming

    return warming.warm(assistant)


def suggest_answers() -> int:
    """Passes over queues that ask the live model for suggestions. Run each minute; the asking has processes of its own.
    """
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


def forget_old_turns() -> dict[str, int]:
    """Of the assistants that keep turns for a time; and what only running experiments need. Run each day."""
    from serving.experiments.units import forget_ended
    from serving.retention import forget_old

    forget_ended()
    return forget_old()


def ensure_schedules() -> None:
    """What runs by itself for experiments, drift and alerts."""
    from django_q.models import Schedule

    minutely = {"schedule_type": Schedule.MINUTES, "minutes": 1, "repeats": -1}
    for name, func, when in (
        ("Step experiments", "serving.jobs.step_experiments", minutely),
        ("Answer in shadow", "serving.jobs.answer_shadows", minutely),
        ("Count traffic", "serving.jobs.count_traffic", minutely),
        ("Ask for suggestions", "serving.jobs.suggest_answers", minutely),
        ("Watch for alerts", "serving.jobs.watch_alerts", minutely),
        ("Forget old turns", "serving.jobs.forget_old_turns", {"schedule_type": Schedule.DAILY, "repeats": -1}),
        ("Report drift", "serving.jobs.report_drift", {"schedule_type": Schedule.WEEKLY, "repeats": -1}),
    ):
        Schedule.objects.get_or_create(name=name, defaults={"func": func, **when})
