"""Candidate rows: what resolutions and syntheses offer to a dataset, before anything is weighed or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from annotations.becoming import NO_CORRECTION, NOT_ASKED, NoRow, Shown, kind_of, row_of
from annotations.effects import Placed, served_evidence
from annotations.models import Reason, Resolution, Verdict
from annotations.resolving import Wording
from assistants.models import Assistant
from capture.models import Passage, Turn
from generation.alignment import AlignedSentence
from generation.prompts import Message, PromptPassage, SentenceRef, split_sentences
from knowledge.evidence import is_below
from training.data.recipe import LEARN, LEAVE_OUT, NOT_TO_SAY, Recipe
from training.models import CuratedRow, Kind, Origin, SyntheticItem

MAX_GROUP = 200
DEFAULT = Recipe()


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
    came_from: str = ""
    weight: int = 1
    gold: tuple[str, ...] = field(default=())
    person: str = ""
    """Keyed hash of the chatbot's user, where it is known."""

    @property
    def response(self) -> str:
        return " ".join(sentence["text"] for sentence in self.sentences)

    @property
    def answered_from(self) -> set[str]:
        """Paths of the documents that the response cites."""
        cited = {ref[0] for sentence in self.sentences for ref in sentence["refs"]}
        return {context["source"] for context in self.contexts if context["rank"] in cited}

    @property
    def cited_texts(self) -> list[str]:
        """The passages that the response cites."""
        cited = {ref[0] for sentence in self.sentences for ref in sentence["refs"]}
        return [context["text"] for context in self.contexts if context["rank"] in cited]

    @property
    def curated(self) -> bool:
        return self.origin != Origin.SYNTHETIC


@dataclass(frozen=True)
class Refused:
    """Why something did not become a candidate: the funnel counts these."""

    why: str


LEFT_OUT = "left out by the recipe"


class Retrieved(Placed, Protocol):
    """A passage of a turn: a `Retrieval`, or what was read of one."""

    @property
    def source(self) -> str: ...
    @property
    def passage(self) -> Passage: ...


def from_turn(
    turn: Turn,
    resolution: Resolution,
    assistant: Assistant,
    recipe: Recipe = DEFAULT,
    *,
    retrieved: Sequence[Retrieved] | None = None,
) -> Candidate | Refused:
    """What a resolved turn becomes by this recipe, asked with today's settings.

    ``retrieved``: its passages in order of rank; None where ``turn`` has its contexts (`TurnQuerySet.with_contexts`).
    """
    shown: Sequence[Retrieved] = list(turn.retrievals.all()) if retrieved is None else retrieved
    contexts, (evidence, withheld) = turn_contexts(shown, resolution), served_evidence(turn, shown)
    wording = Wording(decline=assistant.decline_sentence, handoff=assistant.handoff_sentence)
    made = row_of(
        response=resolution.response,
        wording=wording,
        shown=Shown(
            [PromptPassage(c["rank"], c["title"], c["text"]) for c in contexts],
            evidence,
            assistant.prompt_style,
            withheld,
        ),
    )
    good = resolution.verdict == Verdict.GOOD
    only_bad = isinstance(made, NoRow) and made.why == NO_CORRECTION and not good and turn.response.strip()
    if isinstance(made, NoRow) and not (only_bad and recipe.bad == NOT_TO_SAY):
        return Refused(made.why)
    if isinstance(made, NoRow):
        origin, kind, sentences = Origin.BAD, Kind(kind_of(turn.response, wording)), []
    else:
        kind, sentences = Kind(made.kind), made.sentences
        origin = Origin.DECLINED if kind == Kind.DECLINE else Origin.GOOD if good else Origin.CORRECTED
    choice = {Origin.DECLINED: recipe.declined, Origin.CORRECTED: recipe.corrected, Origin.GOOD: recipe.good}.get(
        origin
    )
    missed = origin == Origin.DECLINED and Reason.RETRIEVAL_MISSED in resolution.reasons
    if choice == LEAVE_OUT or (missed and recipe.missed == LEAVE_OUT):
        return Refused(LEFT_OUT)
    return Candidate(
        origin=origin,
        kind=kind,
        group=group_name("conversation", turn.conversation.external_id),
        question=turn.question,
        history=turn.history,
        contexts=contexts,
        evidence=evidence,
        sentences=sentences,
        rejected="" if good or choice == LEARN else turn.response,
        turn_id=turn.pk,
        gold=gold_sentences(contexts, sentences),
        person=str(turn.metadata.get("user_key", "")),
    )


def from_item(item: SyntheticItem, assistant: Assistant) -> Candidate | Refused:
    """A kept item of a synthesis; its contexts are what production retrieval brought for the written question."""
    contexts, evidence = item.contexts["passages"], [list(row) for row in item.contexts["evidence"]]
    if evidence and is_below((similarity for _, _, similarity in evidence), assistant.evidence_threshold):
        return Refused(NOT_ASKED)  # the threshold was raised since it was written
    sentences: list[AlignedSentence] = item.answer or [{"text": item.response, "refs": _gold_refs(item)}]
    cited = {ref[0] for sentence in sentences for ref in sentence["refs"]}
    return Candidate(
        origin=Origin.SYNTHETIC,
        kind=item.kind,
        group=group_name("document", item.source),
        question=item.question,
        history=item.history,
        contexts=[{**c, "relevant": c["rank"] in cited} for c in contexts],
        evidence=evidence,
        sentences=sentences,
        chunk_id=item.chunk_id,
        gold=gold_sentences(contexts, sentences),
    )


def _gold_refs(item: SyntheticItem) -> list[list[int]]:
    gold = item.contexts.get("gold")
    return [gold] if gold and item.kind == Kind.ANSWER else []


def from_curated(row: CuratedRow, name: str) -> Candidate:
    """A row of an imported set. Its group is what it is answered from, else its set and question: a set may say the
    same in many rows."""
    sources = sorted({c["source"] for c in row.contexts if c.get("relevant") and c.get("source")})
    return Candidate(
        origin=Origin.IMPORTED if row.sentences else Origin.BAD,
        kind=row.kind,
        group=group_name("document", sources[0]) if sources else group_name("imported", f"{name}:{row.question}"),
        question=row.question,
        history=row.history,
        contexts=row.contexts,
        evidence=row.evidence,
        sentences=row.sentences,
        rejected=row.rejected,
        came_from=f"imported set {name}, line {row.position}"[:MAX_GROUP],
        gold=gold_sentences(row.contexts, row.sentences),
    )


def turn_contexts(retrieved: Sequence[Retrieved], resolution: Resolution) -> list[dict[str, Any]]:
    """Passages in rank order with their marks."""
    relevant = set(resolution.relevant_ranks)
    return [
        {
            "rank": r.rank,
            "title": r.passage.title,
            "source": r.source,
            "text": r.passage.text,
            "relevant": r.rank in relevant if relevant else None,
        }
        for r in retrieved
    ]


def group_name(kind: str, name: str) -> str:
    """What a row is grouped by for the splits; a name that the column cannot hold is replaced by its digest."""
    group = f"{kind}:{name}"
    return group if len(group) <= MAX_GROUP else f"{kind}:{hashlib.sha256(name.encode()).hexdigest()}"


def gold_sentences(contexts: list[dict[str, Any]], sentences: list[AlignedSentence]) -> tuple[str, ...]:
    refs = [SentenceRef(*ref) for sentence in sentences for ref in sentence["refs"]]
    cited = {ref.rank for ref in refs}
    by_rank = {c["rank"]: split_sentences(c["text"]) for c in contexts if c["rank"] in cited}
    return tuple(by_rank[ref.rank][ref.sentence] for ref in refs)
