"""What a training process says while it runs: one JSON object per line on standard output, everything else to the log.

Events: ``start`` {method, rows, steps, longest, settings, why, resumed_from}, ``step`` {step, steps, epoch, loss,
learning_rate, tokens_per_second, eta_seconds, measures: {margin, accuracy, kl, …}}, ``validation`` {step, epoch, loss},
``samples`` {step, epoch, samples: [{question, wanted, answer}]}, ``checkpoint`` {step}, ``stage`` {stage}, ``saved``
{folder, manifest}, ``stopped`` {step}, ``error`` {message}. Steps are those of the whole run, also where it has several
stages. No Django.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

LIFELINE = "RATCHET_LIFELINE"
"""Environment variable: the parent holds the other end of our standard input, and we end when it does."""
EXIT_ERROR, EXIT_STOPPED = 2, 3


class Reporter:
    """Takes standard output for itself: a library that prints must not break the protocol. ``silent``: of several
    processes only the first one tells what all of them do; errors are told by whoever has them."""

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        sys.stdout.flush()
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        os.dup2(2, 1)

    def __call__(self, event: str, **fields: Any) -> None:
        if self.silent and event != "error":
            return
        self._out.write(json.dumps({"event": event, **fields}, ensure_ascii=False) + "\n")
        self._out.flush()


class Shifted:
    """Tells the steps of one stage as steps of the whole run."""

    def __init__(self, report: Reporter, *, by: int, total: int) -> None:
        self.report, self.by, self.total = report, by, total

    def __call__(self, event: str, **fields: Any) -> None:
        if "eta_seconds" in fields:  # of this stage; later ones are assumed to be as fast
            left = max(fields["steps"] - fields["step"], 1)
            fields["eta_seconds"] = round(
                fields["eta_seconds"] / left * max(self.total - self.by - fields["step"], 0), 1
            )
        if "resumed_from" in fields:
            fields["done"] = fields["resumed_from"] + self.by
        if "step" in fields:
            fields["step"] += self.by
        if "steps" in fields:
            fields["steps"] = self.total
        self.report(event, **fields)


class StopFlag:
    """Set by SIGTERM: training ends at the next step, with a checkpoint. Before training begins, the process ends."""

    def __init__(self) -> None:
        self.is_set = False
        self.training = False
        signal.signal(signal.SIGTERM, self._on_term)

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True
        if not self.training:
            os._exit(EXIT_STOPPED)


def hold_lifeline() -> None:
    """Ends this process the moment its parent dies, however it dies: its end of our standard input closes with it."""
    if not os.environ.get(LIFELINE):
        return

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(EXIT_STOPPED)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
