"""How long do dashboards and lists take on a million turns, in how many statements; and a minute of an experiment?

    make bench-pages
    make bench-pages ARGS='--turns 20000'      small: a few minutes, most of them to fill

Fills a database with turns, labels, scores, documents, datasets and all else that stands beside them, feedback and an
experiment that has met a quarter of them. Starts our web process on it, and opens every dashboard and every list as an
admin over HTTP: once to warm up, then ``--times`` times. ``worst_p50_ms`` is the median of the slowest page, ``slow``
are the pages above 300 ms, ``statements`` what each asks of the database. ``measure_s`` and ``look_s`` are the pass
over the experiment of one minute in which 600 questions got feedback, ``every_question_s`` one statement of what a
pass read before units were kept.

The first run fills the database; it is used again as long as migrations are the same. Of a million turns 5,000 are
written, the others are copies of them, made by the database (5 GB of disk). Their vectors have no index, which none of
these pages asks. --drop drops it at the end.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]
LIMIT_MS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=1_000_000, help="Stored turns (%(default)s).")
    parser.add_argument("--times", type=int, default=7, help="How often each page is opened (%(default)s).")
    parser.add_argument("--state", type=Path, default=ROOT / "var" / "bench", help="Kept between runs (%(default)s).")
    parser.add_argument("--drop", action="store_true", help="Drop the filled database at the end.")
    options = parser.parse_args()
    options.state = options.state.resolve()
    options.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["RATCHET_VAR"], os.environ["RATCHET_ENV_FILE"] = str(options.state), os.devnull
    from _capture_servers import Database, manage, ours, schema_digest
    from _report import report
    from psycopg import sql

    from config import postgres

    with Database(options.state) as database:
        name = f"pages_{options.turns}_{schema_digest()}"
        database.create(name, afresh=False)
        url = database.url(name)
        manage(options.state, url, "migrate", "--verbosity", "0")
        filled = helper(options.state, url, "fill", options.turns)
        with ours(options.state, url) as server:
            pages = {path: median(server.port, path, filled["cookie"], options.times) for path in filled["paths"]}
        counts = helper(options.state, url, "statements", 0)
        for path, (status, milliseconds) in sorted(pages.items(), key=lambda page: -page[1][1]):
            print(f"{milliseconds:8.0f} ms {counts[path]:4} statements  {status}  {path}")
        slow = {path: round(p50) for path, (_, p50) in pages.items() if p50 > LIMIT_MS}
        report(
            "pages",
            {
                "turns": options.turns,
                "pages": len(pages),
                "worst_p50_ms": round(max(p50 for _, p50 in pages.values())),
                "most_statements": max(counts.values()),
                "slow": slow,
                "not_200": [path for path, (status, _) in pages.items() if status != 200],
                **helper(options.state, url, "look", 0),
            },
        )
        if options.drop:
            with database.connect(postgres.DATABASE) as raw:
                raw.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def median(port: int, path: str, cookie: str, times: int) -> tuple[int, float]:
    """(status, milliseconds) of a page; the first time does not count."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    spent, status = [], 0
    for _ in range(times + 1):
        begun = time.perf_counter()
        client.request("GET", path, headers={"Cookie": cookie, "Host": "localhost"})
        answer = client.getresponse()
        answer.read()
        spent.append((time.perf_counter() - begun) * 1000)
        status = answer.status
    client.close()
    return status, statistics.median(spent[1:])


def helper(state: Path, url: str, step: str, count: int) -> dict[str, Any]:
    from config import processes

    env = processes.child_env(state, {"DATABASE_URL": url, "RATCHET_ENV_FILE": os.devnull}, marked=False)
    command = [sys.executable, "-W", "ignore", str(ROOT / "bench" / "_pages_rows.py"), step, str(count)]
    done = subprocess.run(command, env={**env, "RATCHET_PROCESS": "worker"}, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
