"""Long work where no supervisor is: it is told when whoever started it is to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from django.conf import settings

WORK = """
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path("checkpoint").write_text("written")
    sys.exit()
signal.signal(signal.SIGTERM, stop)
pathlib.Path("begun").write_text(str(__import__("os").getpid()))
time.sleep(60)
"""
CLUSTER = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {WORK!r}], start_new_session=True)
time.sleep(60)
"""
COMMAND = f"""
import os, pathlib, sys, django
django.setup()
from django.conf import settings
from django.core.management import call_command
from config import processes
settings.BASE_DIR = settings.VAR_DIR = pathlib.Path.cwd()
processes.launcher = lambda: processes.Program("train", [sys.executable, "-c", {CLUSTER!r}])
call_command("launcher")
"""


def test_work_is_told_to_stop_and_given_time(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(settings.BASE_DIR), str(settings.BASE_DIR / "platform")])
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", "PYTHONPATH": paths}
    launcher = subprocess.Popen([sys.executable, "-c", COMMAND], env=env, cwd=tmp_path)
    begun = tmp_path / "begun"
    until = time.monotonic() + 60
    while not (begun.exists() and begun.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    work = psutil.Process(int(begun.read_text()))
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(30) == 0
    assert (tmp_path / "checkpoint").read_text() == "written"
    assert not work.is_running() or work.status() == psutil.STATUS_ZOMBIE
