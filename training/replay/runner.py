"""Asks logged questions again. With the passages of then, the model alone is compared; with those of now, the system.

What is still unanswered is what is left to do, so a replay goes on where it stopped and asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from annotations.effects import served_evidence
from capture.models import Turn
from generation.alignment import align_sentences
from generation.engines import GenerationRequest, PromptTooLong
from generation.prompts import Answer, Prompt, PromptPassage, PromptStyle, SentenceRef, build_prompt, parse_answer
from knowledge.retrieval import retrieve
from training.data.render import offered
from training.engine import bulk_engine
from training.evaluation.loading import load_into
from training.evaluation.metrics import citation_quality, groundedness, token_f1
from training.evaluation.models import Replay, ReplayAnswer
from training.evaluation.statistics import cluster_bootstrap

if TYPE_CHECKING:
    from generation.engines import Engine

BATCH = 32
MAX_ANSWER_TOKENS = 96
TOO_LONG = "Question, history and passages do not fit the model's context."
COMPARED = ("groundedness", "citation_recall", "resolved_f1")
"""Measured of the old answer and of the new one alike."""


class ReplayRefused(ValueError):
    """It cannot be asked as it stands; the message says what to do."""


@dataclass(frozen=True)
class Ready:
    """One question as it is asked now."""

    row: ReplayAnswer
    prompt: Prompt
    passages: Sequence[PromptPassage]
    sources: list[dict[str, Any]]
    withheld: bool
    """By the threshold: declined without asking, as serving does (passages of now) or did (of then)."""


def perform(replay: Replay) -> None:
    """Raises:
    ReplayRefused: the prompt format has changed since it was started.
    AdapterGone, generation.engines.EngineError: base or adapter cannot be loaded.
    """
    if replay.prompt_digest != replay.assistant.prompt_digest:
        raise ReplayRefused("The assistant's prompt format has changed since this was started. Start another replay.")
    engine = _engine(replay)
    total = replay.answers.count()
    left = list(replay.answers.filter(answered_at=None).values_list("pk", flat=True))
    replay.beat(stage="asking again", done=total - len(left), total=total)
    for start in range(0, len(left), BATCH):
        _batch(replay, engine, left[start : start + BATCH])
        replay.beat(done=total - len(left) + min(start + BATCH, len(left)))
    replay.results = {mode: _results(replay, mode) for mode in ReplayAnswer.Mode.values}
    replay.results = {mode: found for mode, found in replay.results.items() if found}
    replay.keep("results")


def _engine(replay: Replay) -> Engine:
    engine = bulk_engine()
    if replay.adapter is not None:
        load_into(engine, replay.adapter)
    return engine


def _batch(replay: Replay, engine: Engine, keys: Sequence[int]) -> None:
    rows = list(ReplayAnswer.objects.filter(pk__in=keys).order_by("pk"))
    turns = Turn.objects.filter(pk__in=[row.turn_id for row in rows]).select_related("resolution", "assistant")
    by_key = {turn.pk: turn for turn in turns.with_contexts()}
    ready = []
    rows = [row for row in rows if row.turn_id in by_key]  # the others were erased between the two queries
    for row in rows:
        row.turn = by_key[row.turn_id]
        ready.append(_ready(replay, row))
    now = timezone.now()
    for one, text in zip(ready, _generated(replay, engine, ready), strict=True):
        row = one.row
        row.sources, row.answered_at = one.sources, now
        if text is None:
            row.problem = TOO_LONG
            continue
        answer = parse_answer(house=replay.assistant.house, prompt=one.prompt, completion=text)
        row.completion, row.text, row.declined = text, answer.marked, answer.declined
        row.measures = _measures(replay, one, answer)
    fields = ["completion", "text", "declined", "sources", "measures", "problem", "answered_at"]
    # A turn that was erased meanwhile has taken its row along: an update finds nothing, and nothing comes back.
    ReplayAnswer.objects.bulk_update(rows, fields)


def _generated(replay: Replay, engine: Engine, ready: Sequence[Ready]) -> list[str | None]:
    """Completions; None for what does not fit."""
    name = replay.adapter.engine_name if replay.adapter is not None else None
    out: list[str | None] = [replay.assistant.decline_sentence if one.withheld else None for one in ready]
    left = [i for i, one in enumerate(ready) if not one.withheld]
    while left:
        requests = [
            GenerationRequest(messages=ready[i].prompt.messages, adapter=name, max_new_tokens=MAX_ANSWER_TOKENS)
            for i in left
        ]
        try:
            results = engine.generate(requests)
        except PromptTooLong as error:
            del left[error.index]
            continue
        for i, result in zip(left, results, strict=True):
            out[i] = result.text
        break
    return out


def _ready(replay: Replay, row: ReplayAnswer) -> Ready:
    turn, house = row.turn, replay.assistant.house
    if row.mode == ReplayAnswer.Mode.FRESH:
        found = retrieve(assistant=replay.assistant, question=turn.question, history=turn.history)
        passages = [PromptPassage(p.rank, p.title, p.text) for p in found.passages]
        evidence, withheld = [[e.rank, e.sentence, e.similarity] for e in found.evidence], found.withheld
        sources = [{"rank": p.rank, "title": p.title, "source": p.source} for p in found.passages]
    else:
        passages, (evidence, withheld) = stored_passages(turn), served_evidence(turn, turn.retrievals.all())
        sources = [{"rank": r.rank, "title": r.passage.title, "source": r.source} for r in turn.retrievals.all()]
    shown: dict[str, Any] = dict(offered(evidence))
    if not evidence and not withheld and house.style is PromptStyle.PASSAGES and row.mode != ReplayAnswer.Mode.FRESH:
        shown = {"evidence": None}  # a foreign frontend's sentences were never ranked: all is offered
    prompt = build_prompt(house=house, question=turn.question, passages=passages, history=turn.history, **shown)
    return Ready(row, prompt, passages, sources, withheld)


def stored_passages(turn: Turn) -> list[PromptPassage]:
    return [PromptPassage(r.rank, r.passage.title, r.passage.text) for r in turn.retrievals.all()]


def _measures(replay: Replay, one: Ready, answer: Answer) -> dict[str, float]:
    """Of the new answer, and with ``old_`` before the name of the logged one with its own passages."""
    turn = one.row.turn
    style = PromptStyle(replay.assistant.prompt_style)
    out = {"same": float(" ".join(answer.marked.split()) == " ".join(turn.response.split()))}
    old = logged_answer(turn)
    for prefix, said, passages in (("", answer, one.passages), ("old_", old, stored_passages(turn))):
        if not said.declined and passages and said.text:
            out[f"{prefix}groundedness"] = groundedness(said.text, passages)
            out[f"{prefix}citation_recall"] = citation_quality(said, passages, style).recall
        if resolution := getattr(turn, "resolution", None):
            out[f"{prefix}resolved_f1"] = token_f1(said.text, [resolution.response])
    return out


def logged_answer(turn: Turn) -> Answer:
    """The logged response as an answer; where its citations name passages only, the sentences that they support."""
    refs = [SentenceRef(int(rank), int(sentence)) for rank, sentence in turn.citations]
    aligned = align_sentences(turn.response, stored_passages(turn))
    refs = refs or [SentenceRef(*ref) for sentence in aligned for ref in sentence["refs"]]
    text = " ".join(sentence["text"] for sentence in aligned)
    return Answer(text=text, marked=turn.response, citations=tuple(refs), declined=turn.declined)


def _results(replay: Replay, mode: str) -> dict[str, Any]:
    rows = list(_answered(replay, mode))
    if not rows:
        return {}
    out: dict[str, Any] = {
        "answered": len(rows),
        "same": sum(bool(m.get("same")) for _, _, _, m in rows),
        "newly_declined": sum(declined and not before for _, before, declined, _ in rows),
        "newly_answered": sum(before and not declined for _, before, declined, _ in rows),
        "problems": replay.answers.filter(mode=mode).exclude(problem="").count(),
    }
    for name in COMPARED:
        pairs = [(m[name] - m[f"old_{name}"], str(c)) for c, _, _, m in rows if name in m and f"old_{name}" in m]
        if pairs:
            out[name] = cluster_bootstrap([value for value, _ in pairs], [cluster for _, cluster in pairs]).as_dict()
    return out


def _answered(replay: Replay, mode: str) -> Iterator[tuple[int, bool, bool, dict[str, float]]]:
    """(conversation, declined then, declined now, measures)"""
    rows = replay.answers.filter(mode=mode, problem="").exclude(answered_at=None)
    yield from rows.values_list("turn__conversation_id", "turn__declined", "declined", "measures").iterator(500)
