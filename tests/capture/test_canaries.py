"""People who do not exist, down every path on which text comes in: afterwards no column and no file knows them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import models
from django_q.tasks import async_task

from annotations.services import submit
from assistants.background import launch
from assistants.models import Assistant
from assistants.policies import change_policy, rules_of
from capture.canaries import check, items_of, plant, text_columns
from capture.leaks import canaries_of
from capture.models import Passage, Quarantine, Turn
from capture.otlp.closing import close_traces
from capture.services import scrub_waiting
from knowledge.uploads import IncomingFile, start_upload
from privacy.canaries import Matcher, people, sayings
from serving import spool
from tests.capture.conftest import Call, Cast, turn_item
from tests.factories import make_queue
from tests.tiny_model import shared_base
from tests.training.synthesis.test_generate import Writer, run, start
from training.synthesis import generate


@pytest.fixture(autouse=True)
def state(settings: Any, tmp_path: Path) -> Path:
    settings.VAR_DIR, settings.LOG_DIR = tmp_path, tmp_path / "log"
    return tmp_path


def test_the_same_seed_gives_the_same_people_and_their_numbers_are_well_formed() -> None:
    assert people(b"seed", 3) == people(b"seed", 3)
    assert people(b"seed", 1) != people(b"other", 1)
    assert len({value for person in people(b"seed", 50) for value in person.values.values()}) > 250
    for count in (0, 51):
        with pytest.raises(ValueError, match="between 1 and 50"):
            people(b"seed", count)
    for person in people(b"seed", 20):
        digits = [int(char) for char in person.card if char.isdigit()]
        doubled = [d if i % 2 else (2 * d - 9 if d > 4 else 2 * d) for i, d in enumerate(digits)]
        assert sum(doubled) % 10 == 0
        iban = person.iban.replace(" ", "")
        assert int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4])) % 97 == 1
        assert len(list(sayings(person, 0))) == 6


def test_a_planted_canary_that_stays_readable_is_found(cast: Cast, state: Path) -> None:
    """The test of the test: without it, a check that looks nowhere would always be happy."""
    (person,) = canaries_of(cast.bot, 1)
    Passage.objects.create(
        assistant=cast.bot, digest="d", text=f"Dear {person.name.upper()}", metadata={"a": [person.mail]}
    )
    async_task("json.dumps", f"call {person.phone}", save=False)
    (state / "log").mkdir()
    (state / "log" / "x.log").write_text(f"card {person.card.replace(' ', '-')}")
    found = check([person], folders=[state / "log"])
    assert {place: dict(kinds) for place, kinds in found.places.items()} == {
        "capture.Passage.text": {"name": 1}, "capture.Passage.metadata": {"mail": 1}, "x.log": {"card": 1},
        "django_q.OrmQ.payload": {"phone": 1},
    }  # fmt: skip
    with pytest.raises(CommandError, match="4 canaries survived"):
        call_command("canaries", "check", assistant="bot", count=1)


def test_every_text_column_of_every_table_is_looked_through() -> None:
    for model in apps.get_models(include_auto_created=True):
        texts = {
            field.attname
            for field in model._meta.concrete_fields
            if field.get_internal_type()
            in {"CharField", "TextField", "JSONField", "SlugField", "EmailField", "URLField"}
            or isinstance(field, models.CharField | models.TextField)
        }
        assert texts <= set(text_columns(model)), model


def load_documents(bot: Assistant, card: str, everything: str) -> None:
    """One under the default, which leaves what a house prints of itself, and one under the strict choice; then
    questions are written from both."""
    texts = {"till.md": f"# Till\n\nThe card of the till is {card}.\n\nThe till opens at nine o'clock every morning.\n"}
    upload(bot, texts)
    rules = replace(rules_of(bot), documents="everything")
    change_policy(assistant=bot, rules=rules, actor=None, reason="This one holds letters.")
    html = f"<h1>{everything}</h1><p>We told the customer: {everything}</p><p>The desk answers letters on Mondays.</p>"
    upload(bot, {"letters/letter.html": html})
    synthesis = run(start(bot, wanted=20))
    assert synthesis.state == "succeeded", synthesis.error
    assert synthesis.items.filter(response__contains="[CREDIT_CARD_").exists()


def upload(bot: Assistant, texts: dict[str, str]) -> None:
    files = [IncomingFile(path, len(text), text.encode()) for path, text in texts.items()]
    work = start_upload(assistant=bot, files=files)
    launch(work, foreground=True)
    assert set(work.files.values_list("outcome", flat=True)) == {"loaded"}


def test_no_canary_survives_any_path(
    cast: Cast,
    api: Call,
    state: Path,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (person,) = canaries_of(cast.bot, 1)
    turns, feedback = items_of(cast.bot, 1)
    p = person
    everything = f"My name is {p.name}. Mail {p.mail}, phone {p.phone}, card {p.card}, IBAN {p.iban}."
    # The log API, one and many, and feedback.
    assert api("post", "turns/batch", json.dumps(turns)).status_code in (200, 201, 202, 207)
    assert api("post", "feedback", json.dumps(feedback)).status_code in (200, 201, 202, 207)
    # Traces.
    span = {
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "chat",
        "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000001000000000",
        "attributes": [
            {"key": name, "value": {"stringValue": value}}
            for name, value in {
                "openinference.span.kind": "CHAIN", "input.value": everything, "output.value": f"Dear {p.name}, noted.",
                "user.id": p.mail, "session.id": "canary-trace",
            }.items()
        ],
    }  # fmt: skip
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    assert api("post", "traces", json.dumps(body)).status_code == 200
    # An import.
    lines = state / "import.jsonl"
    lines.write_text(json.dumps(turn_item(id="imported", conversation="i-1", question=everything)) + "\n")
    call_command("import_turns", str(lines), assistant="bot", report=str(state / "report.jsonl"))
    lines.unlink()
    # The chat's spool.
    assert spool.keep(cast.bot, None, turn_item(id="spooled", conversation="s-1", question=everything))
    assert check([person], folders=[state]).total == 0  # what waits is encrypted
    assert spool.drain() == 1
    close_traces()
    report = scrub_waiting()
    assert report.held == 0, report.sentence
    assert not Quarantine.objects.exists()
    assert Turn.objects.of(cast.bot).count() >= len(turns) + 2
    # What annotators type.
    turn = Turn.objects.get(client_id="imported")
    submit(
        turn=turn, annotator=cast.bob, verdict="bad", reasons=["wrong"], correction=f"{everything} So it is.",
        note=everything, queue=make_queue(cast.bot, turns=[turn]),
    )  # fmt: skip

    # Documents, and questions written from them.
    settings.RATCHET_BASE_MODEL_PATH = str(shared_base())
    monkeypatch.setattr(generate, "bulk_engine", Writer)
    load_documents(cast.bot, p.card, everything)

    found = check([person], folders=[state])
    assert found.places == {}
    assert found.columns > 150
    capsys.readouterr()
    call_command("canaries", "check", assistant="bot", count=1)
    assert "No canary survived" in capsys.readouterr().out
    answer = api("get", "turns", {"limit": "200"})
    assert Matcher.of([person]).kinds(answer.content.decode()) == []


def test_planting_twice_stores_once(cast: Cast) -> None:
    first = plant(cast.bot, count=1)
    assert first == {"created": 7}
    assert plant(cast.bot, count=1) == {"duplicate": 7}
    with pytest.raises(CommandError, match="go together"):
        call_command("canaries", "plant", assistant="bot", url="http://127.0.0.1:1")
    with pytest.raises(CommandError, match="no such assistant"):
        call_command("canaries", "check", assistant="nobody")
