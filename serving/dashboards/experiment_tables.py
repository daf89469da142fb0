"""What the page of an experiment lays out: rows and points, made of its looks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from serving.experiments.models import ArmName, Experiment, ExperimentLook, ShadowAnswer
from serving.experiments.plan import OUTCOMES

POINTS = 200
STAGES = (
    (Experiment.Stage.SHADOW, "answers unseen, beside what is live"),
    (Experiment.Stage.CANARY, "few users meet it"),
    (Experiment.Stage.AB, "both are compared"),
    ("live", "answers everybody"),
)


SIGNS = {"done": "✓", "here": "●", "back": "✗", "skipped": "◌"}
INSTEAD = {"skipped": "skipped", "back": "it ended here"}
"""What a step says in place of what it is for."""


def step_rows(experiment: Experiment, taken: Collection[str]) -> list[dict[str, Any]]:
    """The way from shadow to live: each step done, here, ahead, skipped, or where it ended without going live.

    ``taken``: the actions of its trail; one may go live from any step, so where it is does not say where it was."""
    names = [str(name) for name, _ in STAGES]
    place = _place(experiment, names, taken)
    rows = []
    for number, (name, (_, purpose)) in enumerate(zip(names, STAGES, strict=True)):
        state = "ahead" if number > place else "done" if name in taken else "skipped"
        if number == place:
            state = "here" if experiment.is_running or name == "live" else "back"
        label = "Live" if name == "live" else Experiment.Stage(name).label
        said = INSTEAD.get(state, purpose)
        rows.append({"label": label, "explained": said, "state": state, "sign": SIGNS.get(state, "")})
    return rows


def _place(experiment: Experiment, names: Sequence[str], taken: Collection[str]) -> int:
    """The number of the step at which it is or ended."""
    if experiment.is_running:
        return names.index(experiment.stage)
    if experiment.ending == Experiment.Ending.PROMOTED:
        return len(names) - 1
    return max((number for number, name in enumerate(names) if name in taken), default=-1)


def outcome_rows(experiment: Experiment, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    primary = experiment.plan.get("primary", "trouble")
    found = result.get("outcomes") or {}
    rows = [
        {"name": name, "label": known.label, "explained": known.explained, "primary": name == primary, **found[name]}
        for name, known in OUTCOMES.items()  # in its order: the database sorts the keys of what it stores
        if name in found
    ]
    return sorted(rows, key=lambda row: not row["primary"])


def guardrail_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = {one["name"]: one for one in result.get("guardrails") or ()}
    return [
        {**found[name], "label": known.label, "explained": known.explained}
        for name, known in OUTCOMES.items()
        if name in found
    ]


def chart_of(experiment: Experiment, looks: Sequence[ExperimentLook]) -> dict[str, Any]:
    """The primary outcome's difference with its interval over time, in points: of the newest epoch that has any. Every
    n-th look where there are many; the newest is always there."""
    primary = experiment.plan.get("primary", "trouble")
    points = [
        (one, found)
        for one in looks
        if (found := (one.result.get("outcomes") or {}).get(primary)) and "difference" in found
    ]
    if not points:
        return {}
    epoch = points[-1][0].epoch
    own = [point for point in points if point[0].epoch == epoch]
    every = max(1, -(-len(own) // POINTS))
    chosen = own[::-every][::-1]
    return {
        "labels": [one.at.strftime("%d %b %H:%M") for one, _ in chosen],
        "difference": [round(100 * found["difference"], 2) for _, found in chosen],
        "low": [round(100 * found["low"], 2) for _, found in chosen],
        "high": [round(100 * found["high"], 2) for _, found in chosen],
        "units": [sum(one.result.get("units", {}).values()) for one, _ in chosen],
        "axis": f"{OUTCOMES[primary].label}: candidate − live, points",
    }


def table_of(chart: Mapping[str, Any], most: int = 24) -> list[tuple[Any, ...]]:
    """The chart in numbers, the newest first."""
    if not chart:
        return []
    rows = list(zip(*(chart[name] for name in ("labels", "units", "difference", "low", "high")), strict=True))[::-1]
    every = max(1, -(-len(rows) // most))
    return rows[::every]


def answers_of(rows: Iterable[ShadowAnswer]) -> list[dict[str, Any]]:
    """Both answers to each question, the live one first."""
    found = []
    for row in rows:
        other = {"text": row.text, "declined": row.declined, "shown": False}
        shown = {"text": row.turn.response, "declined": row.turn.declined, "shown": True}
        control, candidate = (shown, other) if row.arm == ArmName.CANDIDATE else (other, shown)
        found.append({
            "turn": row.turn, "control": control, "candidate": candidate,
            "same": " ".join(row.text.split()) == " ".join(row.turn.response.split()),
        })  # fmt: skip
    return found
