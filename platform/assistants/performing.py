"""One process performs one piece of background work: claim, heartbeat, perform, finish.

Work that needs the device takes a lock on a file of this machine first. The kernel lets go of it with the process, so
no crash blocks the device. A process that finds it taken leaves at once and its work stays queued: whoever holds the
lock launches the oldest queued work when it is done (a row is queued before its process asks for the lock, so none is
missed).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import psutil
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection

from assistants.background import HEARTBEAT_SECONDS, BackgroundWork, WorkCancelled, WorkLost, launch_waiting

logger = logging.getLogger(__name__)

REACTION_SECONDS = 20.0
"""How long work may go on after a cancel before it is interrupted where it stands."""
STOP_SECONDS = 8.0
"""Between SIGTERM and SIGKILL."""


class Interrupted(BaseException):
    """The process was told to stop (the platform stops). Not an Exception: no handler of the work may swallow it."""


def log_path(label: str, pk: int) -> Path:
    """Where the output of the process that performs this work goes."""
    return Path(settings.LOG_DIR) / f"{label.rpartition('.')[2].lower()}-{pk}.log"


def start_process(label: str, pk: int) -> int:
    """Starts ``manage.py perform`` detached: it survives a restart of the worker. Returns its pid."""
    path = log_path(label, pk)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    env = {**os.environ, "RATCHET_PROCESS": "worker", "PYTHONUNBUFFERED": "1"}
    env.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2))
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin in vain starve the web process
    env.pop("Q_CLUSTER_NAME", None)
    with path.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "perform", label, str(pk)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=settings.BASE_DIR,
            env=env,
            start_new_session=True,
        )
    # Reaps it: a zombie would keep its pid and look alive.
    threading.Thread(target=process.wait, name=f"reap-{process.pid}", daemon=True).start()
    return process.pid


def perform_here(work: BackgroundWork) -> bool:
    """Performs queued work in this very process, waiting for the device. True when it was claimed and ended here.

    Without a heartbeat thread: the caller's database transaction may be one that no other connection sees (a test).
    """
    with device(needed=work.needs_device, wait=True):
        return _claim_and_perform(work)


def perform_detached(work: BackgroundWork) -> bool:
    """What ``manage.py perform`` does. False when nothing was to be done: taken, cancelled, or the device is busy."""
    with device(needed=work.needs_device, wait=False) as free:
        if not free:
            logger.info("Another piece of work has the device; %s stays queued.", work)
            return False
        with heartbeat(work):
            performed = _claim_and_perform(work)
    launch_waiting()
    return performed


@contextlib.contextmanager
def device(*, needed: bool, wait: bool) -> Iterator[bool]:
    """Holds this machine's device while inside. Yields False when somebody else has it and ``wait`` is off."""
    if not needed:
        yield True
        return
    path = Path(settings.VAR_DIR) / "device.lock"
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _claim_and_perform(work: BackgroundWork) -> bool:
    if not work.claim():
        logger.info("%s is not waiting to be performed.", work)
        return False
    logger.info("%s: attempt %s", work, work.attempt)
    try:
        work.perform()
    except WorkCancelled:
        _store(lambda: work.finish(BackgroundWork.State.CANCELLED))
    except WorkLost:
        logger.warning("%s was given to another process; this one stops.", work)
    except Interrupted:
        _store(work.release)
        raise
    except (OperationalError, InterfaceError):
        # The database went away, which is no fault of the work: it stays "running" without a heartbeat, and the sweep
        # queues it again once there is a database.
        logger.exception("%s lost the database", work)
        raise
    except Exception as error:
        logger.exception("%s failed", work)
        work.finish(BackgroundWork.State.FAILED, sentence_of(error))
    else:
        work.finish(BackgroundWork.State.SUCCEEDED)
    return True


def _store(write: Callable[[], object]) -> None:
    """A signal may have come in the middle of a query and left the connection unusable: then once more on a new one."""
    try:
        write()
    except DatabaseError:
        connection.close()
        write()


def sentence_of(error: Exception) -> str:
    """One line for the page; the traceback is in the log. Declared errors carry a sentence and need no type."""
    text = " ".join(str(error).split())[:1000]
    if isinstance(error, ValueError | RuntimeError) and type(error).__module__ != "builtins" and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextlib.contextmanager
def heartbeat(work: BackgroundWork) -> Iterator[None]:
    """Beats from a thread, and turns a cancel that the work does not notice, a lost token, or SIGTERM into an exception
    in the main thread. Only for a process of its own."""
    pulse = _Pulse(work)

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what cleans up must not be interrupted again
        raise pulse.reason or Interrupted

    before = signal.signal(signal.SIGTERM, interrupt)
    pulse.start()
    try:
        yield
    finally:
        pulse.stopped.set()
        pulse.join(HEARTBEAT_SECONDS)
        signal.signal(signal.SIGTERM, before)


class _Pulse(threading.Thread):
    def __init__(self, work: BackgroundWork) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.work = work
        self.stopped = threading.Event()
        self.reason: WorkCancelled | WorkLost | None = None

    def run(self) -> None:
        wait = float(HEARTBEAT_SECONDS)
        while not self.stopped.wait(wait):
            if self.reason is not None:
                os.kill(os.getpid(), signal.SIGTERM)
                break
            try:
                if self.work.token is not None:
                    self.work.beat()
            except (WorkCancelled, WorkLost) as reason:
                # The main thread notices by its own beat; when it does not, it is interrupted.
                self.reason, wait = reason, REACTION_SECONDS
            except DatabaseError:
                logger.warning("No heartbeat: the database does not answer.")
                connection.close()
        connection.close()


def stop_process(process: psutil.Process) -> bool:
    """Ends a performing process with everything it started: SIGTERM, a few seconds, SIGKILL to the group.

    False, and nothing done, for a process that leads no session of its own: somebody's shell or server performs there.
    """
    try:
        if os.getpgid(process.pid) != process.pid or "perform" not in process.cmdline():
            return False
        process.terminate()
        process.wait(STOP_SECONDS)
    except psutil.TimeoutExpired:
        logger.warning("Process %s does not stop; killing it.", process.pid)
    except (psutil.NoSuchProcess, ProcessLookupError):
        pass
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(psutil.Error):
        process.wait(STOP_SECONDS)
    return True
