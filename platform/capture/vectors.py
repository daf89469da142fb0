"""Vectors of texts that were changed after they had been stored."""

from __future__ import annotations

from collections.abc import Sequence

from capture.models import Passage, Turn
from knowledge.evidence import sentence_matrices
from knowledge.query import question_vectors

_BATCH = 64


def fill(turns: Sequence[str], passages: Sequence[int]) -> int:
    """Embeds those of them that have no vectors; how many."""
    return _fill_turns(turns) + _fill_passages(passages)


def fill_forgotten(limit: int = 500) -> int:
    """Passages whose job was lost. (Turns without a vector are found by words and filters only; to look for them would
    cost a walk through the whole log each time.)"""
    keys = Passage.objects.filter(sentence_embeddings=None).order_by("pk").values_list("pk", flat=True)[:limit]
    return _fill_passages(list(keys))


def _fill_turns(keys: Sequence[str]) -> int:
    from pgvector import HalfVector

    done = 0
    for start in range(0, len(keys), _BATCH):
        wanted = Turn.objects.filter(pk__in=keys[start : start + _BATCH], embedding=None)
        rows = list(wanted.select_related("assistant").only("question", "history", "assistant"))
        by_assistant: dict[int, list[Turn]] = {}
        for row in rows:
            by_assistant.setdefault(row.assistant_id, []).append(row)
        for group in by_assistant.values():
            vectors = question_vectors([(t.question, t.history) for t in group], group[0].assistant.glossary)
            for turn, vector in zip(group, vectors, strict=True):
                # Only where the text is still the one that was embedded.
                done += Turn.objects.filter(pk=turn.pk, question=turn.question, history=turn.history).update(
                    embedding=HalfVector(vector)
                )
    return done


def _fill_passages(keys: Sequence[int]) -> int:
    done = 0
    for start in range(0, len(keys), _BATCH):
        rows = list(Passage.objects.filter(pk__in=keys[start : start + _BATCH], sentence_embeddings=None))
        for row, packed in zip(rows, sentence_matrices([(row.title, row.text) for row in rows]), strict=True):
            done += Passage.objects.filter(pk=row.pk).update(sentence_embeddings=packed)
    return done
