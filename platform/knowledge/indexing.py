"""Makes, rebuilds and drops the vector indexes of large assistants, in the background.

Killed in the middle, PostgreSQL leaves an index that is not whole: nobody searches by it, and the next attempt, or the
next look, drops it. One is made at a time (the table is locked for another), and none is dropped meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import psutil
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction
from django.utils import timezone

from assistants.background import BackgroundWork, WorkCancelled, WorkLost, launch
from assistants.models import Assistant
from assistants.services import audit
from knowledge import vector_indexes
from knowledge.index_models import VectorIndex
from knowledge.selftest import calibrate
from knowledge.vector_indexes import BYTES, DROP_BELOW, EXACT_UP_TO

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MEMORY = 2**30
"""Bytes that another machine's database may use to make an index."""
CHURN = 0.5
"""Share of the chunks that are new or gone since, from which an index is made anew."""
PATIENCE = timedelta(days=1)
"""After a failure; somebody may start it by hand before."""
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('knowledge.indexing'))"


class IndexRefused(RuntimeError):
    """The server could not make the index; the message is what it said."""


def tend() -> str:
    """Drops what is of no use, and starts the making of what is missing or worn: one at a time, the largest first."""
    sizes = _sizes()
    dropped = 0
    with _alone() as alone:
        # Looked at under the lock: of what somebody starts from now on nothing is there yet that could be dropped.
        if not alone or VectorIndex.objects.active().exists():
            return "an index is being made"
        for index in vector_indexes.present():
            if not index.whole or sizes.get(index.assistant, 0) < DROP_BELOW:
                vector_indexes.drop(index.name)
                dropped += 1
    whole = {index.assistant for index in vector_indexes.present()}
    failed = VectorIndex.objects.filter(
        state__in=[BackgroundWork.State.FAILED, BackgroundWork.State.CANCELLED],
        finished_at__gt=timezone.now() - PATIENCE,
    )
    waiting = set(failed.values_list("assistant_id", flat=True))
    for assistant, chunks in sorted(sizes.items(), key=lambda item: -item[1]):
        if chunks <= EXACT_UP_TO or assistant in waiting:
            continue
        if assistant not in whole or is_worn(assistant, chunks):
            start_index(assistant=Assistant.objects.get(pk=assistant))
            return f"{dropped} dropped, one begun"
    return f"{dropped} dropped, nothing to make"


def start_index(*, assistant: Assistant, actor: User | None = None) -> VectorIndex:
    """Queues the making of an assistant's index, or its making anew; one that is under way is returned instead."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_LOCK)
        if running := VectorIndex.objects.active().filter(assistant=assistant).first():
            return running
        work = VectorIndex.objects.create(assistant=assistant, created_by=actor)
        if actor is not None:
            audit(assistant=assistant, actor=actor, action="retrieval.index_rebuilt", target=str(work))
    launch(work)
    return work


def perform(work: VectorIndex, *, workers: int | None = None) -> None:
    """Drops leftovers, makes the index, and measures how widely it must be searched.

    Args:
        workers: processes beside the one that makes it; a quarter of the machine's cores by default, so that questions
            are answered meanwhile.
    """
    assistant = work.assistant
    work.chunks, work.last_chunk = _counted(assistant)
    work.keep("chunks", "last_chunk")
    if work.chunks <= EXACT_UP_TO:
        work.beat(stage=f"nothing to make: {work.chunks} chunks are searched exactly", done=1, total=1)
        return
    with _alone(work):
        _make(work, (os.cpu_count() or 1) // 4 if workers is None else workers)
    with connection.cursor() as cursor:
        # Gives the planner its figures: a table that was filled a moment ago has none.
        cursor.execute("ANALYZE knowledge_chunk")
        cursor.execute("SELECT pg_relation_size(%s::regclass)", [vector_indexes.name_of(assistant.pk)])
        work.size = cursor.fetchone()[0]
    work.beat(stage="asking the index and searching exactly", done=0, total=0)
    work.ef_search, work.recall = calibrate(
        assistant, progress=lambda done, total: work.beat(done=done, total=total) if done % 10 == 0 else None
    )
    work.keep("ef_search", "recall", "size")


def _make(work: VectorIndex, processes: int) -> None:
    assistant, anew = work.assistant, False
    for index in vector_indexes.present():
        if index.assistant == assistant.pk:
            anew |= index.whole
            if not index.whole:
                vector_indexes.drop(index.name)
    work.beat(stage="making the index anew" if anew else "making the index", done=0, total=0)
    with _watched(work):
        try:
            vector_indexes.make(assistant.pk, anew=anew, memory=memory_for(work.chunks), workers=processes)
        except OperationalError as error:
            work.beat()  # says so when somebody cancelled it, and fails when there is no database any more
            if not processes or not vector_indexes.is_short_of_memory(error):
                raise IndexRefused(str(error)) from error
            vector_indexes.drop(vector_indexes.name_of(assistant.pk) + ("_ccnew" if anew else ""))
            vector_indexes.make(assistant.pk, anew=anew, memory=memory_for(work.chunks), workers=0)


@contextlib.contextmanager
def _alone(work: VectorIndex | None = None) -> Iterator[bool]:
    """While an index is made, nobody else makes or drops one: what is not whole may be what is being made.

    The database lets go of the lock with the process that had it. A transaction (a test) has it to its end.

    Args:
        work: waits for its turn, and shows life meanwhile; None: does not wait, and yields whether it has the lock.
    """
    kind = "xact_" if connection.in_atomic_block else ""
    key = "(hashtext('knowledge.indexing'), 1)"
    with connection.cursor() as cursor:
        while True:
            cursor.execute(f"SELECT pg_try_advisory_{kind}lock{key}")
            (mine,) = cursor.fetchone()
            if mine or work is None:
                break
            work.beat(stage="waiting for another index")
            time.sleep(1)
        try:
            yield bool(mine)
        finally:
            if mine and not kind:
                with contextlib.suppress(DatabaseError, InterfaceError):  # a connection that broke has let go of it
                    cursor.execute(f"SELECT pg_advisory_unlock{key}")


def memory_for(chunks: int) -> int:
    """Bytes: what the graph takes, up to a quarter of what is free where the database is on this machine."""
    most = max(psutil.virtual_memory().available // 4, 2**28) if settings.EMBEDDED_DATABASE else MEMORY
    return int(min(max(chunks * BYTES, 2**26), most))


def is_worn(assistant: int, chunks: int) -> bool:
    """Deleted chunks stay in the graph as detours, and what replaces them is joined to what is there."""
    made = VectorIndex.objects.filter(assistant=assistant, ef_search__isnull=False).order_by("-pk").first()
    if made is None:
        return False  # came with a backup: it is whole, and searched widely
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM knowledge_chunk WHERE assistant_id = %s AND id > %s", [assistant, made.last_chunk]
        )
        new = int(cursor.fetchone()[0])
    gone = max(made.chunks - (chunks - new), 0)
    return new + gone > CHURN * made.chunks


def without_index() -> list[tuple[str, int]]:
    """(slug, chunks) of large assistants that are searched exactly because no index of theirs is whole."""
    whole = {index.assistant for index in vector_indexes.present() if index.whole}
    large = {pk: n for pk, n in _sizes().items() if n > EXACT_UP_TO and pk not in whole}
    slugs = Assistant.objects.filter(pk__in=large).order_by("slug").values_list("slug", "pk")
    return [(slug, large[pk]) for slug, pk in slugs]


def _sizes() -> dict[int, int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT assistant_id, count(*) FROM knowledge_chunk GROUP BY assistant_id")
        return dict(cursor.fetchall())


def _counted(assistant: Assistant) -> tuple[int, int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), coalesce(max(id), 0) FROM knowledge_chunk WHERE assistant_id = %s", [assistant.pk]
        )
        chunks, last = cursor.fetchone()
        return int(chunks), int(last)


@contextlib.contextmanager
def _watched(work: VectorIndex) -> Iterator[None]:
    """While the database works for minutes on one statement, a thread shows how far it is, and cancels it if asked."""
    if connection.in_atomic_block:  # of a test: another connection would not see the row
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = int(cursor.fetchone()[0])
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(work, pid, done), daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()


def _watch(work: VectorIndex, pid: int, done: threading.Event) -> None:
    try:
        while not done.wait(2):
            with connection.cursor() as cursor:
                cursor.execute("SELECT tuples_done, phase FROM pg_stat_progress_create_index WHERE pid = %s", [pid])
                row = cursor.fetchone()
                try:
                    work.beat(done=min(row[0], work.chunks), total=work.chunks) if row else work.beat()
                except (WorkCancelled, WorkLost):
                    cursor.execute("SELECT pg_cancel_backend(%s)", [pid])
                    return
    except OperationalError:
        return  # the work itself meets the same, and says so
    finally:
        connection.close()
