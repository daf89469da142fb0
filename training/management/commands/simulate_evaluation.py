"""`manage.py simulate_evaluation`: does the gate do what it says? Invented evaluations, judged as real ones are."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from training.evaluation.simulation import Found, World, simulate, simulate_attempts, stated_power

MOST_RUNS = 20_000
MOST_ATTEMPTS = 50


class Command(BaseCommand):
    help = "Simulates evaluations: false promotions without a difference, coverage of intervals, power as stated."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--runs", type=int, default=1000)
        parser.add_argument("--questions", type=int, default=300)
        parser.add_argument("--per-document", type=int, default=3)
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--attempts", type=int, default=10, help="Candidates of one data, until one passes.")
        parser.add_argument("--only-attempts", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        runs, questions, per = options["runs"], options["questions"], options["per_document"]
        if not 1 <= runs <= MOST_RUNS or not 20 <= questions <= 5000 or not 1 <= per <= questions // 10:
            raise CommandError("1 to 20,000 runs of 20 to 5,000 questions, on at least 10 documents.")
        if not 1 <= options["attempts"] <= MOST_ATTEMPTS:
            raise CommandError(f"1 to {MOST_ATTEMPTS} attempts.")
        began = time.monotonic()
        world = World(questions=questions, per_document=per)
        for name, one in (("on any document", replace(world, uneven=0.0)), ("on the whole", world)):
            held, free = simulate_attempts(one, attempts=options["attempts"], runs=runs, seed=options["seed"])
            self.stdout.write(
                f"no difference, {name}, {options['attempts']} attempts: {runs} runs, one of them promoted {held:.3f}; "
                f"were they not counted {free:.3f}"
            )
        if options["only_attempts"]:
            return
        for name, one in (
            ("no difference, on any document", replace(world, uneven=0.0)),
            ("no difference on the whole, better on some documents and worse on others", world),
            ("8 points better, more on some documents than on others", replace(world, effect=0.08)),
        ):
            self._tell(name, simulate(one, runs=runs, seed=options["seed"]))
        effect, stated, found = stated_power(world, runs=runs)
        self._tell(f"the detectable difference, {effect * 100:.1f} points (stated power {stated:.2f})", found)
        self.stdout.write(f"{questions} questions, {per} on a document, {time.monotonic() - began:.0f} s")

    def _tell(self, name: str, found: Found) -> None:
        self.stdout.write(
            f"{name}: {found.runs} runs, promoted {found.promoted:.3f}, called worse {found.worse:.3f}, interval holds "
            f"the truth {found.covered:.3f}, McNemar p < .05 {found.mcnemar:.3f}, signs flipped p < .05 "
            f"{found.flipped:.3f}, questions that differ {found.discordance:.3f}"
        )
