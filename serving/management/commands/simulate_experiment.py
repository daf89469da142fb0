"""`manage.py simulate_experiment`: how often an A/B is wrong under continuous peeking, and how soon it is right."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from serving.experiments.simulation import GUARDS, SCENARIOS, Scenario, simulate


class Command(BaseCommand):
    help = (
        "Simulates experiments with a look after every 25 units: how often equal arms are called different (5 % are "
        "promised over all looks together), after how many units a difference is seen, and how guardrails behave."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--runs", type=int, default=1000, help="Experiments of each kind (default: %(default)s).")
        parser.add_argument(
            "--horizon", type=int, default=8000, help="Units of both arms together (default: %(default)s)."
        )
        parser.add_argument("--seed", type=int, default=1)

    def handle(self, *args: Any, runs: int, horizon: int, seed: int, **options: Any) -> None:
        began = time.monotonic()
        self.stdout.write(f"{runs} runs of {horizon} units, a look after every 25.\n\n")
        self._table("Verdicts at 5 %", SCENARIOS, runs, horizon, seed)
        self._table("One of six guardrails, 3 points tolerated", GUARDS, runs, horizon, seed)
        self.stdout.write(f"{time.monotonic() - began:.0f} s")

    def _table(self, title: str, scenarios: tuple[Scenario, ...], runs: int, horizon: int, seed: int) -> None:
        self.stdout.write(f"| {title} | called worse | called better | half of them by unit |\n|---|---|---|---|\n")
        for place, scenario in enumerate(scenarios):
            found = simulate(scenario, runs=runs, horizon=horizon, seed=seed + place)
            when = "–" if found.units is None else f"{found.units:.0f}"
            self.stdout.write(f"| {scenario.name} | {found.worse:.1%} | {found.better:.1%} | {when} |")
        self.stdout.write("")
