"""Search speed and recall with many chunks: tenants of 50 % … 0.1 % of the table, vectors alone and with any words.

    make bench-retrieve
    make bench-retrieve ARGS='--chunks 20000 --questions 40'     small: a minute
    make bench-retrieve ARGS='--state var/bench/retrieve'        kept: measured again without loading again

Chunks are made up: vectors are random in 200 clusters of some two dozen dimensions, not the embedder's (embedding a
million texts would take days, and the index only sees numbers); texts are words drawn by Zipf's law, so that a few
stand in most chunks. Rows are loaded by the platform's own COPY; the index of words is built afterwards, and each large
tenant's index of vectors as the platform makes it.

``recall_at_10_min``: the lowest, over the tenants, of the path that serves it against exact search, by the self-test
(chunks moved as far as questions are); ``recall_of_questions``: the same by vectors drawn anew.
``vector_p50_ms_max`` and ``hybrid_p50_ms_max``: the highest median, over tenants and over kinds of words (rare, mixed,
the most common ones), of one search without embedding the question. ``…_best_ms`` is the fastest search of each kind,
``…_cpu_ms`` what one costs this process and the server: on a busy machine they say more than the median.
``load_chunks_per_s``: by one connection; ``load_two_chunks_per_s``: by two at once; ``load_indexed_chunks_per_s``: by
one, while the index of words is there; ``load_server_us``, ``load_client_us``: processor time for a row of the server
and of this process. A database of its own, gone at the end unless ``--state`` names its folder. The three steps may
then run one at a time, say the first and the last on a quiet machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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

from _retrieve_load import index, load, server_seconds, tenants  # noqa: E402
from _retrieve_world import World  # noqa: E402

KINDS = ("rare", "mixed", "common")
STEPS = ("load", "index", "measure")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000, help="In the table (%(default)s).")
    parser.add_argument("--questions", type=int, default=100, help="Of each tenant and kind (%(default)s).")
    parser.add_argument("--workers", type=int, default=1, help="Beside the process that makes an index (%(default)s).")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--state", type=Path, help="A folder that keeps the database; what was done is not done again.")
    parser.add_argument("--until", choices=STEPS, default=STEPS[-1], help="The last step, with --state.")
    options = parser.parse_args()
    if options.chunks < 2_000:
        sys.exit("At least 2,000 chunks, or the smallest tenant has none to speak of.")
    state = options.state.resolve() if options.state else Path(tempfile.mkdtemp(prefix="ratchet-bench-"))
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ |= {"RATCHET_VAR": str(state), "RATCHET_ENV_FILE": os.devnull}
    try:
        with_database(state, options)
    finally:
        if not options.state:
            shutil.rmtree(state, ignore_errors=True)


def with_database(state: Path, options: argparse.Namespace) -> None:
    from _report import report

    from config import dbserver, postgres
    from config.env import envsecret

    done = Done(state, options)
    (state / "secrets").mkdir(mode=0o700, exist_ok=True)
    password = envsecret(postgres.PASSWORD_NAME, folder=state / "secrets")
    child, spot = dbserver.start(state, password, output=(state / "db.log").open("ab"))
    try:
        dbserver.wait_ready(spot, password, child)
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        report("retrieve", run(options, done))
    finally:
        dbserver.stop(child, seconds=60)


class Done:
    """Which steps the database has behind it, and what they measured; a file beside it, when it is kept."""

    def __init__(self, state: Path, options: argparse.Namespace) -> None:
        self.file = state / "retrieve.json"
        schema = hashlib.sha256((ROOT / "platform/knowledge/migrations/0001_initial.py").read_bytes()).hexdigest()[:8]
        made_for = {"chunks": options.chunks, "seed": options.seed, "schema": schema}
        self.found: dict[str, Any] = {"made_for": made_for}
        if self.file.exists():
            self.found = json.loads(self.file.read_text())
        elif (state / "postgres").exists():
            sys.exit(f"{state} holds a database that was not filled to the end, or another one. Remove it.")
        if self.found["made_for"] != made_for:
            sys.exit(f"{state} was filled with {self.found['made_for']}, not with {made_for}. Remove it.")

    def step(self, name: str, act: Any) -> dict[str, Any]:
        if name not in self.found:
            self.found[name] = act()
            self.file.write_text(json.dumps(self.found))
        return dict(self.found[name])


def run(options: argparse.Namespace, done: Done) -> dict[str, Any]:
    world = World(options.seed)
    metrics = {"chunks": options.chunks, **done.step("load", lambda: load(world, options.chunks))}
    if options.until == "load":
        return metrics
    metrics |= done.step("index", lambda: index(options.workers))
    if options.until == "index":
        return metrics
    lows, vectors, hybrids, lines = [], [], [], {}
    for share, assistant in tenants():
        line = measure(world, assistant, options.questions)
        print(f"{share:6.1%} of {options.chunks:,}: {line}", flush=True)
        lines[f"tenant_{share:g}"] = line
        lows.append(line["recall_at_10"])
        vectors.append(line["vector_p50_ms"])
        hybrids += [line[f"hybrid_{kind}_p50_ms"] for kind in KINDS]
    return {
        "recall_at_10_min": min(lows), "vector_p50_ms_max": max(vectors), "hybrid_p50_ms_max": max(hybrids),
        **metrics, **lines,
    }  # fmt: skip


def measure(world: World, assistant: Any, questions: int) -> dict[str, Any]:
    from knowledge.configuration import RetrievalSettings
    from knowledge.query import Query
    from knowledge.retrieval import search
    from knowledge.selftest import self_test

    tested = self_test(assistant=assistant, sample=questions)
    alone, both = RetrievalSettings(words=0, sentences=0), RetrievalSettings()
    vectors = world.vectors(questions, world.of_questions)
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
