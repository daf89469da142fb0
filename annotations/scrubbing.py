"""Personal data out of what annotators type, by the conversation's own table: the same person keeps the same number."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from django.conf import settings

from annotations.errors import CannotScrub
from assistants.policies import policy_of
from capture.masking import known_in
from capture.models import Conversation, Passage, Turn
from capture.uncertain import Noted, Occurrence, note, occurrences
from capture.vault import entities_key
from privacy.entities import EntityTable
from privacy.findings import ScrubError

logger = logging.getLogger(__name__)
_warming = threading.Lock()


@dataclass(frozen=True)
class Typed:
    """What somebody typed, masked, and in memory only what it was masked from."""

    texts: list[str]
    found: list[list[Occurrence]] = field(default_factory=list, repr=False)
    known: frozenset[str] = frozenset()
    policy_digest: str = ""

    def note(self, turn: Turn, *names: str) -> None:
        """Opens a review of what is uncertain in them, once they are stored. ``names``: as `capture.stored_texts` calls
        the texts, in their order."""
        found = [replace(one, field=name) for name, part in zip(names, self.found, strict=False) for one in part]
        if found:
            noted = Noted(turn, turn.conversation, found, self.known, self.policy_digest)
            note([noted], assistant=turn.assistant)


def scrub(*, turn: Turn, texts: Sequence[str]) -> list[str]:
    """As `typed`, where nothing uncertain is to be reviewed: of texts that stay with their queue."""
    return typed(turn=turn, texts=texts).texts


def typed(*, turn: Turn, texts: Sequence[str]) -> Typed:
    """The texts with personal data masked; empty ones cost nothing.

    Call it inside the transaction that stores the texts: new persons are added to the conversation's table. The turn's
    passages are read along as trusted contexts: what the documents print (a service number, say) may stand in a
    correction too.

    Raises:
        CannotScrub: whatever went wrong; nothing may be stored then.
    """
    if not any(text.strip() for text in texts):
        return Typed(list(texts))
    from privacy.scrubber import Scrubber, ScrubText

    conversation = Conversation.objects.select_for_update().get(pk=turn.conversation_id)
    passages = Passage.objects.filter(retrievals__turn=turn).order_by("retrievals__rank").values_list("text", flat=True)
    read = [ScrubText("context", passage) for passage in passages]
    try:
        key = entities_key(turn.assistant_id, conversation.external_id)
        table = EntityTable.from_dict(conversation.entities, key=key)
        known, policy = known_in(table), policy_of(turn.assistant)
        given = [ScrubText("response", text) for text in texts]
        masked = Scrubber(policy).scrub_turn([*read, *given], table)[len(read) :]
    except (ScrubError, ValueError) as error:
        logger.warning("label on turn %s refused: %s", turn.pk, type(error).__name__)
        raise CannotScrub from error
    entities = table.to_dict()
    if entities != conversation.entities:
        Conversation.objects.filter(pk=conversation.pk).update(entities=entities)
    found = [occurrences("", text, result) for text, result in zip(texts, masked, strict=True)]
    return Typed([result.text for result in masked], found, known, policy.digest())


def warm_up() -> None:
    """Loads the recognisers in the background of a web process, so that the first note does not wait seconds for them.

    Called when somebody opens a labelling page; only the first call of a process does anything.
    """
    if settings.PROCESS == "web" and _warming.acquire(blocking=False):
        threading.Thread(target=_load, name="warm-up", daemon=True).start()


def _load() -> None:
    from privacy.scrubber import Scrubber

    try:
        Scrubber().scrub_text("Nothing personal.")
    except ScrubError as error:
        logger.warning("the recognisers did not load (%s); labels with text are refused until they do", error)
