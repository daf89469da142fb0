"""How long annotators wait: next and submit over HTTP with 10⁶ turns and 10⁵ labels, twenty people at once.

    make bench-annotate
    make bench-annotate ARGS='--turns 3000 --labels 1000 --items 5 --imported 200'     small: a minute

Twenty clients do what the labelling page does: fetch the item ahead (``next``: claimed, leased, rendered), send the
label of the one on the screen (``submit``: checked, stored, settled, counted), and think --think seconds in between,
which is a multiple of a person's speed. Every fifth label is bad with a correction, whose text is searched for personal
data (``submit_text``). ``alone`` is one client without pauses, as Label Studio was measured: 152 ms and 300 ms;
``labels_per_s`` is what all get done without pauses.

``import``: --imported turns of 10 kB are posted to the log API until they are acknowledged, and then put into a queue;
``ready_per_s`` has the scrubbing by one worker in between, which Label Studio does not do. ``export``: all 2,000 labels
of a queue with their turns and passages, as JSON lines. At the end the database is asked whether any item has more
labels than it needs, and how each statement of the two requests is planned (``read_whole``: large tables that are).

The first run fills a database (a quarter of an hour for 10⁶ turns); it is used again. --limit ends everything.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]

from _annotate_clients import Annotator, Browser, work_at_once  # noqa: E402
from _annotate_rows import SENTENCES  # noqa: E402
from _capture_servers import Database, Process, load, manage, ours, schema_digest  # noqa: E402

ALONE = 40
"""Labels of the single client."""
BATCH = 50
"""Turns in one post."""
RUSH = 5
"""Labels of each when nobody pauses."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=1_000_000, help="Turns stored (%(default)s).")
    parser.add_argument("--labels", type=int, default=100_000, help="Labels stored, a third of the turns at most.")
    parser.add_argument("--annotators", type=int, default=20, help="People at once (%(default)s).")
    parser.add_argument("--items", type=int, default=25, help="Labels of each of them (%(default)s).")
    parser.add_argument("--think", type=float, default=3.0, help="Seconds between their requests (%(default)s).")
    parser.add_argument("--imported", type=int, default=2000, help="Turns to import (%(default)s).")
    parser.add_argument("--limit", type=float, default=3600, help="Seconds until everything ends (%(default)s).")
    parser.add_argument("--state", type=Path, default=ROOT / "var" / "bench", help="Kept between runs (%(default)s).")
    parser.add_argument("--drop", action="store_true", help="Drop the filled database at the end.")
    options = parser.parse_args()
    options.labels = min(options.labels, options.turns // 3)
    options.state = options.state.resolve()
    options.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["RATCHET_VAR"], os.environ["RATCHET_ENV_FILE"] = str(options.state), os.devnull
    from _report import report

    with Database(options.state) as database:
        report("annotate", Bench(database, options).run())


class Bench:
    def __init__(self, database: Database, options: argparse.Namespace) -> None:
        self.database, self.options = database, options
        self.ends = time.monotonic() + options.limit
        self.name = f"labels_{options.turns}_{options.labels}_{schema_digest()}"
        self.url = database.url(self.name)

    def run(self) -> dict[str, Any]:
        for name in self.database.names():
            if name.startswith("labels_") and name != self.name:
                self._drop(name)  # filled under other migrations, or in another size
        self.database.create(self.name, afresh=False)
        manage(self.options.state, self.url, "migrate", "--verbosity", "0")
        try:
            return self._measured()
        finally:
            if self.options.drop:
                self._drop(self.name)

    def _measured(self) -> dict[str, Any]:
        extra = self.options.annotators * (self.options.items + RUSH + 2) + ALONE + 15
        filled = self._helper("fill", self.options.turns, self.options.labels, self.options.annotators, extra)
        with ours(self.options.state, self.url) as web:
            metrics = self._labelling(web, filled)
            metrics |= self._export(web, filled)
            metrics |= self._import(web, filled)
        metrics |= self._helper("check", filled["queue"])
        return metrics

    def _labelling(self, web: Process, filled: dict[str, Any]) -> dict[str, Any]:
        people = [Annotator(web.port, session, filled["queue"]) for session in filled["sessions"]]
        for person in people:  # the first requests load code and open connections
            person.open_page()
        people[0].label(5, think=0.0, until=self.ends)  # the fifth has text: loads the recognisers
        people[0].forget()
        people[0].label(ALONE, think=0.0, until=self.ends)
        alone = people[0].times()
        print(f"alone: {json.dumps(alone)}", flush=True)
        people[0].forget()
        work_at_once(people, self.options.items, think=self.options.think, until=self.ends)
        together = _together(people)
        print(f"{len(people)} at once: {json.dumps(together)}", flush=True)
        for person in people:
            person.forget()
        begun = time.perf_counter()
        work_at_once(people, RUSH, think=0.0, until=self.ends)
        done = sum(person.done for person in people)
        for person in people:
            person.leave()
        return {
            **together,
            **{f"{name.removesuffix('_ms')}_alone_ms": value for name, value in alone.items()},
            "labels_per_s": round(done / (time.perf_counter() - begun), 1),
            "turns": self.options.turns, "labels": self.options.labels, "annotators": len(people),
            "think_s": self.options.think,
        }  # fmt: skip

    def _export(self, web: Process, filled: dict[str, Any]) -> dict[str, Any]:
        browser = Browser(web.port, filled["reviewer"])
        found: dict[str, Any] = {"exported": filled["exported"]}
        for shape, metric in (("jsonl", "export_2000_s"), ("argilla", "argilla_s"), ("label-studio", "label_studio_s")):
            path = f"/admin/annotations/queue/{filled['export_queue']}/export/?format={shape}"
            body, seconds = browser.timed("GET", path)
            rows = len(body.splitlines()) if shape == "jsonl" else len(json.loads(body))
            if rows != filled["exported"]:
                raise RuntimeError(f"{shape}: {rows} rows came, {filled['exported']} are there")
            found[metric] = round(seconds, 2)
        print(f"export: {json.dumps(found)}", flush=True)
        return found

    def _import(self, web: Process, filled: dict[str, Any]) -> dict[str, Any]:
        """Into an assistant of its own, that goes afterwards."""
        run = uuid.uuid4().hex[:8]
        place = self._helper("house", f"imported-{run}")
        headers = {"Authorization": f"Bearer {place['key']}", "Content-Type": "application/json"}
        bodies = _bodies(run, self.options.imported)
        begun = time.perf_counter()
        load(web.port, "/api/v1/turns/batch", headers, bodies, per_body=1, threads=4)
        posted = time.perf_counter() - begun
        scrubbed = self._helper("scrub", place["assistant"], int(max(1, (self.ends - time.monotonic()) * 0.6)))
        browser = Browser(web.port, filled["reviewer"])
        path = f"/admin/annotations/queue/{place['queue']}/add/"
        form = {"order": "newest", "limit": str(self.options.imported), "add": ""}
        _, filling = browser.timed("POST", path, form, expected=302)
        there = self._helper("leave", place["assistant"], place["queue"])
        if there["items"] != scrubbed["turns"]:
            raise RuntimeError(f"{there['items']} of {scrubbed['turns']} scrubbed turns came into the queue")
        count = scrubbed["turns"]
        found = {
            "imported": count,
            "import_per_s": round(self.options.imported / (posted + filling), 1),
            "ready_per_s": round(count / (posted * count / self.options.imported + scrubbed["seconds"] + filling), 1),
        }
        print(f"import: {json.dumps(found)}", flush=True)
        return found

    def _helper(self, *arguments: object) -> dict[str, Any]:
        """A step that needs Django with this database: in a process of its own, with the time that is left."""
        command = [sys.executable, "-W", "ignore", str(ROOT / "bench" / "_annotate_rows.py"), *map(str, arguments)]
        env = {**os.environ, "DATABASE_URL": self.url}
        left = max(1.0, self.ends - time.monotonic())
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=left)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def _drop(self, name: str) -> None:
        with self.database.connect("postgres") as raw:
            raw.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')  # type: ignore[arg-type]


def _bodies(run: str, count: int) -> list[bytes]:
    """Batches for the log API of 10 kB turns in plain English, with five contexts of a pool, as documents repeat."""
    draw = random.Random(run)
    pool = [" ".join(draw.choices(SENTENCES, k=36)) for _ in range(400)]
    turns = [
        {
            "id": f"{run}-{n}", "conversation": f"{run}-{n // 4}", "question": draw.choice(SENTENCES), "model": "m",
            "contexts": [{"text": text, "title": "Page", "source": "manual.md"} for text in draw.sample(pool, 5)],
            "response": " ".join(draw.choices(SENTENCES, k=7)) + " [1]",
        }
        for n in range(count)
    ]  # fmt: skip
    return [json.dumps(turns[start : start + BATCH]).encode() for start in range(0, count, BATCH)]


def _together(people: list[Annotator]) -> dict[str, float]:
    """p50 and p95 over all requests of all of them."""
    found = {}
    for name in ("next", "submit", "submit_text"):
        seconds = sorted(value for person in people for value in person.seconds[name])
        if seconds:
            found[f"{name}_p50_ms"] = round(statistics.median(seconds) * 1000, 1)
            found[f"{name}_p95_ms"] = round(seconds[int(len(seconds) * 0.95)] * 1000, 1)
    return found


if __name__ == "__main__":
    main()
