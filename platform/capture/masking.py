"""One captured item through the scrubber: every text of it, in reading order, in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from assistants.models import Assistant
from assistants.vault import keyed_hash
from capture.naming import Names
from capture.payloads import Context, FeedbackItem, TurnItem, UpdateItem
from capture.uncertain import Occurrence, described, occurrences
from generation.prompts import Message
from privacy.entities import EntityTable
from privacy.findings import MaskedText, placeholder
from privacy.gazetteer import fold, gazetteer
from privacy.scrubber import Kind, Scrubber, ScrubText

_LONG_NUMBER = 10**6
"""From here on a number in metadata may be a telephone, a card or an account."""
_NAMES = {"model": 200, "adapter": 120, "prompt_digest": 64, "retrieval_config": 64, "client": 120}
"""Fields of a turn that are names, and how long they may be."""


@dataclass(frozen=True)
class MaskedContext:
    """One passage, scrubbed. ``changed``: something in its text was masked. ``trusted``: it is the assistant's own."""

    rank: int
    title: str
    source: str
    text: str
    score: float | None
    metadata: dict[str, Any]
    evidence: Sequence[tuple[int, int, float]]
    changed: bool
    trusted: bool = False


@dataclass(frozen=True)
class MaskedTurn:
    """A turn that may be stored: nothing in it is as the user typed it where that was personal."""

    question: str
    history: list[Message]
    response: str
    completion: str
    contexts: list[MaskedContext]
    tags: list[str]
    metadata: dict[str, Any]
    names: Mapping[str, str]
    """Of model, adapter, client and the like: `_NAMES`."""
    pii: list[dict[str, Any]] = field(default_factory=list)
    # In memory only: what was masked, and which placeholders the conversation had before.
    occurrences: Sequence[Occurrence] = field(default=(), repr=False)
    known: frozenset[str] = frozenset()


def mask_turn(
    *, item: TurnItem, assistant: Assistant, scrubber: Scrubber, table: EntityTable, is_ours: Callable[[Context], bool],
    client: str = "",
) -> MaskedTurn:  # fmt: skip
    """Scrubs a turn; ``table`` learns its entities.

    Args:
        client: the program that posted it, where the turn does not say.
        is_ours: whether a context is a text of the assistant's own documents. Only then is it trusted (a company's
            public telephone number stays); what a frontend brings from elsewhere may hold other people's data.

    Raises:
        privacy.findings.ScrubError: it could not be scrubbed; the table is unchanged.
    """
    known, named = known_in(table), Names(scrubber.policy, table)
    names = {name: named.masked(getattr(item, name), longest) for name, longest in _NAMES.items()}
    names["client"] = names["client"] or named.masked(client, _NAMES["client"])
    metadata, deny = without_user(assistant, item.metadata)
    # Ours, and not read: a recogniser that took it for a number would part a person from their turns, so that an
    # erasure found none of them. What a client posts under this name is text like any other.
    ours = {"user_key": metadata.pop("user_key")} if item.metadata.get("user") else {}
    texts = _Texts()
    history = [(m.role, texts.add(f"history.{i}", "user", m.content)) for i, m in enumerate(item.history)]
    question = texts.add("question", "user", item.question)
    contexts = [_Slots.of(texts, rank, context, is_ours(context), named) for rank, context in item.ranked_contexts()]
    response = texts.add("response", "response", item.response)
    completion = texts.add("completion", "response", item.completion)
    tags = [texts.add(f"tags.{i}", "user" if " " in tag else "label", tag, False) for i, tag in enumerate(item.tags)]
    rest = texts.tree("metadata", "user", named.keys(metadata))
    texts.scrub(scrubber, table, deny)
    found = texts.occurrences()
    return MaskedTurn(
        question=question(),
        history=[{"role": role, "content": content()} for role, content in history],
        response=response(),
        completion=completion(),
        contexts=[slots.read() for slots in contexts],
        tags=[tag()[:60] for tag in tags],
        metadata={**rest(), **ours},
        names=names,
        pii=[described(one) for one in found],
        occurrences=found,
        known=known,
    )


@dataclass(frozen=True)
class MaskedFeedback:
    """Text of feedback that may be stored; the rest as in `MaskedTurn`."""

    text: str
    occurrences: Sequence[Occurrence] = field(default=(), repr=False)
    known: frozenset[str] = frozenset()


def mask_feedback(*, item: FeedbackItem, scrubber: Scrubber, table: EntityTable) -> MaskedFeedback:
    """The text of feedback, scrubbed with the table of the conversation that it belongs to. Raises as `mask_turn`."""
    texts = _Texts()
    text = texts.add("text", "user", item.text)
    known = known_in(table)
    texts.scrub(scrubber, table, ())
    return MaskedFeedback(text(), texts.occurrences(), known)


@dataclass(frozen=True)
class MaskedUpdate:
    """What of an update may be stored; the rest as in `MaskedTurn`."""

    tags: list[str]
    metadata: dict[str, Any]
    occurrences: Sequence[Occurrence] = field(default=(), repr=False)
    known: frozenset[str] = frozenset()


def mask_update(*, item: UpdateItem, scrubber: Scrubber, table: EntityTable) -> MaskedUpdate:
    """Tags and metadata of an update, scrubbed with the table of its turn's conversation. Raises as `mask_turn`."""
    texts, known = _Texts(), known_in(table)
    tags = [texts.add(f"tags.{i}", "user" if " " in tag else "label", tag, False) for i, tag in enumerate(item.tags)]
    rest = texts.tree("metadata", "user", Names(scrubber.policy, table).keys(item.metadata))
    texts.scrub(scrubber, table, ())
    return MaskedUpdate([tag()[:60] for tag in tags], rest(), texts.occurrences(), known)


def known_in(table: EntityTable) -> frozenset[str]:
    """The placeholders that a table has given."""
    return frozenset(placeholder(entity.entity_type, entity.ordinal) for entity in table.entities)


def without_user(assistant: Assistant, metadata: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Metadata without ``user``, and what to mask because of it.

    A chatbot knows its user's name and address, and it is what leaks most often: those values are masked wherever they
    stand. What is kept is a keyed hash (``user_key``), by which the turns of one person can be found again.
    """
    kept = {key: value for key, value in metadata.items() if key != "user"}
    user = metadata.get("user")
    if not user:
        return kept, []
    values = [v for v in _leaves(user) if isinstance(v, str) and v.strip()]
    known: Any = user
    if isinstance(user, Mapping):
        known = next((user[k] for k in ("id", "email", "name") if user.get(k)), values[0] if values else "")
    kept["user_key"] = keyed_hash("user", assistant.pk, str(known)).hex()[:32]
    deny: list[str] = []
    for value in values:
        deny += [value.strip(), *_name_parts(value)]
    return kept, list(dict.fromkeys(deny))


def _name_parts(value: str) -> Iterator[str]:
    """Words of a name that can be masked alone: not those that are everyday words too ("Bill", "Will")."""
    words = value.split()
    if 2 <= len(words) <= 5 and all(word.replace("-", "").replace("'", "").isalpha() for word in words):
        yield from (word for word in words if len(word) > 2 and not gazetteer().is_common(fold(word)))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


class _Texts:
    """Collects texts, scrubs them in one call, hands each back through the function that `add` returned."""

    def __init__(self) -> None:
        self._fields: list[str] = []
        self._texts: list[ScrubText] = []
        self._masked: list[MaskedText] = []

    def add(self, name: str, kind: Kind, text: str, trusted: bool | None = None) -> Callable[[], str]:
        if not text:
            return str
        place = len(self._texts)
        self._fields.append(name)
        self._texts.append(ScrubText(kind, text, trusted))
        return lambda: self._masked[place].text

    def tree(self, name: str, kind: Kind, value: Any, trusted: bool | None = None) -> Callable[[], Any]:
        """Strings and long numbers of a JSON value; everything else stays."""
        if isinstance(value, Mapping):
            inner = {key: self.tree(f"{name}.{key}", kind, part, trusted) for key, part in value.items()}
            return lambda: {key: read() for key, read in inner.items()}
        if isinstance(value, list | tuple):
            parts = [self.tree(f"{name}.{i}", kind, part, trusted) for i, part in enumerate(value)]
            return lambda: [read() for read in parts]
        if isinstance(value, str):
            if " " in value.strip():
                return self.add(name, kind, value, trusted)
            return self.add(name, "label", value, trusted if kind == "context" else False)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= _LONG_NUMBER:
            written = str(value)
            read = self.add(name, kind, written, trusted)
            return lambda: value if read() == written else read()
        return lambda: value

    def scrub(self, scrubber: Scrubber, table: EntityTable, deny: Sequence[str]) -> None:
        self._masked = scrubber.scrub_turn(self._texts, table, deny=deny)

    def occurrences(self) -> list[Occurrence]:
        """What was masked where, with the values: placeholders that the text brought along are nobody's finding."""
        return [
            found
            for name, given, masked in zip(self._fields, self._texts, self._masked, strict=True)
            for found in occurrences(name, given.text, masked)
        ]


@dataclass(frozen=True)
class _Slots:
    """Where the masked texts of one context will be."""

    rank: int
    context: Context
    trusted: bool
    title: Callable[[], str]
    source: Callable[[], str]
    text: Callable[[], str]
    metadata: Callable[[], Any]

    @classmethod
    def of(cls, texts: _Texts, rank: int, context: Context, trusted: bool, named: Names) -> _Slots:
        name = f"contexts.{rank}"
        # `None` leaves it to the policy, which may have turned trust off; never the other way round.
        trust = None if trusted else False
        return cls(
            rank=rank,
            context=context,
            trusted=trusted,
            title=texts.add(f"{name}.title", "context", context.title, trust),
            source=texts.add(f"{name}.source", "label", context.source, trust),
            text=texts.add(f"{name}.text", "context", context.text, trust),
            metadata=texts.tree(f"{name}.metadata", "context", named.keys(context.metadata), trust),
        )

    def read(self) -> MaskedContext:
        text = self.text()
        metadata = self.metadata()
        if self.context.chunk is not None:
            metadata = {**metadata, "chunk": self.context.chunk}
        return MaskedContext(
            rank=self.rank,
            title=self.title()[:500],
            source=self.source()[:500],
            text=text,
            score=self.context.score,
            metadata=metadata,
            evidence=self.context.evidence,
            changed=text != self.context.text,
            trusted=self.trusted,
        )
