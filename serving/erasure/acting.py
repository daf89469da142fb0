"""The act: batch after batch, each in one transaction with its counts. Killed at any moment, it goes on where it was.

What it has to remember for that (which turns, which conversations, which hashes of users) is stored encrypted before
the first batch and destroyed with the last; what has come in meanwhile is looked for once more at the end.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from assistants.models import Assistant
from capture.erasing import (
    Wanted,
    clean_histories,
    drop_empty_conversations,
    erase_turns,
    erase_waiting,
    find_waiting,
    keep_ids_unreadable,
    quoting,
)
from capture.imports.state import forget_unknown
from capture.models import Turn
from capture.vault import stored_id
from serving import spool
from serving.erasure.record import Erasure
from serving.erasure.scope import Scope, seal, unseal
from serving.erasure.survey import affected, beater
from serving.experiments.erasing import forget_made_of
from serving.experiments.units import forget_units_of
from training.erasing import (
    adapters_of,
    delete_kept_questions,
    empty_rows,
    erase_files,
    kept_questions,
    runs_on,
    stop_runs,
)
from training.models import Run
from training.providers.erasing import delete_there, files_there

BATCH = 100
ROUNDS = 5
STOP_SECONDS = 180.0
STOP_STEP = 0.5


class ErasureStopped(RuntimeError):
    """It cannot go on as it is; the message says why and what to do. What is gone stays gone and is counted."""


@dataclass(frozen=True)
class Targets:
    """What was meant when the act began."""

    turns: tuple[uuid.UUID, ...]
    conversations: tuple[int, ...]
    wanted: Wanted

    def plain(self) -> dict[str, Any]:
        return {
            "turns": [key.hex for key in self.turns],
            "conversations": list(self.conversations),
            "wanted": [sorted(self.wanted.user_keys), sorted(self.wanted.conversations), sorted(self.wanted.ids)],
        }

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Targets:
        users, names, ids = plain["wanted"]
        return cls(
            turns=tuple(uuid.UUID(hex=key) for key in plain["turns"]),
            conversations=tuple(plain["conversations"]),
            wanted=Wanted(frozenset(users), frozenset(names), frozenset(ids)),
        )


def perform(erasure: Erasure) -> None:
    """Erases what a confirmed row is about, and signs its receipt.

    Raises:
        ErasureStopped: a search finds more than the dry run did, or a run that trains on the rows does not stop.
    """
    from serving.erasure.receipt import sign_off

    if erasure.is_done:
        return
    scope, stored = unseal(erasure)
    targets = Targets.read(stored["targets"]) if "targets" in stored else _begin(erasure, scope)
    _waiting(erasure, targets)
    _turns(erasure, scope, targets)
    erasure.beat(stage="conversations and files")
    with transaction.atomic():
        gone = drop_empty_conversations(erasure.assistant, targets.conversations)
        erasure.add({"conversations": gone})
    states = forget_unknown(Path(settings.VAR_DIR) / "imports", erasure.assistant)
    erasure.add({"states of imports": states})
    _files(erasure)
    left = _waiting(erasure, targets)
    sign_off(erasure, unreadable=left)
    forget_old_looks(erasure.assistant)


def _begin(erasure: Erasure, scope: Scope) -> Targets:
    """Stores what is meant and what held it, before anything is gone."""
    assistant = erasure.assistant
    turns = scope.select(assistant)
    keys = tuple(turns.order_by("asked_at", "pk").values_list("pk", flat=True))
    if scope.kind == Erasure.Kind.SEARCH and len(keys) > erasure.plan.get("turns", 0):
        raise ErasureStopped(
            f"The search finds {len(keys):,} turns now, and found {erasure.plan.get('turns', 0):,} in the dry run. "
            "Nothing was erased. Look again, and set an end to the dates."
        )
    conversations = tuple(turns.order_by().values_list("conversation", flat=True).distinct())
    targets = Targets(keys, conversations, scope.wanted(assistant))
    erasure.affected = affected(assistant, turns)
    erasure.sealed = seal(scope, targets=targets.plain())
    erasure.keep("affected", "sealed")
    return targets


def _waiting(erasure: Erasure, targets: Targets) -> int:
    """Quarantine, waiting traces and the spool; how many things no key opens."""
    erasure.beat(stage="what waits")
    assistant, wanted, beat = erasure.assistant, targets.wanted, beater(erasure)
    found = find_waiting(assistant, wanted, beat=beat)
    spooled = spool.find(lambda owner, item: owner == assistant.pk and wanted.item(assistant, item))
    keep_ids_unreadable(assistant, {*found.ids, *found.traces, *map(stored_id, spooled.meant.values())} - {""})
    with transaction.atomic():
        erasure.add(erase_waiting(assistant, found))
    erasure.add({"spooled turns on disk": spool.erase(spooled)})
    return found.unreadable + spooled.unreadable


def _turns(erasure: Erasure, scope: Scope, targets: Targets) -> None:
    """The turns that were meant, and then what has come in meanwhile."""
    total = len(targets.turns)
    done = total - Turn.objects.filter(pk__in=targets.turns).count()
    erasure.beat(stage="turns", done=done, total=total)
    for start in range(0, total, BATCH):
        done += _batch(erasure, scope, targets.turns[start : start + BATCH])
        erasure.beat(done=min(done, total))
    if not scope.is_whole:
        return
    for _ in range(ROUNDS):
        late = _late(erasure.assistant, scope, targets)
        if not late:
            return
        for start in range(0, len(late), BATCH):
            _batch(erasure, scope, late[start : start + BATCH])
            erasure.beat()


def _late(assistant: Assistant, scope: Scope, targets: Targets) -> list[uuid.UUID]:
    known = Turn.objects.of(assistant).filter(conversation__in=targets.conversations)
    return [*known.values_list("pk", flat=True), *scope.select(assistant).values_list("pk", flat=True)]


def _batch(erasure: Erasure, scope: Scope, keys: Sequence[uuid.UUID]) -> int:
    """One batch; how many turns were still there."""
    assistant = erasure.assistant
    turns = Turn.objects.of(assistant).filter(pk__in=keys)
    names = list(turns.values_list("client_id", flat=True))
    if not names:
        return 0
    keep_ids_unreadable(assistant, names)
    with transaction.atomic():
        counts: Counter[str] = Counter()
        going = list(turns.values_list("pk", flat=True))
        changed = [] if scope.is_whole else quoting(assistant, turns)
        counts["histories of turns that stay"] = clean_histories(assistant, changed)
        questions = set(turns.values_list("question", flat=True))
        kept = kept_questions(assistant, names)
        counts += empty_rows(assistant, [*going, *(turn.pk for turn in changed)], questions, kept)
        counts += forget_made_of([turn.pk for turn in changed])
        counts += delete_kept_questions(assistant, names)
        forget_units_of(going)
        counts += erase_turns(assistant, going)
        erasure.add(counts)
    return len(names)


def _files(erasure: Erasure) -> None:
    """What runs keep on disk. Those that still train on the rows are stopped first: what they have read, they hold."""
    datasets = [dataset["id"] for dataset in erasure.affected["datasets"]]
    erasure.beat(stage="runs")
    end = time.monotonic() + STOP_SECONDS
    while stop_runs(datasets):
        if time.monotonic() > end:
            raise ErasureStopped(
                "A run that trains on erased rows does not stop. Everything else is erased. Go on when it has ended."
            )
        erasure.beat()
        time.sleep(STOP_STEP)
    runs = list(runs_on(datasets).select_related("provider"))
    erasure.add(erase_files(runs))
    _at_providers(erasure, runs)
    # A run that ended while this went on has made one more.
    known = {adapter["id"] for adapter in erasure.affected["adapters"]}
    erasure.affected["adapters"] += [
        {"id": adapter.pk, "name": str(adapter), "dataset": str(adapter.run.dataset), "live": False}
        for adapter in adapters_of(datasets).exclude(pk__in=known)
        if adapter.run is not None
    ]


def forget_old_looks(assistant: Assistant) -> None:
    """Dry runs that nobody confirmed lose what they were about."""
    limit = timezone.now() - max(Erasure.LOOK_IS_GOOD_FOR, timedelta(days=1))
    Erasure.objects.filter(assistant=assistant, confirmed_at=None, created_at__lt=limit).update(sealed=None)


def _at_providers(erasure: Erasure, runs: Sequence[Run]) -> None:
    """Files with rows that wait at a provider. What it does not delete, the receipt names: people must ask there."""
    left: list[dict[str, Any]] = []
    for run in runs:
        if not files_there(run):
            continue
        erasure.beat(stage="files at providers")
        erasure.add({"files at providers": delete_there(run)})
        if files := files_there(run):
            where = str(run.provider or "a provider that was removed")
            left.append({"run": str(run), "provider": where, "files": files})
    erasure.affected["at_providers"] = left
