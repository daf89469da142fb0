"""How long does freezing a dataset take, in how much memory, and does the same input give the same hash?

    make bench-dataset
    make bench-dataset ARGS='--examples 10000'      small: a minute or two

Three fifths of the input are resolved turns with six passages each (a tenth of them judged bad with a correction), two
fifths kept synthetic questions; a benchmark of 300 questions guards them. The build is `training.data.build.perform` in
a process of its own, twice: ``seconds`` and ``peak_mb`` (with its helpers', at one moment) are those of the slower and
the larger one, ``cpu_s`` its processor seconds, ``same_hash`` compares them. ``stages`` are seconds on the clock and of
processor by stage of the first: on a busy machine only the latter can be compared (PostgreSQL's own time is not in
it). ``audit_share`` is what the leak audit takes of the processor: it reads every text by the rules of the scrubber.

The turns have stored vectors, as scrubbing leaves them; a thousand of each kind are real, the others are these moved by
noise. In a tenth of the conversations values are known that must be looked for. The first run fills a database; it is
used again. --drop drops it at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100_000, help="Turns and questions together (%(default)s).")
    parser.add_argument("--state", type=Path, default=ROOT / "var" / "bench", help="Kept between runs (%(default)s).")
    parser.add_argument("--drop", action="store_true", help="Drop the filled database at the end.")
    options = parser.parse_args()
    options.state = options.state.resolve()
    options.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["RATCHET_VAR"], os.environ["RATCHET_ENV_FILE"] = str(options.state), os.devnull
    from _capture_servers import Database, manage, schema_digest
    from _report import report

    with Database(options.state) as database:
        name = f"dataset_{options.examples}_{schema_digest()}"
        stale = [old for old in database.names() if old.startswith("dataset_") and old != name]
        database.create(name, afresh=False)
        url = database.url(name)
        manage(options.state, url, "migrate", "--verbosity", "0")
        helper(options.state, url, "fill", options.examples)
        first, second = (helper(options.state, url, "build", 0) for _ in range(2))
        report("dataset", summary(options.examples, first, second))
        for gone in [*stale, *([name] if options.drop else [])]:
            drop(database, gone)


def summary(examples: int, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    seconds = max(first["seconds"], second["seconds"])
    audited = first["stages"].get("leak audit", {}).get("cpu_s", 0.0)
    return {
        "examples": examples,
        "rows": first["rows"],
        "seconds": seconds,
        "cpu_s": max(first["cpu_s"], second["cpu_s"]),
        "rows_per_s": round(first["rows"] / seconds),
        "peak_mb": max(first["peak_mb"], second["peak_mb"]),
        "same_hash": first["content_hash"] == second["content_hash"],
        "audit_share": round(audited / first["cpu_s"], 2),
        "stages": first["stages"],
        "mix": first["mix"],
    }


def helper(state: Path, url: str, step: str, count: int) -> dict[str, Any]:
    from config import processes

    env = processes.child_env(state, {"DATABASE_URL": url, "RATCHET_ENV_FILE": os.devnull}, marked=False)
    command = [sys.executable, "-W", "ignore", str(ROOT / "bench" / "_dataset_rows.py"), step, str(count)]
    done = subprocess.run(command, env={**env, "RATCHET_PROCESS": "worker"}, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def drop(database: Any, name: str) -> None:
    from psycopg import sql

    from config import postgres

    with database.connect(postgres.DATABASE) as raw:
        raw.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


if __name__ == "__main__":
    main()
