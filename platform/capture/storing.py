"""Scrubbed items become rows, and their payloads are destroyed, in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import transaction

from assistants.models import Assistant
from capture.citations import sentence_references
from capture.claims import Claim, remove
from capture.late_storing import Learned, ReadyFeedback, ReadyUpdate, keep_tables, write_feedback, write_updates
from capture.masking import MaskedContext, MaskedTurn
from capture.models import Conversation, Passage, Quarantine, Retrieval, Turn
from capture.own_texts import OwnTexts
from capture.payloads import TurnItem
from capture.uncertain import Noted, note
from generation.prompts import is_decline, split_sentences
from knowledge.evidence import EvidencePassage, rank_evidence, sentence_matrices
from knowledge.query import history_query, question_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ReadyTurn:
    """A scrubbed turn with what is needed to store it."""

    row: Quarantine
    client_id: str
    conversation: str
    item: TurnItem
    masked: MaskedTurn
    entities: dict[str, Any]
    policy_digest: str
    api_key_id: int | None
    received_at: datetime


Ready = ReadyTurn | ReadyFeedback | ReadyUpdate


@dataclass(frozen=True)
class Vectors:
    """Made once for a batch, outside of any transaction: by query text and by passage digest."""

    queries: Mapping[str, NDArray[np.float32]]
    passages: Mapping[str, bytes]


class StaleTable(Exception):
    """A conversation's table of masks was changed since it was read (an annotator's save, or a review)."""


class _Stored(NamedTuple):
    """A passage that is there."""

    pk: int
    source: str
    metadata: dict[str, Any]


def passage_digest(title: str, text: str) -> str:
    return hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()


def make_vectors(assistant: Assistant, turns: Sequence[ReadyTurn], own: OwnTexts) -> Vectors:
    """Embeds what is new: each distinct question and sentence once; stored passages and chunks bring theirs along."""
    queries = {_query(turn.masked, assistant): (turn.masked.question, turn.masked.history) for turn in turns}
    contexts = {passage_digest(c.title, c.text): c for turn in turns for c in turn.masked.contexts}
    stored = Passage.objects.filter(assistant=assistant, digest__in=contexts).exclude(sentence_embeddings=None)
    rows = stored.values_list("digest", "sentence_embeddings")
    passages = {digest: bytes(packed) for digest, packed in rows if packed is not None}
    for digest, context in contexts.items():
        if digest not in passages and (packed := own.sentence_vectors(context.title, context.text)):
            passages[digest] = packed
    new = [digest for digest in contexts if digest not in passages]
    matrices = sentence_matrices([(contexts[digest].title, contexts[digest].text) for digest in new])
    passages.update(zip(new, matrices, strict=True))
    vectors = question_vectors(list(queries.values()), assistant.glossary)
    return Vectors(queries=dict(zip(queries, vectors, strict=True)), passages=passages)


@transaction.atomic
def write(
    *,
    assistant: Assistant,
    claimed: Claim,
    ready: Sequence[Ready],
    vectors: Vectors,
    tables: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Stores items of one assistant in order of arrival and destroys their payloads.

    Args:
        tables: {conversation: its table of masks as it was when these items were masked}.

    Raises:
        StaleTable: one of the tables is another one now; nothing was written.
        capture.claims.LeaseLost: the items are no longer ours; nothing was written.
        capture.late_storing.TurnMissing: it is about a turn that is neither stored nor among ``ready``.
        capture.late_storing.UpdateRefused: what an update adds does not fit.
    """
    remove(claimed.of(item.row for item in ready))
    _refuse_stale(assistant, tables or {})
    turns = [item for item in ready if isinstance(item, ReadyTurn)]
    feedback = [item for item in ready if isinstance(item, ReadyFeedback)]
    learned: list[Learned] = []
    if turns:
        learned += _write_turns(assistant, turns, vectors)
    updates = [item for item in ready if isinstance(item, ReadyUpdate)]
    if feedback:
        learned += write_feedback(assistant, feedback)
    if updates:
        learned += write_updates(assistant, updates)
    if feedback or updates:  # turns alone have stored theirs
        keep_tables(learned)


def _refuse_stale(assistant: Assistant, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Two who number new people of one conversation would give the same number twice: the second begins again."""
    rows = Conversation.objects.filter(assistant=assistant, external_id__in=tables).order_by("pk")
    for name, entities in rows.select_for_update().values_list("external_id", "entities"):
        if entities != tables[name]:
            raise StaleTable


def _write_turns(assistant: Assistant, turns: Sequence[ReadyTurn], vectors: Vectors) -> list[Learned]:
    conversations = _conversations(assistant, turns)
    passages = _passages(assistant, turns, vectors)
    rows = [_turn(assistant, turn, conversations[turn.conversation], vectors) for turn in turns]
    Turn.objects.bulk_create(rows)
    retrievals: list[Retrieval] = []
    for row, turn in zip(rows, turns, strict=True):
        evidence = _evidence(assistant, turn.masked, vectors)
        for context in turn.masked.contexts:
            retrievals.append(
                _retrieval(row, context, passages[passage_digest(context.title, context.text)], evidence)
            )  # fmt: skip
    Retrieval.objects.bulk_create(retrievals)
    note(
        [
            Noted(row, row.conversation, turn.masked.occurrences, turn.masked.known, turn.policy_digest)
            for row, turn in zip(rows, turns, strict=True)
        ],
        assistant=assistant,
    )
    return [Learned(turn.row.pk, conversations[turn.conversation].pk, turn.entities) for turn in turns]


def _retrieval(
    turn: Turn, context: MaskedContext, passage: _Stored, evidence: Mapping[int, list[list[float]]]
) -> Retrieval:
    return Retrieval(
        turn=turn,
        passage_id=passage.pk,
        rank=context.rank,
        score=context.score,
        evidence=evidence.get(context.rank, []),
        own_source=None if context.source == passage.source else context.source,
        own_metadata=None if context.metadata == passage.metadata else context.metadata,
    )


def _conversations(assistant: Assistant, turns: Sequence[ReadyTurn]) -> dict[str, Conversation]:
    latest = {turn.conversation: turn.entities for turn in turns}
    Conversation.objects.bulk_create(
        [Conversation(assistant=assistant, external_id=key, entities=latest[key]) for key in sorted(latest)],
        update_conflicts=True,
        unique_fields=["assistant", "external_id"],
        update_fields=["entities"],
    )
    found = Conversation.objects.filter(assistant=assistant, external_id__in=latest)
    return {conversation.external_id: conversation for conversation in found}


def _passages(assistant: Assistant, turns: Sequence[ReadyTurn], vectors: Vectors) -> dict[str, _Stored]:
    contexts: dict[str, MaskedContext] = {}
    for turn in turns:
        for context in turn.masked.contexts:
            contexts.setdefault(passage_digest(context.title, context.text), context)
    known = _stored(assistant, contexts)
    new = sorted(contexts.keys() - known.keys())  # in one order everywhere: two workers may meet on the same passages
    if new:
        Passage.objects.bulk_create(
            [
                Passage(
                    assistant=assistant, digest=digest, title=contexts[digest].title, source=contexts[digest].source,
                    text=contexts[digest].text, metadata=contexts[digest].metadata,
                    sentence_embeddings=vectors.passages[digest], trusted=contexts[digest].trusted,
                )
                for digest in new
            ],
            ignore_conflicts=True,
        )  # fmt: skip
        known |= _stored(assistant, new)
    return known


def _stored(assistant: Assistant, digests: Iterable[str]) -> dict[str, _Stored]:
    rows = Passage.objects.filter(assistant=assistant, digest__in=digests)
    return {row[0]: _Stored(*row[1:]) for row in rows.values_list("digest", "pk", "source", "metadata")}


def _turn(assistant: Assistant, ready: ReadyTurn, conversation: Conversation, vectors: Vectors) -> Turn:
    from pgvector import HalfVector

    item, masked = ready.item, ready.masked
    texts = {context.rank: context.text for context in masked.contexts}
    citations = item.citations if item.citations is not None else sentence_references(masked.response, texts)
    return Turn(
        assistant=assistant,
        conversation=conversation,
        client_id=ready.client_id,
        question=masked.question,
        history=masked.history,
        response=masked.response,
        completion=masked.completion,
        citations=[list(pair) for pair in citations],
        declined=is_decline(masked.response, assistant.decline_sentence),
        asked_at=item.time or ready.received_at,
        **masked.names,
        policy_digest=ready.policy_digest,
        withheld=item.withheld,
        outcome=item.outcome,
        api_key_id=ready.api_key_id,
        latency_ms=round(item.latency_ms) if item.latency_ms is not None else None,
        prompt_tokens=item.prompt_tokens,
        completion_tokens=item.completion_tokens,
        tags=masked.tags,
        metadata=masked.metadata,
        pii=masked.pii,
        embedding=HalfVector(vectors.queries[_query(masked, assistant)]),
    )


def _evidence(assistant: Assistant, masked: MaskedTurn, vectors: Vectors) -> dict[int, list[list[float]]]:
    """{rank: [[place, sentence, similarity], …]}: as given with a turn that we served, else ranked now. Of a turn that
    was offered nothing (`Turn.withheld`) too: what was ranked says how far below the threshold it lay."""
    given = _given_evidence(masked.contexts)
    if given is not None:
        return given
    passages = [
        EvidencePassage(c.rank, c.text, vectors.passages[passage_digest(c.title, c.text)]) for c in masked.contexts
    ]
    scored = rank_evidence(
        question_vector=vectors.queries[_query(masked, assistant)],
        passages=passages,
        limit=assistant.evidence_sentences,
    )
    found: dict[int, list[list[float]]] = {}
    for place, sentence in enumerate(scored):
        found.setdefault(sentence.rank, []).append([place, sentence.sentence, sentence.similarity])
    return found


def _given_evidence(contexts: Iterable[MaskedContext]) -> dict[int, list[list[float]]] | None:
    """None when there is none, or when it no longer fits the texts (masking can change where sentences end)."""
    found: dict[int, list[list[float]]] = {}
    for context in contexts:
        if not context.evidence:
            continue
        if context.changed:
            return None
        count = len(split_sentences(context.text))
        if any(sentence >= count for _, sentence, _ in context.evidence):
            return None
        found[context.rank] = [list(row) for row in context.evidence]
    return found or None


def _query(masked: MaskedTurn, assistant: Assistant) -> str:
    return history_query(masked.question, masked.history, assistant.glossary)
