"""Fills the database of bench/retrieve.py: tenants, their chunks, the index of words, and those of vectors."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import psutil
from _retrieve_world import Owner, World

SHARES = (0.5, 0.1, 0.01, 0.001)
STEP = 10_000
"""Rows of one transaction."""


def load(world: World, chunks: int) -> dict[str, Any]:
    """Tenants with their chunks in random order, as a table grows; the rest belongs to one more. The index of words is
    built afterwards."""
    from django.db import connection

    from knowledge.models import Chunk

    owners = _tenants(chunks)
    order = world.of_chunks.permutation(len(owners))
    (words,) = [index for index in Chunk._meta.indexes if index.name == "chunk_words_gin"]
    with connection.schema_editor() as editor:
        editor.remove_index(Chunk, words)
    spent, server, own = 0.0, 0.0, 0.0
    for start in range(0, len(order), STEP):
        rows = world.rows([owners[i] for i in order[start : start + STEP]], start)
        began, before, process = time.perf_counter(), server_seconds(), time.process_time()
        copy(rows)
        spent += time.perf_counter() - began
        server += server_seconds() - before
        own += time.process_time() - process
    print(f"{len(order):,} chunks loaded in {spent:.1f} s", flush=True)
    both = _by_two(world, owners[0], len(order))
    began = time.perf_counter()
    with connection.schema_editor() as editor:
        editor.add_index(Chunk, words)
    gin = time.perf_counter() - began
    indexed = _with_words(world, owners[0], len(order))
    print(f"two at once {both:,.0f}/s, with the index of words {indexed:,.0f}/s", flush=True)
    connection.cursor().execute("VACUUM ANALYZE knowledge_chunk")
    return {
        "load_chunks_per_s": round(len(order) / spent), "load_two_chunks_per_s": round(both),
        "load_indexed_chunks_per_s": round(indexed), "load_server_us": round(1e6 * server / len(order), 1),
        "load_client_us": round(1e6 * own / len(order), 1), "words_index_s": round(gin, 1),
    }  # fmt: skip


def index(workers: int) -> dict[str, Any]:
    """Counts words, and makes the large tenants' indexes of vectors as the platform makes them."""
    from assistants.models import Assistant
    from knowledge.indexing import perform
    from knowledge.lexicon import count_words
    from knowledge.models import VectorIndex

    began = time.perf_counter()
    for assistant in Assistant.objects.order_by("pk"):
        count_words(assistant)
    counted = time.perf_counter() - began
    began = time.perf_counter()
    VectorIndex.objects.all().delete()  # of a run that was ended in the middle
    for share, assistant in tenants():
        work = VectorIndex.objects.create(assistant=assistant)
        if not work.claim():
            raise RuntimeError("somebody else makes the index")
        perform(work, workers=workers)
        work.finish(VectorIndex.State.SUCCEEDED)
        print(f"{share:6.1%}: ef_search {work.ef_search}, {work.size / 2**20:.0f} MB, {work.seconds:.0f} s", flush=True)
    return {"count_words_s": round(counted, 1), "vector_indexes_s": round(time.perf_counter() - began, 1)}


def tenants() -> list[tuple[float, Any]]:
    """(share, assistant) of those that are measured; one more only fills the table."""
    from assistants.models import Assistant

    found = Assistant.objects.filter(slug__startswith="t").in_bulk(field_name="slug")
    return [(share, found[f"t{number}"]) for number, share in enumerate(SHARES)]


def server_seconds() -> float:
    """Processor time of the server's process for our connection."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        times = psutil.Process(cursor.fetchone()[0]).cpu_times()
    return float(times.user + times.system)


def copy(rows: Mapping[Owner, list[Any]]) -> None:
    """By the platform's own COPY, in one transaction."""
    from django.db import transaction

    from knowledge.models import Document
    from knowledge.storing import copy_chunks

    with transaction.atomic():
        for (owner_id, document_id), chunks in rows.items():
            copy_chunks(Document(pk=document_id, assistant_id=owner_id), chunks)


def _tenants(chunks: int) -> list[Owner]:
    """Makes them; the owner of each chunk to come."""
    from assistants.services import create_assistant
    from knowledge.models import Document

    owners: list[Owner] = []
    for number, share in enumerate((*SHARES, 1 - sum(SHARES))):
        assistant = create_assistant(slug=f"t{number}", name=f"Tenant {number}")
        document = Document.objects.create(
            assistant=assistant, source_key=f"{number:064}", path="made-up.md", title="Made up", text="", digest="",
            media_type="text/plain", state="ready",
        )  # fmt: skip
        owners += [(assistant.pk, document.pk)] * max(1, round(share * chunks))
    return owners


def _by_two(world: World, owner: Owner, start: int) -> float:
    """Chunks a second of two processes that load at the same time; what they load is taken away again. Enough of them
    that beginning (a process, its connection, what that reads of the catalogue) is no tenth of it."""
    from django.db import connection

    halves = [world.rows([owner] * STEP, start + half * STEP) for half in (0, 1)]
    connection.close()
    began = time.perf_counter()
    children = []
    for rows in halves:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                copy(rows)
                connection.close()
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    codes = [os.waitpid(pid, 0)[1] for pid in children]
    spent = time.perf_counter() - began
    if any(codes) or _take_away(start) != 2 * STEP:
        raise RuntimeError("one of two could not load")
    return 2 * STEP / spent


def _with_words(world: World, owner: Owner, start: int) -> float:
    """Chunks a second with every index that small tenants have; taken away again."""
    rows = world.rows([owner] * STEP, start)
    began = time.perf_counter()
    copy(rows)
    spent = time.perf_counter() - began
    _take_away(start)
    return STEP / spent


def _take_away(start: int) -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM knowledge_chunk WHERE position >= %s", [start])
        return int(cursor.rowcount)
