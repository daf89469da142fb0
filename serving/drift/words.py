"""Which words were said: of each question, with the user's question before it, as the vectors are made too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from capture.models import Turn
from generation.overlap import STOP_WORDS, words
from knowledge.query import history_query
from training.models import Example


def words_of_turns(keys: Sequence[UUID]) -> list[frozenset[str]]:
    """In the order of ``keys``; empty where the turn is gone. One query."""
    return _in_order(keys, Turn.objects.filter(pk__in=keys).order_by().values_list("pk", "question", "history"))


def words_of_rows(keys: Sequence[int]) -> list[frozenset[str]]:
    """Of a dataset's rows, in the order of ``keys``. One query."""
    rows = Example.objects.filter(pk__in=keys, erased_at=None).order_by()
    return _in_order(keys, rows.values_list("pk", "question", "history"))


def telling(text: str) -> frozenset[str]:
    """Words that carry meaning; numbers stand for nobody's topic."""
    found = words(text)
    return frozenset(word for word in found if word not in STOP_WORDS and len(word) > 1 and not word[0].isdigit())


def _in_order(keys: Sequence[Any], rows: Any) -> list[frozenset[str]]:
    said = {key: telling(history_query(question, history)) for key, question, history in rows}
    return [said.get(key, frozenset()) for key in keys]
