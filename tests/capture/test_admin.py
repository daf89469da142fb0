"""The pages of the capture room: who sees what, what they show, what they cost."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from assistants.models import AuditEvent
from capture import scrub
from capture.models import Quarantine, Turn
from capture.services import receive_turns, scrub_waiting
from privacy.findings import ScrubError
from tests.capture.conftest import Cast, streamed_bytes, turn_item
from tests.factories import make_feedback, make_queue, make_turn

TURNS = "admin:capture_turn_changelist"
QUARANTINE = "admin:capture_quarantine_changelist"
HOSTILE = "<script>alert(1)</script> \"'><img src=x onerror=alert(2)>"


@pytest.fixture
def enter(client: Client) -> Any:
    def as_user(user: User) -> Client:
        client.force_login(user)
        return client

    return as_user


def page(client: Client, turn: Turn) -> Any:
    return client.get(reverse("admin:capture_turn_change", args=[turn.pk]))


def label(turn: Turn, who: User, verdict: str = "bad", **fields: Any) -> Any:
    from annotations.models import Annotation

    return Annotation.objects.create(turn=turn, annotator=who, verdict=verdict, **fields)


def resolve(turn: Turn, verdict: str = "good") -> None:
    from annotations.models import Resolution

    Resolution.objects.create(turn=turn, verdict=verdict, how="single", relevant_ranks=[1])


# --- Turns ---------------------------------------------------------------------------------------


def test_people_see_the_turns_of_their_assistants_only(enter: Any, cast: Cast) -> None:
    ours, theirs = make_turn(cast.bot, question="Ours?"), make_turn(cast.other, question="Theirs?")
    make_queue(cast.bot, turns=[ours])  # an annotator sees what is to be labelled
    listed = enter(cast.bob).get(reverse(TURNS)).content.decode()
    assert "Ours?" in listed
    assert "Theirs?" not in listed
    assert page(enter(cast.bob), ours).status_code == 200
    assert page(enter(cast.bob), theirs).status_code == 404
    assert "Ours?" not in enter(cast.carol).get(reverse(TURNS)).content.decode()
    assert page(enter(cast.carol), ours).status_code == 404


def test_a_stranger_gets_no_page(enter: Any, cast: Cast) -> None:
    nobody = User.objects.create(username="nobody", is_staff=True)
    assert enter(nobody).get(reverse(TURNS)).status_code == 403
    assert page(enter(nobody), make_turn(cast.bot)).status_code in (403, 404)


def test_the_list_is_searched_and_filtered(enter: Any, cast: Cast) -> None:
    good = make_turn(cast.bot, question="Is the boiler loud?", adapter="bot--3")
    resolve(good)
    make_feedback(good, value=1)
    plain = make_turn(cast.bot, question="Where is my bill?", declined=True, response="No idea.")
    client = enter(cast.alice)
    for query in ({"q": "boilers"}, {"verdict": "good"}, {"feedback": "up"}, {"adapter": "bot--3"}):
        shown = client.get(reverse(TURNS), query).content.decode()
        assert "boiler loud" in shown, query
        assert "my bill" not in shown, query
    for query in ({"declined__exact": "1"}, {"verdict": "none", "feedback": "none"}, {"q": "bill -boiler"}):
        shown = client.get(reverse(TURNS), query).content.decode()
        assert "my bill" in shown, query
        assert "boiler loud" not in shown, query
    assert "◌" in client.get(reverse(TURNS)).content.decode()
    assert str(plain.pk) in client.get(reverse(TURNS)).content.decode()


def test_an_empty_list_says_what_fills_it(enter: Any, cast: Cast) -> None:
    assert "/api/v1/turns" in enter(cast.alice).get(reverse(TURNS)).content.decode()


def test_the_list_costs_the_same_however_long(enter: Any, cast: Cast, django_assert_max_num_queries: Any) -> None:
    client = enter(cast.alice)

    def fill(count: int) -> None:
        for _ in range(count):
            turn = make_turn(cast.bot)
            resolve(turn)
            make_feedback(turn)

    fill(2)
    client.get(reverse(TURNS))
    with django_assert_max_num_queries(30) as few:
        client.get(reverse(TURNS))
    fill(12)
    with django_assert_max_num_queries(len(few)):
        client.get(reverse(TURNS))


def test_the_page_of_a_turn_shows_it_all(enter: Any, cast: Cast) -> None:
    finding = {"field": "question", "placeholder": "[PERSON_1]", "type": "PERSON", "score": 1, "recognizer": "x"}
    history = [{"role": "user", "content": "Hello there"}]
    turn = make_turn(cast.bot, history=history, adapter="bot--3", latency_ms=41, pii=[finding])
    make_feedback(turn, kind="comment", value=None, text="Not helpful")
    make_queue(cast.bot, turns=[turn], name="First look")
    label(turn, cast.bob, reasons=["wrong"], correction="It is £30. [1]")
    label(turn, cast.alice, verdict="good", note="fine by me")
    shown = page(enter(cast.alice), turn).content.decode()
    for text in ("Hello there", "bot--3", "41 ms", "Not helpful", "First look", "bob", "It is £30.", "fine by me",
                 "tariffs/leaving.md", "1 × person masked", 'href="#p1s0"', 'id="p1s0"',
                 "tn-sentence cited offered"):  # fmt: skip
        assert text in shown, text
    theirs = page(enter(cast.bob), turn).content.decode()
    assert "It is £30." in theirs
    assert "fine by me" not in theirs


def test_hostile_text_stays_text(enter: Any, cast: Cast) -> None:
    context = {"text": HOSTILE, "title": HOSTILE, "source": HOSTILE}
    turn = make_turn(cast.bot, question=HOSTILE, response=f"{HOSTILE} [1]", contexts=[context], model=HOSTILE[:100],
                     history=[{"role": "user", "content": HOSTILE}], tags=[HOSTILE[:60]])  # fmt: skip
    make_feedback(turn, kind="comment", value=None, text=HOSTILE)
    client = enter(cast.alice)
    for shown in (
        page(client, turn),
        client.get(reverse(TURNS)),
        client.get(reverse("admin:capture_feedback_changelist")),
    ):
        assert shown.status_code == 200
        assert b"<script>alert" not in shown.content
        assert b"<img src=x" not in shown.content


def test_a_page_costs_the_same_for_many_passages(enter: Any, cast: Cast, django_assert_max_num_queries: Any) -> None:
    client = enter(cast.alice)
    small = make_turn(cast.bot)
    big = make_turn(cast.bot, contexts=[{"text": f"Text {n}.", "title": f"{n}"} for n in range(20)])
    page(client, small)
    with django_assert_max_num_queries(25) as few:
        page(client, small)
    with django_assert_max_num_queries(len(few)):
        page(client, big)


def test_export_is_for_admins_and_audited(enter: Any, cast: Cast) -> None:
    turn = make_turn(cast.bot)
    body = {"action": "export", "_selected_action": [str(turn.pk)]}
    refused = enter(cast.bob).post(reverse(TURNS), body)
    assert refused.headers["Content-Type"].startswith("text/html") or refused.status_code == 302
    assert not AuditEvent.objects.filter(action="turns.exported").exists()
    response = enter(cast.alice).post(reverse(TURNS), body)
    lines = streamed_bytes(response).decode().splitlines()
    assert json.loads(lines[0])["id"] == str(turn.pk)
    event = AuditEvent.objects.get(action="turns.exported")
    assert (event.actor, event.assistant) == (cast.alice, cast.bot)


# --- Quarantine ----------------------------------------------------------------------------------------


@pytest.fixture
def held(cast: Cast, monkeypatch: Any) -> Quarantine:
    def fail(**_: Any) -> Any:
        raise ScrubError("TimeoutError while scrubbing")

    receive_turns(assistant=cast.bot, api_key=None, items=[turn_item()])
    with monkeypatch.context() as broken:
        broken.setattr(scrub, "mask_turn", fail)
        scrub_waiting()
    return Quarantine.objects.get()


def test_quarantine_is_for_privacy_officers(enter: Any, cast: Cast, held: Quarantine) -> None:
    for user in (cast.alice, cast.bob):
        assert enter(user).get(reverse(QUARANTINE)).status_code == 403
    shown = enter(cast.dana).get(reverse(QUARANTINE)).content.decode()
    assert "1 held" in shown
    assert "TimeoutError while scrubbing" in shown
    assert enter(cast.dana).get(reverse("admin:capture_quarantine_change", args=[held.pk])).status_code == 404
    assert "TimeoutError" not in enter(cast.carol).get(reverse(QUARANTINE)).content.decode()


@pytest.mark.parametrize(("action", "left"), [("retry", "waiting"), ("destroy", None)])
def test_held_items_are_retried_or_deleted_with_a_reason(
    enter: Any, cast: Cast, held: Quarantine, action: str, left: str | None
) -> None:
    body = {"action": action, "_selected_action": [held.pk], "reason": "seen to"}
    enter(cast.carol).post(reverse(QUARANTINE), body)
    assert Quarantine.objects.get().state == "held"
    enter(cast.dana).post(reverse(QUARANTINE), body)
    assert Quarantine.objects.values_list("state", flat=True).first() == left
    event = AuditEvent.objects.get(action__startswith="quarantine.")
    assert (event.actor, event.reason) == (cast.dana, "seen to")


def test_nothing_is_deleted_for_good_without_a_word_on_why(enter: Any, cast: Cast, held: Quarantine) -> None:
    client = enter(cast.dana)
    shown = client.get(reverse(QUARANTINE)).content.decode()
    assert 'href="?state__exact=held">1 held</a>' in shown
    answer = client.post(
        reverse(QUARANTINE), {"action": "destroy", "_selected_action": [held.pk], "reason": " "}, follow=True
    )
    assert "Nothing was deleted" in answer.content.decode()
    assert Quarantine.objects.get().state == "held"
    assert not AuditEvent.objects.filter(action="quarantine.deleted").exists()


def test_the_quarantine_list_costs_the_same_however_long(
    enter: Any, cast: Cast, django_assert_max_num_queries: Any
) -> None:
    client = enter(cast.dana)
    receive_turns(assistant=cast.bot, api_key=None, items=[turn_item(id="a")])
    client.get(reverse(QUARANTINE))
    with django_assert_max_num_queries(25) as few:
        client.get(reverse(QUARANTINE))
    receive_turns(assistant=cast.bot, api_key=None, items=[turn_item(id=f"t-{n}") for n in range(20)])
    with django_assert_max_num_queries(len(few)):
        client.get(reverse(QUARANTINE))


def test_conversations_and_feedback_have_lists(enter: Any, cast: Cast) -> None:
    make_feedback(make_turn(cast.bot), kind="comment", value=None, text="Loved it")
    client = enter(cast.alice)
    assert "Loved it" in client.get(reverse("admin:capture_feedback_changelist")).content.decode()
    conversation = Turn.objects.get().conversation
    assert conversation.external_id in client.get(reverse("admin:capture_conversation_changelist")).content.decode()


def test_feedback_is_listed_in_words(enter: Any, cast: Cast) -> None:
    turn = make_turn(cast.bot)
    scale = [("thumb", -1.0), ("thumb", 1.0), ("rating", 4.0), ("metric", 0.25), ("metric", 1.0), ("comment", None)]
    given = [make_feedback(turn, kind=kind, value=value) for kind, value in scale]
    given[3].metric = "bleu"
    given[4].metric, given[4].boolean = "safe", True
    assert [str(one) for one in given] == [
        "Thumb down", "Thumb up", "Rating 4 of 5", "bleu 0.25", "safe true", "Comment",
    ]  # fmt: skip
    client = enter(cast.alice)
    listed = client.get(reverse("admin:capture_feedback_changelist")).content.decode()
    for word in ("▼ down", "▲ up", "4 of 5", "0\xa0minutes ago", "Feedback"):
        assert word in listed, word
    for word in ("-1.0", "Feedbacks", "p.m.", "a.m."):
        assert word not in listed, word
    shown = client.get(reverse("admin:capture_feedback_change", args=[given[0].pk])).content.decode()
    assert "▼ down" in shown
    assert "-1.0" not in shown


CONVERSATION = "admin:capture_conversation_change"


def conversation_of(bot: Any, n: int) -> Any:
    from capture.models import Conversation

    talk = Conversation.objects.create(assistant=bot, external_id="talk-1")
    start = timezone.now() - timedelta(days=3, hours=2)
    for i in range(n, 0, -1):  # stored the wrong way round, as imports may
        make_turn(
            bot, question=f"Question {i:03}?", response="word " * 200, conversation=talk,
            asked_at=start + timedelta(minutes=i),
        )  # fmt: skip
    return talk


def test_a_conversation_shows_its_turns_in_order(enter: Any, cast: Cast) -> None:
    talk = conversation_of(cast.bot, 3)
    first = Turn.objects.get(question="Question 001?")
    resolve(first)
    make_feedback(first, value=-1.0)
    client = enter(cast.alice)
    shown = client.get(reverse(CONVERSATION, args=[talk.pk])).content.decode()
    assert shown.index("Question 001?") < shown.index("Question 002?") < shown.index("Question 003?")
    assert reverse("admin:capture_turn_change", args=[first.pk]) in shown
    for word in ("✓ good", "not labelled", "▼ disliked", "3\xa0days", "word…"):
        assert word in shown, word
    assert "word " * 120 not in shown, "an answer is cut"
    assert AuditEvent.objects.filter(action="conversation.viewed", target=str(talk.pk)).exists()
    listed = client.get(reverse("admin:capture_conversation_changelist")).content.decode()
    assert "3\xa0days" in listed, "when it was asked, not when it came in"
    assert enter(cast.carol).get(reverse(CONVERSATION, args=[talk.pk])).status_code in (302, 404)
    assert enter(cast.bob).get(reverse(CONVERSATION, args=[talk.pk])).status_code in (302, 403, 404)


def test_a_long_conversation_is_paged_at_the_same_cost(
    enter: Any, cast: Cast, django_assert_max_num_queries: Any
) -> None:
    talk = conversation_of(cast.bot, 30)
    client = enter(cast.alice)
    with django_assert_max_num_queries(16):
        shown = client.get(reverse(CONVERSATION, args=[talk.pk])).content.decode()
    assert "Question 025?" in shown
    assert "Question 026?" not in shown
    assert "Question 026?" in client.get(reverse(CONVERSATION, args=[talk.pk]), {"page": 2}).content.decode()
