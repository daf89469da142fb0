"""One turn as its page shows it: plain values only, which the template escapes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Prefetch, Q, QuerySet
from django.urls import reverse
from django.utils.html import format_html

from assistants.access import assistants_of, has_role
from assistants.models import Role
from capture.citations import Segment, segments
from capture.late import SAME
from capture.models import Feedback, Retrieval, Turn, TurnUpdate
from generation.prompts import split_sentences

OWN_DIGEST = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class SentenceView:
    """``cited``: the answer points at it. ``similarity``: it was offered to the model, this near to the question."""

    anchor: str
    text: str
    cited: bool
    similarity: float | None


@dataclass(frozen=True)
class ContextView:
    rank: int
    title: str
    source: str
    score: float | None
    sentences: Sequence[SentenceView]
    relevance: str
    marks: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Label:
    """What one person said."""

    who: str
    verdict: str
    reasons: Sequence[str]
    correction: str
    note: str


@dataclass(frozen=True)
class MachineSaid:
    """What one program or judge said; ``counts``: the verdict that counts was made with it."""

    who: str
    kind: str
    verdict: str
    score: float | None
    reasons: Sequence[str]
    explanation: str
    counts: bool


@dataclass(frozen=True)
class TurnPage:
    turn: Turn
    answer: Sequence[Segment]
    contexts: Sequence[ContextView]
    resolution: Any
    labels: Sequence[Label]
    machines: Sequence[MachineSaid]
    masked: Sequence[tuple[str, int]]
    datasets: Sequence[Any]
    queues: Sequence[Any]


def turns_for_page(turns: QuerySet[Turn]) -> QuerySet[Turn]:
    """With all that the page shows, in a fixed number of queries.

    What later rooms know of a turn (labels, resolution, examples) is reached by relation names: this room may not
    import them, and a page that left it out would be half a page.
    """
    return turns.select_related("assistant", "conversation", "resolution", "api_key").prefetch_related(
        "resolution__machine_labels",
        Prefetch(
            "retrievals",
            queryset=Retrieval.objects.select_related("passage").prefetch_related("marks").order_by("rank"),
        ),
        Prefetch("feedback", queryset=Feedback.objects.order_by("given_at")),
        Prefetch("updates", queryset=TurnUpdate.objects.exclude(changes__has_key=SAME).select_related("api_key")),
        "annotations__annotator",
        "machine_labels",
        "examples__dataset",
        "queue_items__queue",
    )


def turns_to_label(user: User) -> QuerySet[Turn, Any]:
    """Keys of the turns in the queues that this person works in as an annotator: those with their name, and those
    without names. (By relation names, as above.)"""
    named = Q(queue_items__queue__people=user) | Q(queue_items__queue__people=None)
    own = assistants_of(user, Role.ANNOTATOR)
    return Turn.objects.filter(named, queue_items__isnull=False, assistant__in=own).order_by().values("pk")


def page_of(turn: Turn, *, viewer: User) -> TurnPage:
    """``turn`` from `turns_for_page`: then no query runs here besides the viewer's roles.

    Annotators see their own labels only, and the verdict that counts once they have given theirs: somebody else's would
    sway them.
    """
    retrievals = list(turn.retrievals.all())
    texts = {retrieval.rank: retrieval.passage.text for retrieval in retrievals}
    answer = segments(turn.response, texts, turn.citations)
    cited = {(c.rank, c.sentence) for segment in answer for c in segment.citations}
    cited |= {(int(pair[0]), int(pair[1])) for pair in turn.citations if len(pair) == 2}
    resolution = getattr(turn, "resolution", None)
    sees_all = has_role(viewer, turn.assistant, Role.ADMIN, Role.REVIEWER, Role.PRIVACY)
    rows: list[Any] = list(turn.annotations.all())
    current = [row for row in rows if row.replaced_by_id is None and row.withdrawn_at is None]
    labels = [row for row in current if sees_all or row.annotator_id == viewer.pk]
    examples: list[Any] = list(turn.examples.all())
    items: list[Any] = list(turn.queue_items.all())
    own = {row.pk for row in labels}
    return TurnPage(
        turn=turn,
        answer=answer,
        contexts=[_context(r, cited, resolution if sees_all or labels else None, own) for r in retrievals],
        resolution=resolution if sees_all or labels else None,
        labels=[_label(row) for row in labels],
        machines=_machines(turn, resolution) if sees_all else [],
        masked=sorted(Counter(str(finding.get("type", "")) for finding in turn.pii).items()),
        datasets=list({example.dataset_id: example.dataset for example in examples}.values()),
        queues=[item.queue for item in items],
    )


def _machines(turn: Turn, resolution: Any) -> list[MachineSaid]:
    """The newest first. Whether people have settled the turn without them is told by ``counts``."""
    rows: list[Any] = list(turn.machine_labels.all())
    counted = {label.pk for label in resolution.machine_labels.all()} if resolution is not None else set()
    return [
        MachineSaid(
            f"{row.name} {row.version}".strip(),
            row.get_kind_display(),
            row.verdict,
            row.score,
            [str(reason).replace("_", " ") for reason in row.reasons],
            row.explanation,
            row.pk in counted,
        )
        for row in rows
    ]


def _label(row: Any) -> Label:
    reasons = [str(reason).replace("_", " ") for reason in row.reasons]
    return Label(row.annotator.get_username(), row.verdict, reasons, row.correction, row.note)


def _context(
    retrieval: Retrieval, cited: set[tuple[int, int | None]], resolution: Any, labels: set[int]
) -> ContextView:
    rank = retrieval.rank
    similar = {int(row[1]): float(row[2]) for row in retrieval.evidence if len(row) == 3}
    marks: list[Any] = [mark for mark in retrieval.marks.all() if mark.annotation_id in labels]
    return ContextView(
        rank=rank,
        title=retrieval.passage.title or retrieval.source or f"Passage {rank}",
        source=retrieval.source,
        score=retrieval.score,
        sentences=[
            SentenceView(f"p{rank}s{place}", text, (rank, place) in cited, similar.get(place))
            for place, text in enumerate(split_sentences(retrieval.passage.text))
        ],
        relevance=_relevance(rank, resolution),
        marks=sorted(Counter(mark.get_relevance_display() for mark in marks).items()),
    )


def _relevance(rank: int, resolution: Any) -> str:
    if resolution is None:
        return ""
    return "relevant" if rank in resolution.relevant_ranks else "not relevant"


def _retrieval(turn: Turn) -> str:
    """What the turn carries; our own digest leads to the version of the settings that it names."""
    if not OWN_DIGEST.fullmatch(turn.retrieval_config):
        return turn.retrieval_config
    url = reverse("admin:knowledge_retrieval_digest", args=[turn.assistant.slug, turn.retrieval_config])
    return format_html('<a href="{}">{}</a>', url, turn.retrieval_config)


def provenance(turn: Turn) -> Mapping[str, Any]:
    """Where the answer came from, for the table on the page; empty values left out."""
    rows = {
        "Model": turn.model,
        "Adapter": turn.adapter or ("base model" if turn.completion else ""),
        "Prompt digest": turn.prompt_digest,
        "Retrieval": _retrieval(turn),
        "Threshold": "nothing was as similar as it asks: no model was asked" if turn.withheld else "",
        "Privacy policy": turn.policy_digest[:16],
        "Client": turn.client,
        "Key": turn.api_key.name if turn.api_key else "",
        "Outcome": turn.get_outcome_display(),
        "Latency": f"{turn.latency_ms} ms" if turn.latency_ms is not None else "",
        "Prompt tokens": turn.prompt_tokens,
        "Completion tokens": turn.completion_tokens,
        "Client id": turn.client_id,
        "Conversation": turn.conversation.external_id,
        "Tags": ", ".join(turn.tags),
    }
    return {name: value for name, value in rows.items() if value not in ("", None)}
