"""What comes after a turn: metrics, feedback with a time of its own, updates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from assistants.services import issue_key
from capture import late
from capture.models import Conversation, Feedback, Metric, Quarantine, Turn, TurnUpdate
from capture.services import scrub_waiting
from tests.capture.conftest import Call, Cast, turn_item
from tests.capture.test_api import problem
from tests.factories import make_feedback, make_turn


def read(api: Call, name: str = "t-1") -> dict[str, Any]:
    answer = api("get", f"turns/{name}")
    assert answer.status_code == 200, answer.content
    body: dict[str, Any] = answer.json()
    return body


# --- Feedback -------------------------------------------------------------------------------------


def test_a_metric_is_kept_as_it_was_posted_and_apart_from_opinions(api: Call, cast: Cast) -> None:
    api("post", "turns", turn_item())
    for item in (
        {"turn": "t-1", "kind": "metric", "metric": "resolved", "value": True},
        {"turn": "t-1", "kind": "metric", "metric": "minutes_saved", "value": 2.5},
    ):
        assert api("post", "feedback", item).status_code == 201
        assert api("post", "feedback", item).json()["status"] == "duplicate"
    scrub_waiting()
    given = {row["metric"]: row["value"] for row in read(api)["feedback"]}
    assert given == {"resolved": True, "minutes_saved": 2.5}
    assert given["resolved"] is True
    held = dict(Metric.objects.values_list("name", "holds"))
    assert held == {"resolved": "boolean", "minutes_saved": "number"}
    assert [turn["client_id"] for turn in api("get", "turns?feedback=none").json()["turns"]] == ["t-1"]
    assert api("get", "turns?feedback=any").json()["turns"] == []


def test_a_metric_holds_one_kind_of_value_and_there_are_not_many(
    api: Call, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    Metric.objects.create(assistant=cast.bot, name="resolved", holds=Metric.Holds.BOOLEAN)
    monkeypatch.setattr("capture.metrics.MAX_METRICS", 2)
    api("post", "turns", turn_item())
    items: list[dict[str, Any]] = [
        {"metric": "resolved", "value": 1}, {"metric": "cost", "value": 1}, {"metric": "cost", "value": False},
        {"metric": "third", "value": 1}, {"metric": "resolved", "value": None},
        {"metric": "ann@example.org", "value": 1},
        {"value": 1}, {"metric": "cost", "value": "NaN"}, {"metric": "cost", "kind": "thumb", "value": 1},
    ]  # fmt: skip
    rows = api("post", "feedback", [{"turn": "t-1", "kind": "metric", **item} for item in items]).json()["results"]
    wrong = [row["errors"][0]["field"] if row["status"] == "invalid" else "" for row in rows]
    assert wrong == ["value", "", "value", "metric", "value", "metric", "metric", "value", "metric"]
    assert late.MAX_METRICS == 100
    assert Quarantine.objects.filter(kind="feedback").count() == 1


def test_an_assistant_knows_nothing_of_the_metrics_of_another(api: Call, cast: Cast) -> None:
    Metric.objects.create(assistant=cast.other, name="resolved", holds=Metric.Holds.NUMBER)
    api("post", "turns", turn_item())
    item = {"turn": "t-1", "kind": "metric", "metric": "resolved", "value": True}
    assert api("post", "feedback", item).status_code == 201
    assert Metric.objects.get(assistant=cast.bot).holds == "boolean"


def test_feedback_keeps_its_own_time(api: Call) -> None:
    api("post", "turns", turn_item())
    when = "2026-03-02T08:30:00+00:00"
    api("post", "feedback", {"turn": "t-1", "kind": "thumb", "value": -1, "time": when})
    # The same thumb, sent again by a client that stamps its requests, counts once.
    later = {"turn": "t-1", "kind": "thumb", "value": -1, "time": "2026-03-02T08:31:00Z"}
    assert api("post", "feedback", later).json()["status"] == "duplicate"
    api("post", "feedback", {"turn": "t-1", "kind": "escalation"})
    scrub_waiting()
    thumb, escalation = read(api)["feedback"]
    assert (thumb["kind"], thumb["time"]) == ("thumb", when)
    assert thumb["received_at"] > when
    assert escalation["time"] == escalation["received_at"]
    problem(api("post", "feedback", {**later, "time": "1970-01-01T00:00:00Z"}), 422)


def test_feedback_finds_its_turn_by_the_clients_id_ours_and_a_completion_id(api: Call, cast: Cast) -> None:
    name = "chatcmpl-0123456789abcdef0123456789abcdef"
    api("post", "turns", turn_item(id=name))
    early = {"turn": name, "kind": "thumb", "value": 1}
    assert api("post", "feedback", early).status_code == 201, "before its turn was scrubbed"
    scrub_waiting()
    turn = Turn.objects.get()
    assert api("post", "feedback", {"turn": str(turn.pk), "kind": "escalation"}).status_code == 201
    assert api("post", "feedback", {**early, "turn": str(turn.pk).upper()}).json()["status"] == "duplicate"
    scrub_waiting()
    assert sorted(turn.feedback.values_list("kind", flat=True)) == ["escalation", "thumb"]
    assert api("post", "feedback", early, secret=cast.other_secret).status_code == 404


# --- Updates --------------------------------------------------------------------------------------


def test_updates_are_applied_in_order_behind_the_turn_that_still_waits(api: Call, cast: Cast) -> None:
    api("post", "turns", turn_item())
    answer = api("patch", "turns/t-1", {"latency_ms": 900.4, "outcome": "escalated", "tags": ["web", "late"]})
    assert (answer.status_code, answer.json()) == (202, {"id": "t-1", "status": "created"})
    api("patch", "turns/t-1", {"outcome": "resolved", "metadata": {"agent": 3}, "prompt_tokens": 400})
    assert scrub_waiting().held == 0
    turn = read(api)
    assert (turn["latency_ms"], turn["outcome"], turn["prompt_tokens"]) == (900, "resolved", 400)
    assert turn["tags"] == ["web", "late"]
    assert turn["metadata"] == {"client": "web-2.1", "agent": 3}
    assert turn["completion_tokens"] == 18, "what was not named stays"
    first, second = TurnUpdate.objects.order_by("pk")
    assert first.changes == {"latency_ms": [812, 900], "outcome": ["", "escalated"], "tags": 1}
    assert second.changes["outcome"] == ["escalated", "resolved"]
    assert first.api_key == second.api_key == cast.key
    # By our id, once it is there; the same again changes nothing, and only its time is kept.
    assert api("patch", f"turns/{turn['id']}", {"outcome": "resolved"}).status_code == 202
    scrub_waiting()
    (again,) = TurnUpdate.objects.exclude(pk__in=[first.pk, second.pk])
    assert again.changes == {"same": {"outcome": again.known_at.isoformat()}}


def test_an_update_with_an_id_counts_once(api: Call) -> None:
    api("post", "turns", turn_item())
    assert api("patch", "turns/t-1", {"update_id": "u1", "outcome": "resolved"}).status_code == 202
    again = api("patch", "turns/t-1", {"update_id": "u1", "outcome": "resolved"})
    assert (again.status_code, again.json()["status"]) == (200, "duplicate")
    problem(api("patch", "turns/t-1", {"update_id": "u1", "outcome": "abandoned"}), 409)
    scrub_waiting()
    assert read(api)["outcome"] == "resolved"


def test_of_two_updates_the_one_that_was_known_later_counts(api: Call) -> None:
    """One of them waited on a client's disk, and came behind its successor; or came with it, out of order."""
    api("post", "turns", turn_item())
    newer = {"outcome": "resolved", "metadata": {"agent": 2}, "update_time": "2026-03-01T12:00:00Z"}
    older = {"outcome": "escalated", "prompt_tokens": 7, "metadata": {"agent": 1, "desk": 4}, "tags": ["late"]}
    api("patch", "turns/t-1", newer)
    scrub_waiting()
    api("patch", "turns/t-1", {**older, "update_time": "2026-03-01T11:00:00Z"})
    api("patch", "turns/t-1", {"latency_ms": 2, "update_time": "2026-03-01T12:00:01Z"})
    api("patch", "turns/t-1", {"latency_ms": 1, "update_time": "2026-03-01T12:00:00Z"})
    assert scrub_waiting().held == 0
    turn = read(api)
    assert (turn["outcome"], turn["prompt_tokens"], turn["latency_ms"]) == ("resolved", 7, 2)
    assert turn["metadata"] == {"client": "web-2.1", "agent": 2, "desk": 4}
    assert turn["tags"] == ["web", "late"]
    ahead = datetime.now(UTC) + timedelta(hours=3)
    api("patch", "turns/t-1", {"outcome": "abandoned", "update_time": ahead.isoformat()})
    api("patch", "turns/t-1", {"outcome": "resolved"})
    scrub_waiting()
    assert read(api)["outcome"] == "resolved", "a clock that goes ahead keeps nobody out"


def test_an_update_that_changes_nothing_leaves_its_time(api: Call) -> None:
    """Known last, it says that the outcome still holds: one that is older and comes later must not win."""
    api("post", "turns", turn_item(outcome="resolved", metadata={"agent": 1}))
    same = {"outcome": "resolved", "metadata": {"agent": 1}}
    older = {"outcome": "abandoned", "metadata": {"agent": 2, "team": "b"}}
    api("patch", "turns/t-1", {**same, "update_time": "2026-03-01T12:00:00Z"})
    assert scrub_waiting().held == 0
    api("patch", "turns/t-1", {**older, "update_time": "2026-03-01T11:00:00Z"})
    assert scrub_waiting().held == 0
    turn = Turn.objects.get()
    assert (turn.outcome, turn.metadata) == ("resolved", {"agent": 1, "team": "b"})
    # However often it is said again, it is one row, and none of it on the page of the turn.
    for minute in range(1, 4):
        api("patch", "turns/t-1", {**same, "update_time": f"2026-03-01T12:0{minute}:00Z"})
        assert scrub_waiting().held == 0
    api("patch", "turns/t-1", {**older, "update_time": "2026-03-01T12:02:30Z"})
    api("patch", "turns/t-1", {"latency_ms": 5, "update_time": "2026-03-01T10:00:00Z"})
    assert scrub_waiting().held == 0
    turn.refresh_from_db()
    assert (turn.outcome, turn.metadata["agent"], turn.latency_ms) == ("resolved", 1, 5)
    assert [sorted(update.changes) for update in turn.updates.order_by("pk")] == [
        ["same"],
        ["metadata"],
        ["latency_ms"],
    ]
    api("patch", "turns/t-1", {"outcome": "abandoned", "update_time": "2026-03-01T12:04:00Z"})
    assert scrub_waiting().held == 0
    turn.refresh_from_db()
    assert turn.outcome == "abandoned"


def test_the_time_is_no_part_of_what_an_update_says(api: Call) -> None:
    api("post", "turns", turn_item())
    item = {"update_id": "u1", "outcome": "resolved", "update_time": "2026-03-01T12:00:00Z"}
    assert api("patch", "turns/t-1", item).status_code == 202
    assert api("patch", "turns/t-1", {**item, "update_time": "2026-03-01T12:00:09Z"}).json()["status"] == "duplicate"
    problem(api("patch", "turns/t-1", {**item, "update_id": "u2", "update_time": "1970-01-01"}), 422)


def test_many_updates_in_one_request(api: Call, cast: Cast) -> None:
    api("post", "turns", [turn_item(id="ignored")])  # refused: one turn at this address
    api("post", "turns/batch", [turn_item(), turn_item(id="t-2")])
    items: list[Any] = [
        {"turn": "t-1", "update_id": "u1", "outcome": "resolved"},
        {"turn": "t-2", "tags": ["late"]},
        {"turn": "t-1", "update_id": "u1", "outcome": "resolved"},
        {"turn": "t-1", "update_id": "u1", "outcome": "abandoned"},
        {"turn": "t-9", "outcome": "resolved"},
        {"turn": "t-1", "question": "Other?"},
        {"outcome": "resolved"},
        7,
    ]
    answer = api("patch", "turns/batch", {"updates": items})
    assert answer.status_code == 207
    rows = answer.json()["results"]
    assert [row["status"] for row in rows] == ["created", "created", "duplicate", "conflict", *["invalid"] * 4]
    assert [row["errors"][0]["field"] for row in rows[4:]] == ["turn", "question", "turn", ""]
    assert [row["id"] for row in rows] == ["t-1", "t-2", "t-1", "t-1", "t-9", "t-1", "", ""]
    scrub_waiting()
    assert (read(api)["outcome"], read(api, "t-2")["tags"]) == ("resolved", ["web", "late"])
    foreign = api("patch", "turns/batch", items[:2], secret=cast.other_secret).json()
    assert (foreign["created"], foreign["invalid"]) == (0, 2)
    _, reader = issue_key(assistant=cast.bot, name="reader", scopes=["read"])
    problem(api("patch", "turns/batch", items[:2], secret=reader), 403)
    problem(api("patch", "turns/batch", {"turns": items}), 422)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"question": "Other?"}, "question"),
        ({"response": "Other."}, "response"),
        ({"contexts": []}, "contexts"),
        ({"id": "t-2"}, "id"),
        ({"model": "other"}, "model"),
        ({"time": "2026-01-01"}, "time"),
        ({"surprise": 1}, "surprise"),
        ({}, ""),
        ({"tags": []}, ""),
        ({"latency_ms": None}, ""),
        ({"latency_ms": -1}, "latency_ms"),
        ({"outcome": "Ann was happy"}, "outcome"),
        ({"tags": ["x"] * 21}, "tags"),
        ({"metadata": {"user": {"name": "Ann"}}}, "metadata"),
        ({"metadata": {"user_key": "forged"}}, "metadata"),
        ({"metadata": {"a": "x" * 17_000}}, "metadata"),
        ([1], ""),
        (7, ""),
    ],
)  # fmt: skip
def test_what_cannot_be_changed_is_refused_with_a_sentence(api: Call, body: Any, field: str) -> None:
    api("post", "turns", turn_item())
    answer = problem(api("patch", "turns/t-1", body), 422)
    assert answer["errors"][0]["field"] == field
    assert "Ann" not in str(answer)
    assert Quarantine.objects.count() == 1


def test_the_address_names_the_turn(api: Call, cast: Cast) -> None:
    api("post", "turns", turn_item())
    api("post", "turns", turn_item(id="t-2"))
    problem(api("patch", "turns/t-1", {"turn": "t-2", "outcome": "resolved"}), 422)
    problem(api("patch", "turns/t-9", {"outcome": "resolved"}), 404)
    problem(api("patch", "turns/t-1", {"outcome": "resolved"}, secret=cast.other_secret), 404)
    _, reader = issue_key(assistant=cast.bot, name="reader", scopes=["read"])
    problem(api("patch", "turns/t-1", {"outcome": "resolved"}, secret=reader), 403)
    problem(api("patch", "turns/t-1", {"outcome": "resolved"}, secret=""), 401)


def test_text_in_an_update_is_scrubbed_with_the_table_of_the_conversation(api: Call, cast: Cast) -> None:
    api("post", "turns", turn_item(question="I am Zebulon Quarrington, what does it cost to leave?"))
    scrub_waiting()
    assert "[PERSON_1]" in Turn.objects.get().question
    api(
        "patch",
        "turns/t-1",
        {"metadata": {"note": "Zebulon Quarrington called, zeb@example.org"}, "tags": ["zeb@example.org"]},
    )
    row = Quarantine.objects.get()
    assert b"Quarrington" not in bytes(row.payload)
    assert scrub_waiting().held == 0
    turn = Turn.objects.get()
    assert turn.metadata["note"].startswith("[PERSON_1] called, [EMAIL_")
    assert "zeb" not in str(turn.tags) + str(list(TurnUpdate.objects.values_list("changes", flat=True)))
    assert "Quarrington" not in str(Conversation.objects.get().entities)


def test_what_does_not_fit_into_the_turn_is_held_and_loses_nothing(api: Call) -> None:
    api("post", "turns", turn_item(tags=[f"a{n}" for n in range(15)]))
    api("patch", "turns/t-1", {"tags": [f"b{n}" for n in range(15)]})
    api("patch", "turns/t-1", {"outcome": "resolved"})
    report = scrub_waiting()
    assert (report.scrubbed, report.held) == (2, 1)
    held = Quarantine.objects.get()
    assert (held.kind, held.state) == ("update", "held")
    assert "20 tags" in held.error
    turn = read(api)
    assert (len(turn["tags"]), turn["outcome"]) == (15, "resolved")


def test_an_update_of_a_turn_that_was_removed_is_held(api: Call) -> None:
    api("post", "turns", turn_item())
    api("patch", "turns/t-1", {"outcome": "resolved"})
    Quarantine.objects.filter(kind="turn").delete()
    assert scrub_waiting().held == 1
    assert "not stored" in Quarantine.objects.get().error


def test_the_page_of_a_turn_shows_what_came_later(api: Call, cast: Cast, client: Any) -> None:
    turn = make_turn(cast.bot, outcome="escalated", client="our-bot/2.1")
    Feedback.objects.create(
        assistant=cast.bot,
        turn=turn,
        kind="metric",
        metric="resolved",
        value=0,
        boolean=True,
        given_at=datetime.now(UTC),
    )
    make_feedback(turn, kind="thumb", value=1)
    TurnUpdate.objects.create(
        turn=turn, api_key=cast.key, changes={"outcome": ["", "escalated"]},
        known_at=datetime.now(UTC), received_at=datetime.now(UTC),
    )  # fmt: skip
    client.force_login(cast.alice)
    page = client.get(f"/admin/capture/turn/{turn.pk}/change/").content.decode()
    for said in ("resolved: false", "Handed to a person", "our-bot/2.1", "with the key frontend"):
        assert said in page
    assert client.get("/admin/capture/feedback/").status_code == 200
