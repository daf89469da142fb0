"""Logged questions asked again: with the passages of then, with those of now, by whom, and what erasure leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from annotations.models import Resolution
from assistants.background import BackgroundWork, launch
from assistants.models import Assistant, AuditEvent
from capture.models import Turn
from knowledge.services import load_document
from tests.factories import make_adapter, make_assistant, make_turn, make_user
from tests.tiny_model import shared_base
from training.erasing import empty_rows
from training.models import Replay, ReplayAnswer
from training.replay import runner
from training.replay.services import start_replay
from training.services import NotPossible, cancel

HOSTILE = "<script>alert(1)</script>"
MODES = ["stored", "fresh"]


@pytest.fixture
def assistant(db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Assistant:
    monkeypatch.setattr(runner, "MAX_ANSWER_TOKENS", 8)
    monkeypatch.setattr("training.evaluation.services.launch", lambda work: None)
    settings.RATCHET_BASE_MODEL_PATH = settings.RATCHET_BASE_MODEL = str(shared_base())
    people = {
        "admin": [make_user("alice")], "reviewer": [make_user("rob")], "annotator": [make_user("ann")],
        "privacy": [make_user("pia")],
    }  # fmt: skip
    make_assistant("other", members={"admin": [make_user("carol")]})
    house = make_assistant("bot", members=people, retrieval_k=2)
    load_document(
        assistant=house, path="leaving.md", data=b"# Leaving\n\nA fixed plan has an exit fee of 99 pounds now."
    )
    for i in range(3):
        turn = make_turn(house, question=f"What does leaving cost, case {i}? {HOSTILE}", declined=i == 2)
        if i == 0:
            Resolution.objects.create(turn=turn, verdict="bad", response="The exit fee is £35.", how="single")
    return house


def enter(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client


def replayed(assistant: Assistant, **fields: Any) -> Replay:
    wanted = {"adapter": None, "chosen": "newest", "count": 10, "modes": MODES, **fields}
    replay = start_replay(assistant=assistant, **wanted)
    launch(replay, foreground=True)
    replay.refresh_from_db()
    return replay


def test_both_ways_of_asking(assistant: Assistant) -> None:
    replay = replayed(assistant, adapter=make_adapter(assistant, seed=1))
    assert (replay.state, replay.error) == ("succeeded", "")
    assert replay.answers.count() == 6
    assert not replay.answers.filter(answered_at=None).exists()
    stored, fresh = (replay.answers.filter(mode=mode).first() for mode in MODES)
    assert stored is not None
    assert fresh is not None
    assert [s["source"] for s in stored.sources] == ["tariffs/leaving.md", "moving/moving.md", "meters/readings.md"]
    assert [s["source"] for s in fresh.sources] == ["leaving.md"]
    assert stored.completion
    assert {"stored", "fresh"} == set(replay.results)
    found = replay.results["stored"]
    assert (found["answered"], found["problems"]) == (3, 0)
    assert found["newly_answered"] == 1  # a random model does not decline
    assert found["resolved_f1"]["n"] == 1
    again = replayed(assistant, adapter=replay.adapter)
    assert list(again.answers.values_list("completion", flat=True)) == list(
        replay.answers.values_list("completion", flat=True)
    )


def test_where_nothing_is_near_enough_nothing_is_shown_as_in_serving(assistant: Assistant) -> None:
    assistant.prompt_style, assistant.evidence_threshold = "passages", 1.0
    assistant.save()
    replay = start_replay(assistant=assistant, adapter=None, chosen="newest", count=1, modes=MODES)
    shown = {row.mode: runner._ready(replay, row).prompt.messages[-1]["content"] for row in replay.answers.all()}
    assert "Passages:" not in shown["fresh"]
    assert "Passages:" not in shown["stored"]


def test_stored_contexts_are_asked_under_the_threshold_of_now(assistant: Assistant) -> None:
    replay = start_replay(assistant=assistant, adapter=None, chosen="newest", count=10, modes=["stored"])
    row = next(one for one in replay.answers.all() if any(r.evidence for r in one.turn.retrievals.all()))
    best = max(similarity for r in row.turn.retrievals.all() for _, _, similarity in r.evidence)
    for threshold, withheld_then in ((best + 0.01, False), (best - 0.01, True)):
        Turn.objects.filter(pk=row.turn_id).update(withheld=withheld_then)
        row.turn.assistant.evidence_threshold, row.turn.withheld = threshold, withheld_then
        ready = runner._ready(replay, row)
        assert ready.withheld == (not withheld_then)
        assert ("Passages:" in ready.prompt.messages[-1]["content"]) == withheld_then


def test_killed_it_asks_nothing_twice(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "BATCH", 2)
    real, asked = runner._generated, []

    def killed(replay: Replay, engine: Any, ready: Any) -> Any:
        if len(asked) == 2:
            asked.append([])
            raise KeyboardInterrupt
        asked.append([one.row.pk for one in ready])
        return real(replay, engine, ready)

    monkeypatch.setattr(runner, "_generated", killed)
    replay = start_replay(assistant=assistant, adapter=None, chosen="newest", count=10, modes=MODES)
    with pytest.raises(KeyboardInterrupt):
        launch(replay, foreground=True)
    assert replay.answers.exclude(answered_at=None).count() == 4
    Replay.objects.update(state=BackgroundWork.State.QUEUED, token=None)
    replay.refresh_from_db()
    launch(replay, foreground=True)
    rows = [pk for batch in asked for pk in batch]
    assert sorted(rows) == sorted(replay.answers.values_list("pk", flat=True))


def test_which_turns(assistant: Assistant) -> None:
    def chosen(name: str, count: int = 10) -> int:
        replay = start_replay(assistant=assistant, adapter=None, chosen=name, count=count, modes=["stored"])
        return replay.answers.count()

    assert [chosen(n) for n in ("newest", "bad", "declined", "unlabelled")] == [3, 1, 1, 2]
    assert chosen("newest", 2) == 2
    for name in ("good", "thumbs_down"):
        with pytest.raises(NotPossible, match="no such turn"):
            chosen(name)


def test_refusals(assistant: Assistant) -> None:
    def start(**fields: Any) -> Replay:
        return start_replay(
            **{"assistant": assistant, "adapter": None, "chosen": "newest", "count": 5, "modes": MODES, **fields}
        )

    for wrong, said in (
        ({"count": 0}, "Between 1 and"), ({"count": 501}, "Between 1 and"), ({"modes": []}, "Choose which"),
        ({"modes": ["x"]}, "Choose which"), ({"chosen": "x"}, "Choose which"),
        ({"adapter": make_adapter(make_assistant())}, "another assistant"),
        ({"adapter": make_adapter(assistant, number=3, prompt_digest="f" * 16)}, "prompt format"),
    ):  # fmt: skip
        with pytest.raises(NotPossible, match=said):
            start(**wrong)
    gone = replayed(assistant, adapter=make_adapter(assistant, number=404))
    assert gone.state == "failed"
    assert "not there any more" in gone.error
    changed = start()
    Assistant.objects.filter(pk=assistant.pk).update(decline_sentence="No idea.")
    launch(Replay.objects.get(pk=changed.pk), foreground=True)
    changed.refresh_from_db()
    assert "Start another replay" in changed.error
    assert cancel(work=start(), actor=None)


def test_what_does_not_fit_is_said_and_the_rest_is_asked(assistant: Assistant) -> None:
    long = make_turn(assistant, question="word " * 900)
    replay = replayed(assistant, modes=["stored"])
    assert replay.state == "succeeded"
    row = replay.answers.get(turn=long)
    assert row.problem == runner.TOO_LONG
    assert replay.results["stored"]["problems"] == 1
    assert replay.results["stored"]["answered"] == 3


def test_erasing_a_turn_takes_its_answers_along(assistant: Assistant) -> None:
    replay = replayed(assistant)
    turn = Turn.objects.filter(assistant=assistant).latest("asked_at")
    counts = empty_rows(assistant, [turn.pk], [])
    assert counts["replayed answers"] == 2
    assert not ReplayAnswer.objects.filter(turn=turn).exists()
    Turn.objects.filter(assistant=assistant).delete()
    assert not replay.answers.exists()
    assert enter("rob").get(reverse("admin:training_replay_change", args=[replay.pk])).status_code == 200


# --- Pages ------------------------------------------------------------------------------------------------------------


def shown(response: Any) -> str:
    assert response.status_code in (200, 422), response.status_code
    text: str = response.content.decode()
    assert "<script>alert" not in text
    return text


def test_a_replay_is_started_read_and_exported(assistant: Assistant) -> None:
    add = reverse("admin:training_replay_add")
    sent = {"assistant": assistant.pk, "chosen": "newest", "count": 5, "modes": MODES}
    assert "Ask logged questions again" in shown(enter("alice").get(add))
    assert enter("rob").post(add, sent).status_code == 403
    assert "no such turn" in shown(enter("alice").post(add, {**sent, "chosen": "good"}))
    response = enter("alice").post(add, sent)
    replay = Replay.objects.get()
    url = reverse("admin:training_replay_change", args=[replay.pk])
    assert response.url == url
    assert "Queued" in shown(enter("rob").get(url))
    launch(replay, foreground=True)
    text = shown(enter("rob").get(url, {"show": "all"}))
    assert text.count('class="rt-example"') == 3
    assert "The exit fee is £35." in text
    assert "Newly answered" in text
    assert shown(enter("rob").get(url, {"mode": "fresh", "show": "newly_answered"})).count("rt-example") == 1
    assert "No turn here." in shown(enter("rob").get(url, {"show": "same", "q": "%_nothing"}))
    assert shown(enter("rob").get(url, {"mode": HOSTILE, "show": HOSTILE, "page": "x"}))
    export = reverse("admin:training_replay_export", args=[replay.pk])
    assert enter("rob").get(export).status_code == 404
    lines = b"".join(enter("alice").get(export)).decode().splitlines()
    assert len(lines) == 6
    assert json.loads(lines[0])["old"] == "The exit fee is £35. [1]"
    assert AuditEvent.objects.filter(action="replay.exported").count() == 1
    assert str(replay) in shown(enter("rob").get(reverse("admin:training_replay_changelist")))


def test_strangers_and_annotators_see_no_replay(assistant: Assistant) -> None:
    replay = replayed(assistant, modes=["stored"])
    for name in ("carol", "ann", "pia"):
        client = enter(name)
        for view in ("change", "export", "live"):
            status = client.get(reverse(f"admin:training_replay_{view}", args=[replay.pk])).status_code
            assert status in (302, 403, 404), (name, view)
        assert client.post(reverse("admin:training_replay_cancel", args=[replay.pk])).status_code in (403, 404)
    foreign = {"assistant": assistant.pk, "chosen": "newest", "count": 5, "modes": MODES}
    assert "Select a valid choice" in shown(enter("carol").post(reverse("admin:training_replay_add"), foreign))
    assert Client().get(reverse("admin:training_replay_change", args=[replay.pk])).status_code == 302


def test_the_page_costs_the_same_however_many_turns(assistant: Assistant) -> None:
    few = replayed(assistant, modes=["stored"])
    for i in range(12):
        make_turn(assistant, question=f"Another question {i}?")
    many = replayed(assistant, modes=["stored"], count=15)
    client, counts = enter("rob"), []
    for replay in (few, many):
        url = reverse("admin:training_replay_change", args=[replay.pk])
        client.get(url, {"show": "all"})
        with CaptureQueriesContext(connection) as captured:
            client.get(url, {"show": "all"})
        counts.append(len(captured))
    assert counts[0] == counts[1] <= 20
