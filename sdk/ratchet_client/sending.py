"""Posts batches, and decides what an answer means for each item and when to try again."""

from __future__ import annotations

import gzip
import json
import logging
import platform
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from .items import PATHS, Entry, Problem, __version__

log = logging.getLogger("ratchet_client")
AGENT = f"ratchet-client/{__version__} (python {platform.python_version()}; httpx {httpx.__version__})"
IN_A_ROW = 3
"""So many failures one after the other are the server's, not the items'."""
_AWAY = {401, 403, 404, 405, 407, 408, 421, 425, 429, 502, 503, 504}
"""Not the items' fault, and may pass: among them a key or an address that somebody has to put right."""
_NOT_UNPACKED = (400, 415, 422)
_MAX_WAIT = 3600.0
_MAX_ANSWER = 4 * 1024 * 1024
_GZIP_FROM = 1024
_MOST_NAMED = 1000
_COUNTS = ("logged", "created", "duplicate", "refused", "lost", "damaged", "spooled")
_MOST_UNKNOWN, _UNKNOWN_TRIES = 1000, 6


@dataclass
class _Answer:
    state: str
    """taken; away: nobody takes anything now; failed: this request went wrong; refused: its content is at fault."""
    why: str = ""
    status: int = 0
    results: list[dict[str, Any]] = field(default_factory=list)
    wait: float | None = None
    """Seconds, from Retry-After."""


class Sender:
    """Used by one thread at a time, but for `report`. Sizes and times as in `ratchet_client.Client`."""

    def __init__(
        self, url: str, key: str, *, most: int, retry_seconds: tuple[float, float],
        on_problem: Callable[[Problem], object] | None,
    ) -> None:  # fmt: skip
        self._url, self._most, self._retry_seconds, self._on_problem = url, most, retry_seconds, on_problem
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "User-Agent": AGENT}
        self._packs = True
        self.reset()

    def reset(self) -> None:
        """Also in a forked child: the connections belong to the parent, so they are left, not closed."""
        self._http: httpx.Client | None = None
        self._size = self._most
        self._misses = 0
        self.away = False
        self.paused_until = 0.0  # on the monotonic clock
        self.unknown: list[tuple[float, Entry]] = []  # about turns not known yet, and when to try again
        self.counts: Counter[str] = Counter(dict.fromkeys(_COUNTS, 0))  # all of them now: others read it meanwhile
        self.problems: dict[tuple[str, str], Problem] = {}
        self._lock = threading.RLock()

    def send(self, entries: Sequence[Entry], seconds: float) -> list[Entry]:
        """Sends entries of one kind; returns those to be tried again, which sets a pause. ``seconds``: per request.

        After a failure in smaller batches, so that an item that the server chokes on does not hold up the others.
        """
        left: list[Entry] = []
        rest = list(entries)
        trouble: _Answer | None = None
        failed = 0
        while rest and failed < IN_A_ROW:
            batch, rest = rest[: self._size], rest[self._size :]
            answer = self._post(batch, seconds)
            if answer.state == "taken":
                failed, self._size = 0, min(2 * self._size, self._most)
                self._taken(batch, answer.results)
            elif answer.state == "refused" and len(batch) == 1:
                self.report("refused", answer.why, [batch[0].id])
            elif answer.state == "refused":  # find out which one
                rest, self._size = batch + rest, len(batch) // 2
            else:
                left, trouble = left + batch, answer
                failed = failed + 1 if answer.state == "failed" else IN_A_ROW
                self._size = max(1, len(batch) // 2) if answer.state == "failed" else self._size
        if trouble is not None:
            self._pause(trouble)
        return left + rest

    def close(self) -> None:
        if self._http is not None:
            self._http.close()

    def report(self, kind: str, reason: str, ids: Sequence[str], errors: Sequence[Mapping[str, Any]] = ()) -> None:
        """Counts at once, is told later; until then the same kind and reason is one `Problem`."""
        with self._lock:
            self.counts[kind] += len(ids)
            problem = self.problems.setdefault((kind, reason), Problem(kind, reason))
            problem.count += len(ids)
            problem.ids += [name for name in ids if name][: _MOST_NAMED - len(problem.ids)]
            problem.errors += errors[: _MOST_NAMED - len(problem.errors)]

    def tell(self) -> None:
        """Callbacks and handlers of the log may be slow, so this is for the client's thread and for its end."""
        with self._lock:
            problems, self.problems = self.problems, {}
        for problem in problems.values():
            log.warning("%d items %s: %s", problem.count, problem.kind, problem.reason)
            try:
                if self._on_problem is not None:
                    self._on_problem(problem)
            except Exception:
                log.exception("The callback for problems raised an error.")

    def _post(self, entries: Sequence[Entry], seconds: float) -> _Answer:
        body = b"[" + b",".join(entry.body for entry in entries) + b"]"
        packs = self._packs and len(body) >= _GZIP_FROM
        try:
            answer = self._exchange(entries, body, seconds, packs=packs)
            if packs and answer.status in _NOT_UNPACKED:  # a server that does not unpack, or something else
                answer = self._exchange(entries, body, seconds, packs=False)
                self._packs = answer.status in _NOT_UNPACKED
            return answer
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return _Answer("away", f"{type(error).__name__}: {error}"[:200])

    def _exchange(self, entries: Sequence[Entry], body: bytes, seconds: float, *, packs: bool) -> _Answer:
        """``seconds`` is for the whole exchange; httpx alone would wait that long for every piece of an answer."""
        ends = time.monotonic() + seconds
        self._http = self._http or httpx.Client()
        method, path = PATHS[entries[0].kind].split()
        with self._http.stream(
            method, f"{self._url}/api/v1/{path}", content=gzip.compress(body, 5) if packs else body,
            headers={**self._headers, **({"Content-Encoding": "gzip"} if packs else {})}, timeout=seconds,
        ) as response:  # fmt: skip
            said = b""
            for piece in response.iter_bytes():
                said += piece
                if len(said) > _MAX_ANSWER or time.monotonic() > ends:
                    return _Answer("away", "the answer does not end")
        return _read(response, said, len(entries))

    def _pause(self, answer: _Answer) -> None:
        """Exponential, with jitter, so that many clients do not come back in one instant; or as the server says."""
        if self._misses == 0:
            log.warning("The server takes nothing: %s", answer.why)
        wait = min(self._retry_seconds[0] * 2 ** min(self._misses, 30), self._retry_seconds[1])
        wait *= random.uniform(0.5, 1.0)
        self.paused_until = time.monotonic() + (wait if answer.wait is None else answer.wait + wait / 2)
        self.away = answer.state == "away"
        self._misses += 1

    def _taken(self, batch: Sequence[Entry], results: Sequence[Mapping[str, Any]]) -> None:
        if self._misses:
            log.info("The server takes items again.")
        self._misses = 0
        for entry, row in zip(batch, results, strict=True):
            status = str(row.get("status"))
            if status in ("created", "duplicate"):
                self.counts[status] += 1
                continue
            errors = [error for error in row.get("errors") or () if isinstance(error, dict)]
            first = errors[0] if errors else {}
            early = entry.kind != "turn" and status == "invalid" and first.get("field") == "turn"
            if early and entry.tries < _UNKNOWN_TRIES and len(self.unknown) < _MOST_UNKNOWN:
                # Another process may hold the turn, and not have sent it yet.
                again = time.monotonic() + self._retry_seconds[0] * 2**entry.tries
                self.unknown.append((again, replace(entry, tries=entry.tries + 1)))
            else:
                reason = f"{status}: {first.get('field', '')} {first.get('message', '')}"[:200]
                self.report("refused", reason, [entry.id], errors)


def _read(response: httpx.Response, said: bytes, count: int) -> _Answer:
    status = response.status_code
    try:
        body: Any = json.loads(said)
    except (ValueError, RecursionError):
        body = None
    body = body if isinstance(body, dict) else {}
    if status == 207:
        rows = [row for row in body.get("results") or () if isinstance(row, dict)]
        return _Answer("taken" if len(rows) == count else "failed", "an answer that does not fit", results=rows)
    why = f"{status} {body.get('detail') or response.reason_phrase}"[:200]
    if status in _AWAY or status < 400:
        return _Answer("away", why, status, wait=_seconds(response.headers.get("Retry-After", "")))
    return _Answer("failed" if status >= 500 else "refused", why, status)


def _seconds(value: str) -> float | None:
    """Retry-After: a number of seconds, or a date."""
    try:
        if value.isdecimal():
            return min(float(value), _MAX_WAIT)
        moment = parsedate_to_datetime(value)
        left = moment.replace(tzinfo=moment.tzinfo or timezone.utc) - datetime.now(timezone.utc)
        return min(max(left.total_seconds(), 0.0), _MAX_WAIT)
    except (TypeError, ValueError, OverflowError):
        return None
