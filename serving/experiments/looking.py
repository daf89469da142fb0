"""What an experiment says now: outcomes by arm with always-valid intervals, guardrails, the arms' shares, a verdict.

Counted by unit: each conversation or user gives one mean, so that somebody who asks forty questions weighs as much as
somebody who asks one, and answers to the same person are not taken for independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Avg, Count, F, Q

from capture.models import Turn
from serving.experiments.models import ArmName, Experiment, ExperimentLook, Exposure, ShadowAnswer
from serving.experiments.plan import OUTCOMES, Plan
from serving.experiments.sequential import Interval, Sums, compare_rates, share_p, units_needed
from serving.experiments.units import count_units

ALPHA = 0.05
START_UNITS = 50
"""In each arm, before a verdict: the method is asymptotic."""
GUARD_UNITS = 20
"""In each arm, before a guardrail may act: its intervals are careful with few (see `compare_rates`)."""
SHARE_ALPHA = 0.001
SHADOWS = 2_000
"""Shadow answers that a look compares: twice what a plan may ask for, and bounded however long the experiment runs."""
NEWEST = 1_000
"""Questions that are looked at for how many name neither conversation nor user."""
KEEP_EVERY = timedelta(minutes=15)
"""Looks are kept that far apart; the newest is always there."""


@dataclass(frozen=True)
class Compared:
    """One outcome in both arms. ``interval`` is None while an arm holds too few units to say."""

    name: str
    control: Sums
    candidate: Sums
    interval: Interval | None

    def plain(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            arm: {"n": sums.n, "mean": round(sums.mean, 5)}
            for arm, sums in (("control", self.control), ("candidate", self.candidate))
        }
        if self.interval is not None:
            one = self.interval
            out |= {name: round(float(getattr(one, name)), 5) for name in ("difference", "low", "high", "p")}
        return out


def look(experiment: Experiment, *, now: datetime) -> dict[str, Any]:
    """Numbers only: {"units": {arm: n}, "questions": {arm: n}, "latency": {arm: ms}, "responded": {arm: share},
    "outcomes": {name: `Compared.plain`}, "guardrails": [{name, tolerance, low, tripped}], "share_p", "share_alarm",
    "unnamed" of the "newest" questions that belong to no unit, "verdict", "sentence", "advice", "days_left"}.

    What is new since the last look is counted by unit first; then five queries. In shadow: as `shadow_summary`.
    """
    plan = experiment.rules
    result: dict[str, Any] = {"shadow": shadow_summary(experiment)}
    if not experiment.shows_candidate:
        return result
    count_units(experiment)
    sums = _sums(experiment)
    units = {arm: sums[arm]["units"] for arm in ArmName.values}
    compared = {name: _compared(name, sums, START_UNITS, ALPHA) for name in OUTCOMES}
    guardrails = [_guardrail(name, tolerance, sums, plan) for name, tolerance in plan.guardrails.items()]
    total = units["control"] + units["candidate"]
    unnamed, newest = _unnamed(experiment, now)
    p = share_p(units["candidate"], total, experiment.share)
    result |= {
        "units": units,
        "questions": {arm: sums[arm]["questions"] for arm in ArmName.values},
        "latency": {arm: sums[arm]["latency"] for arm in ArmName.values},
        "responded": {arm: sums[arm]["responded"] for arm in ArmName.values},
        "outcomes": {name: one.plain() for name, one in compared.items()},
        "guardrails": guardrails,
        "share_p": p,
        "share_alarm": p < SHARE_ALPHA,
        "unnamed": unnamed,
        "newest": newest,
    }
    return result | _verdict(experiment, compared[plan.primary], result, now)


def keep(experiment: Experiment, result: dict[str, Any], *, now: datetime) -> ExperimentLook:
    """Stores a look in place of the newest one, unless that is old enough to stay as a point of the chart."""
    newest = list(ExperimentLook.objects.filter(experiment=experiment).order_by("-at")[:2])
    replaces = (
        newest and newest[0].epoch == experiment.epoch and len(newest) > 1 and newest[0].at - newest[1].at < KEEP_EVERY
    )
    if not replaces:
        return ExperimentLook.objects.create(
            experiment=experiment, at=now, stage=experiment.stage, epoch=experiment.epoch, result=result
        )
    newest[0].at, newest[0].result = now, result
    newest[0].save(update_fields=["at", "result"])
    return newest[0]


def shadow_summary(experiment: Experiment) -> dict[str, Any]:
    """What was compared unseen, of the newest `SHADOWS`. ``shown`` is what the user got, ``other`` what the other arm
    would have said."""
    newest = ShadowAnswer.objects.filter(experiment=experiment, arm=ArmName.CANDIDATE).order_by("-created_at")
    rows = ShadowAnswer.objects.filter(pk__in=newest.values("pk")[:SHADOWS]).order_by()
    counted = rows.aggregate(
        compared=Count("pk", filter=Q(error="")),
        failed=Count("pk", filter=~Q(error="")),
        same=Count("pk", filter=Q(error="", text=F("turn__response"))),
        other_declined=Count("pk", filter=Q(error="", declined=True)),
        shown_declined=Count("pk", filter=Q(error="", turn__declined=True)),
        other_unsupported=Count("pk", filter=Q(error="", supported=False)),
        shown_unsupported=Count("pk", filter=Q(error="", shown_supported=False)),
        seconds=Avg("seconds", filter=Q(error="")),
    )
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in counted.items()}


def _sums(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """{arm: {"units", "questions", "latency", "responded", outcome: `Sums`}} of the current epoch, in one statement."""
    by_arm = [f"count({name}), coalesce(avg({name}), 0), coalesce(var_samp({name}), 0)" for name in OUTCOMES]
    statement = f"""
        SELECT arm, count(*), sum(questions), avg(latency_ms), avg(responded::int), {", ".join(by_arm)}
        FROM serving_exposedunit WHERE experiment_id = %s AND epoch = %s GROUP BY arm
    """  # noqa: S608 - the columns are ours
    empty: dict[str, Any] = {"units": 0, "questions": 0, "latency": None, "responded": None}
    found = {arm: empty | {name: Sums(0, 0.0, 0.0) for name in OUTCOMES} for arm in ArmName.values}
    with connection.cursor() as cursor:
        cursor.execute(statement, [experiment.pk, experiment.epoch])
        for arm, units, questions, latency, responded, *rest in cursor.fetchall():
            triples = zip(rest[::3], rest[1::3], rest[2::3], strict=True)
            found[arm] = {
                "units": units,
                "questions": int(questions),
                "latency": None if latency is None else round(float(latency)),
                "responded": None if responded is None else round(float(responded), 4),
                **{
                    name: Sums(n, float(mean), float(variance))
                    for name, (n, mean, variance) in zip(OUTCOMES, triples, strict=True)
                },
            }
    return found


def _compared(name: str, sums: dict[str, dict[str, Any]], least: int, alpha: float) -> Compared:
    control, candidate = sums["control"][name], sums["candidate"][name]
    enough = min(control.n, candidate.n) >= least
    return Compared(
        name, control, candidate, compare_rates(control, candidate, alpha=alpha) if enough else None
    )  # fmt: skip


def _guardrail(name: str, tolerance: float, sums: dict[str, dict[str, Any]], plan: Plan) -> dict[str, Any]:
    """Each at its part of 5 %, so that all of them together wrong a harmless candidate at most that often."""
    one = _compared(name, sums, GUARD_UNITS, ALPHA / len(plan.guardrails))
    low = None if one.interval is None else one.interval.low
    return {
        "name": name,
        "tolerance": tolerance,
        "control": round(one.control.mean, 5),
        "candidate": round(one.candidate.mean, 5),
        "n": [one.control.n, one.candidate.n],
        "low": None if low is None else round(low, 5),
        "tripped": low is not None and low > tolerance,
    }


def _unnamed(experiment: Experiment, now: datetime) -> tuple[int, int]:
    """(questions of our chat that belong to no unit, of how many of the newest in this stage)."""
    asked = (
        Turn.objects.of(experiment.assistant)
        .tagged(["chat"])
        .filter(asked_at__gte=experiment.stage_since, asked_at__lte=now)
    )
    newest = list(asked.newest_first().values_list("pk", flat=True)[:NEWEST])
    met = Exposure.objects.filter(experiment=experiment, turn__in=newest).count()
    return len(newest) - met, len(newest)


def _verdict(experiment: Experiment, primary: Compared, result: dict[str, Any], now: datetime) -> dict[str, Any]:
    plan = experiment.rules
    days = (now - experiment.stage_since) / timedelta(days=1)
    left = round(max(plan.days - days, 0.0), 1)
    verdict, sentence = _said(plan, primary)
    advice = "Go on."
    if primary.interval is not None:
        advice = _advice(experiment, verdict, primary, {**result, "days": days, "days_left": left})
    return {"verdict": verdict, "sentence": sentence, "advice": advice, "days_left": left}


def _said(plan: Plan, primary: Compared) -> tuple[str, str]:
    label = OUTCOMES[plan.primary].label.lower()
    one = primary.interval
    if one is None:
        have = min(primary.control.n, primary.candidate.n)
        sentence = f"Too early: {have} of {START_UNITS} {plan.unit}s of the smaller arm have an outcome for “{label}”."
        return "open", sentence
    spoken = (
        f"{label} {primary.candidate.mean:.1%} instead of {primary.control.mean:.1%} "
        f"({one.difference * 100:+.1f} points, {one.low * 100:+.1f} to {one.high * 100:+.1f})"
    ).replace("-", "−")
    if one.high < 0:
        return "better", f"The candidate is better: {spoken}."
    if one.low > 0:
        return "worse", f"The candidate is worse: {spoken}."
    if one.high < plan.margin:
        return "not_worse", f"The candidate is not worse by {plan.margin * 100:g} points: {spoken}."
    return "open", f"No difference is shown yet: {spoken}."


def _advice(experiment: Experiment, verdict: str, primary: Compared, result: dict[str, Any]) -> str:
    plan, days, left = experiment.rules, result["days"], result["days_left"]
    if result["share_alarm"]:
        return "Find out first why the arms do not get their shares; until then no number here can be trusted."
    if verdict == "worse":
        return "Stop: take the candidate back."
    if verdict == "better" or (verdict == "not_worse" and plan.goal == "not_worse"):
        if experiment.stage == Experiment.Stage.AB:
            return "Stop: let the candidate go live."
        return "Go on to the A/B."
    units = primary.control.n + primary.candidate.n
    pooled = (primary.control.n * primary.control.mean + primary.candidate.n * primary.candidate.mean) / units
    interval = primary.interval
    assert interval is not None
    effect = max(abs(interval.difference), plan.margin)
    needed = units_needed(effect, max(pooled * (1 - pooled), 1e-4), experiment.share)
    per_day = units / max(days, 1 / 24)
    more = max(needed - units, 0) / per_day
    said = f"a difference of {effect * 100:.1f} points would show after about {_days(more)} more"
    if left <= 0:
        return f"The planned {plan.days} days are over without a verdict: stop, what is live stays ({said})."
    if more > left:
        return f"At today's traffic {said}; the plan ends in {_days(left)}. Raise the share, or stop then."
    return f"Go on: at today's traffic {said}."


def _days(days: float) -> str:
    if days < 1:
        hours = max(round(days * 24), 1)
        return f"{hours} hour{'s' if hours > 1 else ''}"
    return f"{days:.0f} day{'s' if round(days) != 1 else ''}"
