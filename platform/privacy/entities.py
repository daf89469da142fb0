"""Who is who in one conversation: the same value gets the same placeholder in every text.

The table holds keyed hashes only (HMAC-SHA-256, 128 bits), so later turns of a conversation find
the ordinals of earlier ones although no value is kept. Whoever has the key can test guesses
against the hashes: keep it apart from the database, or derive one per conversation.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from privacy.values import identity, literal_key, name_words

FORMAT = 1
_MIN_KEY_BYTES = 16
_HASH_BYTES = 16


@dataclass(slots=True, eq=False)
class Entity:
    """One entity: its number, the hashes of its spellings, and how to find it again in a text."""

    entity_type: str
    ordinal: int
    identities: set[str] = field(default_factory=set)
    # hash of the literal words -> number of words
    literals: dict[str, int] = field(default_factory=dict)
    # hashes of the words of a full name; empty while only one word of it is known
    name_parts: set[str] = field(default_factory=set)
    private: bool = False


@dataclass(frozen=True, slots=True)
class Value:
    """A found value, in reading order with others, as it stands in the normalised text."""

    entity_type: str
    text: str
    private: bool = False


class EntityTable:
    """Entities of one conversation. `key` has at least 16 bytes, else ValueError; new entities of a type are numbered
    from `first`."""

    def __init__(self, key: bytes, *, first: int = 1) -> None:
        if len(key) < _MIN_KEY_BYTES:
            raise ValueError(f"the key of an entity table has at least {_MIN_KEY_BYTES} bytes")
        self._key = key
        self._first = first
        self._entities: list[Entity] = []
        self._by_identity: dict[tuple[str, str], Entity] = {}
        self._by_literal: dict[str, Entity] = {}
        self._by_part: dict[str, list[Entity]] = {}
        self._taken: dict[str, set[int]] = {}
        self._next: dict[str, int] = {}
        self._released: set[str] = set()

    def __len__(self) -> int:
        return len(self._entities)

    @property
    def entities(self) -> Sequence[Entity]:
        """The entities in the order in which they were met."""
        return tuple(self._entities)

    @property
    def literal_lengths(self) -> set[int]:
        """Word counts of the values that can be searched for."""
        return {count for entity in self._entities for count in entity.literals.values()}

    def reserve(self, entity_type: str, ordinal: int) -> None:
        """Never give out an ordinal that a text brought along as a placeholder."""
        self._taken.setdefault(entity_type, set()).add(ordinal)

    def assign(self, values: Sequence[Value]) -> list[Entity]:
        """The entity of each value; new ones are numbered in the order given.

        All values of a turn belong in one call: whether "John" is "John Smith" depends on there
        being no "John Brown" in the same turn.
        """
        full_names = self._full_names(values)
        return [self._entity_of(value, full_names) for value in values]

    def find_literal(self, key: str) -> Entity | None:
        """The entity whose value has these folded words (`values.literal_key`)."""
        return self._by_literal.get(self._hash("literal", key))

    def find_name_part(self, folded: str) -> list[Entity]:
        """The people one of whose full names has this folded word."""
        return list(self._by_part.get(self._hash("part", folded), ()))

    def is_known(self, value: Value) -> bool:
        """Whether this value has been given a placeholder before."""
        name = identity(value.entity_type, value.text)
        return (value.entity_type, self._hash(value.entity_type, name)) in self._by_identity

    def is_released(self, value: Value) -> bool:
        """Whether an officer said of this value that it is nobody's."""
        return self._hash("released", literal_key(value.text) or value.text) in self._released

    def release(self, entity_type: str, ordinal: int, spellings: Iterable[str]) -> None:
        """Forget an entity, and never again take one of its spellings for an uncertain finding. Its number stays taken:
        a placeholder that is left somewhere must not come to mean somebody else."""
        gone = [e for e in self._entities if (e.entity_type, e.ordinal) == (entity_type, ordinal)]
        self._entities = [entity for entity in self._entities if entity not in gone]
        self._by_identity = {k: e for k, e in self._by_identity.items() if e not in gone}
        self._by_literal = {k: e for k, e in self._by_literal.items() if e not in gone}
        self._by_part = {k: [e for e in people if e not in gone] for k, people in self._by_part.items()}
        self.reserve(entity_type, ordinal)
        self._released |= {self._hash("released", literal_key(text) or text) for text in spellings}

    def _entity_of(self, value: Value, full_names: Mapping[str, set[str]]) -> Entity:
        name = identity(value.entity_type, value.text)
        known = self._by_identity.get((value.entity_type, self._hash(value.entity_type, name)))
        entity = known or self._linked_person(value, full_names) or self._new(value.entity_type)
        self._describe(entity, value, name)
        return entity

    def _describe(self, entity: Entity, value: Value, name: str) -> None:
        digest = self._hash(value.entity_type, name)
        entity.identities.add(digest)
        self._by_identity.setdefault((value.entity_type, digest), entity)
        entity.private = entity.private or value.private
        key = literal_key(value.text)
        if key:
            literal = self._hash("literal", key)
            entity.literals[literal] = len(key.split(" "))
            self._by_literal.setdefault(literal, entity)
        if value.entity_type == "PERSON" and len(name.split(" ")) > 1:
            for word in name_words(value.text):
                self._add_part(entity, self._hash("part", word))

    def _add_part(self, entity: Entity, part: str) -> None:
        if entity not in self._by_part.setdefault(part, []):
            self._by_part[part].append(entity)
        entity.name_parts.add(part)

    def _linked_person(self, value: Value, full_names: Mapping[str, set[str]]) -> Entity | None:
        """The person that a shorter or longer form of the same name was given to, if only one."""
        if value.entity_type != "PERSON":
            return None
        parts = [self._hash("part", part) for part in name_words(value.text)]
        if len(parts) == 1:
            owners = self._by_part.get(parts[0], [])
            return owners[0] if len(owners) == 1 else None
        for part in parts:
            lone = self._by_identity.get(("PERSON", self._lone_identity(value, part)))
            alone = lone is not None and not lone.name_parts
            if alone and len(full_names.get(part, ())) == 1:
                return lone
        return None

    def _lone_identity(self, value: Value, part: str) -> str:
        for word in name_words(value.text):
            if self._hash("part", word) == part:
                return self._hash("PERSON", word)
        return ""

    def _full_names(self, values: Iterable[Value]) -> dict[str, set[str]]:
        """hash of a name word -> the different full names of this turn that contain it."""
        found: dict[str, set[str]] = {}
        for value in values:
            words = name_words(value.text) if value.entity_type == "PERSON" else []
            if len(words) > 1:
                for word in words:
                    found.setdefault(self._hash("part", word), set()).add(" ".join(words))
        return found

    def _new(self, entity_type: str) -> Entity:
        taken = self._taken.setdefault(entity_type, set())
        ordinal = self._next.get(entity_type, self._first)
        while ordinal in taken:
            ordinal += 1
        taken.add(ordinal)
        self._next[entity_type] = ordinal + 1
        entity = Entity(entity_type, ordinal)
        self._entities.append(entity)
        return entity

    def _hash(self, domain: str, value: str) -> str:
        message = f"{domain}\0{value}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, message, "sha256")[:_HASH_BYTES].hex()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form: types, ordinals and hashes, never a value."""
        released = {"released": sorted(self._released)} if self._released else {}
        return {
            **released,
            "format": FORMAT,
            "key_check": self._hash("key", "check"),
            "taken": {name: sorted(taken) for name, taken in sorted(self._taken.items())},
            "entities": [
                {
                    "type": entity.entity_type,
                    "ordinal": entity.ordinal,
                    "identities": sorted(entity.identities),
                    "literals": dict(sorted(entity.literals.items())),
                    "name_parts": sorted(entity.name_parts),
                    "private": entity.private,
                }
                for entity in self._entities
            ],
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], *, key: bytes) -> EntityTable:
        """The table that `to_dict` wrote.

        Raises ValueError for another format or another key: with a wrong key every person would
        silently get a second number.
        """
        table = cls(key)
        if not plain:
            return table
        if plain.get("format") != FORMAT:
            raise ValueError("unknown format of an entity table")
        if plain.get("key_check") != table._hash("key", "check"):
            raise ValueError("the entity table was written with another key")
        for entity_type, ordinals in plain["taken"].items():
            table._taken[entity_type] = set(ordinals)
        table._released = set(plain.get("released", ()))
        for item in plain["entities"]:
            table._restore(item)
        return table

    def _restore(self, item: Mapping[str, Any]) -> None:
        entity = Entity(
            item["type"],
            item["ordinal"],
            identities=set(item["identities"]),
            literals=dict(item["literals"]),
            name_parts=set(item["name_parts"]),
            private=item["private"],
        )
        self._entities.append(entity)
        for digest in entity.identities:
            self._by_identity.setdefault((entity.entity_type, digest), entity)
        for literal in entity.literals:
            self._by_literal.setdefault(literal, entity)
        for part in sorted(entity.name_parts):
            self._add_part(entity, part)
