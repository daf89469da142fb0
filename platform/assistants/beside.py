"""What requests note in memory is written a moment later by a thread, so that none of them waits for it."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

from django.conf import settings
from django.db import connection


class Beside:
    """A thread that calls ``flush`` some seconds after something was noted, and again as long as something waits.

    In web processes only: workers write between their batches, and a command would end before. ``lock`` guards what is
    noted, too; ``flush`` never raises, and ``waits`` is asked under the lock. When the process ends, ``flush`` is
    called once more.
    """

    def __init__(
        self, name: str, *, seconds: float, flush: Callable[[], object], waits: Callable[[], object]
    ) -> None:  # fmt: skip
        self.lock = threading.Lock()
        self.seconds = seconds
        self._name, self._flush, self._waits = name, flush, waits
        self._timer: threading.Timer | None = None
        self._registered = False

    @property
    def runs(self) -> bool:
        return self._timer is not None

    def start(self) -> None:
        """Unless a thread waits already. The caller holds the lock."""
        if settings.PROCESS != "web" or self._timer is not None:
            return
        if not self._registered:
            self._registered = True
            atexit.register(self._flush)
        self._begin()

    def stop(self, forget: Callable[[], object]) -> None:
        """Calls ``forget`` under the lock, and ends the thread: none runs when this returns."""
        while True:
            with self.lock:
                forget()
                timer = self._timer
            if timer is None:
                return
            timer.cancel()
            timer.join()
            with self.lock:
                if self._timer is timer:
                    self._timer = None

    def _begin(self) -> None:
        self._timer = threading.Timer(self.seconds, self._run)
        self._timer.name, self._timer.daemon = self._name, True
        self._timer.start()

    def _run(self) -> None:
        try:
            self._flush()
        finally:
            connection.close()  # gives it back to the pool
            with self.lock:
                self._timer = None
                if self._waits():  # came meanwhile, or could not be written
                    self._begin()
