"""The other arm's answer to stored turns: unseen, beside the traffic, compared with what was shown.

The prompt is built again from the stored turn, which is scrubbed; where something was masked in it, the shown answer
was written to another text, so such turns are left out: what is compared was asked with the same words to the byte.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from annotations.groundedness import is_supported
from assistants.vault import keyed_hash
from capture.models import Turn, TurnQuerySet
from generation.engines import EngineBusy, EngineError, EngineUnavailable, GenerationRequest, UnknownAdapter
from generation.prompts import Prompt, PromptPassage, SentenceRef, build_prompt, parse_answer
from serving.experiments.models import ArmName, Experiment, ShadowAnswer
from serving.warming import warm
from serving.wire import DEFAULT_NEW_TOKENS
from training.models import Adapter

if TYPE_CHECKING:
    from generation.client import EngineClient
    from generation.openai_compatible import OpenAIEngine

logger = logging.getLogger(__name__)

AT_ONCE = 4
"""Rows that a pass puts beside the users' in the engine's queue."""
IN_A_PASS = 32
SECONDS = 20.0
BACK = timedelta(hours=6)
"""Older turns are not worth the engine's time: there are newer ones."""


@dataclass(frozen=True)
class _Asked:
    """A stored turn, and who answers it unseen (no adapter: the base model)."""

    turn: Turn
    arm: str
    adapter: Adapter | None
    prompt: Prompt


def answer_all(now: datetime | None = None) -> int:
    """A pass over running experiments; how many answers. Its time is bounded, because guardrails wait for the same
    worker; in another order each time, so that none is always last."""
    running = Experiment.objects.running().select_related("assistant", "candidate__assistant", "control__assistant")
    end = time.monotonic() + SECONDS
    return sum(answer(experiment, now=now, end=end) for experiment in running.order_by("?"))


def answer(experiment: Experiment, *, now: datetime | None = None, end: float = math.inf) -> int:
    """Answers the newest turns that are drawn and have no answer of the other arm; how many.

    Stops when its time is over, or when the engine has more to do than users' questions leave it: those go first.
    """
    from serving.api import client

    if time.monotonic() > end:
        return 0
    turns = _drawn(experiment, now or timezone.now())
    engine, done = client(), 0
    for start in range(0, len(turns), AT_ONCE):
        if time.monotonic() > end:
            break
        group = turns[start : start + AT_ONCE]
        asked = [_Asked(turn, *_other(experiment, turn), turn_prompt(turn)) for turn in group]
        try:
            rows = _rows(experiment, engine, asked)
        except (EngineBusy, EngineUnavailable) as error:
            logger.info("No shadow answers now: %s", error)
            break
        done += len(ShadowAnswer.objects.bulk_create(rows, ignore_conflicts=True))
    return done


def _rows(experiment: Experiment, engine: EngineClient | OpenAIEngine, asked: Sequence[_Asked]) -> list[ShadowAnswer]:
    """Of a group that is asked together, and one by one where the engine refuses one of it: a question that does not
    fit is an error of its own, not of those beside it.

    Raises:
        EngineBusy, EngineUnavailable: nothing is wrong with the questions; they are asked again later.
    """
    requests = [_request(one.prompt, one.adapter) for one in asked]
    began = time.monotonic()
    try:
        try:
            results = engine.generate(requests)
        except UnknownAdapter:
            warm(experiment.assistant_id)
            results = engine.generate(requests)
    except (EngineBusy, EngineUnavailable):
        raise
    except EngineError as error:
        if len(asked) > 1:
            return [row for one in asked for row in _rows(experiment, engine, [one])]
        return [ShadowAnswer(experiment=experiment, turn=asked[0].turn, arm=asked[0].arm, error=str(error)[:200])]
    seconds = (time.monotonic() - began) / len(asked)
    return [_row(experiment, one, result.text, seconds) for one, result in zip(asked, results, strict=True)]


def turn_prompt(turn: Turn) -> Prompt:
    """What the turn was asked with, built from what is stored; its retrievals are read (`with_contexts`)."""
    retrievals = list(turn.retrievals.all())
    placed = sorted(
        (place, one.rank, int(sentence), similarity)
        for one in ([] if turn.withheld else retrievals)
        for place, sentence, similarity in one.evidence
    )
    return build_prompt(
        house=turn.assistant.house,
        question=turn.question,
        passages=[PromptPassage(one.rank, one.passage.title, one.passage.text) for one in retrievals],
        evidence=[SentenceRef(rank, sentence) for _, rank, sentence, _ in placed],
        similarity=[similarity for *_, similarity in placed],
        history=turn.history,
    )


def _drawn(experiment: Experiment, now: datetime) -> list[Turn]:
    """In shadow the share of the plan; later the share that experts are to compare."""
    plan = experiment.rules
    share = plan.pair_share if experiment.shows_candidate else plan.shadow_share
    if share <= 0:
        return []
    newest = eligible(experiment).filter(asked_at__gt=max(now - BACK, experiment.started_at), asked_at__lte=now)
    keys = list(newest.newest_first().values_list("pk", flat=True)[: 20 * IN_A_PASS])
    chosen = [key for key in keys if _place(experiment, str(key)) < share][:IN_A_PASS]
    rows = Turn.objects.filter(pk__in=chosen).select_related("assistant").with_contexts()
    return list(rows.newest_first())


def eligible(experiment: Experiment) -> TurnQuerySet:
    """Turns of our chat by one of the two arms, asked with today's prompt, nothing masked, without another answer. What
    the threshold declined was put to neither."""
    answered = ShadowAnswer.objects.filter(experiment=experiment, turn=OuterRef("pk"))
    names = [_name(experiment.control), experiment.candidate.engine_name]
    return (
        Turn.objects.of(experiment.assistant)
        .tagged(["chat"])
        .filter(adapter__in=names, pii=[], withheld=False)
        .filter(Q(prompt_digest=experiment.assistant.prompt_digest))
        .filter(~Exists(answered))
    )


def _place(experiment: Experiment, key: str) -> float:
    drawn = keyed_hash("experiment shadow", experiment.pk, key)
    return int.from_bytes(drawn[:8]) / 2**64


def _name(adapter: Adapter | None) -> str:
    return adapter.engine_name if adapter is not None else ""


def _other(experiment: Experiment, turn: Turn) -> tuple[str, Adapter | None]:
    """The arm that did not answer this turn."""
    if turn.adapter == experiment.candidate.engine_name:
        return ArmName.CONTROL.value, experiment.control
    return ArmName.CANDIDATE.value, experiment.candidate


def _request(prompt: Prompt, adapter: Adapter | None) -> GenerationRequest:
    return GenerationRequest(
        messages=prompt.messages,
        adapter=_name(adapter) or None,
        max_new_tokens=DEFAULT_NEW_TOKENS,
        deadline=settings.RATCHET_ENGINE_TIMEOUT,
    )


def _row(experiment: Experiment, asked: _Asked, completion: str, seconds: float) -> ShadowAnswer:
    turn = asked.turn
    answer = parse_answer(house=turn.assistant.house, prompt=asked.prompt, completion=completion)
    passages = [(one.rank, one.passage.text) for one in turn.retrievals.all()]
    return ShadowAnswer(
        experiment=experiment,
        turn=turn,
        arm=asked.arm,
        completion=completion,
        text=answer.marked,
        declined=answer.declined,
        supported=None if answer.declined else is_supported(answer.marked, passages),
        shown_supported=None if turn.declined else is_supported(turn.response, passages),
        seconds=round(seconds, 3),
    )
