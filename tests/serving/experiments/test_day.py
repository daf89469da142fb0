"""The simulated day: the bad one is taken back by its guardrail, the good one goes live, every step is on record."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from assistants.models import Assistant
from serving.experiments.simulation import Scenario, simulate


@pytest.mark.django_db
def test_a_day_ends_as_it_should() -> None:
    out = StringIO()
    call_command("simulate_traffic", "--conversations", "2000", "--every", "15", stdout=out)
    told = out.getvalue()
    bad = next(line for line in told.splitlines() if "Taken back by a rule" in line)
    good = next(line for line in told.splitlines() if "Went live" in line)
    assert "Adapter 2" in bad
    assert "Guardrail:" in bad
    assert "Adapter 3" in good
    assert told.index(bad) < told.index(good)
    assert "24:00 Adapter 3 is live." in told
    assert not Assistant.objects.exists()  # nothing was kept


@pytest.mark.django_db
def test_nonsense_is_refused() -> None:
    with pytest.raises(CommandError, match="from 100"):
        call_command("simulate_traffic", "--conversations", "1")


def test_the_simulation_counts_what_it_says() -> None:
    out = StringIO()
    call_command("simulate_experiment", "--runs", "3", "--horizon", "400", stdout=out)
    assert "A/A, 70 %, a plain z test" in out.getvalue()
    found = simulate(Scenario("a", 0.1, 0.9), runs=20, horizon=400, seed=1)
    assert (found.worse, found.better) == (1.0, 0.0)
    assert found.units is not None
    assert found.units <= 150
