"""Uncertain masks: kept, shown, decided, expired; by whom; and what a decision does to every stored text."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotations.machine.receiving import receive_labels
from annotations.models import MachineLabel
from annotations.services import adjudicate, resolve, submit
from assistants.models import AuditEvent
from assistants.policies import change_policy, policy_of, rules_of
from capture import review
from capture.models import Conversation, Feedback, KeptSpelling, Passage, Turn, UncertainMask
from capture.receiving import receive_updates
from capture.review import NotDecided
from capture.services import receive_feedback, receive_turns, scrub_waiting
from capture.stored_texts import realigned
from tests.capture.conftest import Cast, turn_item
from tests.factories import add_member, make_user

pytestmark = pytest.mark.django_db
VALUE = "Brontevale"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def unsure(cast: Cast) -> Cast:
    """Every place is uncertain, however sure the finder is."""
    rules = rules_of(cast.bot)
    policy = replace(
        rules.policy, thresholds={**rules.policy.thresholds, "LOCATION": 1.0}, review_band={"LOCATION": 0.6}
    )
    change_policy(assistant=cast.bot, rules=replace(rules, policy=policy), actor=None, reason="Test.")
    return cast


def capture(cast: Cast, **fields: Any) -> Turn:
    item = turn_item(**fields)
    assert receive_turns(assistant=cast.bot, api_key=cast.key, items=[item])[0].status == "created"
    report = scrub_waiting()
    assert report.held == 0
    return Turn.objects.get(client_id=item["id"])


@pytest.fixture
def turn(unsure: Cast) -> Turn:
    return capture(
        unsure,
        question=f"I live in Lisbon, {HOSTILE}. What does leaving cost?",
        contexts=[{"text": "Offices in Lisbon. Closed on Sunday.", "title": "Offices", "source": "x.md"}],
        response="In Lisbon it is £35. [1]",
    )


def only() -> UncertainMask:
    return UncertainMask.objects.get()


def everything(turn: Turn) -> str:
    fresh = Turn.objects.get(pk=turn.pk)
    passages = [r.passage.text + r.source for r in fresh.retrievals.all()]
    feedback = [f.text for f in fresh.feedback.all()]
    return json.dumps([fresh.question, fresh.history, fresh.response, fresh.metadata, passages, feedback, fresh.pii])


# --- Keeping ------------------------------------------------------------------------------------


def test_what_lies_in_the_band_is_masked_and_its_value_kept_encrypted(turn: Turn) -> None:
    mask = only()
    assert (mask.placeholder, mask.state, mask.turn_id) == ("[LOCATION_1]", "open", turn.pk)
    assert "Lisbon" not in everything(turn)
    assert "[LOCATION_1]" in turn.response
    kept = list(KeptSpelling.objects.all())
    assert {row.field for row in kept} == {"question", "contexts.1.text", "response"}
    assert all(b"Lisbon" not in bytes(row.forms) for row in kept)
    assert timedelta(days=29) < mask.expires_at - timezone.now() < timedelta(days=30)
    assert {entry["field"] for entry in turn.pii if entry.get("uncertain")} >= {"question"}


def test_what_is_certain_is_kept_nowhere(cast: Cast) -> None:
    capture(cast, question="My name is Wendeline Okafor, mail w.okafor@heathmere.co.uk")
    assert not UncertainMask.objects.exists()
    assert not KeptSpelling.objects.exists()


def test_a_later_turn_adds_its_spelling_and_a_certain_finding_closes_it(unsure: Cast, turn: Turn) -> None:
    capture(unsure, id="t-2", question="Is LISBON far?", contexts=[], response="No.")
    assert UncertainMask.objects.count() == 1
    assert only().spellings.count() == 4
    rules = rules_of(unsure.bot)
    policy = replace(rules.policy, deny=("Lisbon",))
    change_policy(assistant=unsure.bot, rules=replace(rules, policy=policy), actor=None, reason="Known now.")
    capture(unsure, id="t-3", question="And from Lisbon?", contexts=[], response="No.", conversation="c-9")
    assert UncertainMask.objects.count() == 1  # what the deny list names is no question


# --- Decisions ----------------------------------------------------------------------------------


def test_release_puts_the_value_back_everywhere(
    unsure: Cast, turn: Turn, settings: Any, django_capture_on_commit_callbacks: Any
) -> None:
    settings.RATCHET_FOREGROUND = True
    capture(unsure, id="t-2", question="Is LISBON far?", contexts=[], response="No.")
    receive_feedback(
        assistant=unsure.bot,
        api_key=unsure.key,
        items=[{"id": "f-1", "turn": "t-1", "kind": "comment", "text": "Lisbon!"}],
    )
    scrub_waiting()
    assert Feedback.objects.get().text == "[LOCATION_1]!"
    old = Passage.objects.get(retrievals__turn=turn)
    with django_capture_on_commit_callbacks(execute=True):
        done = review.release(mask=only(), actor=unsure.dana)
    fresh = Turn.objects.get(pk=turn.pk)
    assert fresh.question.startswith("I live in Lisbon")
    assert fresh.response == "In Lisbon it is £35. [1]"
    assert fresh.retrievals.get().passage.text == "Offices in Lisbon. Closed on Sunday."
    assert Turn.objects.get(client_id="t-2").question == "Is LISBON far?"
    assert Feedback.objects.get().text == "Lisbon!"
    assert not Passage.objects.filter(pk=old.pk).exists()
    assert fresh.retrievals.get().passage.sentence_embeddings
    assert not [entry for entry in fresh.pii if entry["placeholder"] == "[LOCATION_1]"]
    assert done.rows["turns"] == 2
    assert not KeptSpelling.objects.exists()
    event = AuditEvent.objects.get(action="review.released")
    assert "Lisbon" not in f"{event.target} {event.details} {event.reason}"
    later = capture(unsure, id="t-4", question="Lisbon again?", contexts=[], response="Yes.")
    assert later.question == "Lisbon again?"  # what was released here is no question here any more
    other = capture(unsure, id="t-5", question="Near Lisbon?", contexts=[], response="Yes.", conversation="c-2")
    assert "[LOCATION_1]" in other.question


def test_a_passage_that_others_share_stays_theirs(unsure: Cast, turn: Turn) -> None:
    context = {"text": "Offices in Lisbon. Closed on Sunday.", "title": "Offices", "source": "x.md"}
    other = capture(unsure, id="t-2", conversation="c-2", question="Where?", contexts=[context], response="There. [1]")
    assert Passage.objects.count() == 1
    review.release(mask=UncertainMask.objects.get(turn=turn), actor=unsure.dana)
    assert other.retrievals.get().passage.text == "Offices in [LOCATION_1]. Closed on Sunday."
    assert turn.retrievals.get().passage.text == "Offices in Lisbon. Closed on Sunday."


def test_what_comes_up_in_feedback_is_reviewed_too(unsure: Cast, turn: Turn) -> None:
    said = {"id": "f-1", "turn": "t-1", "kind": "comment", "text": "It was better in VIENNA."}
    receive_feedback(assistant=unsure.bot, api_key=unsure.key, items=[said])
    scrub_waiting()
    mask = UncertainMask.objects.get(placeholder="[LOCATION_2]")
    assert mask.field == f"feedback.{Feedback.objects.get().pk}.text"
    assert Feedback.objects.get().text == "It was better in [LOCATION_2]."
    review.release(mask=mask, actor=unsure.dana)
    assert Feedback.objects.get().text == "It was better in VIENNA."


def test_accept_destroys_the_value(unsure: Cast, turn: Turn) -> None:
    before = everything(turn)
    review.accept(mask=only(), actor=unsure.dana)
    assert only().state == "accepted"
    assert not KeptSpelling.objects.exists()
    assert everything(turn) == before
    for act in (review.accept, review.release, review.reveal):
        with pytest.raises(NotDecided, match="already by dana"):
            act(mask=only(), actor=unsure.dana)


def test_allow_and_deny_make_a_version_of_the_policy(unsure: Cast, turn: Turn) -> None:
    capture(unsure, id="t-2", conversation="c-2", question="From Vienna?", contexts=[], response="No.")
    lisbon, vienna = UncertainMask.objects.order_by("pk")
    review.release(mask=lisbon, actor=unsure.dana, allow=True)
    review.accept(mask=vienna, actor=unsure.dana, deny=True)
    policy = policy_of(unsure.bot)
    assert (policy.allow, policy.deny) == (("Lisbon",), ("Vienna",))
    assert capture(unsure, id="t-3", conversation="c-3", question="To Lisbon?", contexts=[]).question == "To Lisbon?"


def test_a_denied_value_is_not_released_by_accident(unsure: Cast, turn: Turn) -> None:
    rules = rules_of(unsure.bot)
    policy = replace(rules.policy, deny=("Lisbon",))
    change_policy(assistant=unsure.bot, rules=replace(rules, policy=policy), actor=None, reason="x")
    with pytest.raises(NotDecided, match="deny list"):
        review.release(mask=only(), actor=unsure.dana)
    assert only().state == "open"
    assert "Lisbon" not in everything(turn)


def test_seeing_a_value_is_on_record(unsure: Cast, turn: Turn) -> None:
    assert review.reveal(mask=only(), actor=unsure.dana) == ["Lisbon"]
    event = AuditEvent.objects.get(action="review.value_seen")
    assert event.actor == unsure.dana
    assert "Lisbon" not in f"{event.target} {event.details}"


def test_masking_more_reaches_the_whole_conversation(
    unsure: Cast, turn: Turn, settings: Any, django_capture_on_commit_callbacks: Any
) -> None:
    settings.RATCHET_FOREGROUND = True
    second = capture(
        unsure, id="t-2", question="The tall plumber  of ours, codename copper\nkettle, came.",
        history=[{"role": "user", "content": "copper kettle is late"}],
        contexts=[
            {"text": "copper kettle fixes boilers. Ask.", "title": "On copper kettle", "source": "copper kettle.md"}
        ],
        response="copper kettle came; copperkettles did not. [1]", metadata={"who": "COPPER KETTLE"},
    )  # fmt: skip
    elsewhere = capture(unsure, id="t-3", conversation="c-2", question="Copper kettle?", contexts=[], response="Bird.")
    with django_capture_on_commit_callbacks(execute=True):
        done = review.mask_more(turn=turn, selected=" copper   kettle ", entity_type="PERSON", actor=unsure.dana)
    text = everything(second)
    assert "kettle" not in text.lower().replace("copperkettles", "")
    assert "copperkettles" in text
    fresh = Turn.objects.get(pk=second.pk)
    assert fresh.question == "The tall plumber  of ours, codename [PERSON_1], came."
    assert fresh.retrievals.get().passage.title == "On [PERSON_1]"
    assert fresh.embedding is not None
    assert not Passage.objects.filter(text__icontains="kettle").exists()
    assert elsewhere.question == Turn.objects.get(pk=elsewhere.pk).question
    assert done.rows == {"turns": 1, "passages": 1}
    later = capture(unsure, id="t-4", question="copper kettle once more", contexts=[], response="Yes.")
    assert "kettle" not in later.question
    assert "kettle" not in str(AuditEvent.objects.get(action="review.masked_more").__dict__).lower()


@pytest.mark.parametrize(
    ("selected", "why"),
    [
        ("x", "between 2 and 200"), ("y" * 201, "between 2"), ("[LOCATION_1] it", "not masked yet"),
        ("--", "not masked yet"), ("nowhere at all", "stands nowhere"), ("(.*)", "not masked yet"),
        ("(.+)x", "stands nowhere"),
    ],
)  # fmt: skip
def test_bad_selections_are_refused(unsure: Cast, turn: Turn, selected: str, why: str) -> None:
    before = everything(turn)
    entities = Conversation.objects.get().entities
    with pytest.raises(NotDecided, match=why) as refused:
        review.mask_more(turn=turn, selected=selected, entity_type="PERSON", actor=unsure.dana)
    assert selected not in str(refused.value) or len(selected) < 3
    with pytest.raises(NotDecided, match="no such type"):
        review.mask_more(turn=turn, selected="cost", entity_type="NOBODY", actor=unsure.dana)
    assert everything(turn) == before
    assert Conversation.objects.get().entities == entities


def test_values_expire(unsure: Cast, turn: Turn) -> None:
    assert review.expire() == 0
    UncertainMask.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(NotDecided, match="time is over"):
        review.release(mask=only(), actor=unsure.dana)
    from capture.jobs import expire_values

    assert expire_values().startswith("1 expired")
    assert only().state == "expired"
    assert not KeptSpelling.objects.exists()
    assert "[LOCATION_1]" in everything(turn)
    assert AuditEvent.objects.get(action="review.expired").actor_name == "system"


def test_sentences_are_found_again() -> None:
    assert realigned("One two. Three four.", "One two. Three five.") == {0: 0, 1: 1}
    assert realigned("It went well. Ask Maria. Go home.", "It went well. Ask [PERSON_1] Go home.") == {
        0: 0,
        1: 1,
        2: 1,
    }
    assert realigned("", "A b.") == {}


@pytest.mark.django_db(transaction=True)
def test_of_two_officers_one_decides(unsure: Cast, turn: Turn) -> None:
    start, outcome = threading.Barrier(2), []

    def decide(act: Any) -> None:
        try:
            start.wait(10)
            act(mask=UncertainMask.objects.get(), actor=unsure.dana)
            outcome.append(act.__name__)
        except NotDecided:
            outcome.append("too late")
        finally:
            connection.close()

    threads = [threading.Thread(target=decide, args=(act,)) for act in (review.accept, review.release)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcome) in (["accept", "too late"], ["release", "too late"])
    released = "release" in outcome
    assert ("Lisbon" in everything(turn)) is released
    assert AuditEvent.objects.filter(action__in=["review.accepted", "review.released"]).count() == 1


def test_a_decision_while_the_worker_masks_is_not_lost(unsure: Cast, turn: Turn, monkeypatch: Any) -> None:
    """The worker has read the conversation's table; then an officer releases; then the worker stores."""
    from capture import scrub

    real, done = scrub.make_vectors, []

    def release_first(*args: Any, **kwargs: Any) -> Any:
        if not done:
            done.append(review.release(mask=only(), actor=unsure.dana))
        return real(*args, **kwargs)

    monkeypatch.setattr(scrub, "make_vectors", release_first)
    later = capture(unsure, id="t-2", question="Lisbon again?", contexts=[], response="Yes.")
    assert done
    assert later.question == "Lisbon again?"


# --- Pages --------------------------------------------------------------------------------------


LIST = "admin:capture_uncertainmask_changelist"


def address(name: str, mask: UncertainMask) -> str:
    return reverse(f"admin:capture_uncertainmask_{name}", args=[mask.pk])


def test_only_privacy_officers_of_the_assistant_come_in(client: Client, unsure: Cast, turn: Turn) -> None:
    mask = only()
    rita: User = make_user("rita")
    add_member(unsure.bot, rita, "reviewer")
    for user, status in ((unsure.bob, 403), (rita, 403), (unsure.alice, 403), (unsure.carol, 404)):
        client.force_login(user)
        for name in ("value", "decide", "mask"):
            body = {"act": "release", "selected": "live", "type": "PERSON"}
            assert client.post(address(name, mask), body).status_code == status, (user.username, name)
        assert client.get(address("change", mask)).status_code == status
    client.force_login(unsure.carol)
    assert "[LOCATION_1]" not in client.get(reverse(LIST)).content.decode()
    assert only().state == "open"
    assert not AuditEvent.objects.filter(action__startswith="review").exists()
    client.logout()
    assert client.get(address("change", mask)).status_code == 302


def test_the_page_shows_texts_with_chips_and_never_the_value(client: Client, unsure: Cast, turn: Turn) -> None:
    client.force_login(unsure.dana)
    listed = client.get(reverse(LIST)).content.decode()
    assert "[LOCATION_1]" in listed
    assert "1 to be reviewed" in listed
    page = client.get(address("change", only()))
    text = page.content.decode()
    assert "Lisbon" not in text
    assert HOSTILE not in text
    assert text.count("pp-uncertain") >= 4
    assert "no-store" in page["Cache-Control"]
    shown = client.post(address("value", only()))
    assert shown.json() == {"forms": ["Lisbon"]}
    assert client.get(address("value", only())).status_code == 405


def test_decisions_by_the_page_lead_to_the_next_one(client: Client, unsure: Cast, turn: Turn) -> None:
    capture(unsure, id="t-2", conversation="c-2", question="From Vienna?", contexts=[], response="No.")
    first, second = UncertainMask.objects.order_by("pk")
    client.force_login(unsure.dana)
    answer = client.post(address("decide", first), {"act": "accept"})
    assert answer["Location"] == address("change", second)
    again = client.post(address("decide", first), {"act": "release"}, follow=True).content.decode()
    assert "decided already by dana" in again
    assert "no such decision" in client.post(address("decide", second), {"act": "x"}, follow=True).content.decode()
    answer = client.post(address("decide", second), {"act": "release"})
    assert answer["Location"] == reverse(LIST)
    assert "Nothing is uncertain" in client.get(reverse(LIST)).content.decode()
    assert "[LOCATION_1]" in client.get(reverse(LIST), {"state": "all"}).content.decode()
    for query in ({"age": "day"}, {"age": "ends"}, {"type": "LOCATION"}, {"state": "<x>"}, {"age": "'"}):
        assert client.get(reverse(LIST), query).status_code == 200


def test_masking_more_by_the_page(client: Client, unsure: Cast, turn: Turn) -> None:
    client.force_login(unsure.dana)
    body = {"selected": "leaving cost", "type": "PERSON", "deny": "on"}
    assert "Masked in the whole" in client.post(address("mask", only()), body, follow=True).content.decode()
    assert "[PERSON_1]" in Turn.objects.get(pk=turn.pk).question
    assert policy_of(unsure.bot).deny == ("leaving cost",)
    refused = client.post(address("mask", only()), {"selected": HOSTILE + "q", "type": "PERSON"}, follow=True)
    assert HOSTILE not in refused.content.decode()


def test_queries_do_not_grow(client: Client, unsure: Cast, turn: Turn, django_assert_max_num_queries: Any) -> None:
    for n in range(2, 6):
        capture(unsure, id=f"t-{n}", conversation=f"c-{n}", question="From Vienna?", contexts=[], response="No.")
    client.force_login(unsure.dana)
    with django_assert_max_num_queries(14):
        client.get(reverse(LIST))
    with django_assert_max_num_queries(24):
        client.get(address("change", only_of(turn)))


def only_of(turn: Turn) -> UncertainMask:
    return UncertainMask.objects.get(turn=turn)


# --- What comes later -----------------------------------------------------------------------------


def test_an_update_brings_what_is_uncertain_before_an_officer(unsure: Cast) -> None:
    turn = capture(unsure)
    fields = {"metadata": {"desk": {"note": "Wrote from Lisbon, called from Lisbon."}}, "tags": ["web", "from Lisbon"]}
    items = [{"turn": "t-1", **fields}]
    assert receive_updates(assistant=unsure.bot, api_key=unsure.key, items=items)[0].status == "created"
    assert scrub_waiting().held == 0
    mask = only()
    assert (mask.turn_id, mask.placeholder) == (turn.pk, "[LOCATION_1]")
    assert {row.field for row in KeptSpelling.objects.all()} == {"metadata.desk.note", "tags.1"}
    assert "Lisbon" not in everything(turn) + str(Turn.objects.get().tags)
    review.release(mask=mask, actor=unsure.dana)
    turn.refresh_from_db()
    assert turn.metadata["desk"] == fields["metadata"]["desk"]  # type: ignore[index]
    assert turn.tags == ["web", "from Lisbon"]


def test_what_a_label_says_is_reviewed_and_goes_back_where_it_stood(unsure: Cast) -> None:
    turn = capture(unsure)
    label = submit(
        turn=turn, annotator=unsure.bob, verdict="bad", reasons=["wrong"],
        correction="In LISBON it is £35. [1]", note="They ask from Lisbon.",
    )  # fmt: skip
    assert "isbon" not in (label.correction + label.note).casefold()
    mask = only()
    assert mask.field == f"annotations.{label.pk}.correction"
    assert b"LISBON" not in b"".join(bytes(row.forms) for row in KeptSpelling.objects.all())
    resolution = resolve(turn=turn)
    review.release(mask=mask, actor=unsure.dana)
    label.refresh_from_db()
    assert (label.correction, label.note) == ("In LISBON it is £35. [1]", "They ask from Lisbon.")
    if resolution is not None:
        resolution.refresh_from_db()
        assert "[LOCATION" not in resolution.response
    assert not KeptSpelling.objects.exists()


def test_what_a_judge_explains_is_reviewed_too(unsure: Cast) -> None:
    turn = capture(unsure)
    said = {"id": "l-1", "turn": "t-1", "kind": "LLM", "name": "judge", "verdict": "bad"}
    items = [{**said, "explanation": "They ask from Lisbon."}, {**said, "id": "l-2", "explanation": "It is £35."}]
    assert [r.status for r in receive_labels(assistant=unsure.bot, api_key=None, items=items)] == ["created"] * 2
    label = MachineLabel.objects.get(client_id="l-1")
    assert label.explanation == "They ask from [LOCATION_1]."
    mask = only()
    assert (mask.turn_id, mask.field) == (turn.pk, f"machine_labels.{label.pk}.explanation")
    # Sent again it is nobody's: no spelling is kept for a row that is not there.
    assert receive_labels(assistant=unsure.bot, api_key=None, items=items[:1])[0].status == "duplicate"
    assert KeptSpelling.objects.count() == 1
    review.release(mask=mask, actor=unsure.dana)
    label.refresh_from_db()
    assert label.explanation == "They ask from Lisbon."


def test_what_a_reviewer_settles_is_reviewed_too(unsure: Cast) -> None:
    turn = capture(unsure)
    resolution = adjudicate(
        turn=turn, reviewer=unsure.alice, verdict="bad", reasons=["wrong"], response="In Lisbon it is £35. [1]"
    )
    assert "[LOCATION_1]" in resolution.response
    assert only().field == f"resolutions.{resolution.pk}.response"
    review.accept(mask=only(), actor=unsure.dana)
    resolution.refresh_from_db()
    assert "Lisbon" not in resolution.response
    assert not KeptSpelling.objects.exists()


def test_a_certain_value_in_a_label_opens_no_review(cast: Cast) -> None:
    turn = capture(cast)
    submit(turn=turn, annotator=cast.bob, verdict="bad", reasons=["wrong"], note="Mail w.okafor@heathmere.co.uk")
    assert not UncertainMask.objects.exists()
