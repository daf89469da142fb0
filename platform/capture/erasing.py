"""Taking turns out for good: what of them this room holds, and how an id stays known without being readable.

Nothing here decides what is to go or asks why; `serving.erasure` does, and calls these inside its own transactions.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import CASCADE, ForeignObjectRel, Model, OuterRef, Q, QuerySet, Subquery

from assistants.models import Assistant
from assistants.vault import PayloadUnreadable
from capture.masking import without_user
from capture.models import Conversation, Passage, Quarantine, Receipt, Retrieval, Turn, WaitingSpans
from capture.sealing import content_of
from capture.vault import conversation_key, erased_id, stored_id

T = TypeVar("T")
ERASED = "[erased]"
CHUNK = 500
_MARK = re.compile(r"\[\d{1,3}\]")
_STUMP = 20
"""Characters from which on the beginning of a text stands for the text."""
_ABOUT_A_PERSON = ("user", "session", "conversation", "thread")
"""Parts of the names of span attributes that say whose conversation it is."""


@dataclass(frozen=True)
class Wanted:
    """What to look for where nothing is readable: keyed hashes of users, ids of conversations and of turns."""

    user_keys: frozenset[str] = frozenset()
    conversations: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()

    def item(self, assistant: Assistant, item: Mapping[str, Any]) -> bool:
        """Whether a posted turn, or what was posted about one, is meant."""
        names = [str(item[name]) for name in ("id", "turn") if item.get(name)]
        if self.ids and any(stored_id(name) in self.ids for name in names):
            return True
        if self.conversations and item.get("conversation"):
            return stored_id(str(item["conversation"])) in self.conversations or self._user(assistant, item)
        return self._user(assistant, item)

    def _user(self, assistant: Assistant, item: Mapping[str, Any]) -> bool:
        metadata = item.get("metadata")
        if not self.user_keys or not isinstance(metadata, Mapping):
            return False
        return without_user(assistant, metadata)[0].get("user_key") in self.user_keys

    def span(self, assistant: Assistant, span: Mapping[str, Any]) -> bool:
        """Whether a span of a waiting trace is meant."""
        if str(span.get("trace", "")) in self.ids:
            return True
        for name, value in span.get("attributes", {}).items():
            if any(part in name for part in _ABOUT_A_PERSON) and isinstance(value, str | int):
                text = str(value)
                if stored_id(text) in self.conversations or user_key(assistant, text) in self.user_keys:
                    return True
        return False


def user_key(assistant: Assistant, user: str) -> str:
    """The keyed hash that stands in ``metadata.user_key`` of the turns of this user."""
    return str(without_user(assistant, {"user": user})[0].get("user_key", ""))


# --- What hangs on turns ----------------------------------------------------------------------------------------------


def dependent_paths() -> dict[type[Model], list[str]]:
    """{model: lookups that lead from it to its turn}, of all that goes when a turn goes, in every room.

    Read from the models, so that a table that somebody adds is counted and needs no word here.
    """
    found: dict[type[Model], list[str]] = {Turn: ["pk"]}
    waiting: list[tuple[type[Model], str]] = [(Turn, "")]
    while waiting:
        model, path = waiting.pop()
        for relation in _cascading(model):
            lookup = relation.field.name + (f"__{path}" if path else "")
            paths = found.setdefault(relation.related_model, [])
            if lookup not in paths and lookup.count("__") < 6:
                paths.append(lookup)
                waiting.append((relation.related_model, lookup))
    return found


def _cascading(model: type[Model]) -> Iterator[ForeignObjectRel]:
    for relation in model._meta.related_objects:
        if getattr(relation, "on_delete", None) is CASCADE and relation.related_model is not model:
            yield relation


def table_name(model: type[Model]) -> str:
    return str(model._meta.verbose_name_plural)


def count_dependents(turns: QuerySet[Turn]) -> dict[str, int]:
    """{table: rows} that would go with these turns: one query for each table."""
    keys = turns.order_by().values("pk")
    counts: dict[str, int] = {}
    for model, paths in dependent_paths().items():
        condition = Q()
        for path in paths:
            condition |= Q(**{f"{path}__in": keys})
        rows = model._default_manager.filter(condition)
        counts[table_name(model)] = rows.values("pk").distinct().count()
    counts["vectors of questions"] = turns.exclude(embedding=None).count()
    counts["passages nobody else uses"] = lonely_passages(turns).count()
    return {name: count for name, count in counts.items() if count}


def lonely_passages(turns: QuerySet[Turn]) -> QuerySet[Passage]:
    """Passages that only these turns use."""
    keys = turns.order_by().values("pk")
    used = Retrieval.objects.filter(turn__in=keys).order_by().values("passage")
    elsewhere = Retrieval.objects.filter(passage=OuterRef("pk")).exclude(turn__in=keys)
    return _without(Passage.objects.filter(pk__in=used), elsewhere)


def _without(passages: QuerySet[Passage], rows: QuerySet[Retrieval]) -> QuerySet[Passage]:
    """Those that have none of ``rows`` (which refer to the passage as OuterRef). Each is looked up in the index, and
    that ends with the first: as a join, or as NOT IN, every retrieval that there is was read."""
    return passages.alias(used=Subquery(rows.order_by().values("pk")[:1])).filter(used=None)


# --- Ids --------------------------------------------------------------------------------------------------------------


def keep_ids_unreadable(assistant: Assistant, ids: Collection[str]) -> None:
    """Makes erased ids known for ever: a repeat of the post is a duplicate, and nobody reads from the row which id it
    was. In a transaction of its own before the readable receipts go: whoever posts meanwhile meets one or the other.
    """
    known = Receipt.objects.filter(assistant=assistant, client_id__in=ids).values_list("client_id", "payload_digest")
    digests = dict(known)
    Receipt.objects.bulk_create(
        [
            Receipt(assistant=assistant, client_id=erased_id(assistant.pk, name), payload_digest=digests.get(name, ""))
            for name in sorted(set(ids))
        ],
        ignore_conflicts=True,
    )


# --- Turns ------------------------------------------------------------------------------------------------------------


def erase_turns(assistant: Assistant, keys: Sequence[uuid.UUID]) -> Counter[str]:
    """Deletes turns with all that hangs on them, passages that nobody else uses, and their readable receipts.

    `keep_ids_unreadable` must have been committed before. Returns {table: rows}.
    """
    turns = list(Turn.objects.of(assistant).filter(pk__in=keys).only("pk", "client_id").select_for_update())
    found = [turn.pk for turn in turns]
    passages = list(Retrieval.objects.filter(turn__in=found).values_list("passage", flat=True).distinct())
    vectors = Turn.objects.filter(pk__in=found).exclude(embedding=None).count()
    counts: Counter[str] = Counter({"vectors of questions": vectors})
    counts["entries of the admin's history"] = _forget_history(found)
    for label, count in Turn.objects.filter(pk__in=found).delete()[1].items():
        counts[_plural(label)] += count
    counts["passages nobody else uses"] = _delete_lonely(assistant, passages)
    names = [turn.client_id for turn in turns]
    counts["ids made unreadable"] = (
        Receipt.objects.filter(assistant=assistant, client_id__in=names).delete()[1].get("capture.Receipt", 0)
    )
    return counts


def _delete_lonely(assistant: Assistant, passages: Sequence[int]) -> int:
    """How many of these nobody uses any more, and went.

    Only those that look so are locked: what many turns share would be held until the end, and who stores a turn waits.
    One that a worker refers to just now is locked by it, and stays; one that we hold gets no new reference.
    """
    used = Retrieval.objects.filter(passage=OuterRef("pk"))
    seen = _without(Passage.objects.filter(assistant=assistant, pk__in=passages), used)
    rows = Passage.objects.filter(pk__in=list(seen.values_list("pk", flat=True)))
    held = list(rows.select_for_update(skip_locked=True).values_list("pk", flat=True))
    alone = list(_without(Passage.objects.filter(pk__in=held), used).values_list("pk", flat=True))
    return Passage.objects.filter(pk__in=alone).delete()[0]


def _plural(label: str) -> str:
    from django.apps import apps

    return table_name(apps.get_model(label))


def _forget_history(keys: Sequence[uuid.UUID]) -> int:
    """Django's admin history quotes the question of a turn that was touched there."""
    rows = LogEntry.objects.filter(content_type=ContentType.objects.get_for_model(Turn), object_id__in=map(str, keys))
    return rows.delete()[0]


def quoting(assistant: Assistant, turns: QuerySet[Turn]) -> list[Turn]:
    """Later turns of the same conversations, which stay, with what these turns said taken out of their history (in
    memory: `clean_histories` stores it)."""
    said: dict[int, set[str]] = {}
    for conversation, question, response in turns.values_list("conversation", "question", "response"):
        said.setdefault(conversation, set()).update((_bare(question), _bare(response)))
    found: list[Turn] = []
    staying = Turn.objects.of(assistant).filter(conversation__in=said).exclude(pk__in=turns.order_by().values("pk"))
    for turn in staying.exclude(history=[]).only("pk", "conversation_id", "history", "question"):
        texts = said[turn.conversation_id]
        cleaned = [
            {**message, "content": ERASED} if _was_said(str(message.get("content", "")), texts) else message
            for message in turn.history
        ]
        if cleaned != turn.history:
            turn.history = cleaned
            found.append(turn)
    return found


def clean_histories(assistant: Assistant, changed: Sequence[Turn]) -> int:
    """Stores what `quoting` gave. Vectors were made with that history, and are made again from what is left."""
    if changed:
        from pgvector import HalfVector

        from knowledge.query import question_vectors

        pairs = [(turn.question, turn.history) for turn in changed]
        for turn, vector in zip(changed, question_vectors(pairs, assistant.glossary), strict=True):
            turn.embedding = HalfVector(vector)
        Turn.objects.bulk_update(changed, ["history", "embedding"])
    return len(changed)


def _bare(text: str) -> str:
    """Without citation marks: a frontend sends its answers back without them, and shortened."""
    return " ".join(_MARK.sub(" ", text).split())


def _was_said(content: str, texts: Collection[str]) -> bool:
    bare = _bare(content.rstrip("… "))
    return bool(bare) and any(bare == text or (len(bare) >= _STUMP and text.startswith(bare)) for text in texts)


def drop_empty_conversations(assistant: Assistant, keys: Collection[int]) -> int:
    """Conversations without a turn, with their tables of keyed hashes."""
    left = Conversation.objects.filter(assistant=assistant, pk__in=keys, turns=None)
    return left.delete()[1].get("capture.Conversation", 0)


# --- What waits -------------------------------------------------------------------------------------------------------


@dataclass
class Waiting:
    """Encrypted things that are meant, and how many no key opens (they stay, and are told)."""

    items: list[int] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    spans: list[int] = field(default_factory=list)
    traces: set[str] = field(default_factory=set)
    unreadable: int = 0


def find_waiting(assistant: Assistant, wanted: Wanted, *, beat: Callable[[], object]) -> Waiting:
    """Looks through the quarantine and the waiting traces of an assistant, `CHUNK` rows in memory at a time."""
    found = Waiting()
    keys = {conversation_key(assistant.pk, name) for name in wanted.conversations}
    rows = Quarantine.objects.filter(assistant=assistant).select_related("receipt").order_by("pk")
    for row in rows.iterator(chunk_size=CHUNK):
        beat()
        name = row.receipt.client_id if row.receipt else ""
        if row.conversation_key in keys or name in wanted.ids:
            meant: bool | None = True
        else:
            meant = _opens(row.payload, lambda envelope: wanted.item(assistant, envelope["item"]))
        if meant is None:
            found.unreadable += 1
        elif meant:
            found.items.append(row.pk)
            if name:
                found.ids.add(name)
    _find_spans(assistant, wanted, found, beat)
    return found


def _find_spans(assistant: Assistant, wanted: Wanted, found: Waiting, beat: Callable[[], object]) -> None:
    rows = WaitingSpans.objects.filter(assistant=assistant).order_by("pk")
    for row in rows.iterator(chunk_size=CHUNK):
        beat()
        meant = _opens(row.payload, lambda spans: any(wanted.span(assistant, span) for span in spans))
        if meant is None:
            found.unreadable += 1
        elif meant:
            found.traces.add(row.trace)
    # A trace is one turn: what identifies it may stand in one of its requests only.
    whole = WaitingSpans.objects.filter(assistant=assistant, trace__in=found.traces)
    found.spans = list(whole.values_list("pk", flat=True))


def _opens(payload: bytes | memoryview, meant: Callable[[Any], bool]) -> bool | None:
    """None when no key opens it, or when it is not what it should be."""
    try:
        return meant(json.loads(content_of(payload)))
    except (PayloadUnreadable, ValueError, KeyError, TypeError, AttributeError):
        return None


def erase_waiting(assistant: Assistant, found: Waiting) -> Counter[str]:
    """Destroys encrypted payloads; a worker that scrubs one just now finds its lease gone and writes nothing."""
    counts: Counter[str] = Counter()
    for keys in _chunks(found.items):
        rows = Quarantine.objects.filter(assistant=assistant, pk__in=keys)
        counts["quarantined items"] += rows.delete()[1].get("capture.Quarantine", 0)
    for keys in _chunks(found.spans):
        counts["waiting spans"] += WaitingSpans.objects.filter(assistant=assistant, pk__in=keys).delete()[0]
    names = sorted(found.ids)
    for part in _chunks(names):
        gone = Receipt.objects.filter(assistant=assistant, client_id__in=part).delete()[1]
        counts["ids made unreadable"] += gone.get("capture.Receipt", 0)
    return counts


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]
