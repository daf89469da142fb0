"""Search speed and recall with many chunks: tenants of 50 % … 0.1 % of the table, vectors alone and with any words.

    make bench-retrieve
    make bench-retrieve ARGS='--chunks 20000 --questions 40'     small: a minute

Chunks are made up: vectors are random in 200 clusters of some two dozen dimensions, not the embedder's (embedding a
million texts would take days, and the index only sees numbers); texts are words drawn by Zipf's law, so that a few
stand in most chunks. Rows are loaded by COPY as the platform loads them, indexes are built afterwards.

``recall_at_10_min``: the lowest, over the tenants, of the index against exact search. ``vector_p50_ms_max`` and
``hybrid_p50_ms_max``: the highest median, over tenants and over kinds of words (rare, mixed, the most common ones), of
one search without embedding the question; the path is the one that the tenant is served by. ``…_best_ms`` is the
fastest search of each kind: on a busy machine it says more than the median. A database of its own, gone at the end.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000, help="In the table (%(default)s).")
    parser.add_argument("--questions", type=int, default=100, help="Of each tenant and kind (%(default)s).")
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
    tenants, metrics = load(world, options.chunks)
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


def load(world: World, chunks: int) -> tuple[list[tuple[float, Any]], dict[str, Any]]:
    """Tenants with their chunks in random order, as a table grows; the rest belongs to one more."""
    from django.db import connection

    from assistants.services import create_assistant
    from knowledge.lexicon import count_words
    from knowledge.models import Chunk, Document

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
    indexes = [index for index in Chunk._meta.indexes if index.name in ("chunk_embedding_hnsw", "chunk_words_gin")]
    with connection.schema_editor() as editor:
        for index in indexes:
            editor.remove_index(Chunk, index)
    spent = 0.0
    for start in range(0, len(order), 10_000):
        part = [owners[i] for i in order[start : start + 10_000]]
        vectors, texts = world.vectors(len(part)), world.texts(len(part))
        began = time.perf_counter()
        copy(part, start, vectors, texts)
        spent += time.perf_counter() - began
    print(f"{len(order):,} chunks loaded in {spent:.1f} s", flush=True)
    began = time.perf_counter()
    with connection.schema_editor() as editor:
        for index in indexes:
            editor.add_index(Chunk, index)
    built = time.perf_counter() - began
    connection.cursor().execute("VACUUM ANALYZE knowledge_chunk")
    began = time.perf_counter()
    for _, assistant in tenants:
        count_words(assistant)
    counted = time.perf_counter() - began
    print(f"indexes built in {built:.1f} s, words counted in {counted:.1f} s", flush=True)
    metrics = {
        "load_chunks_per_s": round(len(order) / spent), "index_build_s": round(built, 1),
        "count_words_s": round(counted, 1),
    }  # fmt: skip
    return tenants[: len(SHARES)], metrics


def copy(owners: list[tuple[int, int]], start: int, vectors: np.ndarray, texts: list[str]) -> None:
    """The columns and the binary COPY of `knowledge.services`, with three sentences a chunk."""
    from django.db import connection
    from pgvector import HalfVector
    from pgvector.psycopg import register_vector

    connection.ensure_connection()
    raw: Any = connection.connection
    register_vector(raw)
    packed = np.repeat(vectors.astype(np.float16), 3, axis=0).reshape(len(vectors), -1)
    columns = ("assistant_id", "document_id", "position", "headings", "text", "digest", "tokens", "embedding",
               "sentence_embeddings")  # fmt: skip
    with raw.cursor() as cursor, cursor.copy(
        f"COPY knowledge_chunk ({', '.join(columns)}) FROM STDIN WITH (FORMAT BINARY)"
    ) as rows:  # fmt: skip
        rows.set_types(["int8", "int8", "int4", "varchar[]", "text", "varchar", "int4", "halfvec", "bytea"])
        for offset, (owner, document) in enumerate(owners):
            rows.write_row((
                owner, document, start + offset, ["Made up"], texts[offset], f"{start + offset:064}", LENGTH,
                HalfVector(vectors[offset]), packed[offset].tobytes(),
            ))  # fmt: skip


def measure(world: World, assistant: Any, questions: int) -> dict[str, Any]:
    from knowledge.configuration import RetrievalSettings
    from knowledge.query import Query
    from knowledge.retrieval import search
    from knowledge.selftest import self_test

    tested = self_test(assistant=assistant, sample=questions)
    alone, both = RetrievalSettings(words=0, sentences=0), RetrievalSettings()
    # What is served exactly loses nothing, whatever the index would find.
    recall = 1.0 if tested.path == "exact" else tested.recall
    line: dict[str, Any] = {
        "chunks": tested.chunks, "path": tested.path, "recall_at_10": recall, "recall_at_10_of_index": tested.recall,
    }  # fmt: skip
    vectors = world.vectors(questions)
    plan = [("vector", alone, "mixed"), *((f"hybrid_{kind}", both, kind) for kind in KINDS)]
    for name, settings, kind in plan:
        times = []
        for vector in vectors:
            query = Query.plain(world.question(kind), vector)
            began = time.perf_counter()
            search(assistant=assistant, query=query, k=6, settings=settings)
            times.append((time.perf_counter() - began) * 1000)
        line[f"{name}_p50_ms"] = round(float(np.median(times)), 1)
        line[f"{name}_p95_ms"] = round(float(np.quantile(times, 0.95)), 1)
        line[f"{name}_best_ms"] = round(min(times), 1)
    return line


if __name__ == "__main__":
    main()
