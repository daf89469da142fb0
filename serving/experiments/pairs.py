"""Live pairs: questions of users that both arms answered, for people to compare blind."""

from __future__ import annotations

from collections.abc import Collection

from django.contrib.auth.models import User

from annotations.comparing.models import ComparisonRound
from annotations.comparing.services import PairTexts, create_round
from capture.models import Turn
from serving.experiments.models import ArmName, Experiment, ShadowAnswer
from serving.experiments.shadow import turn_prompt

SOURCE = "experiment"
MOST = 2_000
"""Newest answers that pairs are drawn from."""


def start_live_comparison(
    *, experiment: Experiment, name: str, pairs: int, people: Collection[User], created_by: User | None
) -> ComparisonRound:
    """Draws ``pairs`` of the questions that both answered differently.

    Raises:
        django.core.exceptions.ValidationError: as `annotations.comparing.services.create_round`.
    """
    found, questions = live_pairs(experiment)
    return create_round(
        assistant=experiment.assistant,
        name=name,
        source=(SOURCE, experiment.pk),
        held_out="",
        arms=(str(experiment.candidate), str(experiment.control or "base model")),
        found=found,
        questions=questions,
        pairs=pairs,
        people=people,
        created_by=created_by,
    )


def live_pairs(experiment: Experiment) -> tuple[list[PairTexts], int]:
    """Questions whose two answers differ in more than spaces, and how many both answered. Four queries."""
    rows = list(ShadowAnswer.objects.filter(experiment=experiment, error="").order_by("-pk")[:MOST])
    keys = [row.turn_id for row in rows]
    stored = Turn.objects.filter(pk__in=keys).order_by().select_related("assistant").with_contexts()
    turns = {turn.pk: turn for turn in stored}
    both = [(row, turns[row.turn_id]) for row in rows if row.turn_id in turns]
    return [_pair(row, turn) for row, turn in both if _plain(row.text) != _plain(turn.response)], len(both)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _pair(row: ShadowAnswer, turn: Turn) -> PairTexts:
    shown, other = (turn.response, turn.completion), (row.text, row.completion)
    candidate, baseline = (other, shown) if row.arm == ArmName.CANDIDATE else (shown, other)
    known = turn.prompt_digest == turn.assistant.prompt_digest
    return PairTexts(
        key=str(turn.pk),
        stratum="declined by one" if row.declined != turn.declined else "both alike",
        history=turn.history,
        question=turn.question,
        contexts=[
            {"rank": one.rank, "title": one.passage.title, "source": one.source, "text": one.passage.text}
            for one in turn.retrievals.all()
        ],
        prompt=list(turn_prompt(turn).messages) if known else [],
        candidate_text=candidate[0],
        baseline_text=baseline[0],
        candidate_completion=candidate[1],
        baseline_completion=baseline[1],
        turn=turn,
    )
