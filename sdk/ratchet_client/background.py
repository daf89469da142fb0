"""A bounded queue, one thread that sends it in batches, and the disk for what cannot be sent.

All that a host's thread does is to put an item into the queue, under a lock that is never held for longer than moving a
few items. Sending, disk, callbacks and logging happen in the thread. An item stays in the queue until it is settled, so
that `close` can put what is on its way on disk, too: sent twice is harmless, lost is not.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import accumulate, islice
from os import PathLike
from pathlib import Path
from urllib.parse import urlsplit

from .items import MAX_ITEM_BYTES, PATHS, Entry, Problem
from .sending import IN_A_ROW, Sender, log
from .spool import Spool

_BATCH_BYTES = MAX_ITEM_BYTES // 2
_LOOK_SECONDS = 5.0


class Background:
    """What `ratchet_client.Client` inherits, which says what the arguments mean."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        spool: str | PathLike[str] | None = None,
        spool_bytes: int = 256 * 1024 * 1024,
        spool_days: float = 7,
        flush_seconds: float = 1.0,
        flush_items: int = 100,
        queue_items: int = 10_000,
        queue_bytes: int = 64 * 1024 * 1024,
        timeout: float = 10.0,
        retry_seconds: tuple[float, float] = (0.5, 60.0),
        close_seconds: float = 5.0,
        on_problem: Callable[[Problem], object] | None = None,
    ) -> None:
        parts, url = urlsplit(url), url.rstrip("/")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("url: write it like https://ratchet.example.org")
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("key: an API key, such as rk_…")
        times = (spool_days, flush_seconds, timeout, close_seconds, *retry_seconds)
        sizes = (spool_bytes, queue_items, queue_bytes, flush_items)
        if min(*times, *sizes) <= 0 or flush_items > 1000 or retry_seconds[0] > retry_seconds[1]:
            raise ValueError("Times and sizes are greater than 0, flush_items at most 1000, pauses from short to long.")
        self._flush_seconds, self._flush_items, self._timeout = flush_seconds, flush_items, timeout
        self._queue_items, self._queue_bytes, self._close_seconds = queue_items, queue_bytes, close_seconds
        self._sender = Sender(url, key, most=flush_items, retry_seconds=retry_seconds, on_problem=on_problem)
        self._spool: Spool | None = None
        self._reset()
        _all.add(self)
        if spool is not None:
            # One folder for each address and key: items of one assistant are never sent with another's key.
            owner = hashlib.sha256(f"{url}\n{key}".encode()).hexdigest()[:16]
            self._spool = Spool(Path(spool) / owner, max_bytes=spool_bytes, max_seconds=spool_days * 86400)
            self._start()  # an earlier process may have left something

    def _reset(self) -> None:
        """Also in a forked child: what is queued is the parent's to send, and threads that hold a lock stay behind."""
        self._changed = threading.Condition()  # its holder can take it again: a signal handler may log too
        self._thread: threading.Thread | None = None
        self._queue: deque[Entry] = deque()
        self._bytes = self._flushing = 0
        self._deadline: float | None = None
        self._closed = self._stuck = False
        self._next_flush = self._next_look = 0.0
        self._sender.reset()

    def flush(self, seconds: float = 10.0) -> bool:
        """Waits until nothing is queued. True: everything was answered by the server, or is on disk."""
        ends = time.monotonic() + seconds
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            while self._queue and (left := ends - time.monotonic()) > 0:
                self._changed.wait(left)
            self._flushing -= 1
            return not self._queue

    def close(self, seconds: float | None = None) -> None:
        """Sends what is queued; what is left after that many seconds goes to disk, or is lost where there is none."""
        seconds = self._close_seconds if seconds is None else seconds
        with self._changed:
            if self._deadline is not None:
                return
            self._deadline = time.monotonic() + seconds
            self._changed.notify_all()
            thread = self._thread
        if thread is None or not thread.is_alive():
            self._run()
        elif thread is not threading.current_thread():
            thread.join(seconds)
        with self._changed:
            self._closed = True
            left = [*self._queue, *(entry for _, entry in self._sender.unknown)]
        for kind in dict.fromkeys(entry.kind for entry in left):
            same = [entry for entry in left if entry.kind == kind]
            if not self._keep(same):
                self._sender.report("lost", "closed before the server took them", [entry.id for entry in same])
        self._sender.tell()

    @property
    def stats(self) -> Counter[str]:
        """Counts since the client was made (in a forked child, since the fork). ``logged``; of these ``created`` or
        ``duplicate`` on the server, ``refused`` and ``lost`` as in `Problem`; ``spooled``, written to disk, from where
        they become one of the former; ``damaged`` lines found there; ``queued`` in memory now."""
        return self._sender.counts + Counter(queued=len(self._queue) + len(self._sender.unknown))

    def _put(self, entry: Entry) -> None:
        with self._changed:
            self._sender.counts["logged"] += 1
            if self._deadline is not None:
                if not self._sender.problems:
                    log.warning("Something was logged after the client was closed: it is lost.")
                self._sender.report("lost", "logged after the client was closed", [entry.id])
            elif self._bytes + len(entry.body) > self._queue_bytes or len(self._queue) >= self._queue_items:
                self._sender.report("lost", "the queue is full", [entry.id])
            else:
                if not self._queue:
                    self._next_flush = time.monotonic() + self._flush_seconds
                self._queue.append(entry)
                self._bytes += len(entry.body)
                if len(self._queue) % self._flush_items == 0:
                    self._changed.notify_all()
            self._start()

    def _reject(self, name: str, reason: str) -> None:
        """An item that cannot even be queued."""
        with self._changed:
            self._sender.counts["logged"] += 1
            self._sender.report("refused", reason, [name])
            self._start()

    def _start(self) -> None:
        # One without an ident is about to start: a signal handler logs in the midst of this.
        ended = self._thread is None or (self._thread.ident is not None and not self._thread.is_alive())
        if ended and self._deadline is None:
            self._thread = threading.Thread(target=self._run, name="ratchet-client", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is ending; `close` sends what is queued
                self._thread = None

    # --- The thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stuck or not self._is_ready():
                    self._changed.wait(min(self._flush_seconds / 2, 1.0))
                if self._deadline is not None and (not self._queue or time.monotonic() >= self._deadline):
                    break
            self._stuck = True
            try:
                self._stuck = not self._step()
            except Exception:
                log.exception("An error in the client itself. It goes on.")
        self._sender.close()

    def _is_ready(self) -> bool:
        """Is there a batch: large enough, old enough, or asked for."""
        full = len(self._queue) >= self._flush_items or self._bytes >= _BATCH_BYTES
        asked = self._flushing > 0 or self._deadline is not None
        return bool(self._queue) and (full or asked or time.monotonic() >= self._next_flush)

    def _step(self) -> bool:
        """False: nothing can be done for now."""
        self._sender.tell()
        now = time.monotonic()
        with self._changed:
            for pair in [pair for pair in self._sender.unknown if pair[0] <= now]:
                self._sender.unknown.remove(pair)
                self._queue.append(pair[1])
                self._bytes += len(pair[1].body)
            batch = self._head() if self._is_ready() else []
            # More than half full: the server is too slow for what comes in, and the disk is faster.
            crowded = 2 * len(self._queue) > self._queue_items or 2 * self._bytes > self._queue_bytes
        paused = time.monotonic() < self._sender.paused_until
        if not batch:
            if self._spool is not None and now >= max(self._sender.paused_until, self._next_look):
                self._replay(self._spool)
            return True
        if paused and self._spool is None:
            return False
        left = [] if crowded and self._keep(batch) else batch
        left = left if paused else self._send(left)
        kept = self._keep(left)
        with self._changed:
            if not self._closed:  # else `close` waited no longer, and has kept what was on its way
                settled = {id(entry) for entry in batch} - {id(entry) for entry in left if not kept}
                window = [self._queue.popleft() for _ in range(min(len(self._queue), self._flush_items))]
                self._bytes -= sum(len(entry.body) for entry in window if id(entry) in settled)
                self._queue.extendleft(entry for entry in reversed(window) if id(entry) not in settled)
                self._next_flush = time.monotonic() + self._flush_seconds
            self._changed.notify_all()
        return kept

    def _head(self) -> list[Entry]:
        """Turns from the front of the queue, or what is about turns if there are none, within the size of a batch. They
        stay."""
        window = list(islice(self._queue, self._flush_items))
        first = next(kind for kind in PATHS if any(entry.kind == kind for entry in window))
        batch = [entry for entry in window if entry.kind == first]
        sizes = accumulate(len(entry.body) for entry in batch)
        return batch[: max(1, sum(size <= _BATCH_BYTES for size in sizes))]

    def _send(self, entries: Sequence[Entry]) -> list[Entry]:
        seconds = self._timeout
        if self._deadline is not None:  # with some time to put the rest on disk
            seconds = min(seconds, max(0.1, self._deadline - time.monotonic() - 0.3))
        return self._sender.send(entries, seconds)

    # --- Disk ---------------------------------------------------------------------------------------

    def _keep(self, entries: Sequence[Entry]) -> bool:
        """Puts entries of one kind on disk. False: there is none, or it takes no more."""
        if not entries or self._spool is None:
            return not entries
        try:
            kept = self._spool.write(entries)
        except OSError as error:
            log.warning("The spool cannot be written: %s", error)
            return False
        self._sender.counts["spooled"] += len(entries) if kept else 0
        return kept

    def _replay(self, spool: Spool) -> None:
        """Sends what waits on disk, oldest first, unless another process is at it."""
        self._next_look = time.monotonic() + _LOOK_SECONDS
        stuck = 0
        try:
            if self._deadline is not None or not spool.files():
                return
            with spool.alone() as alone:
                for path in spool.files() if alone else ():
                    stuck += self._replay_file(spool, path)
                    if (stuck and self._sender.away) or stuck == IN_A_ROW or self._is_ready():
                        self._next_look = 0.0
                        break
        except OSError as error:
            log.warning("The spool cannot be read: %s", error)

    def _replay_file(self, spool: Spool, path: Path) -> bool:
        """True: something in it could not be sent."""
        entries, damaged = spool.read(path)
        left: list[Entry] = []
        if entries and spool.is_old(path):
            self._sender.report("lost", "too old in the spool", [entry.id for entry in entries])
        else:
            left = self._send(entries)
        if damaged:
            self._sender.report("damaged", "half-written lines in the spool", [""] * damaged)
        if (damaged or not left or len(left) < len(entries)) and (not left or spool.write(left)):
            path.unlink(missing_ok=True)
        return bool(left)


_all: weakref.WeakSet[Background] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for client in list(_all):
        try:
            client.close()
        except Exception:
            log.exception("What was still queued could not be sent.")


def _after_fork() -> None:
    for client in list(_all):
        client._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
