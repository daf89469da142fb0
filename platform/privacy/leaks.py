"""The second look: texts that were scrubbed, read again by stricter rules before they leave the house.

What differs from scrubbing: thresholds are lower where a check digit or a form vouches for a finding, no allow list
helps, and what is known (canaries, the deny list, the values of the conversation as keyed hashes) is searched
literally. What is the same: what the assistant's own documents print may be repeated. Each distinct text is read once.

What that rests on: the scan of one text depends on nothing but the text, whether it is trusted, and what a scanner is
made of (strict policy, recognisers, name model, canaries, deny list). So "nothing was found in it" holds for every row
that has the text, as long as the scanner lives; it is kept by digest. Nothing that scrubbing has said about a text is
believed: a text counts as read only when these rules have read it. What depends on the row (the values of its
conversation, what its passages print) is never kept.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from privacy.canaries import Matcher
from privacy.documents import Document
from privacy.entities import EntityTable, Value
from privacy.findings import HARD_TYPES, Finding, ScrubError
from privacy.literals import LiteralIndex
from privacy.name_tier import NAME_TYPES, read_names, weigh
from privacy.normalise import normalise
from privacy.policy import Policy
from privacy.recalled import Recalled
from privacy.scrubber import PUBLIC_TYPES
from privacy.values import identity, literal_key, words_of

STRICT: Mapping[str, float] = {
    "EMAIL": 0.3,
    "PHONE": 0.4,
    "CREDIT_CARD": 0.3,
    "IBAN": 0.3,
    "US_SSN": 0.3,
    "UK_NINO": 0.3,
    "IP_ADDRESS": 0.3,
    "MAC_ADDRESS": 0.3,
    "SECRET": 0.35,
}
"""Scores from which on a finding blocks, where that is below what the policy masks. Names, addresses and numbers
without a check digit stay at what the policy masks at all: lower, every product name would block a dataset."""
DOUBTFUL = 0.15
"""From here on a finding is listed, and blocks nothing."""
_REMEMBERED = 20_000
_QUIET = 100_000
"""Digests of texts in which nothing was found, at most twice as many: some 20 MB. Passages come again and stay."""


@dataclass(frozen=True, slots=True)
class AuditText:
    """One text of a row; ``field`` names it as the report does. ``trusted``: of the assistant's own documents."""

    field: str
    text: str
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Leak:
    """A hit, without its value. ``by``: scan, canary, deny list or conversation. ``key``: keyed hash of the value."""

    field: str
    entity_type: str
    by: str
    score: float
    key: str
    blocks: bool


@dataclass(frozen=True, slots=True)
class _Found:
    entity_type: str
    identity: str
    words: str
    by: str
    score: float
    private: bool


def strict_policy(policy: Policy) -> Policy:
    """The policy that an audit reads with: hard types only, no allow list, lower thresholds."""
    thresholds = {
        kind: min(STRICT.get(kind, 1.0), policy.floor(kind, trusted=False), policy.threshold(kind))
        for kind in HARD_TYPES
    }
    # Read once more with its masks in place, a text looks a little different to the finder of names. What it then takes
    # for one with the least score that is masked at all is a doubt, and no leak.
    for kind in NAME_TYPES & HARD_TYPES:
        thresholds[kind] = math.nextafter(policy.threshold(kind), 1)
    return replace(
        policy,
        entity_types=HARD_TYPES,
        thresholds=thresholds,
        review_band={},
        allow=(),
        trusted_types=policy.trusted_types & HARD_TYPES,
    )


class LeakScanner:
    """Reads rows of one assistant. ``key`` makes the keyed hash by which an accepted value is known again; ``printed``
    are the words (`values.literal_key`) of allowed values that the assistant's own documents print."""

    def __init__(
        self,
        policy: Policy,
        *,
        canaries: Matcher,
        key: Callable[[str], str],
        accepted: frozenset[str] = frozenset(),
        printed: frozenset[str] = frozenset(),
    ) -> None:
        from privacy.recognizers import get_analyzer

        self.policy = strict_policy(policy)
        self.texts = 0
        self._analyzer = get_analyzer(policy.regions)
        self._canaries = canaries
        self._key = key
        self._accepted = accepted
        self._allowed = printed
        self._denied = LiteralIndex(EntityTable(secrets.token_bytes(32)))
        for value in policy.deny:
            self._denied.add(Value("PERSON", normalise(value).text, private=True))
        self._quiet = Recalled(_QUIET)
        self._found: dict[bytes, tuple[_Found, ...]] = {}
        self._printed: dict[bytes, tuple[str, frozenset[tuple[str, str]]]] = {}

    def read(self, texts: Sequence[AuditText], table: EntityTable | None = None) -> list[Leak]:
        """What leaks in the texts of one row. ``table``: of the conversation that the row was made of.

        Raises ScrubError when a text cannot be read: what was not read is not clean.
        """
        try:
            return self._read(texts, table)
        except ScrubError:
            raise
        except Exception as error:
            # The cause may quote the text in its message, so only its type is passed on.
            raise ScrubError(f"{type(error).__name__} while auditing") from None

    def _read(self, texts: Sequence[AuditText], table: EntityTable | None) -> list[Leak]:
        trusted = [item.text for item in texts if item.trusted]
        leaks: dict[tuple[str, str, str], Leak] = {}
        # One for the row: what it was asked for, it knows for all texts of it.
        values = LiteralIndex(table) if table is not None and _may_leak(table, trusted=False) else None
        beside_public = table is not None and _may_leak(table, trusted=True)
        for item in texts:
            if not item.text:
                continue
            hits = list(self._known_in(item))
            if values is not None and (beside_public or not item.trusted):
                hits += self._of_conversation(item, values)
            for hit in hits:
                if self._is_public(hit, item, trusted) or self._is_released(hit, table):
                    continue
                leak = self._leak(item.field, hit)
                place = (leak.field, leak.entity_type, leak.key)
                if place not in leaks or leak.blocks > leaks[place].blocks:
                    leaks[place] = leak
        return list(leaks.values())

    def is_quiet(self, item: AuditText) -> bool:
        """Whether nothing at all is found in the text by itself, not even what would only be listed. What its row or
        its conversation make of it is `read`'s to say.

        Raises ScrubError when it cannot be read.
        """
        try:
            return not item.text or not self._known_in(item)
        except ScrubError:
            raise
        except Exception as error:
            raise ScrubError(f"{type(error).__name__} while auditing") from None

    def _leak(self, field: str, hit: _Found) -> Leak:
        key = self._key(f"{hit.entity_type}\x1f{hit.identity}")
        blocks = hit.by != "scan" or hit.score >= self.policy.threshold(hit.entity_type)
        # A canary that somebody accepts is no test any more.
        return Leak(
            field,
            hit.entity_type,
            hit.by,
            round(hit.score, 2),
            key,
            blocks and (hit.by == "canary" or key not in self._accepted),
        )

    def _known_in(self, item: AuditText) -> tuple[_Found, ...]:
        """Everything that does not depend on the row: once for each distinct text."""
        place = _digest(item.text, trusted=item.trusted)
        if place in self._quiet:
            return ()
        known = self._found.get(place)
        if known is None:
            known = tuple(self._search(item))
            self.texts += 1
            if not known:
                self._quiet.add(place)
                return known
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[place] = known
        return known

    def _search(self, item: AuditText) -> list[_Found]:
        document = Document(item.text, item.trusted, self.policy.types_for(trusted=item.trusted))
        text = document.view.text
        found = [_Found(kind.upper(), kind, "", "canary", 1.0, True) for kind in self._canaries.kinds(item.text)]
        if not item.trusted and self.policy.deny:
            found += [
                replace(_made(document, hit), by="deny list", entity_type="PERSON")
                for hit, _ in self._denied.hits(document)
            ]
        for hit in self._weighed(document):
            if hit.score >= DOUBTFUL and any(char.isalnum() for char in text[hit.start : hit.end]):
                found.append(_made(document, hit))
        return found

    def _weighed(self, document: Document) -> list[Finding]:
        """What the recognisers find. Where a list of names would block, the name model is heard, as in scrubbing: the
        lists alone take everyday words for names, and would stop what was scrubbed rightly."""
        hits = self._analyzer.find(document.view.text, document.types)
        if any(hit.entity_type in NAME_TYPES and hit.score >= self.policy.threshold(hit.entity_type) for hit in hits):
            return weigh(read_names([document.view.text])[0], hits, frozenset())
        return hits

    def _of_conversation(self, item: AuditText, values: LiteralIndex) -> list[_Found]:
        """Values that another turn of the conversation gave away: masked there, and perhaps not here."""
        document = Document(item.text, item.trusted, self.policy.types_for(trusted=item.trusted))
        return [
            replace(_made(document, hit), by="conversation")
            for hit, _ in values.hits(document)
            if hit.entity_type in HARD_TYPES
        ]

    def _is_public(self, hit: _Found, item: AuditText, trusted: Sequence[str]) -> bool:
        """Whether a trusted context of this row prints the same, as the scrubber's own rule has it."""
        if hit.private or hit.entity_type not in PUBLIC_TYPES:
            return False
        if item.trusted:
            # A user named the house's own contact where nothing showed that it is one: masked there, public here.
            return hit.by == "conversation"
        if hit.words and hit.words in self._allowed:
            return True
        for text in trusted:
            words, entities = self._print(text)
            if hit.words and f" {hit.words} " in words:
                return True
            if (hit.entity_type, hit.identity) in entities:
                return True
        return False

    def _is_released(self, hit: _Found, table: EntityTable | None) -> bool:
        """Whether an officer has said of an uncertain value of this conversation that it is nobody's."""
        if table is None or hit.by != "scan":
            return False
        return table.is_released(Value(hit.entity_type, hit.words or hit.identity))

    def _print(self, text: str) -> tuple[str, frozenset[tuple[str, str]]]:
        place = _digest(text, trusted=True)
        known = self._printed.get(place)
        if known is None:
            plain = normalise(text).text
            entities = frozenset(
                (hit.entity_type, identity(hit.entity_type, plain[hit.start : hit.end]))
                for hit in self._analyzer.find(plain, HARD_TYPES)
            )
            known = (f" {' '.join(word.folded for word in words_of(plain))} ", entities)
            if len(self._printed) >= _REMEMBERED:
                self._printed.clear()
            self._printed[place] = known
        return known


def _made(document: Document, hit: Finding) -> _Found:
    value = document.view.text[hit.start : hit.end]
    return _Found(hit.entity_type, identity(hit.entity_type, value), literal_key(value), "scan", hit.score, hit.private)


def _may_leak(table: EntityTable, *, trusted: bool) -> bool:
    """Whether a value of the table can be a hit at all. In a trusted text those cannot that a company may print of
    itself, unless the people themselves have named them (`LeakScanner._is_public`)."""
    return any(
        entity.entity_type in HARD_TYPES and (not trusted or entity.private or entity.entity_type not in PUBLIC_TYPES)
        for entity in table.entities
    )


def _digest(text: str, *, trusted: bool) -> bytes:
    mark = b"trusted" if trusted else b""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, person=mark).digest()
