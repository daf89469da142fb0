"""Candidate rows: what resolutions and syntheses offer to a dataset, before anything is weighed or refused."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotations.models import Resolution, Verdict
from assistants.models import Assistant
from capture.models import Turn
from generation.alignment import AlignedSentence, align_sentences
from generation.prompts import Message, PromptPassage, PromptStyle, SentenceRef, is_decline, split_sentences
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
    if not resolution.response.strip():
        return Refused("bad without a correction")
    contexts, evidence = turn_contexts(turn, resolution)
    kind = kind_of(resolution.response, assistant)
    good = resolution.verdict == Verdict.GOOD
    if kind == Kind.ANSWER:
        passages = [PromptPassage(c["rank"], c["title"], c["text"]) for c in contexts]
        sentences = align_sentences(resolution.response, passages)
        if not sentences or not all(sentence["refs"] for sentence in sentences):
            return Refused("answer not supported by its passages")
        # Serving would not show what answers, and then declining is right: such a row would teach to guess.
        if assistant.prompt_style == PromptStyle.SENTENCES and not all_offered(evidence, sentences):
            return Refused("the sentence that answers was not offered")
    else:
        sentences = [{"text": _without_marks(resolution.response), "refs": []}]
    return Candidate(
        origin=Origin.DECLINED if kind == Kind.DECLINE else Origin.GOOD if good else Origin.CORRECTED,
        kind=kind,
        group=group_name("conversation", turn.conversation.external_id),
        question=turn.question,
        history=turn.history,
        contexts=contexts,
        evidence=evidence,
        sentences=sentences,
        rejected="" if good else turn.response,
        turn_id=turn.pk,
        gold=gold_sentences(contexts, sentences),
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
    placed = sorted((place, r.rank, sentence, score) for r in retrievals for place, sentence, score in r.evidence)
    # As many as serving offers now, whatever the setting was when the turn was captured.
    limit = turn.assistant.evidence_sentences
    return contexts, [[rank, sentence, score] for _, rank, sentence, score in placed[:limit]]


def all_offered(evidence: Sequence[Sequence[float]], sentences: Sequence[AlignedSentence]) -> bool:
    """Whether every sentence that the answer cites is on offer."""
    pairs = [list(row[:2]) for row in evidence]
    return all(list(ref) in pairs for sentence in sentences for ref in sentence["refs"])


def kind_of(response: str, assistant: Assistant) -> str:
    text = _without_marks(response)
    if is_decline(text, assistant.decline_sentence):
        return Kind.DECLINE
    if assistant.handoff_sentence and is_decline(text, assistant.handoff_sentence):
        return Kind.HANDOFF
    return Kind.ANSWER


def group_name(kind: str, name: str) -> str:
    """What a row is grouped by for the splits; a name that the column cannot hold is replaced by its digest."""
    group = f"{kind}:{name}"
    return group if len(group) <= MAX_GROUP else f"{kind}:{hashlib.sha256(name.encode()).hexdigest()}"


def gold_sentences(contexts: list[dict[str, Any]], sentences: list[AlignedSentence]) -> tuple[str, ...]:
    by_rank = {c["rank"]: split_sentences(c["text"]) for c in contexts}
    refs = [SentenceRef(*ref) for sentence in sentences for ref in sentence["refs"]]
    return tuple(by_rank[ref.rank][ref.sentence] for ref in refs)


def _without_marks(text: str) -> str:
    return " ".join(re.sub(r"\[\d{1,3}\]", " ", text).split())
