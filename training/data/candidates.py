"""Candidate rows: what resolutions and syntheses offer to a dataset, before anything is weighed or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from annotations.becoming import NoRow, Shown, row_of
from annotations.effects import offered_evidence
from annotations.models import Resolution, Verdict
from annotations.resolving import Wording
from assistants.models import Assistant
from capture.models import Turn
from generation.alignment import AlignedSentence
from generation.prompts import Message, PromptPassage, SentenceRef, split_sentences
from training.models import Kind, Origin, Synthesis, SyntheticItem

MAX_GROUP = 200


@dataclass
class Candidate:
    """An Example that is not decided yet. ``gold`` is the answer's source sentences as text (for caps and guards)."""

    origin: str
    kind: str
    group: str
    question: str
    history: list[Message]
    contexts: list[dict[str, Any]]
    evidence: list[list[float]]
    """[[rank, sentence, similarity to the question], …] in the order offered."""
    sentences: list[AlignedSentence]
    rejected: str = ""
    turn_id: Any = None
    chunk_id: int | None = None
    weight: int = 1
    gold: tuple[str, ...] = field(default=())
    vector: Any = field(default=None, repr=False, compare=False)
    """Of the history-aware question, float32 (384,)."""

    @property
    def response(self) -> str:
        return " ".join(sentence["text"] for sentence in self.sentences)

    @property
    def answered_from(self) -> set[str]:
        """Paths of the documents that the response cites."""
        cited = {ref[0] for sentence in self.sentences for ref in sentence["refs"]}
        return {context["source"] for context in self.contexts if context["rank"] in cited}

    @property
    def curated(self) -> bool:
        return self.origin != Origin.SYNTHETIC


@dataclass(frozen=True)
class Refused:
    """Why something did not become a candidate: the funnel counts these."""

    why: str


def from_resolutions(assistant: Assistant) -> Iterator[Candidate | Refused]:
    """One candidate (or reason) for each resolved turn, oldest first."""
    resolved = (
        Turn.objects.of(assistant)
        .filter(resolution__isnull=False)
        .select_related("resolution", "conversation", "assistant")
        .with_contexts()
        .order_by("asked_at", "pk")
    )
    for turn in resolved.iterator(chunk_size=500):
        yield from_turn(turn, turn.resolution, assistant)


def from_turn(turn: Turn, resolution: Resolution, assistant: Assistant) -> Candidate | Refused:
    contexts, evidence = turn_contexts(turn, resolution)
    made = row_of(
        response=resolution.response,
        wording=Wording(decline=assistant.decline_sentence, handoff=assistant.handoff_sentence),
        shown=Shown(
            [PromptPassage(c["rank"], c["title"], c["text"]) for c in contexts], evidence, assistant.prompt_style
        ),
    )
    if isinstance(made, NoRow):
        return Refused(made.why)
    kind = Kind(made.kind)
    good = resolution.verdict == Verdict.GOOD
    return Candidate(
        origin=Origin.DECLINED if kind == Kind.DECLINE else Origin.GOOD if good else Origin.CORRECTED,
        kind=kind,
        group=group_name("conversation", turn.conversation.external_id),
        question=turn.question,
        history=turn.history,
        contexts=contexts,
        evidence=evidence,
        sentences=made.sentences,
        rejected="" if good else turn.response,
        turn_id=turn.pk,
        gold=gold_sentences(contexts, made.sentences),
    )


def from_synthesis(synthesis: Synthesis | None) -> Iterator[Candidate]:
    """The kept items of a synthesis; their contexts are what production retrieval brought for the written question."""
    if synthesis is None:
        return
    for item in SyntheticItem.objects.filter(synthesis=synthesis, dropped_by="").order_by("pk").iterator():
        contexts = item.contexts["passages"]
        ref = item.contexts["gold"]
        sentences: list[AlignedSentence] = [{"text": item.response, "refs": [ref]}]
        yield Candidate(
            origin=Origin.SYNTHETIC,
            kind=item.kind,
            group=group_name("document", item.source),
            question=item.question,
            history=[],
            contexts=[{**c, "relevant": c["rank"] == ref[0]} for c in contexts],
            evidence=[list(row) for row in item.contexts["evidence"]],
            sentences=sentences,
            chunk_id=item.chunk_id,
            gold=gold_sentences(contexts, sentences),
        )


def turn_contexts(turn: Turn, resolution: Resolution) -> tuple[list[dict[str, Any]], list[list[float]]]:
    """Passages in rank order with their marks, and the evidence in the order in which it was offered."""
    retrievals = list(turn.retrievals.all())
    relevant = set(resolution.relevant_ranks)
    contexts = [
        {
            "rank": r.rank,
            "title": r.passage.title,
            "source": r.source,
            "text": r.passage.text,
            "relevant": r.rank in relevant if relevant else None,
        }
        for r in retrievals
    ]
    return contexts, offered_evidence(turn)


def group_name(kind: str, name: str) -> str:
    """What a row is grouped by for the splits; a name that the column cannot hold is replaced by its digest."""
    group = f"{kind}:{name}"
    return group if len(group) <= MAX_GROUP else f"{kind}:{hashlib.sha256(name.encode()).hexdigest()}"


def gold_sentences(contexts: list[dict[str, Any]], sentences: list[AlignedSentence]) -> tuple[str, ...]:
    by_rank = {c["rank"]: split_sentences(c["text"]) for c in contexts}
    refs = [SentenceRef(*ref) for sentence in sentences for ref in sentence["refs"]]
    return tuple(by_rank[ref.rank][ref.sentence] for ref in refs)
