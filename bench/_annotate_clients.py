"""People at the labelling page, as their browsers speak to the server."""

from __future__ import annotations

import http.client
import json
import random
import re
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

_CSRF = "b" * 32
_ITEM = re.compile(rb'name="item" value="(\d+)"')
_IDLE_S = 3.0
_MOST_REFUSALS = 3
"""In a row: somebody else was faster. More mean that something is wrong."""
CORRECTION = "The exit fee is £35 for each fuel, and none is due in the last 49 days of the plan. [1]"


class Browser:
    """Somebody who is logged in."""

    def __init__(self, port: int, session: str) -> None:
        self.port = port
        self.headers = {"Cookie": f"sessionid={session}; csrftoken={_CSRF}", "X-CSRFToken": _CSRF}
        self.client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.last = time.perf_counter()

    def timed(
        self, method: str, path: str, form: Mapping[str, str] | None = None, *, expected: int = 200
    ) -> tuple[bytes, float]:
        """(body, seconds) of one request."""
        headers = dict(self.headers)
        if form is not None:
            headers |= {"Content-Type": "application/x-www-form-urlencoded", "X-Requested-With": "fetch"}
        begun = time.perf_counter()
        if begun - self.last > _IDLE_S:  # the server closes what is idle; a browser connects anew, and so does this
            self.client.close()
        self.client.request(method, path, urlencode(form) if form is not None else None, headers)
        answer = self.client.getresponse()
        body = answer.read()
        self.last = time.perf_counter()
        seconds = self.last - begun
        if answer.status != expected:
            raise RuntimeError(f"{method} {path} answered {answer.status}: {body[:300]!r}")
        return body, seconds


class Annotator(Browser):
    """One person at the page of one queue; ``seconds`` of each kind of request."""

    def __init__(self, port: int, session: str, queue: int) -> None:
        super().__init__(port, session)
        self.base = f"/admin/label/{queue}/"
        self.item = ""
        self.random = random.Random(session)
        self.done = 0
        self.failed: str | None = None
        self.forget()

    def forget(self) -> None:
        self.seconds: dict[str, list[float]] = {"next": [], "submit": [], "submit_text": []}
        self.done = 0

    def open_page(self) -> None:
        body, _ = self.timed("GET", self.base)
        found = _ITEM.search(body)
        self.item = found[1].decode() if found else ""

    def label(self, count: int, *, think: float, until: float) -> None:
        """Labels ``count`` items, or as many as there are or time allows."""
        refused = 0
        while self.done < count and time.monotonic() < until:
            if not self.item:
                self.open_page()
            if not self.item:
                return
            self._think(think)
            body, seconds = self.timed("POST", f"{self.base}ahead", {"item": self.item})
            ahead = str(json.loads(body).get("item", ""))
            self.seconds["next"].append(seconds)
            self._think(think)
            typed = self.done % 5 == 4
            body, seconds = self.timed("POST", f"{self.base}submit", self._form(ahead, typed=typed))
            answer: dict[str, Any] = json.loads(body)
            self.seconds["submit_text" if typed else "submit"].append(seconds)
            self.done += 1
            refused = 0 if answer.get("shown") else refused + 1
            if refused > _MOST_REFUSALS:
                raise RuntimeError("the item ahead was given to somebody else again and again")
            self.item = str(answer.get("shown") or "")

    def leave(self) -> None:
        """Gives back what is on the screen, as a page does that is left."""
        if self.item:
            self.timed("POST", f"{self.base}release", {"item": self.item}, expected=204)

    def times(self) -> dict[str, float]:
        return {
            f"{name}_p50_ms": round(statistics.median(values) * 1000, 1)
            for name, values in self.seconds.items()
            if values
        }

    def _form(self, ahead: str, *, typed: bool) -> dict[str, str]:
        form = {"item": self.item, "shown": ahead, "seconds": "9", "mark-1": "relevant", "mark-2": "not_relevant"}
        if typed:
            return {**form, "choice": "bad", "reasons": "incomplete", "correction": CORRECTION}
        return {**form, "choice": "good"}

    def _think(self, think: float) -> None:
        if think:
            time.sleep(self.random.uniform(0.5, 1.5) * think)


def work_at_once(people: Sequence[Annotator], count: int, *, think: float, until: float) -> None:
    """Everybody labels ``count`` items at the same time.

    Raises:
        RuntimeError: what went wrong for the first of them.
    """

    def work(person: Annotator) -> None:
        try:
            person.label(count, think=think, until=until)
        except Exception as error:
            person.failed = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=work, args=(person,), daemon=True) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [person.failed for person in people if person.failed]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(people)} stopped: {failed[0]}")
