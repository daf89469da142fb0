"""How fast turns are taken in, durably: ours against COPY, MLflow and Phoenix on one PostgreSQL, empty and with 10⁶.

    make bench-capture
    make bench-capture ARGS='--peers "" --stored 0'     ours and COPY alone: a minute

Everybody is given the same 10 kB turns with five contexts in batches of 50, by the same clients, in rounds one after
the other; the figures are medians of the rounds' ratios, so that they hold on a machine that others use. Ours is one
web process with the supervisor's command line; a turn counts when it was acknowledged, which is after its commit. The
peers get OpenTelemetry's protobuf; theirs count when the database has every span. Ours scrubs later, in the worker,
which does not run here; neither peer scrubs at all.

The first run installs the peers (2 GB) into --state, and fills a database with --stored turns (a quarter of an hour);
both are used again. ``vs_copy`` compares with COPY of the same bytes into one column, committed per batch by as many
connections; within a round the two take turns, a part each, since what the disk takes swings from second to second.
``rate_1e6_over_1e4`` compares two web processes on two databases of the same server.

Clients, web process and PostgreSQL share the machine's cores, so a client that costs as much as the server measures
itself. Hence the processor time of each, in milliseconds a turn: ``web_ms``, ``database_ms`` and ``client_ms`` of ours
in batches, the same with ``single_`` before it of single posts, ``copy_database_ms`` and ``copy_client_ms`` of COPY.
Clients of ours are http.client in Python, that of COPY is psycopg's, in C.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]

from _capture_content import BATCH, Content  # noqa: E402
from _capture_servers import CopyTarget, Database, Process, Timed, load, manage, ours, schema_digest  # noqa: E402
from _capture_spent import Spent, meter  # noqa: E402

SMALL = 10_000
"""Turns in the small database."""
PARTS = 4
"""Of a round, in each of which ours and COPY take turns."""
BATCH_PATH, ONE_PATH = "/api/v1/turns/batch", "/api/v1/turns"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="Rounds (%(default)s).")
    parser.add_argument("--turns", type=int, default=4000, help="Turns of ours and of COPY per round (%(default)s).")
    parser.add_argument("--peer-turns", type=int, default=300, help="Turns of each peer per round (%(default)s).")
    parser.add_argument("--threads", type=int, default=4, help="Clients at once (%(default)s).")
    parser.add_argument("--singles", type=int, default=200, help="Single posts per round (%(default)s).")
    parser.add_argument("--stored", type=int, default=1_000_000, help="Turns in the large database; 0: leave it out.")
    parser.add_argument("--peers", default="mlflow,phoenix", help="With commas (%(default)s).")
    parser.add_argument("--state", type=Path, default=ROOT / "var" / "bench", help="Kept between runs (%(default)s).")
    options = parser.parse_args()
    options.state = options.state.resolve()
    options.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["RATCHET_VAR"], os.environ["RATCHET_ENV_FILE"] = str(options.state), os.devnull
    from _report import report

    with ExitStack() as stack:
        database = stack.enter_context(Database(options.state))
        bench = Bench(database, options, stack)
        bench.prepare()
        for number in range(options.rounds):
            print(f"round {number + 1}: {json.dumps(bench.round())}", flush=True)
        metrics = bench.metrics()
        if options.stored:
            from _capture_reading import read_times

            metrics |= read_times(bench.webs["large"].port, bench.keys["large"], options.stored)
        report("capture", metrics)


class Bench:
    """Servers that run, and what was measured in each round."""

    def __init__(self, database: Database, options: argparse.Namespace, stack: ExitStack) -> None:
        self.database, self.options, self.stack = database, options, stack
        self.webs: dict[str, Process] = {}
        self.keys: dict[str, str] = {}
        self.peers: dict[str, tuple[Any, Process]] = {}
        self.rounds: list[dict[str, float]] = []
        self.left_out: dict[str, str] = {}
        self.content = Content(uuid.uuid4().hex[:8])

    def prepare(self) -> None:
        databases = {"small": ("ours_small", SMALL)}
        if self.options.stored:
            databases["large"] = (f"ours_{self.options.stored}_{schema_digest()}", self.options.stored)
        self._drop_outdated({name for name, _ in databases.values()})
        for kind, (name, count) in databases.items():
            self.database.create(name, afresh=kind == "small")
            url = self.database.url(name)
            manage(self.options.state, url, "migrate", "--verbosity", "0")
            self.keys[kind] = self._fill(url, count)
            self.webs[kind] = self.stack.enter_context(ours(self.options.state, url))
        for name in filter(None, self.options.peers.split(",")):
            self._start_peer(name)
        for kind in self.webs:  # the first requests load code and open connections
            self._batches(kind, 10 * BATCH)

    def _drop_outdated(self, wanted: set[str]) -> None:
        for name in self.database.names() - wanted:
            if name.startswith("ours_"):
                with self.database.connect("postgres") as raw:
                    raw.execute(f'DROP DATABASE "{name}"')  # type: ignore[arg-type]

    def _fill(self, url: str, count: int) -> str:
        """In a process of its own: Django's settings name one database. Returns a key."""
        here = str(Path(__file__).with_name("_capture_fill.py"))
        env = {**os.environ, "DATABASE_URL": url}
        done = subprocess.run(
            [sys.executable, here, str(count)], env=env, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout.split()[-1]

    def _start_peer(self, name: str) -> None:
        from _capture_peers import PEERS

        try:
            place = PEERS[name].install(self.options.state)
            process = self.stack.enter_context(PEERS[name].start(place, self.database))
            self.peers[name] = (PEERS[name], process)
            self._peer(name, 2 * BATCH)
        except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
            self.peers.pop(name, None)
            self.left_out[name] = str(error)
            print(f"{name} is left out: {error}", flush=True)

    def round(self) -> dict[str, float]:
        """Everybody once, so that what else runs on the machine meets all of them."""
        found = {**self._in_turns(), **self._singles()}
        if "large" in self.webs:
            found["ours_large"] = self._batches("large", self.options.turns).rate
            found["ours_again"] = self._batches("small", self.options.turns).rate
        for name in self.peers:
            found[name] = self._peer(name, self.options.peer_turns)
        self._settle()
        self.rounds.append(found)
        return {name: round(value, 3) for name, value in found.items()}

    def _in_turns(self) -> dict[str, float]:
        """Rates of ours and of COPY, and what each cost, over the parts of a round."""
        web = self.webs["small"].child.pid
        part = max(self.options.turns // PARTS // BATCH, 1) * BATCH
        ours_took, copy_took, ours_spent, copy_spent = 0.0, 0.0, Spent(), Spent()
        with CopyTarget(self.database, "ours_small", self.options.threads) as target:
            for _ in range(PARTS):
                bodies = self.content.batches(part)
                with meter(self.database.child.pid, web) as spent:
                    ours_took += self._post(bodies).took
                ours_spent += spent
                payloads = [json.dumps(turn).encode() for turn in self.content.turns(part)]
                with meter(self.database.child.pid) as spent:
                    copy_took += target.copy(payloads, per_copy=BATCH).took
                copy_spent += spent
        turns = PARTS * part
        told = ours_spent.told(turns)
        told |= {f"copy_{name}": value for name, value in copy_spent.told(turns).items() if name != "web_ms"}
        return {"ours": turns / ours_took, "copy": turns / copy_took, **told}

    def _post(self, bodies: list[bytes], kind: str = "small") -> Timed:
        return load(self.webs[kind].port, BATCH_PATH, self._headers(kind), bodies, per_body=BATCH,
                    threads=self.options.threads, statuses=(207,))  # fmt: skip

    def _batches(self, kind: str, count: int) -> Timed:
        return self._post(self.content.batches(count), kind)

    def _singles(self) -> dict[str, float]:
        """Posts one after the other: their median in milliseconds, and what they cost."""
        web = self.webs["small"]
        bodies = [json.dumps(turn).encode() for turn in self.content.turns(self.options.singles)]
        with meter(self.database.child.pid, web.child.pid) as spent:
            done = load(web.port, ONE_PATH, self._headers("small"), bodies, per_body=1, threads=1, statuses=(201,))
        costs = {f"single_{name}": value for name, value in spent.told(len(bodies)).items()}
        return {"single_ms": statistics.median(done.seconds) * 1000, **costs}

    def _peer(self, name: str, count: int) -> float:
        peer, process = self.peers[name]
        wanted = peer.count(self.database) + count
        headers = {"Content-Type": "application/x-protobuf", **peer.headers}
        bodies = self.content.exports(count)
        done = load(process.port, "/v1/traces", headers, bodies, per_body=BATCH, threads=self.options.threads,
                    until=lambda: peer.count(self.database) >= wanted)  # fmt: skip
        return done.rate

    def _settle(self) -> None:
        """What waits in quarantine is of no more use, and would only fill the disk."""
        for name in self.database.names():
            if name.startswith("ours_"):
                with self.database.connect(name) as raw:
                    raw.execute("TRUNCATE capture_quarantine CASCADE")
        time.sleep(1)

    def _headers(self, kind: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[kind]}", "Content-Type": "application/json"}

    def metrics(self) -> dict[str, Any]:
        def median(of: Any) -> float:
            return statistics.median(of(one) for one in self.rounds)

        found: dict[str, Any] = {
            "vs_copy": round(median(lambda r: r["ours"] / r["copy"]), 3),
            "single_p50_ms": round(median(lambda r: r["single_ms"]), 2),
            "turns_per_s": round(median(lambda r: r["ours"])),
            "copy_per_s": round(median(lambda r: r["copy"])),
        }
        for name in self.rounds[0]:
            if name.endswith("_ms") and name != "single_ms":
                found[name] = round(median(lambda r, name=name: r[name]), 3)
        for name in self.peers:
            found[f"vs_{name}"] = round(median(lambda r, name=name: r["ours"] / r[name]), 1)
            found[f"{name}_per_s"] = round(median(lambda r, name=name: r[name]), 1)
        if "large" in self.webs:
            found["rate_1e6_over_1e4"] = round(
                median(lambda r: 2 * r["ours_large"] / (r["ours"] + r["ours_again"])), 3
            )  # fmt: skip
            found["stored"] = self.options.stored
        if self.left_out:
            found["left_out"] = self.left_out
        return found


if __name__ == "__main__":
    main()
