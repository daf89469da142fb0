"""What experiments made of a turn goes with it, also where a later turn only quotes it, or was masked afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annotations.comparing.models import ComparisonPair, ComparisonRound
from capture.models import Turn
from serving.erasure.scope import Scope
from serving.experiments.erasing import forget_masked
from serving.experiments.models import Experiment, ExposedUnit, Exposure, ShadowAnswer
from serving.experiments.units import count_units
from tests.factories import make_adapter
from tests.serving.erasure.conftest import House, say, scrub
from tests.serving.erasure.test_erasing import erase


@pytest.fixture(autouse=True)
def quiet(settings: Any, tmp_path: Path) -> None:
    settings.VAR_DIR = tmp_path
    settings.LOG_DIR = tmp_path / "log"


@pytest.fixture
def turns(house: House) -> dict[str, Turn]:
    """Two turns of a talk, the later quoting the first; each was met, answered by the other arm, and compared."""
    say(house.bot, "one", conversation="talk", question="Where is the blue door?", response="In the yard.")
    item = say(house.bot, "other", conversation="elsewhere", question="What is the fee?")
    assert item
    scrub()
    found = {turn.client_id: turn for turn in Turn.objects.all()}
    later = Turn.objects.create(
        assistant=house.bot, conversation=found["one"].conversation, client_id="two", question="And the red one?",
        history=[{"role": "user", "content": "Where is the blue door?"}], response="Beside it.",
        asked_at=found["one"].asked_at, policy_digest="x",
    )  # fmt: skip
    found["two"] = later
    experiment = Experiment.objects.create(assistant=house.bot, candidate=make_adapter(house.bot, number=7))
    opened = ComparisonRound.objects.create(
        assistant=house.bot, name="live", source="experiment", source_id=experiment.pk, candidate_arm="a",
        baseline_arm="b", questions=3, differing=3, seed=1,
    )  # fmt: skip
    for place, (name, turn) in enumerate(found.items(), start=1):
        ShadowAnswer.objects.create(experiment=experiment, turn=turn, arm="candidate", text=f"About {turn.question}")
        ComparisonPair.objects.create(
            round=opened, position=place, key=name, turn=turn, question=turn.question, history=turn.history
        )
        Exposure.objects.create(
            experiment=experiment,
            client_id=name,
            unit=f"of {name}",
            arm="candidate",
            epoch=1,
            at=turn.asked_at,
            turn=turn,
        )
    count_units(experiment)
    return found


def test_one_turn_takes_what_was_made_of_it_and_of_what_quotes_it(house: House, turns: dict[str, Turn]) -> None:
    erasure = erase(house, Scope("turn", turns=("one",)))
    assert erasure.state == "succeeded", erasure.error
    left = {turn.client_id for turn in Turn.objects.all()}
    assert "two" in left
    assert [row.turn.client_id for row in ShadowAnswer.objects.select_related("turn")] == ["other"]
    assert [pair.key for pair in ComparisonPair.objects.all()] == ["other"]
    assert set(Exposure.objects.values_list("client_id", flat=True)) == {"two", "other"}
    assert set(ExposedUnit.objects.values_list("unit", flat=True)) == {"of two", "of other"}
    assert "shadow answers" in erasure.counts


def test_what_is_masked_later_is_not_kept_in_a_copy(house: House, turns: dict[str, Turn]) -> None:
    assert forget_masked() == 0 or turns["one"].pii
    Turn.objects.filter(pk=turns["other"].pk).update(pii=[{"field": "question", "type": "PERSON"}])
    forget_masked()
    assert not ShadowAnswer.objects.filter(turn=turns["other"]).exists()
    assert not ComparisonPair.objects.filter(turn=turns["other"]).exists()
    assert ShadowAnswer.objects.filter(turn=turns["two"]).exists()
