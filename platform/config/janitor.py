"""Cleans up when the supervisor dies without having stopped its children (SIGKILL, out of memory).

Started by the supervisor with a pipe as standard input. The kernel closes the pipe when the supervisor ends, however it
ends: end of file without the word ``done`` means that nobody else will stop the children.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from config.dbserver import stop_stray
from config.processes import sweep

DONE = b"done\n"
GRACE_SECONDS = 5.0


def main(var: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # lives exactly as long as the supervisor
    received = b""
    while chunk := os.read(0, 64):
        received += chunk
    if received.endswith(DONE):
        return
    sweep(var, grace=GRACE_SECONDS)
    stop_stray(var)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
