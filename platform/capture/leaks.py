"""The leak audit of one assistant: rows in, a report out; and the guard that stops an export before a leak leaves."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, Max
from django.utils import timezone

from assistants.models import Assistant
from assistants.policies import policy_of
from assistants.prose import masked_prose
from assistants.services import audit
from assistants.vault import keyed_hash
from capture.export_guard import ExportBlocked
from capture.leak_reports import LeakReport
from capture.models import Conversation, Passage
from capture.own_texts import OwnTexts
from capture.payloads import Context
from capture.storing import passage_digest
from capture.vault import entities_key
from knowledge.models import Document
from privacy.canaries import Matcher, Person, people
from privacy.entities import EntityTable
from privacy.normalise import normalise
from privacy.values import literal_key, ngrams, words_of
from privacy.wordlists import words

if TYPE_CHECKING:
    from privacy.leaks import AuditText, LeakScanner

MAX_LISTED = 500
CHUNK = 500
CANARIES = 3
EXPORT = "Export of turns"
KEPT_SCANNERS = 4
_NOT_SAID = frozenset(
    words("""
    id turn client_id conversation time masked model adapter prompt_digest retrieval_config policy_digest client
    received_at given_at created_at annotator queue verdict reasons kind metric relevance user_key chunk outcome
    citations evidence api_key
    """)
)
"""Ids, digests, names of ours, moments: some look like telephone numbers, and none is what somebody said."""
_OURS_IN_METADATA = frozenset({"user_key", "chunk"})
"""The other names there are the chatbot's: its ``client`` may well be a person."""
_scanners: dict[tuple[int, str, frozenset[str], str], LeakScanner] = {}
_scanning = threading.Lock()


class OverrideRefused(ValueError):
    """A report cannot be overridden; the message says why."""


def canaries_of(assistant: Assistant, count: int = CANARIES) -> list[Person]:
    """The people that do not exist of this assistant: always the same, and stored nowhere."""
    return people(keyed_hash("canaries", assistant.pk), count)


def scanner_of(assistant: Assistant) -> LeakScanner:
    """The strict reader under the policy that counts now. The last few are kept: most passages come again."""
    from privacy.leaks import LeakScanner

    policy = policy_of(assistant)
    accepted = LeakReport.objects.all().accepted_keys(assistant)
    seen = Document.objects.ready().filter(assistant=assistant).aggregate(n=Count("pk"), last=Max("updated_at"))
    place = (assistant.pk, policy.digest(), accepted, str(seen))
    with _scanning:
        found = _scanners.pop(place, None) or LeakScanner(
            policy,
            canaries=Matcher.of(canaries_of(assistant)),
            key=lambda value: keyed_hash("leak", assistant.pk, value).hex()[:32],
            accepted=accepted,
            printed=printed_allowances(assistant, policy.allow),
        )
        _scanners[place] = found
        while len(_scanners) > KEPT_SCANNERS:
            del _scanners[next(iter(_scanners))]
    return found


def printed_allowances(assistant: Assistant, allow: Sequence[str]) -> frozenset[str]:
    """The values of an allow list that the assistant's own documents print, as `values.literal_key`.

    That somebody has put a value on the list is not enough to let it out; that anybody may read it in the documents is.
    """
    keys = {key for value in allow if (key := literal_key(normalise(value).text))}
    lengths = {key.count(" ") + 1 for key in keys}
    found: set[str] = set()
    if keys:
        texts = Document.objects.ready().filter(assistant=assistant).values_list("text", flat=True)
        for text in texts.iterator(chunk_size=50):
            found.update(key for _, _, key in ngrams(words_of(normalise(text).text), lengths) if key in keys)
    return frozenset(found)


@dataclass(frozen=True)
class Row:
    """One row to audit. ``name`` is shown in the report; ``conversation`` is its id as it is stored; ``turn`` links."""

    name: str
    texts: Sequence[AuditText]
    conversation: str = ""
    turn: str = ""


class Audit:
    """Collects what the rows of one dataset or export give away."""

    def __init__(self, assistant: Assistant, subject: str) -> None:
        self.assistant = assistant
        self.subject = subject
        self._scanner = scanner_of(assistant)
        self._before = self._scanner.texts
        self._started = time.monotonic()
        self._rows = 0
        self._counts: Counter[str] = Counter()
        self._listed: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        self._keys: set[str] = set()

    def read(self, rows: Sequence[Row]) -> None:
        """Reads a batch: one query for the tables of its conversations.

        Raises:
            privacy.findings.ScrubError: a text cannot be read.
        """
        tables = _tables(self.assistant, {row.conversation for row in rows if row.conversation})
        for row in rows:
            self._rows += 1
            for leak in self._scanner.read(row.texts, tables.get(row.conversation)):
                if leak.blocks:
                    self._counts[leak.entity_type] += 1
                    self._keys.add(leak.key)
                if len(self._listed[leak.blocks]) < MAX_LISTED:
                    self._listed[leak.blocks].append(
                        {
                            "row": row.name, "field": leak.field, "type": leak.entity_type, "by": leak.by,
                            "score": leak.score, "turn": row.turn,
                        }
                    )  # fmt: skip

    def is_quiet(self, text: AuditText) -> bool:
        """Whether nothing is found in one text by itself. Raises as `read`."""
        return self._scanner.is_quiet(text)

    def passed(self) -> None:
        """Counts a row of which every text is quiet (`is_quiet`) and of whose conversation no value is known: `read`
        would find nothing in it."""
        self._rows += 1

    def report(self, *, content_hash: str = "", created_by: User | None = None) -> LeakReport:
        """What was found, not yet saved."""
        verdict = LeakReport.Verdict.BLOCKED if self._counts else LeakReport.Verdict.CLEAN
        return LeakReport(
            assistant=self.assistant,
            subject=self.subject[:200],
            verdict=verdict,
            findings=self._listed[True],
            doubtful=self._listed[False],
            counts=dict(self._counts),
            keys=sorted(self._keys),
            rows=self._rows,
            texts=self._scanner.texts - self._before,
            seconds=round(time.monotonic() - self._started, 3),
            content_hash=content_hash,
            policy_digest=self._scanner.policy.digest(),
            created_by=created_by,
        )


def _tables(assistant: Assistant, names: Iterable[str]) -> dict[str, EntityTable]:
    found = Conversation.objects.filter(assistant=assistant, external_id__in=list(names))
    tables: dict[str, EntityTable] = {}
    for name, entities in found.values_list("external_id", "entities"):
        # A table of another key (the hash key was changed) knows nothing that could be compared.
        try:
            tables[name] = EntityTable.from_dict(entities, key=entities_key(assistant.pk, name))
        except ValueError:
            continue
    return tables


class TrustedTexts:
    """Which contexts were, or are, texts of the assistant's own documents: two or three queries for a batch."""

    def __init__(self, assistant: Assistant, contexts: Iterable[Mapping[str, Any]]) -> None:
        self._trusts = policy_of(assistant).trust_contexts
        self._known: set[str] = set()
        self._own = OwnTexts()
        if not self._trusts:
            return
        listed = {passage_digest(str(c.get("title", "")), str(c["text"])): c for c in contexts if c.get("text")}
        digests = list(listed)
        for start in range(0, len(digests), CHUNK):
            part = digests[start : start + CHUNK]
            rows = Passage.objects.filter(assistant=assistant, digest__in=part, trusted=True)
            self._known.update(rows.values_list("digest", flat=True))
        left = [_context(c) for digest, c in listed.items() if digest not in self._known]
        if left:
            self._own = OwnTexts.of(assistant, left)

    def holds(self, context: Mapping[str, Any]) -> bool:
        if not self._trusts or not context.get("text"):
            return False
        if passage_digest(str(context.get("title", "")), str(context["text"])) in self._known:
            return True
        return self._own.holds(_context(context))


def _context(plain: Mapping[str, Any]) -> Context:
    # Stored texts were validated when they came; validating them once more would take longer than looking them up. All
    # that has a factory is given: pydantic inspects a factory anew each time that it makes something unvalidated.
    return Context.model_construct(
        text=str(plain["text"]), title=str(plain.get("title", "")), source=str(plain.get("source", "")),
        metadata={}, evidence=[],
    )  # fmt: skip


def context_texts(context: Mapping[str, Any], trusted: bool) -> Iterator[AuditText]:
    """The texts of one context, with what else it carries."""
    from privacy.leaks import AuditText

    name = f"contexts.{context.get('rank', '')}"
    for key, value in context.items():
        for field, text in leaves(f"{name}.{key}", key, value):
            yield AuditText(field, text, trusted)


def leaves(field: str, key: str, value: Any, skipped: frozenset[str] = _NOT_SAID) -> Iterator[tuple[str, str]]:
    """(field, text) of every string in a JSON value that somebody may have said."""
    if key in skipped:
        return
    if key == "metadata":
        skipped = _OURS_IN_METADATA
    if isinstance(value, str):
        if value:
            yield field, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves(f"{field}.{name}", str(name), inner, skipped)
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from leaves(f"{field}.{place}", "", inner, skipped)


# --- Exports ----------------------------------------------------------------------------------------------------------


def guard_export(assistant: Assistant, records: Sequence[Mapping[str, Any]]) -> None:
    """For `capture.export_guard`: reads the records of a batch before any of them leaves.

    Raises:
        ExportBlocked: something in them leaks. The report that says where is stored.
    """
    found = Audit(assistant, EXPORT)
    trusted = TrustedTexts(assistant, (c for record in records for c in record.get("contexts", ())))
    found.read([_row(record, trusted) for record in records])
    ids = "\n".join(sorted(str(record.get("id", "")) for record in records))
    report = found.report(content_hash=hashlib.sha256(ids.encode()).hexdigest())
    if report.verdict == LeakReport.Verdict.CLEAN:
        return
    same = LeakReport.objects.blocking().filter(
        assistant=assistant, subject=EXPORT, content_hash=report.content_hash, keys=report.keys
    )
    stored = same.first()
    if stored is None:
        report.save()
        stored = report
    first = stored.findings[0]
    raise ExportBlocked(
        f"The leak audit found {first['type']} in {first['field']} of turn {first['turn']} "
        f"({stored.total} in these turns). Leak audit {stored.pk} lists them; a privacy officer can let them pass.",
        turn=first["turn"],
    )


def _row(record: Mapping[str, Any], trusted: TrustedTexts) -> Row:
    from privacy.leaks import AuditText

    texts = [
        AuditText(field, text)
        for key, value in record.items()
        if key != "contexts"
        for field, text in leaves(key, key, value)
    ]
    for context in record.get("contexts", ()):
        texts += context_texts(context, trusted.holds(context))
    turn = str(record.get("turn") or record.get("id", ""))
    return Row(name=turn, texts=texts, conversation=str(record.get("conversation", "")), turn=turn)


# --- Letting pass -----------------------------------------------------------------------------------------------------


def override(*, report: LeakReport, actor: User, reason: str) -> LeakReport:
    """Lets pass what a report has found: what it speaks for is usable, and the same values block no later audit.

    Raises:
        OverrideRefused: no reason, nothing that blocks, or a canary is among it.
    """
    if not reason.strip():
        raise OverrideRefused("Say why this is no leak; the audit trail carries it.")
    reason = masked_prose(reason[:2000], assistant=report.assistant, typed_by=actor)
    with transaction.atomic():
        locked = LeakReport.objects.select_for_update(of=("self",)).select_related("assistant").get(pk=report.pk)
        if not locked.blocks:
            raise OverrideRefused("This report blocks nothing.")
        if any(finding["by"] == "canary" for finding in locked.findings):
            raise OverrideRefused(
                "A canary came through: that is no accident of words. Delete the turn, and look at how it came in."
            )
        locked.overridden_at, locked.overridden_by, locked.reason = timezone.now(), actor, reason
        locked.save(update_fields=["overridden_at", "overridden_by", "reason"])
        audit(
            assistant=locked.assistant, actor=actor, action="leaks.overridden", target=str(locked),
            reason=locked.reason,
            details={"subject": locked.subject, "counts": locked.counts, "content_hash": locked.content_hash},
        )  # fmt: skip
    return locked
