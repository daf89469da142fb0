"""Who gives way where the processor is short: background work to those who answer people."""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from pathlib import Path

from django.conf import settings

logger = logging.getLogger(__name__)
ATTEMPTS = 10


def give_way() -> None:
    """Lowers the priority of this process and of all that it starts, by ``RATCHET_BACKGROUND_NICE``.

    A lower priority costs nothing where the processor is free. Linux may share it out by sessions first
    (``sched_autogroup``), in which case a process's own niceness counts only beside others of its session: so that of
    the session is lowered too, where this process leads it, and it is not somebody's shell.
    """
    if not settings.RATCHET_BACKGROUND_NICE:
        return
    try:
        level = os.nice(max(settings.RATCHET_BACKGROUND_NICE - os.nice(0), 0))
        if sys.platform == "linux" and os.getsid(0) == os.getpid():
            _lower_session(level)
    except OSError as error:  # no such file without the feature; no leave in some containers
        logger.debug("The priority stays as it is: %s", error)


def _lower_session(level: int) -> None:
    """Raises OSError."""
    for left in range(ATTEMPTS, -1, -1):
        try:
            Path("/proc/self/autogroup").write_text(str(level), encoding="ascii")
            return
        except BlockingIOError:  # of all processes without privileges one may do so in a tenth of a second
            if not left:
                raise
            time.sleep(random.uniform(0.1, 0.3))  # apart from the others
