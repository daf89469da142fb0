"""Every text of a stored turn, by the names that its masks go by, and how a changed one is written back.

A review or a new policy changes texts that are stored: the turn's own, its passages (which other turns may share), what
users said of it, and what annotators wrote. What depends on a text goes along: citations and evidence count sentences,
vectors are made of the words.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from django.db.models import Prefetch, QuerySet

from capture.models import Conversation, Feedback, Passage, Retrieval, Turn
from capture.storing import passage_digest
from generation.prompts import split_sentences
from privacy.scrubber import Kind

_LONG_NUMBER = 10**6
_USER_KEY = re.compile(r"[0-9a-f]{32}")
_ALIGN_WORDS = 4_000
"""Beyond that many words the alignment of sentences goes by their number alone."""


@dataclass(frozen=True)
class Place:
    """One text and how it is replaced in memory."""

    name: str
    kind: Kind
    text: str
    put: Callable[[str], None]
    trusted: bool = False


@dataclass
class Changes:
    """Whose vectors have to be made again, and how many rows were changed, by table."""

    turns: set[Any] = field(default_factory=set)
    passages: set[int] = field(default_factory=set)
    rows: dict[str, int] = field(default_factory=dict)

    def count(self, table: str, number: int = 1) -> None:
        self.rows[table] = self.rows.get(table, 0) + number


def stored_turns(conversation: Conversation) -> QuerySet[Turn]:
    """Its turns in order, with all that `StoredTurn` reads: a fixed number of queries for each batch of them.

    What annotators wrote is reached by relation names: this room may not import theirs.
    """
    return (
        Turn.objects.filter(conversation=conversation)
        .defer("embedding", "words")
        .select_related("resolution", "live_answer")
        .prefetch_related(
            Prefetch("retrievals", queryset=Retrieval.objects.select_related("passage").order_by("rank")),
            Prefetch("feedback", queryset=Feedback.objects.order_by("given_at", "pk")),
            "annotations__missed",
            "machine_labels",
        )
        .order_by("asked_at", "created_at", "pk")
    )


class StoredTurn:
    """A turn from `stored_turns` with its texts in reading order."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self._history: list[dict[str, Any]] = copy.deepcopy(turn.history)
        self._tags = list(turn.tags)
        self._metadata: Any = copy.deepcopy(turn.metadata)
        self._contexts = [_StoredContext(retrieval) for retrieval in turn.retrievals.all()]
        self._rows: list[tuple[str, Any, str]] = []
        self.places = self._read()

    def _read(self) -> list[Place]:
        turn = self.turn
        places: list[Place] = []
        for i, message in enumerate(self._history):
            places.append(Place(f"history.{i}", "user", str(message.get("content", "")), _into(message, "content")))
        places.append(Place("question", "user", turn.question, _onto(turn, "question")))
        for context in self._contexts:
            places += context.places()
        places.append(Place("response", "response", turn.response, _onto(turn, "response")))
        places.append(Place("completion", "response", turn.completion, _onto(turn, "completion")))
        places += [Place(f"tags.{i}", "user", tag, _into(self._tags, i)) for i, tag in enumerate(self._tags)]
        places += [place for place in _tree("metadata", "user", self._metadata) if not _is_user_key(place)]
        for feedback in turn.feedback.all():
            places.append(self._row_place("feedback", feedback, "text", "user"))
        notes: Any = turn.annotations
        for annotation in notes.all():
            places.append(self._row_place("annotations", annotation, "correction", "response"))
            places.append(self._row_place("annotations", annotation, "note", "response"))
            for passage in annotation.missed.all():  # copies of what the document was called then
                places.append(self._row_place("missed", passage, "title", "context", trusted=True))
                places.append(self._row_place("missed", passage, "source", "label", trusted=True))
        said: Any = turn.machine_labels
        for label in said.all():
            places.append(self._row_place("machine_labels", label, "explanation", "response"))
        live: Any = getattr(turn, "live_answer", None)
        if live is not None:  # what a model answered to these words
            places.append(self._row_place("live_answers", live, "text", "response"))
        resolution: Any = getattr(turn, "resolution", None)
        if resolution is not None:
            places.append(self._row_place("resolutions", resolution, "response", "response"))
        return [place for place in places if place.text]

    def _row_place(self, table: str, row: Any, name: str, kind: Kind, *, trusted: bool = False) -> Place:
        longest = row._meta.get_field(name).max_length if trusted else None

        def put(text: str) -> None:
            setattr(row, name, text[:longest])
            self._rows.append((table, row, name))

        return Place(f"{table}.{row.pk}.{name}", kind, getattr(row, name), put, trusted)

    def change(self, texts: Sequence[str]) -> list[Place]:
        """Replaces texts in memory, one for each place; the places where something changed."""
        changed = []
        for place, text in zip(self.places, texts, strict=True):
            if text != place.text:
                place.put(text)
                changed.append(place)
        return changed

    def save(self, changed: Iterable[Place], changes: Changes, *, pii: Sequence[Mapping[str, Any]]) -> None:
        """Writes what `change` replaced. ``pii``: the turn's list of masks from now on."""
        names = {place.name.partition(".")[0] for place in changed}
        turn = self.turn
        turn.pii = [dict(entry) for entry in pii]
        fields = {"pii"}
        if names & {"question", "history", "response", "completion", "tags", "metadata"}:
            turn.history, turn.metadata = self._history, self._metadata
            turn.tags = [tag[:60] for tag in self._tags]
            fields |= {"question", "history", "response", "completion", "tags", "metadata"}
            changes.count("turns")
        if names & {"question", "history"}:
            # A vector tells something of the words that it was made of: none is better than the old one.
            turn.embedding = None
            fields.add("embedding")
            changes.turns.add(turn.pk)
        if "contexts" in names:
            sentences = {context.retrieval.rank: context.save(changes) for context in self._contexts}
            turn.citations = _moved(turn.citations, sentences)
            fields.add("citations")
        turn.save(update_fields=sorted(fields))
        for table, row, name in self._rows:
            row.save(update_fields=[name])
            changes.count(table)


class _StoredContext:
    """One passage at one rank, as it came with this turn."""

    def __init__(self, retrieval: Retrieval) -> None:
        self.retrieval = retrieval
        passage = retrieval.passage
        self.title, self.text, self.source = passage.title, passage.text, retrieval.source
        self.metadata: Any = copy.deepcopy(retrieval.metadata)

    def places(self) -> list[Place]:
        name, trusted = f"contexts.{self.retrieval.rank}", self.retrieval.passage.trusted
        return [
            Place(f"{name}.title", "context", self.title, _onto(self, "title"), trusted),
            Place(f"{name}.source", "label", self.source, _onto(self, "source"), trusted),
            Place(f"{name}.text", "context", self.text, _onto(self, "text"), trusted),
            *_tree(f"{name}.metadata", "context", self.metadata, trusted),
        ]

    def save(self, changes: Changes) -> Mapping[int, int]:
        """Points the retrieval at the passage of the new text: the old row may be another turn's too. Returns where its
        sentences went."""
        retrieval, old = self.retrieval, self.retrieval.passage
        moved = _same(old.text)
        if (self.title, self.text) != (old.title, old.text):
            moved = realigned(old.text, self.text)
            retrieval.passage = self._passage(changes)
            retrieval.evidence = [
                [row[0], moved[int(row[1])], *row[2:]] for row in retrieval.evidence if row[1] in moved
            ]
        elif (self.source, self.metadata) == (retrieval.source, retrieval.metadata):
            return moved
        retrieval.own_source = None if self.source == retrieval.passage.source else self.source[:500]
        retrieval.own_metadata = None if self.metadata == retrieval.passage.metadata else self.metadata
        retrieval.save(update_fields=["passage", "evidence", "own_source", "own_metadata"])
        changes.count("passages")
        _tidy(old)
        return moved

    def _passage(self, changes: Changes) -> Passage:
        old = self.retrieval.passage
        passage, created = Passage.objects.get_or_create(
            assistant_id=old.assistant_id,
            digest=passage_digest(self.title[:500], self.text),
            defaults={
                "title": self.title[:500],
                "text": self.text,
                "source": self.source[:500],
                "metadata": self.metadata,
                "trusted": old.trusted,
            },
        )
        if created:
            changes.passages.add(passage.pk)
        return passage


def _tidy(passage: Passage) -> None:
    """Nothing that was masked stays behind in a passage that no turn shows any more."""
    # One that a worker refers to just now is locked by it, and stays; one that we hold gets no new reference.
    held = Passage.objects.filter(pk=passage.pk).select_for_update(skip_locked=True)
    if held.exists() and not passage.retrievals.exists():
        passage.delete()
        return
    blank: dict[str, Any] = {}
    if passage.source and not passage.retrievals.filter(own_source=None).exists():
        blank["source"] = ""
    if passage.metadata and not passage.retrievals.filter(own_metadata__isnull=True).exists():
        blank["metadata"] = {}
    if blank:
        Passage.objects.filter(pk=passage.pk).update(**blank)


def realigned(old: str, new: str) -> dict[int, int]:
    """{sentence of ``old``: sentence of ``new``}: a mask can join sentences, and a value can bring a full stop along.
    Sentences that share no word with a new one are left out."""
    before, after = split_sentences(old), split_sentences(new)
    if len(before) == len(after):
        return {i: i for i in range(len(before))}
    left = [(i, word) for i, sentence in enumerate(before) for word in sentence.split()]
    right = [(i, word) for i, sentence in enumerate(after) for word in sentence.split()]
    if max(len(left), len(right)) > _ALIGN_WORDS:
        return {i: i for i in range(min(len(before), len(after)))}
    votes: dict[int, dict[int, int]] = {}
    matcher = SequenceMatcher(None, [word for _, word in left], [word for _, word in right], autojunk=False)
    for block in matcher.get_matching_blocks():
        for step in range(block.size):
            count = votes.setdefault(left[block.a + step][0], {})
            place = right[block.b + step][0]
            count[place] = count.get(place, 0) + 1
    return {i: max(count, key=lambda place: (count[place], -place)) for i, count in votes.items()}


def _same(text: str) -> dict[int, int]:
    return {i: i for i in range(len(split_sentences(text)))}


def _moved(citations: Sequence[Sequence[Any]], sentences: Mapping[int, Mapping[int, int]]) -> list[list[Any]]:
    found: list[list[Any]] = []
    for pair in citations:
        rank, sentence = pair[0], pair[1] if len(pair) > 1 else None
        where = sentences.get(rank)
        if where is None or sentence is None:
            found.append(list(pair))
        elif sentence in where:
            found.append([rank, where[sentence]])
    return [list(pair) for pair in dict.fromkeys(tuple(pair) for pair in found)]


def _tree(name: str, kind: Kind, value: Any, trusted: bool = False) -> list[Place]:
    """Strings and long numbers of a JSON value, as `capture.masking` reads them."""
    items: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return []
    places: list[Place] = []
    for key, inner in items:
        path = f"{name}.{key}"
        if isinstance(inner, str):
            places.append(Place(path, kind, inner, _into(value, key), trusted))
        elif isinstance(inner, int | float) and not isinstance(inner, bool) and abs(inner) >= _LONG_NUMBER:
            places.append(Place(path, kind, str(inner), _into(value, key), trusted))
        else:
            places += _tree(path, kind, inner, trusted)
    return places


def _is_user_key(place: Place) -> bool:
    """The keyed hash by which the turns of one person are found again: no text, and never to be changed."""
    return place.name == "metadata.user_key" and _USER_KEY.fullmatch(place.text) is not None


def _into(container: Any, key: Any) -> Callable[[str], None]:
    def put(text: str) -> None:
        container[key] = text

    return put


def _onto(target: object, name: str) -> Callable[[str], None]:
    return lambda text: setattr(target, name, text)
