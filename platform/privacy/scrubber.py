"""The one scrubbing service: texts of a turn in, masked texts out; every path goes through here.

Fails closed: whatever goes wrong raises ScrubError, and the caller keeps the text held.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from privacy.entities import EntityTable, Value
from privacy.findings import MaskedText, ScrubError, TextTooLong
from privacy.literals import LiteralIndex
from privacy.normalise import normalise
from privacy.policy import Policy
from privacy.turn import PUBLIC_TYPES, Kind, ScrubText, Turn
from privacy.values import literal_key

if TYPE_CHECKING:
    from privacy.analyzer import OfflineAnalyzer

__all__ = ["PUBLIC_TYPES", "Kind", "ScrubText", "Scrubber"]
_PHONE_DIGITS = 7


class Scrubber:
    """Applies one policy. Cheap to create: the engine is shared by the whole process."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()

    @cached_property
    def _analyzer(self) -> OfflineAnalyzer:
        from privacy.recognizers import get_analyzer

        return get_analyzer(self.policy.regions)

    @cached_property
    def _allowed(self) -> frozenset[str]:
        return frozenset(literal_key(normalise(value).text) for value in self.policy.allow) - {""}

    @cached_property
    def _denied(self) -> LiteralIndex:
        index = LiteralIndex(EntityTable(secrets.token_bytes(32)))
        for value in self.policy.deny:
            index.add(_given(value))
        return index

    def scrub_turn(
        self, texts: Sequence[ScrubText], table: EntityTable, *, deny: Sequence[str] = ()
    ) -> list[MaskedText]:
        """Mask the texts of a turn, given in reading order; `table` learns the new entities.

        `deny` are values known to be personal, such as the user's name from the session. Texts of
        earlier turns may be given again: placeholders are left alone, and values first found now
        are masked there too. Contexts of a trusted source lose only the policy's `trusted_types`
        and what users said about themselves; a contact or name that such a context contains as
        an entity of its own is kept in questions and answers.

        Raises ScrubTimeout or TextTooLong, both ScrubError, and ScrubError for anything else; the
        table is then unchanged.
        """
        self._check_size(texts)
        try:
            literals = self._denied.copy_for(table)
            for value in deny:
                if value.strip():
                    literals.add(_given(value))
            turn = Turn(self.policy, self._analyzer, texts, table, literals=literals, allowed=self._allowed)
            turn.find_all()
            return turn.render()
        except ScrubError:
            raise
        except Exception as error:
            # The cause may quote the text in its message, so only its type is passed on.
            raise ScrubError(f"{type(error).__name__} while scrubbing; the text stays held") from None

    def scrub_text(self, text: str, *, kind: Kind = "user", deny: Sequence[str] = ()) -> MaskedText:
        """Mask one text on its own, with a table that is thrown away. Raises as `scrub_turn`."""
        table = EntityTable(secrets.token_bytes(32))
        return self.scrub_turn([ScrubText(kind, text)], table, deny=deny)[0]

    def _check_size(self, texts: Sequence[ScrubText]) -> None:
        longest = max((len(item.text) for item in texts), default=0)
        if longest > self.policy.max_chars:
            raise TextTooLong(f"a text of {longest} characters is over the limit of {self.policy.max_chars}")


def _given(value: str) -> Value:
    """A value that is known to be personal, as what it looks like: the same address, found by its form in another
    turn, has the same number then."""
    text = normalise(value).text.strip()
    if "@" in text and not any(char.isspace() for char in text):
        return Value("EMAIL", text, private=True)
    digits = sum(char.isdigit() for char in text)
    kind = "PHONE" if digits >= _PHONE_DIGITS and not any(char.isalpha() for char in text) else "PERSON"
    return Value(kind, text, private=True)
