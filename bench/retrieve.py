"""Search speed and recall with many chunks: tenants of 50 % … 0.1 % of the table, vectors alone and with any words.

    make bench-retrieve
    make bench-retrieve ARGS='--chunks 20000 --questions 40'     small: a minute

Chunks are made up: vectors are random in 200 clusters of some two dozen dimensions, not the embedder's (embedding a
million texts would take days, and the index only sees numbers); texts are words drawn by Zipf's law, so that a few
stand in most chunks. Rows are loaded by the platform's own COPY; the index of words is built afterwards, and each large
tenant's index of vectors as the platform makes it.

``recall_at_10_min``: the lowest, over the tenants, of the path that serves it against exact search, by the self-test
(vectors near chunks); ``recall_of_questions``: the same by vectors drawn anew, which lie farther off.
``vector_p50_ms_max`` and ``hybrid_p50_ms_max``: the highest median, over tenants and over kinds of words (rare, mixed,
the most common ones), of one search without embedding the question. ``…_best_ms`` is the fastest search of each kind,
``…_cpu_ms`` what one costs this process and the server: on a busy machine they say more than the median.
``load_chunks_per_s``: by one connection; ``load_two_chunks_per_s``: by two at once; ``load_server_us``: the server's
processor time for a row. A database of its own, gone at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

SHARES = (0.5, 0.1, 0.01, 0.001)
CLUSTERS, INNER, DIMENSION = 200, 24, 384
VOCABULARY, LENGTH = 30_000, 60
KINDS = ("rare", "mixed", "common")
STEP = 10_000
"""Rows of one transaction."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000, help="In the table (%(default)s).")
    parser.add_argument("--questions", type=int, default=100, help="Of each tenant and kind (%(default)s).")
    parser.add_argument("--workers", type=int, default=1, help="Beside the process that makes an index (%(default)s).")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.chunks < 2_000:
        sys.exit("At least 2,000 chunks, or the smallest tenant has none to speak of.")
    state = Path(tempfile.mkdtemp(prefix="ratchet-bench-"))
    os.environ |= {"RATCHET_VAR": str(state), "RATCHET_ENV_FILE": os.devnull}
    try:
        with_database(state, options)
    finally:
        shutil.rmtree(state, ignore_errors=True)


def with_database(state: Path, options: argparse.Namespace) -> None:
    from _report import report

    from config import dbserver, postgres
    from config.env import envsecret

    (state / "secrets").mkdir(mode=0o700)
    password = envsecret(postgres.PASSWORD_NAME, folder=state / "secrets")
    child, spot = dbserver.start(state, password, output=(state / "db.log").open("ab"))
    try:
        dbserver.wait_ready(spot, password, child)
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        report("retrieve", run(options))
    finally:
        dbserver.stop(child)


def run(options: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(options.seed)
    world = World(rng)
    tenants, metrics = load(world, options.chunks, options.workers)
    lows, vectors, hybrids = [], [], []
    for share, assistant in tenants:
        line = measure(world, assistant, options.questions)
        print(f"{share:6.1%} of {options.chunks:,}: {line}", flush=True)
        metrics[f"tenant_{share:g}"] = line
        lows.append(line["recall_at_10"])
        vectors.append(line["vector_p50_ms"])
        hybrids += [line[f"hybrid_{kind}_p50_ms"] for kind in KINDS]
    return {
        "chunks": options.chunks, "recall_at_10_min": min(lows), "vector_p50_ms_max": max(vectors),
        "hybrid_p50_ms_max": max(hybrids), **metrics,
    }  # fmt: skip


class World:
    """Made-up vectors and texts."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.centres = rng.normal(size=(CLUSTERS, DIMENSION)).astype(np.float32)
        self.inner = rng.normal(size=(INNER, DIMENSION)).astype(np.float32)
        weights = 1 / np.arange(1, VOCABULARY + 1)
        self.chances = np.cumsum(weights / weights.sum())
        letters = np.array(list("bdfgklmnprtvz")), np.array(list("aeiou"))
        # Made of syllables that no stemmer shortens and no stop list holds.
        self.words = ["".join(letters[0][(n // 13**i) % 13] + letters[1][(n // 5**i) % 5] for i in range(4)) + "x"
                      for n in rng.permutation(VOCABULARY)]  # fmt: skip

    def vectors(self, n: int) -> np.ndarray:
        spread = self.rng.normal(size=(n, INNER)).astype(np.float32) @ self.inner
        made = self.centres[self.rng.integers(CLUSTERS, size=n)] + 0.4 * spread
        made += 0.3 * self.rng.normal(size=made.shape).astype(np.float32)
        return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)

    def texts(self, n: int) -> list[str]:
        picked = np.searchsorted(self.chances, self.rng.random((n, LENGTH)))
        return [" ".join(self.words[i] for i in row) for row in picked]

    def question(self, kind: str) -> str:
        low, high = {"rare": (3_000, VOCABULARY), "mixed": (0, 3_000), "common": (0, 8)}[kind]
        return " ".join(self.words[i] for i in self.rng.integers(low, high, size=8))


def load(world: World, chunks: int, workers: int) -> tuple[list[tuple[float, Any]], dict[str, Any]]:
    """Tenants with their chunks in random order, as a table grows; the rest belongs to one more."""
    from django.db import connection

    from assistants.services import create_assistant
    from knowledge.indexing import perform
    from knowledge.lexicon import count_words
    from knowledge.models import Chunk, Document, VectorIndex

    owners, tenants = [], []
    for number, share in enumerate((*SHARES, 1 - sum(SHARES))):
        assistant = create_assistant(slug=f"t{number}", name=f"Tenant {number}")
        document = Document.objects.create(
            assistant=assistant, source_key=f"{number:064}", path="made-up.md", title="Made up", text="", digest="",
            media_type="text/plain", state="ready",
        )  # fmt: skip
        owners += [(assistant.pk, document.pk)] * max(1, round(share * chunks))
        tenants.append((share, assistant))
    order = world.rng.permutation(len(owners))
    (words,) = [index for index in Chunk._meta.indexes if index.name == "chunk_words_gin"]
    with connection.schema_editor() as editor:
        editor.remove_index(Chunk, words)
    spent, both, server = 0.0, 0.0, server_seconds()
    for start in range(0, len(order), STEP):
        part = [owners[i] for i in order[start : start + STEP]]
        rows = list(
            zip(part, range(start, start + STEP), world.vectors(len(part)), world.texts(len(part)), strict=False)
        )
        began = time.perf_counter()
        copy(rows)
        spent += time.perf_counter() - began
    server = server_seconds() - server
    print(f"{len(order):,} chunks loaded in {spent:.1f} s", flush=True)
    both = by_two(world, owners[0], len(order))
    began = time.perf_counter()
    with connection.schema_editor() as editor:
        editor.add_index(Chunk, words)
    gin = time.perf_counter() - began
    connection.cursor().execute("VACUUM ANALYZE knowledge_chunk")
    began = time.perf_counter()
    for _, assistant in tenants:
        count_words(assistant)
    counted = time.perf_counter() - began
    print(f"words indexed in {gin:.1f} s, counted in {counted:.1f} s; two at once load {both:,.0f}/s", flush=True)
    began = time.perf_counter()
    for share, assistant in tenants[: len(SHARES)]:  # the last tenant only fills the table
        work = VectorIndex.objects.create(assistant=assistant)
        if not work.claim():
            raise RuntimeError("somebody else makes the index")
        perform(work, workers=workers)
        work.finish(VectorIndex.State.SUCCEEDED)
        print(f"{share:6.1%}: ef_search {work.ef_search}, {work.size / 2**20:.0f} MB, {work.seconds:.0f} s", flush=True)
    metrics = {
        "load_chunks_per_s": round(len(order) / spent), "load_two_chunks_per_s": round(both),
        "load_server_us": round(1e6 * server / len(order), 1), "words_index_s": round(gin, 1),
        "vector_indexes_s": round(time.perf_counter() - began, 1), "count_words_s": round(counted, 1),
    }  # fmt: skip
    return tenants[: len(SHARES)], metrics


def server_seconds() -> float:
    """Processor time of the server's process for our connection."""
    import psutil
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        times = psutil.Process(cursor.fetchone()[0]).cpu_times()
    return float(times.user + times.system)


def copy(rows: list[Any]) -> None:
    """Rows of ((owner, document), position, vector, text) by the platform's own COPY, with three sentences each."""
    from django.db import transaction

    from knowledge.chunking import ChunkText
    from knowledge.models import Document
    from knowledge.storing import Vectors, copy_chunks

    documents: dict[tuple[int, int], list[Any]] = {}
    for owner, position, vector, text in rows:
        packed = np.stack([np.roll(vector, shift) for shift in range(3)]).astype(np.float16).tobytes()
        chunk = ChunkText(headings=("Made up",), text=text, tokens=LENGTH)
        documents.setdefault(owner, []).append((position, chunk, Vectors(vector, packed)))
    with transaction.atomic():
        for (owner_id, document_id), chunks in documents.items():
            copy_chunks(Document(pk=document_id, assistant_id=owner_id), chunks)


def by_two(world: World, owner: tuple[int, int], start: int) -> float:
    """Chunks a second of two processes that load at the same time; what they load is taken away again."""
    from django.db import connection

    rows = list(zip([owner] * STEP, range(start, start + STEP), world.vectors(STEP), world.texts(STEP), strict=True))
    connection.close()
    began = time.perf_counter()
    children = []
    for number in (0, 1):
        pid = os.fork()
        if pid == 0:
            try:
                copy(rows[number::2])
                connection.close()
            finally:
                os._exit(0)
        children.append(pid)
    codes = [os.waitpid(pid, 0)[1] for pid in children]
    spent = time.perf_counter() - began
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM knowledge_chunk WHERE position >= %s", [start])
        if any(codes) or cursor.rowcount != STEP:
            raise RuntimeError("one of two could not load")
    return STEP / spent


def measure(world: World, assistant: Any, questions: int) -> dict[str, Any]:
    from knowledge.configuration import RetrievalSettings
    from knowledge.query import Query
    from knowledge.retrieval import search
    from knowledge.selftest import self_test

    tested = self_test(assistant=assistant, sample=questions)
    alone, both = RetrievalSettings(words=0, sentences=0), RetrievalSettings()
    vectors = world.vectors(questions)
    line: dict[str, Any] = {
        "chunks": tested.chunks, "path": tested.path, "recall_at_10": tested.recall,
        "recall_of_questions": recall_of(assistant, vectors),
    }  # fmt: skip
    plan = [("vector", alone, "mixed"), *((f"hybrid_{kind}", both, kind) for kind in KINDS)]
    for name, settings, kind in plan:
        queries = [Query.plain(world.question(kind), vector) for vector in vectors]
        search(assistant=assistant, query=queries[0], k=6, settings=settings)
        times, cpu = [], time.process_time() + server_seconds()
        for query in queries:
            began = time.perf_counter()
            search(assistant=assistant, query=query, k=6, settings=settings)
            times.append((time.perf_counter() - began) * 1000)
        line[f"{name}_p50_ms"] = round(float(np.median(times)), 1)
        line[f"{name}_p95_ms"] = round(float(np.quantile(times, 0.95)), 1)
        line[f"{name}_best_ms"] = round(min(times), 1)
        line[f"{name}_cpu_ms"] = round((time.process_time() + server_seconds() - cpu) * 1000 / len(queries), 1)
    return line


def recall_of(assistant: Any, vectors: np.ndarray) -> float:
    """Mean share of the exact first ten that a search by vectors finds as the assistant is served."""
    from knowledge.configuration import RetrievalSettings
    from knowledge.query import Query
    from knowledge.retrieval import search

    settings = RetrievalSettings(words=0, sentences=0)
    shares = []
    for vector in vectors:
        query = Query.plain("", vector)
        exact, served = (
            {p.chunk_id for p in search(assistant=assistant, query=query, k=10, settings=settings, exact=how)}
            for how in (True, None)
        )
        shares.append(len(exact & served) / max(1, len(exact)))
    return round(float(np.mean(shares)), 4)


if __name__ == "__main__":
    main()
