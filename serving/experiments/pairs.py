"""Live pairs: questions of users that both arms answered, for people to compare blind."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence

from django.contrib.auth.models import User
from django.db.models import F, Func, TextField, Value
from django.db.models.lookups import Exact

from annotations.comparing.drawing import stratified
from annotations.comparing.models import ComparisonRound
from annotations.comparing.services import MAX_PAIRS, PairTexts, create_round
from capture.models import Turn
from serving.experiments.models import ArmName, Experiment, ShadowAnswer
from serving.experiments.shadow import turn_prompt

SOURCE = "experiment"
MOST = 2_000
"""Newest answers that pairs are drawn from."""
STRATA = {True: "both alike", False: "declined by one"}


def start_live_comparison(
    *, experiment: Experiment, name: str, pairs: int, people: Collection[User], created_by: User | None
) -> ComparisonRound:
    """Draws ``pairs`` of the questions that both answered differently.

    Raises:
        django.core.exceptions.ValidationError: as `annotations.comparing.services.create_round`.
    """
    rows = _compared(experiment)
    return create_round(
        assistant=experiment.assistant,
        name=name,
        source=(SOURCE, experiment.pk),
        held_out="",
        arms=(str(experiment.candidate), str(experiment.control or "base model")),
        found=_drawn(rows, pairs),
        questions=len(rows),
        pairs=pairs,
        people=people,
        created_by=created_by,
        differing=sum(not same for _, same, _ in rows),
    )


def count_differing(experiment: Experiment) -> tuple[int, int]:
    """Of the newest `MOST` questions that both answered: whose answers differ in more than spaces, and all. One query,
    and no text leaves the database."""
    rows = _compared(experiment)
    return sum(not same for _, same, _ in rows), len(rows)


def _compared(experiment: Experiment) -> list[tuple[int, bool, bool]]:
    """(key, whether the answers are the same but for spaces, whether both or neither declined), the newest first."""
    rows = ShadowAnswer.objects.filter(experiment=experiment, error="").annotate(
        same=Exact(_plain("text"), _plain("turn__response")), alike=Exact(F("declined"), F("turn__declined"))
    )
    return list(rows.order_by("-pk").values_list("pk", "same", "alike")[:MOST])


def _plain(column: str) -> Func:
    one = Func(F(column), Value(r"\s+"), Value(" "), Value("g"), function="regexp_replace", output_field=TextField())
    return Func(one, function="btrim", output_field=TextField())


def _drawn(rows: Sequence[tuple[int, bool, bool]], pairs: int) -> list[PairTexts]:
    """As many as are wanted, of both strata alike: drawn by key, so that only these are read. Four queries."""
    strata = {key: STRATA[alike] for key, same, alike in rows if not same}
    wanted = min(max(pairs, 0), MAX_PAIRS)
    keys = stratified(sorted(strata), wanted, stratum=lambda key: strata[key], rng=secrets.SystemRandom())
    answers = list(ShadowAnswer.objects.filter(pk__in=keys).order_by("-pk"))
    stored = Turn.objects.filter(pk__in=[row.turn_id for row in answers]).order_by()
    turns = {turn.pk: turn for turn in stored.select_related("assistant").with_contexts()}
    return [_pair(row, turns[row.turn_id]) for row in answers if row.turn_id in turns]


def _pair(row: ShadowAnswer, turn: Turn) -> PairTexts:
    shown, other = (turn.response, turn.completion), (row.text, row.completion)
    candidate, baseline = (other, shown) if row.arm == ArmName.CANDIDATE else (shown, other)
    known = turn.prompt_digest == turn.assistant.prompt_digest
    return PairTexts(
        key=str(turn.pk),
        stratum=STRATA[row.declined == turn.declined],
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
