"""Names that come with an item: of models, adapters and programs, of metrics, and the keys of metadata.

They are no sentences, and chatbots filter and group by them, so the policy's lists of people and places do not apply
("Claude" is a model here). What a pattern with a form or a check digit knows is masked all the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from privacy.entities import EntityTable
from privacy.findings import ScrubError
from privacy.policy import Policy
from privacy.scrubber import Scrubber, ScrubText

TYPES = frozenset({"EMAIL", "PHONE", "CREDIT_CARD", "IBAN", "US_SSN", "UK_NINO", "NATIONAL_ID", "SECRET"})
"""No IP addresses: a version is written like one."""
_JOINTS = str.maketrans("._:/", "    ")
_JOINED = re.compile(r"[ ._:/-]+")
_LONGEST_WORD = 20
_GROWTH = 64
"""Characters that the masks of a key may be longer than what they stand for."""
_SHORT, _FEW_DIGITS = 12, 6
"""A name that is shorter and has fewer digits has room for none of these."""


class Names:
    """Masks names with the numbers that ``table`` gives, so that a value in a text and in a name is known for one."""

    def __init__(self, policy: Policy, table: EntityTable) -> None:
        self._policy, self._table = policy, table

    def masked(self, name: str, longest: int) -> str:
        """Raises privacy.findings.ScrubError."""
        regions = self._policy.regions
        if (written := telling(name, regions)) is None:
            return name
        text = _scrubber(regions).scrub_turn([ScrubText("label", written, trusted=False)], self._table)[0].text
        return (text if written == name else text.replace(" ", "."))[:longest]

    def keys(self, value: Any) -> Any:
        """A JSON value with its keys masked, at any depth. Raises as `masked`."""
        if isinstance(value, Mapping):
            found: dict[str, Any] = {}
            taken: Counter[str] = Counter()
            for key, inner in value.items():
                masked = name = self.masked(key, len(key) + _GROWTH)
                while name in found or (name != key and name in value):  # one number in two spellings: nothing is lost
                    taken[masked] += 1
                    name = f"{masked}_{taken[masked] + 1}"
                found[name] = self.keys(inner)
            return found
        return [self.keys(part) for part in value] if isinstance(value, list | tuple) else value


@lru_cache(maxsize=8192)
def telling(name: str, regions: tuple[str, ...] = Policy().regions) -> str | None:
    """The spelling in which a name is found to hold somebody's address or number, or a secret: as it is, or with spaces
    for what joins its parts. None: it holds nothing of the kind. Few names come, again and again.

    Raises:
        privacy.findings.ScrubError: it could not be read to the end.
    """
    if sum(char.isdigit() for char in name) < _FEW_DIGITS and (len(name) < _SHORT or _is_words(name)):
        return None
    for written in dict.fromkeys((name, name.translate(_JOINTS))):
        if _scrubber(regions).scrub_text(written, kind="label").text != written:
            return written
    return None


def _is_words(name: str) -> bool:
    """Small words with joints between them, as names mostly are. Web processes then need no recogniser, whose libraries
    take seconds and half a gigabyte."""
    parts = _JOINED.split(name)
    return all(p.isalnum() and len(p) <= _LONGEST_WORD and p[1:] == p[1:].lower() for p in parts)


def is_plain(name: str) -> bool:
    """A name that may be kept as it is; not one that cannot be read."""
    try:
        return telling(name) is None
    except ScrubError:
        return False


def _scrubber(regions: tuple[str, ...]) -> Scrubber:
    return Scrubber(Policy(entity_types=TYPES, trust_contexts=False, regions=regions))
