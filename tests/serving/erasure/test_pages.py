"""The pages of erasures and leak audits: who sees them, who may press, and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from assistants.models import AuditEvent
from assistants.performing import perform_here
from capture.leak_reports import LeakReport
from capture.models import Turn
from serving.erasure.record import Erasure
from tests.serving.erasure.conftest import ANNA, House, enter, freeze, say, scrub, train


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path) -> list[Any]:
    """Without a worker: the test performs what a page queues."""
    settings.VAR_DIR, settings.LOG_DIR = tmp_path, tmp_path / "log"
    works: list[Any] = []
    monkeypatch.setattr("serving.erasure.services.launch", works.append)
    return works


def page(name: str, *args: Any) -> str:
    return reverse(f"admin:serving_erasure_{name}", args=args)


def shown(response: Any) -> str:
    assert response.status_code == 200, response
    return str(response.content.decode())


def asked(client: Client, house: House, callbacks: Any, **fields: Any) -> Erasure:
    data = {"assistant": house.bot.pk, "kind": "user", "value": ANNA, **fields}
    with callbacks(execute=True):
        response = client.post(page("add"), data)
    assert response.status_code == 302, response.content.decode()
    erasure = Erasure.objects.latest("pk")
    assert response.url == page("change", erasure.pk)
    perform_here(erasure)
    return erasure


def test_an_officer_looks_confirms_and_keeps_the_receipt(
    house: House, launched: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    say(house.bot, "a-1")
    scrub()
    adapter = train(freeze(house.bot, [Turn.objects.get()]), live=True)
    client = enter(house.paula)
    assert "Nothing was ever erased" in shown(client.get(page("changelist")))
    assert "Erase this turn" in shown(client.get(reverse("admin:capture_turn_change", args=[Turn.objects.get().pk])))
    erasure = asked(client, house, django_capture_on_commit_callbacks)
    assert launched == [erasure]
    text = shown(client.get(page("change", erasure.pk)))
    for words in (
        "1 turn in 1 conversation would be erased",
        "Dataset 1",
        "1 of 2 rows",
        "● live",
        ANNA,
        "Erase for good",
    ):
        assert words in text, words

    confirm = page("confirm", erasure.pk)
    assert client.get(confirm).status_code == 405
    for wrong in ({"turns": "7", "reason": "Request 17"}, {"turns": "1", "reason": " "}):
        client.post(confirm, wrong)
        assert Erasure.objects.get().is_dry
    with django_capture_on_commit_callbacks(execute=True):
        client.post(confirm, {"turns": " 1 ", "reason": "Request 17"})
    erasure.refresh_from_db()
    assert erasure.confirmed_name == "paula"
    client.post(page("cancel", erasure.pk))  # an act cannot be withdrawn
    erasure.refresh_from_db()
    assert erasure.sealed is not None
    perform_here(erasure)

    text = shown(client.get(page("change", erasure.pk)))
    for words in (
        "Receipt of erasure",
        "1 turn of Bot erased",
        "as it was written",
        "holds erased data: retrain",
        "Request 17",
    ):
        assert words in text, words
    assert ANNA not in text
    download = client.get(page("receipt", erasure.pk))
    assert download.json()["counts"]["turns"] == 1
    assert 'filename="erasure-' in download["Content-Disposition"]

    ada = enter(house.ada)
    assert "Receipt of erasure" in shown(ada.get(page("change", erasure.pk)))  # admins read the receipt
    assert "holds erased data" in shown(ada.get(reverse("admin:index")))
    assert "holds erased data" in shown(ada.get(reverse("admin:training_adapter_changelist"))).lower()
    assert "Holds erased data" in shown(ada.get(reverse("admin:training_adapter_change", args=[adapter.pk])))
    dataset = shown(ada.get(reverse("admin:training_datasetversion_change", args=[adapter.run.dataset_id])))  # type: ignore[union-attr]
    assert "1 of its rows was erased" in dataset
    assert "Export training rows" not in dataset
    export = ada.get(reverse("admin:training_datasetversion_export", args=[adapter.run.dataset_id]))  # type: ignore[union-attr]
    assert export.status_code == 302
    assert "[erased]" in shown(ada.get(reverse("admin:training_datasetversion_row", args=[adapter.run.dataset_id, 0])))  # type: ignore[union-attr]


def test_others_are_refused(house: House, django_capture_on_commit_callbacks: Any) -> None:
    say(house.bot, "a-1")
    scrub()
    erasure = asked(enter(house.paula), house, django_capture_on_commit_callbacks)
    posts = [page(name, erasure.pk) for name in ("confirm", "go_on", "cancel")]
    good = {"turns": "1", "reason": "Request 17"}
    # An admin of the bot reads, and does nothing.
    ada = enter(house.ada)
    text = shown(ada.get(page("change", erasure.pk)))
    assert ANNA not in text
    assert "Erase for good" not in text
    assert ada.get(page("add")).status_code == 403
    assert [ada.post(url, good).status_code for url in posts] == [403, 403, 403]
    # An annotator of it, and an officer of another assistant, do not even learn that it is there.
    for person, status in ((house.ann, 403), (house.sam, 404)):
        client = enter(person)
        urls = [*posts, page("change", erasure.pk), page("receipt", erasure.pk)]
        assert {client.post(url, good).status_code for url in posts} == {status}, person
        assert {client.get(url).status_code for url in urls[3:]} == {status}, person
    sam = enter(house.sam)
    answer = sam.post(page("add"), {"assistant": house.bot.pk, "kind": "user", "value": ANNA})
    assert "Select a valid choice" in shown(answer)
    assert Client().get(page("change", erasure.pk)).status_code == 302
    assert Erasure.objects.get().is_dry
    assert Turn.objects.count() == 1


def test_what_is_no_scope_comes_back_with_a_sentence(house: House) -> None:
    client = enter(house.paula)
    for fields, words in (
        ({"kind": "user", "value": ""}, "Name the user"),
        ({"kind": "search"}, "at least one filter"),
        ({"kind": "search", "since": "yesterday"}, "ISO 8601"),
        ({"kind": "turn", "turns": ""}, "Name 1 to"),
        ({"kind": "everything"}, "Select a valid choice"),
    ):
        text = shown(client.post(page("add"), {"assistant": house.bot.pk, **fields}))
        assert words in text, fields
    assert not Erasure.objects.exists()


def test_a_dry_run_that_finds_nothing_says_so(house: House, django_capture_on_commit_callbacks: Any) -> None:
    client = enter(house.paula)
    erasure = asked(client, house, django_capture_on_commit_callbacks, value="<script>nobody</script>")
    text = shown(client.get(page("change", erasure.pk)))
    assert "Nothing is stored under that name" in text
    assert "<script>nobody" not in text
    client.post(page("cancel", erasure.pk))
    assert Erasure.objects.get().sealed is None


def test_the_command_looks_erases_and_refuses(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    say(house.bot, "a-1")
    scrub()
    call_command("erase", assistant="bot", user=ANNA, dry_run=True)
    assert '"turns": 1' in capsys.readouterr().out
    assert Turn.objects.count() == 1
    assert not Erasure.objects.exists()
    for options in (
        {"assistant": "nobody", "user": ANNA},
        {"assistant": "bot"},
        {"assistant": "bot", "user": ANNA, "conversation": "c-1"},
        {"assistant": "bot", "user": ANNA},  # no reason
        {"assistant": "bot", "search": ["q"], "reason": "x"},
        {"assistant": "bot", "go_on": 9},
    ):
        with pytest.raises(CommandError):
            call_command("erase", **options)
    assert Turn.objects.count() == 1
    call_command("erase", assistant="bot", user=ANNA, reason="Request 17")
    assert '"signature"' in capsys.readouterr().out
    assert not Turn.objects.exists()
    assert Erasure.objects.get().is_done


# --- Leak audits ------------------------------------------------------------------------------------------------------


def report(house: House, **fields: Any) -> LeakReport:
    return LeakReport.objects.create(
        assistant=house.bot, subject="Dataset 1", policy_digest="p" * 64,
        **{
            "verdict": "blocked", "counts": {"PERSON": 1}, "keys": ["k"], "rows": 3,
            "findings": [{"row": "0", "field": "question", "type": "PERSON", "by": "scan", "score": 0.6, "turn": ""}],
            **fields,
        },
    )  # fmt: skip


def test_a_blocked_dataset_says_where_and_only_an_officer_lets_it_pass(house: House) -> None:
    say(house.bot, "a-1")
    scrub()
    dataset = freeze(house.bot, [Turn.objects.get()])
    found = report(house)
    dataset.leak_report = found
    dataset.save()
    ada, paula = enter(house.ada), enter(house.paula)
    own = reverse("admin:training_datasetversion_change", args=[dataset.pk])
    text = shown(ada.get(own))
    assert "Blocked by the leak audit: 1 finding" in text
    assert "PERSON in" in text
    assert "Train an adapter" not in text
    assert "blocked" in shown(ada.get(reverse("admin:training_datasetversion_changelist")))
    assert "The leak audit blocks Dataset 1" in shown(ada.get(reverse("admin:index")))
    link, act = (reverse(f"admin:capture_leakreport_{name}", args=[found.pk]) for name in ("change", "override"))
    assert "Let it pass" not in shown(ada.get(link))
    assert "Let it pass" in shown(paula.get(link))
    assert shown(paula.get(reverse("admin:capture_leakreport_changelist")))
    assert ada.post(act, {"reason": "x"}).status_code == 403
    assert enter(house.ann).get(link).status_code == 403
    assert enter(house.sam).get(link).status_code == 404
    assert enter(house.sam).post(act, {"reason": "x"}).status_code == 404
    assert paula.get(act).status_code == 405
    paula.post(act, {"reason": " "})
    assert LeakReport.objects.get().blocks
    paula.post(act, {"reason": "The name of a product"})
    found.refresh_from_db()
    assert not found.blocks
    event = AuditEvent.objects.get(action="leaks.overridden")
    assert (event.actor, event.reason) == (house.paula, "The name of a product")
    text = shown(ada.get(own))
    assert "let pass" in text
    assert "Train an adapter" in text
    assert LeakReport.objects.all().accepted_keys(house.bot) == {"k"}
    assert LeakReport.objects.all().accepted_keys(house.other) == frozenset()


def test_a_canary_is_never_let_pass(house: House) -> None:
    found = report(
        house, findings=[{"row": "0", "field": "question", "type": "NAME", "by": "canary", "score": 1.0, "turn": ""}]
    )
    paula = enter(house.paula)
    assert "cannot be let pass" in shown(paula.get(reverse("admin:capture_leakreport_change", args=[found.pk])))
    paula.post(reverse("admin:capture_leakreport_override", args=[found.pk]), {"reason": "Never mind"})
    found.refresh_from_db()
    assert found.blocks


def test_the_list_says_which_erasures_stopped_before_their_end(house: House) -> None:
    common = {"assistant": house.bot, "kind": "user", "scope_digest": "s", "confirmed_at": timezone.now()}
    Erasure.objects.create(**common, state="succeeded", receipt={"format": 1})
    Erasure.objects.create(**common, state="running")
    Erasure.objects.create(**{**common, "confirmed_at": None}, state="failed")
    assert "stopped before the end" not in shown(enter(house.paula).get(page("changelist")))
    failed = Erasure.objects.create(**common, state="failed")
    text = enter(house.paula).get(page("changelist")).content.decode()
    assert f'<a href="{page("change", failed.pk)}">{failed}</a> stopped before the end' in text
    assert text.count("stopped before the end") == 1
