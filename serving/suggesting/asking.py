"""What is live answers the open items of a queue again, in the background, from the passages that were retrieved then.

An engine that is away or has more to do ends the pass: the items that are left simply have no suggestion, and the next
pass goes on with them. Users' questions never wait for more than `AT_ONCE` rows of this.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from annotations.comparing.models import ComparisonPair
from annotations.effects import ranked_evidence
from annotations.models import LiveAnswer, Queue, QueueItem
from assistants.models import Assistant
from capture.models import Turn
from generation.engines import (
    EngineBusy,
    EngineUnavailable,
    GenerationRequest,
    PromptTooLong,
    UnknownAdapter,
    declining,
)
from generation.prompts import Prompt, PromptStyle, build_prompt, parse_answer
from knowledge.evidence import is_below
from serving import answering
from serving.chat import base_name
from serving.models import Deployment
from serving.wire import DEFAULT_NEW_TOKENS
from training.data.render import offered
from training.evaluation.metrics import groundedness
from training.replay.runner import stored_passages

if TYPE_CHECKING:
    from serving.suggesting.models import SuggestionRun
    from training.models import Adapter

AT_ONCE = 4
"""Rows beside the users' in the engine's queue."""
IN_A_RUN = 500
HORIZON = 1_000
"""Open items that are looked at: those given out next. A queue may hold many more, and what is asked about them today
would be an answer of last month's model when somebody comes to them."""
MAX_AGENT = 300
SECONDS = 600.0
"""After which a pass ends wherever it is; the next one goes on."""
REFUSED = "It does not fit the model's context."


class NobodyToAsk(RuntimeError):
    """What is live may not be asked; the message says why."""


@dataclass(frozen=True)
class Live:
    """Who answers now. ``adapter`` None: the base model."""

    adapter: Adapter | None
    agent: str
    version: str


@dataclass(frozen=True)
class _Asked:
    turn: Turn
    prompt: Prompt
    withheld: bool
    """By the threshold of now: serving would decline without asking a model."""


def live_of(assistant: Assistant) -> Live:
    """What users meet now, apart from any experiment: its candidate is compared blind, and is not shown by name.

    Raises:
        NobodyToAsk: the live adapter has learned from rows that were erased since.
    """
    found = Deployment.objects.filter(assistant=assistant)
    deployment = found.select_related("adapter__assistant", "adapter__run__dataset", "adapter__parent").first()
    adapter = deployment.adapter if deployment is not None else None
    if adapter is not None and adapter.prompt_digest != assistant.prompt_digest:
        adapter = None  # as for users: the base model answers
    if adapter is not None and adapter.erased_rows:
        raise NobodyToAsk(f"{adapter} has learned from rows that were erased since, and is not asked.")
    name = adapter.engine_name if adapter is not None else base_name()
    return Live(adapter, name[:MAX_AGENT], assistant.prompt_digest)


def wanting(queue: Queue, live: Live) -> QuerySet[QueueItem]:
    """The next `HORIZON` open items without an answer of what is live now, in the order in which they are given out.
    Without those that experts compare blind just now: beside its name, an arm's answer would tell who wrote it."""
    answered = LiveAnswer.objects.filter(turn=OuterRef("turn"), agent=live.agent, version=live.version)
    compared = ComparisonPair.objects.filter(turn=OuterRef("turn"), round__closed=False)
    coming = QueueItem.objects.filter(queue=queue, done=False).order_by("pk").values("pk")[:HORIZON]
    return QueueItem.objects.filter(~Exists(answered), ~Exists(compared), pk__in=coming).order_by("pk")


def perform(run: SuggestionRun) -> None:
    """Raises:
    NobodyToAsk: by `live_of`.
    generation.engines.EngineError: the engine refuses the adapter, or the requests as such.
    """
    live = live_of(run.assistant)
    run.agent = live.agent
    run.keep("agent")
    keys = list(wanting(run.queue, live).values_list("turn", flat=True)[:IN_A_RUN])
    run.beat(stage="asking what is live", done=0, total=len(keys))
    end = time.monotonic() + SECONDS
    for start in range(0, len(keys), AT_ONCE):
        if time.monotonic() > end:
            return _stop(run, "Its time was over; the next pass goes on.")
        if not asks(run.queue_id) or live_of(run.assistant) != live:
            return _stop(run, "The queue does not ask any more, or something else is live now.")
        group = keys[start : start + AT_ONCE]
        try:
            run.answered += _answer(group, live)
        except (EngineBusy, EngineUnavailable) as error:
            return _stop(run, f"The engine is away or busy: {error}")
        run.keep("answered")
        run.beat(done=min(start + AT_ONCE, len(keys)))
    return None


def asks(queue_id: int) -> bool:
    return Queue.objects.filter(pk=queue_id, ask_live=True, show_suggestions=True, paused=False).exists()


def _stop(run: SuggestionRun, why: str) -> None:
    run.stopped = why[:200]
    run.keep("stopped")


def _answer(keys: Sequence[uuid.UUID], live: Live) -> int:
    """Asks about some turns and stores what came; how many are stored."""
    asked = [_asked(turn) for turn in _turns(keys)]
    said = _completions(asked, live)
    now = timezone.now()
    rows = {one.turn.pk: (one, _row(one, text, live, now)) for one, text in zip(asked, said, strict=True)}
    with transaction.atomic():
        # Under the turns' locks: what was erased meanwhile stays away, and so does what was written to words that a
        # later scrubbing has masked.
        locked = Turn.objects.select_for_update(of=("self",), no_key=True).filter(pk__in=list(rows)).order_by("pk")
        there = list(locked.values_list("pk", flat=True))
        again = [_asked(turn) for turn in _turns(there)]
        stored = LiveAnswer.objects.bulk_create(
            [rows[one.turn.pk][1] for one in again if one.prompt == rows[one.turn.pk][0].prompt],
            update_conflicts=True,
            unique_fields=["turn"],
            update_fields=["agent", "version", "text", "declined", "score", "problem", "asked_at"],
        )
    return len(stored)


def _turns(keys: Sequence[uuid.UUID]) -> list[Turn]:
    return list(Turn.objects.filter(pk__in=keys).select_related("assistant").with_contexts().defer("embedding"))


def _asked(turn: Turn) -> _Asked:
    # The threshold of now decides, also for a turn that the one of then withheld.
    house, passages, evidence = turn.assistant.house, stored_passages(turn), ranked_evidence(turn)
    similarities = [similarity for *_, similarity in evidence]
    withheld = bool(evidence) and is_below(similarities, turn.assistant.evidence_threshold)
    shown: dict[str, Any] = dict(offered([] if withheld else evidence))
    if not evidence and house.style is PromptStyle.PASSAGES:
        shown = {"evidence": None}  # a foreign frontend's sentences were never ranked: all is offered
    prompt = build_prompt(house=house, question=turn.question, passages=passages, history=turn.history, **shown)
    return _Asked(turn, prompt, withheld)


def _completions(asked: Sequence[_Asked], live: Live) -> list[str | None]:
    """None for what does not fit."""
    out: list[str | None] = [declining(one.turn.assistant.house).text if one.withheld else None for one in asked]
    left = [place for place, one in enumerate(asked) if not one.withheld]
    loaded = False
    while left:
        requests = [_request(asked[place].prompt, live) for place in left]
        try:
            results = answering.client().generate(requests)
        except UnknownAdapter:
            if live.adapter is None or loaded:
                raise
            answering.load_now(live.adapter, prompt_digest=live.version)
            loaded = True
        except PromptTooLong as error:
            del left[error.index]
        else:
            for place, result in zip(left, results, strict=True):
                out[place] = result.text
            break
    return out


def _request(prompt: Prompt, live: Live) -> GenerationRequest:
    return GenerationRequest(
        messages=prompt.messages,
        adapter=live.adapter.engine_name if live.adapter is not None else None,
        max_new_tokens=DEFAULT_NEW_TOKENS,
        deadline=settings.RATCHET_ENGINE_TIMEOUT,
    )


def _row(one: _Asked, completion: str | None, live: Live, now: Any) -> LiveAnswer:
    row = LiveAnswer(turn=one.turn, agent=live.agent, version=live.version, asked_at=now)
    if completion is None:
        row.problem = REFUSED
        return row
    answer = parse_answer(house=one.turn.assistant.house, prompt=one.prompt, completion=completion)
    row.text, row.declined = answer.marked, answer.declined
    passages = stored_passages(one.turn)
    if not answer.declined and answer.text and passages:
        row.score = groundedness(answer.text, passages)
    return row
