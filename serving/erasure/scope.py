"""What an erasure is about: a user, a conversation, single turns, or what a search finds; and which turns that is."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q, QuerySet

from assistants.errors import ApiError
from assistants.models import Assistant
from assistants.vault import decrypt, encrypt, keyed_hash
from capture.erasing import Wanted, user_key
from capture.models import Conversation, Turn
from capture.turn_filters import read_filters
from capture.vault import stored_id
from serving.erasure.record import Erasure

MAX_TURNS = 1_000
MAX_VALUE = 500
_USER_KEY = re.compile(r"\A[0-9a-f]{32}\Z")
SEARCH_FIELDS = ("q", "since", "until", "adapter", "model", "tag", "declined", "feedback")


class ScopeError(ValueError):
    """What was asked for cannot be a scope; the message says why and quotes none of it."""


@dataclass(frozen=True)
class Scope:
    """``value``: the user as the chatbot names them (or their key), or the id of the conversation. ``turns``: ids, ours
    or the client's. ``search``: the parameters of the list of turns."""

    kind: str
    value: str = ""
    turns: tuple[str, ...] = ()
    search: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> Scope:
        """The same scope, if it is one.

        Raises:
            ScopeError: it names nothing, too much, or a filter that does not exist.
        """
        if self.kind not in Erasure.Kind.values:
            raise ScopeError(f"Choose what to erase: {', '.join(Erasure.Kind.values)}.")
        if self.kind in (Erasure.Kind.USER, Erasure.Kind.CONVERSATION) and not self.value.strip():
            raise ScopeError("Name the user or the conversation, as your chatbot names them.")
        if len(self.value) > MAX_VALUE or "\x00" in self.value:
            raise ScopeError(f"At most {MAX_VALUE} characters, without NUL.")
        if self.kind == Erasure.Kind.TURN and not 1 <= len(self.turns) <= MAX_TURNS:
            raise ScopeError(f"Name 1 to {MAX_TURNS:,} turns. For more, use a search.")
        if any(len(name) > MAX_VALUE or "\x00" in name for name in self.turns):
            raise ScopeError("That is no id of a turn.")
        if self.kind == Erasure.Kind.SEARCH:
            if not any(self.search.values()):
                raise ScopeError("A search needs at least one filter: without any it would erase every turn.")
            self._filters()
        return self

    def _filters(self) -> Any:
        query = {name: [value] for name, value in self.search.items() if value}
        if strange := set(query) - set(SEARCH_FIELDS):
            raise ScopeError(f"There is no filter {sorted(strange)[0][:40]!r}; choose from {', '.join(SEARCH_FIELDS)}.")
        try:
            return read_filters(query)
        except ApiError as error:
            raise ScopeError(str(error.detail)) from None

    # --- as it is stored ---

    def plain(self) -> dict[str, Any]:
        search = {name: value for name, value in sorted(self.search.items()) if value}
        return {"kind": self.kind, "value": self.value.strip(), "turns": list(self.turns), "search": search}

    def digest(self, assistant: Assistant) -> str:
        """Of the scope, keyed: on the receipt it can be compared and tells nothing."""
        content = json.dumps(self.plain(), sort_keys=True, ensure_ascii=False)
        return keyed_hash("erasure scope", assistant.pk, content).hex()

    # --- what it means ---

    def user_keys(self, assistant: Assistant) -> frozenset[str]:
        """Of the named user. What looks like a key may be one, and may be how the chatbot names somebody (by a UUID
        without dashes): both are looked for."""
        value = self.value.strip()
        return frozenset({user_key(assistant, value), *_USER_KEY.findall(value)})

    def select(self, assistant: Assistant) -> QuerySet[Turn]:
        """The turns that are there now. Of a user and of a conversation: whole conversations, since what somebody said
        stands again in the history of the turns after it, and in the answers."""
        turns = Turn.objects.of(assistant)
        if self.kind == Erasure.Kind.USER:
            theirs = Turn.objects.of(assistant).filter(metadata__user_key__in=sorted(self.user_keys(assistant)))
            return turns.filter(conversation__in=theirs.order_by().values("conversation"))
        if self.kind == Erasure.Kind.CONVERSATION:
            return turns.filter(conversation__external_id=stored_id(self.value.strip()))
        if self.kind == Erasure.Kind.TURN:
            keys = [key for name in self.turns if (key := _uuid(name))]
            return turns.filter(Q(pk__in=keys) | Q(client_id__in=[stored_id(name) for name in self.turns]))
        found: QuerySet[Turn] = self._filters().apply(turns)
        return found

    @property
    def is_whole(self) -> bool:
        """Whether it takes whole conversations."""
        return self.kind in (Erasure.Kind.USER, Erasure.Kind.CONVERSATION)

    def wanted(self, assistant: Assistant) -> Wanted:
        """What to look for among what still waits, encrypted. A search finds nothing there: nobody can read it."""
        if self.kind == Erasure.Kind.USER:
            theirs = Conversation.objects.filter(assistant=assistant, turns__in=self.select(assistant)).distinct()
            names = frozenset(theirs.values_list("external_id", flat=True))
            return Wanted(user_keys=self.user_keys(assistant), conversations=names)
        if self.kind == Erasure.Kind.CONVERSATION:
            return Wanted(conversations=frozenset({stored_id(self.value.strip())}))
        if self.kind == Erasure.Kind.TURN:
            known = self.select(assistant).values_list("client_id", flat=True)
            return Wanted(ids=frozenset({stored_id(name) for name in self.turns} | set(known)))
        return Wanted()


def seal(scope: Scope, **targets: Any) -> bytes:
    """The scope as it is stored until the act is done, with what an act that was interrupted must remember."""
    return encrypt(json.dumps({"scope": scope.plain(), **targets}).encode())


def unseal(erasure: Erasure) -> tuple[Scope, dict[str, Any]]:
    """Raises:
    ScopeError: it was destroyed already.
    """
    if erasure.sealed is None:
        raise ScopeError("What this erasure was about is no longer stored. Start a new one.")
    content = json.loads(decrypt(erasure.sealed))
    plain = content.pop("scope")
    scope = Scope(plain["kind"], plain["value"], tuple(plain["turns"]), plain["search"])
    return scope, content


def _uuid(name: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(name)
    except ValueError:
        return None
