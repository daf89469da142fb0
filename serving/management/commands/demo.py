"""`manage.py demo`: the whole loop on the demo content, from an empty folder to an adapter with a verdict."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from serving.demo import steps
from serving.demo.frontend import DemoFailed
from serving.demo.platform_process import Platform
from training.models import Evaluation

T = TypeVar("T")
STEPS = 14


class Command(BaseCommand):
    help = "Runs the loop on the demo content: documents, log, labels, dataset, adapter, before/after, promotion, chat."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--exit", action="store_true", help="Stop the platform after the table.")
        parser.add_argument(
            "--development", action="store_true", help="Use the questions on which recipes are tuned, not the others."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self.seconds: list[tuple[str, float]] = []
        _stop_by_signals()
        try:
            self._loop(stay=not options["exit"], development=options["development"])
        except DemoFailed as failed:
            raise CommandError(str(failed)) from failed
        except KeyboardInterrupt:
            self.stdout.write("\nStopped.")

    def _loop(self, *, stay: bool, development: bool) -> None:
        started = time.monotonic()
        with Platform() as platform:
            self._step("start the platform", lambda _: platform.start())
            connections.close_all()
            assistant = self._step("create the assistant", lambda _: steps.assistant_step())
            headers = {"Authorization": f"Bearer {steps.frontend_key(assistant)}"}
            with httpx.Client(base_url=platform.url, headers=headers, timeout=60, trust_env=False) as client:
                self._step("load its documents", lambda p: steps.documents_step(assistant, p))
                self._step("calibrate declining", lambda p: steps.calibrate_step(assistant, p))
                self._step("post its conversations", lambda p: steps.log_step(assistant, client, p))
                self._step("scrub", lambda p: steps.scrub_step(assistant, client, p))
                self._step("label", lambda p: steps.labels_step(assistant, p))
                benchmark = self._step(
                    "freeze the benchmark", lambda p: steps.benchmark_step(assistant, p, development=development)
                )
                synthesis = self._step("write questions", lambda p: steps.synthesis_step(assistant, p))
                dataset = self._step(
                    "build the dataset", lambda p: steps.dataset_step(assistant, benchmark, synthesis, p)
                )
                adapter = self._step("train an adapter", lambda p: steps.run_step(assistant, dataset, p))
                evaluation = self._step(
                    "evaluate before / after", lambda p: steps.evaluation_step(assistant, adapter, benchmark, p)
                )
                self._step("gate and promote", lambda _: steps.promote_step(assistant, evaluation))
                answers = self._step("ask", lambda _: steps.ask_step(assistant, client, evaluation))
            self._report(evaluation, answers, time.monotonic() - started)
            self._goodbye(platform, evaluation, stay)

    def _step(self, name: str, work: Callable[[steps.Progress], T]) -> T:
        number = len(self.seconds) + 1
        started = time.monotonic()
        line = _Line(f"[{number:2}/{STEPS}] {name}")
        result = work(line.progress)
        seconds = time.monotonic() - started
        self.seconds.append((name, seconds))
        line.done(result if isinstance(result, str) else "", seconds)
        return result

    def _report(self, evaluation: Evaluation, answers: list[tuple[str, str, str]], total: float) -> None:
        write = self.stdout.write
        steps_taken = " · ".join(f"{name} {s:.0f}" for name, s in self.seconds)
        write(f"\nSeconds per step: {steps_taken} · all {total:.0f}")
        write("\nThree held-out questions, base model against the adapter")
        for question, base, tuned in answers:
            write(f"  Q  {question}\n     base     {base}\n     adapter  {tuned}")
        write("\nGrounded and correct           condition           n   share   95 % interval")
        for label, condition, n, value, low, high in steps.arm_rows(evaluation):
            write(f"  {label:32} {condition:15} {n:4}  {value:6.1%}   {low:.1%} – {high:.1%}")
        primary = evaluation.comparison["grounded_correct"]
        d = primary["difference"]
        write(
            f"\nCandidate against today: {d['value'] * 100:+.1f} points, 95 % interval {d['low'] * 100:+.1f} … "
            f"{d['high'] * 100:+.1f}, n = {d['n']}; better on {primary['better']}, worse on {primary['worse']}, "
            f"McNemar p = {primary['p_mcnemar']:.4f}; detectable from {primary['minimum_detectable'] * 100:.1f} points"
        )
        if evaluation.threshold:
            write(f"Every arm with retrieval declines below a similarity of {evaluation.threshold:g}, as serving does.")
        for line in evaluation.gate:
            change = "not shown" if line["value"] is None else f"{line['value'] * 100:+.1f} points"
            write(f"  {'pass' if line['passed'] else 'FAIL'}  {line['label']}: {change}")
        write(self.style.SUCCESS(f"Verdict: {evaluation.get_verdict_display()}. {evaluation.sentence}"))

    def _goodbye(self, platform: Platform, evaluation: Evaluation, stay: bool) -> None:
        page = f"{platform.url}/admin/dashboards/evaluation/{evaluation.pk}/"
        self.stdout.write(f"\nOpen {page} for every answer side by side.")
        made_now = [line for line in platform.lines if line.startswith("Admin login")]
        kept = settings.SECRETS_DIR / "admin_password"
        self.stdout.write(made_now[0] if made_now else f"Admin login: admin, with the password in {kept}")
        if stay and platform.is_ours:
            self.stdout.write(f"Ratchet is running at {platform.url}/. Ctrl-C stops it.")
            self.stdout.flush()
            connections.close_all()
            platform.wait()


def _stop_by_signals() -> None:
    """A terminated demo stops its platform like an interrupted one. Also what a script runs in the background, which
    inherits that interrupts are ignored: Python then leaves them ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class _Line:
    """One step on the screen: rewritten on a terminal, a line per quarter elsewhere."""

    def __init__(self, title: str) -> None:
        self._title, self._tty, self._quarter = title, sys.stdout.isatty(), -1
        self._write(f"{title} …", end="" if self._tty else "\n")

    def progress(self, done: int, total: int, what: str) -> None:
        text = f"{what} {done}/{total}" if total else what
        quarter = 4 * done // total if total else self._quarter
        if self._tty:
            self._write(f"\r\x1b[K{self._title} … {text}", end="")
        elif quarter != self._quarter:
            self._quarter = quarter
            self._write(f"{self._title} … {text}")

    def done(self, text: str, seconds: float) -> None:
        start = "\r\x1b[K" if self._tty else ""
        self._write(f"{start}{self._title}: {text + ', ' if text else ''}{seconds:.1f} s")

    @staticmethod
    def _write(text: str, end: str = "\n") -> None:
        sys.stdout.write(text + end)
        sys.stdout.flush()
