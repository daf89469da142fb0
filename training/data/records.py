"""What a row is as text: the parts that its digest is made of, and the columns that are copied into the database."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Any

from training.data.candidates import Candidate

COLUMNS = (
    "dataset_id", "position", "split", "weight", "digest", "origin", "kind", "group", "history", "question", "contexts",
    "evidence", "sentences", "rejected", "turn_id", "chunk_id", "came_from", "documents",
)  # fmt: skip
PARTS = ("contexts", "evidence", "group", "history", "kind", "origin", "question", "sentences")
"""What the digest of a row is made of, in the order of its JSON: everything that is learnt."""
_CONTEXT = {"rank", "relevant", "source", "text", "title"}

_as_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def record_of(row: Candidate) -> tuple[str, dict[str, str]]:
    """The digest of everything that is learnt, and the parts that are stored as JSON."""
    parts = {name: _as_json(getattr(row, name)) for name in PARTS if name != "contexts"}
    parts["contexts"] = "[" + ", ".join([_context_as_json(context) for context in row.contexts]) + "]"
    whole = "{" + ", ".join(f'"{name}": {parts[name]}' for name in PARTS) + "}"
    if not row.sentences:  # two turns may have been answered badly in two ways
        whole += row.rejected
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest(), parts


def columns_of(row: Candidate, parts: dict[str, str]) -> tuple[Any, ...]:
    """What COPY writes of a row, without what stands in its line."""
    return (
        str(row.origin), str(row.kind), row.group, parts["history"], row.question, parts["contexts"],
        parts["evidence"], parts["sentences"], row.rejected, row.turn_id, row.chunk_id, row.came_from,
        documents_of(row),
    )  # fmt: skip


def documents_of(row: Candidate) -> list[str]:
    """Paths of what is marked as relevant in it."""
    return sorted({c["source"] for c in row.contexts if c.get("relevant") and c.get("source")})


def _context_as_json(context: dict[str, Any]) -> str:
    """As `_as_json`. Passages come again and again in other rows, at other ranks, and with other marks."""
    said = (context.get("source"), context.get("text"), context.get("title"))
    if context.keys() != _CONTEXT or not all(isinstance(one, str) for one in said):
        return _as_json(context)
    rank, relevant = _as_json(context["rank"]), _as_json(context["relevant"])
    return f'{{"rank": {rank}, "relevant": {relevant}, {_passage_as_json(*said)}}}'


@lru_cache(maxsize=8192)
def _passage_as_json(source: str, text: str, title: str) -> str:
    return f'"source": {_as_json(source)}, "text": {_as_json(text)}, "title": {_as_json(title)}'
