"""One thread that runs the model for everybody: a bounded queue in front of one batch that rows join and leave.

At every step boundary the loop does what is asked of the adapters, lets waiting completions join while there is room,
and hands each row's new text to whoever waits for it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from generation.decoding import Row
from generation.detokenise import TextStream
from generation.engines import (
    EngineBusy,
    EngineError,
    EngineUnavailable,
    GenerationRequest,
    GenerationResult,
    UnknownAdapter,
)
from generation.local import TransformersEngine, advance, result_of
from generation.metrics import EngineMetrics

MAX_ROWS = 8
MAX_WAITING = 64
GATHER_SECONDS = 0.01
"""An idle engine waits this long for companions of the first request: reading prompts together is cheaper."""
ALONE_SECONDS = 1.0
"""Nobody waits for companions where for so long there was never more than one: a lone user's answer is there sooner."""
DEFAULT_DEADLINE = 120.0


@dataclass(eq=False)
class Job:
    """One completion on its way. ``on_text`` is called from the model thread with each new piece of text."""

    request: GenerationRequest
    row: Row
    text: TextStream
    on_text: Callable[[str], None] | None = None
    started: float = field(default_factory=time.monotonic)
    done: Future[GenerationResult] = field(default_factory=Future)
    first_token_seen: bool = False

    def __post_init__(self) -> None:
        # A waiter that gives up would otherwise cancel the future under the model thread; `cancel` is how to stop.
        self.done.set_running_or_notify_cancel()

    @property
    def deadline(self) -> float:
        return DEFAULT_DEADLINE if self.request.deadline is None else self.request.deadline

    def cancel(self) -> None:
        """Stops the work at the next step. Safe from any thread, at any time."""
        self.row.finish = self.row.finish or "cancelled"


class Scheduler:
    """Runs `TransformersEngine` in a thread of its own. All methods are safe from any thread."""

    def __init__(
        self,
        engine: TransformersEngine,
        metrics: EngineMetrics,
        *,
        max_rows: int = MAX_ROWS,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.engine = engine
        self.metrics = metrics
        self.max_rows = max_rows
        self.max_waiting = max_waiting
        self._batch = engine.batch()
        self._running: list[Job] = []
        self._waiting: deque[Job] = deque()
        self._chores: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._company = float("-inf")
        """When there was last more than one."""
        self._thread = threading.Thread(target=self._loop, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, seconds: float = 10.0) -> None:
        """Ends the loop; what runs or waits fails with `EngineUnavailable`."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(seconds)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stopping

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, requests: Sequence[GenerationRequest], on_text: Callable[[str], None] | None = None) -> list[Job]:
        """Queues all of them or none.

        Raises:
            EngineBusy: the queue is full.
            EngineUnavailable: the engine is stopping.
            PromptTooLong, UnknownAdapter, BadRequest: a request cannot be served.
        """
        began = time.monotonic()  # reading a prompt into tokens is the engine's work, and counts towards the deadline
        jobs = [
            Job(
                request,
                self.engine.row(request, index=i),
                TextStream(self.engine.tokenizer, request.stop),
                on_text,
                began,
            )
            for i, request in enumerate(requests)
        ]
        with self._changed:
            if not self.alive:
                raise EngineUnavailable("The engine is stopping.", "Try again in a moment.")
            if len(self._waiting) + len(jobs) > self.max_waiting:
                self.metrics.refused.inc()
                raise EngineBusy(
                    f"{len(self._waiting)} completions wait already.", "Try again later.", retry_after=self._wait_time()
                )
            self._waiting.extend(jobs)
            self._changed.notify_all()
        return jobs

    def between_steps(self, chore: Callable[[], Any]) -> Future[Any]:
        """Runs ``chore`` in the model thread when no step is under way: for loading and unloading adapters."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        with self._changed:
            if not self.alive:
                raise EngineUnavailable("The engine is stopping.", "Try again in a moment.")
            self._chores.append((chore, future))
            self._changed.notify_all()
        return future

    def _wait_time(self) -> float:
        """Seconds until the queue has probably moved: as long as the last completions took, per row of the batch."""
        return round(max(1.0, self.metrics.recent_seconds() * len(self._waiting) / self.max_rows), 1)

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._chores or self._running or self._stopping):
                    self._changed.wait()
                if self._stopping:
                    break
                idle = not self._running and not self._chores
                if len(self._running) + len(self._waiting) > 1:
                    self._company = time.monotonic()
            if idle and time.monotonic() - self._company < ALONE_SECONDS and len(self._waiting) < self.max_rows:
                time.sleep(GATHER_SECONDS)
            try:
                self._do_chores()
                self._turn()
            except Exception as error:  # whatever a step raises must reach those who wait, and the loop must live
                self._fail(error)
        self._fail(EngineUnavailable("The engine is stopping.", "Try again in a moment."), everything=True)

    def _turn(self) -> None:
        joining = self._joining()
        began = time.perf_counter()
        if joining:
            self._running += joining
            self._batch.add([job.row for job in joining])
        else:
            self._batch.step()
        self.metrics.step(time.perf_counter() - began, rows=len(self._running))
        for job in self._running:
            self._deliver(job)
        self._running = [job for job in self._running if not job.done.done()]
        self.metrics.gauge(running=len(self._running), waiting=len(self._waiting))

    def _joining(self) -> list[Job]:
        """Waiting jobs for which there is room; those that were cancelled or are late never start."""
        joining: list[Job] = []
        with self._changed:
            self._clear_out()
            while self._waiting and len(self._running) + len(joining) < self.max_rows:
                job = self._waiting.popleft()
                name = job.row.adapter
                # It may have gone between the check and the queue; the base would answer in its place, unnoticed.
                if name is not None and not self.engine.holds(name):
                    job.cancel()
                    job.done.set_exception(
                        UnknownAdapter(f"No adapter {name!r} is loaded.", "Load it, then ask again.")
                    )
                else:
                    joining.append(job)
        return joining

    def _clear_out(self) -> None:
        """Whoever waits past the deadline is told so at once, and not when a place is free; who has left goes."""
        now = time.monotonic()
        kept: deque[Job] = deque()
        for job in self._waiting:
            if job.row.finish is not None:
                self._finish(job)
            elif now - job.started > job.deadline:
                job.row.finish = "deadline"
                wait = self._wait_time()
                job.done.set_exception(EngineBusy("The deadline came first.", "Try again later.", retry_after=wait))
                self.metrics.refused.inc()
            else:
                kept.append(job)
        self._waiting = kept

    def _deliver(self, job: Job) -> None:
        piece = advance(
            job.row, job.text, job.deadline, job.started, live=job.on_text is not None or bool(job.text.stops)
        )
        if not job.first_token_seen and job.row.tokens:
            job.first_token_seen = True
            self.metrics.first_token.observe(time.monotonic() - job.started)
        if piece and job.on_text is not None:
            job.on_text(piece)
        if job.row.finish is not None:
            self._finish(job)

    def _finish(self, job: Job) -> None:
        result = result_of(job.row, job.text, time.monotonic() - job.started)
        self.metrics.finished(result)
        job.done.set_result(result)

    def _do_chores(self) -> None:
        while self._chores:
            chore, future = self._chores.popleft()
            try:
                future.set_result(chore())
            except Exception as error:  # belongs to whoever asked
                future.set_exception(error)

    def _fail(self, error: Exception, *, everything: bool = False) -> None:
        """Those who run get the error; the batch starts afresh."""
        if not isinstance(error, EngineError):
            self.metrics.broken.inc()
            error = EngineUnavailable(f"The model failed: {type(error).__name__}: {error}", "Try again; see the log.")
        jobs = list(self._running)
        if everything:
            jobs += self._waiting
            self._waiting.clear()
        self._running, self._batch = [], self.engine.batch()
        for job in jobs:
            job.cancel()
            if not job.done.done():
                job.done.set_exception(error)
        while everything and self._chores:
            self._chores.popleft()[1].set_exception(error)
