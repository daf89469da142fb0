"""`make demo &` in a script: the shell has interrupts ignored in what it starts, and both signals must stop it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest
from django.conf import settings

WAITS = textwrap.dedent(
    """
    import time
    from serving.management.commands.demo import _stop_by_signals

    _stop_by_signals()
    try:
        print("waits", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    """
)
STARTS = "import os, sys; sys.path[:0] = [os.getcwd(), 'platform']; import django; django.setup()\n"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_in_the_background_is_stopped_by_either_signal(sent: signal.Signals) -> None:
    with subprocess.Popen(
        ["sh", "-c", "trap '' INT; exec \"$0\" -c \"$1\"", sys.executable, STARTS + WAITS],
        cwd=settings.BASE_DIR, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "waits\n"
            child.send_signal(sent)
            assert child.communicate(timeout=20)[0] == "stopped\n"
        finally:
            child.kill()
