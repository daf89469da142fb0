"""The leak audit of a dataset: every row is read by the strict rules before the version counts as frozen.

Most of a dataset are passages, and they come again and again. A passage in which nothing was found is not taken apart
anew for each row; a row in which something is found, or of whose conversation values are known, is read whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from assistants.models import Assistant
from capture.leaks import Audit, Row, TrustedTexts, context_texts, leaves
from capture.models import Turn
from privacy.findings import ScrubError
from privacy.leaks import AuditText
from privacy.recalled import Recalled
from training.data.candidates import Candidate
from training.models import Origin

KEPT = 60_000
"""Contexts of which is remembered what they are, at most twice: some 25 MB."""
PLAIN = frozenset({"rank", "title", "source", "text", "relevant"})
"""What a context of ours holds. One with more (of an imported set) is read whole for each row."""


class RowReader:
    """Reads the rows of one version, in parts."""

    def __init__(self, found: Audit, assistant: Assistant) -> None:
        self._found = found
        self._assistant = assistant
        self._quiet = Recalled(KEPT)
        self._trusted: dict[bytes, bool] = {}

    def read(self, rows: Sequence[Candidate], names: Sequence[str]) -> None:
        """Reads rows that the report calls by ``names``: two or three queries, and the fewer the more was read before.

        Raises:
            privacy.findings.ScrubError: a row cannot be read, so nobody can say that it is clean.
        """
        self._learn_trust(rows)
        conversations = conversations_with_values({row.turn_id for row in rows if row.turn_id})
        whole = []
        for name, row in zip(names, rows, strict=True):
            conversation = conversations.get(row.turn_id, "")
            if self._is_quiet(row) and not conversation:
                self._found.passed()
            else:
                whole.append(
                    Row(
                        name=name,
                        texts=list(self._texts(row)),
                        conversation=conversation,
                        turn=str(row.turn_id or ""),
                    )
                )
        self._found.read(whole)

    def look(self, rows: Sequence[Candidate]) -> list[bool]:
        """Reads texts that may be asked for, and counts nothing: what is known then is known to `read`. Says of each
        row whether nothing is found in its texts."""
        self._learn_trust(rows)
        return [self._looks_quiet(row) for row in rows]

    def _looks_quiet(self, row: Candidate) -> bool:
        with suppress(ScrubError):
            return self._is_quiet(row)
        return False  # what cannot be read is `read`'s to say, if the row comes at all

    def _learn_trust(self, rows: Sequence[Candidate]) -> None:
        if len(self._trusted) > 2 * KEPT:
            self._trusted.clear()
        new = {}
        for row in rows:
            for context in () if row.origin == Origin.SYNTHETIC else row.contexts:
                place = _digest(context)
                if place not in self._trusted:
                    new[place] = context
        if new:
            trusted = TrustedTexts(self._assistant, new.values())
            self._trusted.update((place, trusted.holds(context)) for place, context in new.items())

    def _is_trusted(self, row: Candidate, place: bytes) -> bool:
        # What is written from documents says what documents say: their passages are there as they were loaded.
        return row.origin == Origin.SYNTHETIC or self._trusted[place]

    def _is_quiet(self, row: Candidate) -> bool:
        """Whether nothing is found in any text of the row by itself."""
        quiet = all(self._found.is_quiet(text) for text in _own_texts(row))
        for context in row.contexts:
            place = _digest(context)
            trusted = self._is_trusted(row, place)
            known = place + bytes([trusted])
            plain = _is_plain(context)
            if plain and known in self._quiet:
                continue
            if not all(self._found.is_quiet(text) for text in context_texts(context, trusted)):
                quiet = False
            elif plain:
                self._quiet.add(known)
        return quiet

    def _texts(self, row: Candidate) -> Iterator[AuditText]:
        yield from _own_texts(row)
        for context in row.contexts:
            yield from context_texts(context, self._is_trusted(row, _digest(context)))


def _own_texts(row: Candidate) -> Iterator[AuditText]:
    yield AuditText("question", row.question)
    for field, text in leaves("history", "history", row.history):
        yield AuditText(field, text)
    for place, sentence in enumerate(row.sentences):
        yield AuditText(f"response.{place}", sentence["text"])
    yield AuditText("rejected", row.rejected)


def conversations_with_values(turns: Collection[Any]) -> dict[Any, str]:
    """{turn: its conversation} of those in which something was masked."""
    if not turns:
        return {}
    found = Turn.objects.filter(pk__in=turns).exclude(conversation__entities={})
    return dict(found.values_list("pk", "conversation__external_id"))


def _is_plain(context: Mapping[str, Any]) -> bool:
    """Whether its digest says all of it that could be text."""
    return context.keys() <= PLAIN and not isinstance(context.get("relevant"), str | list | dict)


def _digest(context: Mapping[str, Any]) -> bytes:
    told = "\x1f".join(str(context.get(name, "")) for name in ("title", "source", "text"))
    return hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=16).digest()
