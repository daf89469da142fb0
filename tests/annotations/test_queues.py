"""Whose queue it is, what admins do to running work, the items page, the audit of looks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotations.errors import AlreadyDone
from annotations.models import Annotation, Assignment, Queue
from annotations.progress import people_progress
from annotations.services import next_item, release_lease, skip, submit, undo_last
from annotations.steering import ask_again, hand_over, set_paused
from assistants.models import Assistant, AuditEvent
from assistants.viewing import forget_views
from tests.factories import add_member, make_assistant, make_queue, make_turn, make_user

pytestmark = pytest.mark.django_db
FETCH = {"HTTP_X_REQUESTED_WITH": "fetch"}
ENDED = "2020-01-01T00:00:00Z"


@pytest.fixture
def people() -> dict[str, User]:
    return {name: make_user(name) for name in ("ann", "bob", "rae", "ada")}


@pytest.fixture
def assistant(people: dict[str, User]) -> Assistant:
    members = {"annotator": [people["ann"], people["bob"]], "reviewer": [people["rae"]], "admin": [people["ada"]]}
    return make_assistant(members=members)


@pytest.fixture
def queue(assistant: Assistant) -> Queue:
    return make_queue(assistant, turns=[make_turn(assistant, contexts=()) for _ in range(3)])


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def page(name: str, *args: object) -> str:
    return reverse(name, args=args)


class TestPeople:
    def test_a_queue_with_people_is_theirs_alone(self, queue: Queue, people: dict[str, User]) -> None:
        queue.people.add(people["ann"])
        assert browser(people["ann"]).get(page("annotations:label", queue.pk)).status_code == 200
        item = queue.items.order_by("pk")[2]
        for name in ("bob", "rae", "ada"):
            client = browser(people[name])
            assert client.get(page("annotations:label", queue.pk)).status_code == 403
            data = {"item": item.pk, "choice": "good"}
            assert client.post(page("annotations:submit", queue.pk), data, **FETCH).status_code == 403
        assert not Annotation.objects.exists()

    def test_annotators_see_their_queues_and_their_turns_only(
        self, assistant: Assistant, queue: Queue, people: dict[str, User]
    ) -> None:
        theirs = make_queue(assistant, turns=[make_turn(assistant, question="Bob's question?")], name="For Bob")
        theirs.people.add(people["bob"])
        loose = make_turn(assistant, question="In no queue?")
        ann, turns = browser(people["ann"]), page("admin:capture_turn_changelist")
        listed = ann.get(page("admin:annotations_queue_changelist")).content.decode()
        assert queue.name in listed
        assert "For Bob" not in listed
        assert ann.get(page("admin:annotations_queue_change", theirs.pk)).status_code in (302, 403)
        assert "Bob&#x27;s question?" not in ann.get(turns).content.decode()
        assert ann.get(page("admin:capture_turn_change", loose.pk)).status_code == 404
        assert ann.get(page("admin:capture_turn_change", queue.items.all()[0].turn_id)).status_code == 200
        for name in ("conversation", "feedback"):
            assert ann.get(page(f"admin:capture_{name}_changelist")).status_code == 403
        assert ann.get(page("admin:annotations_resolution_changelist")).status_code == 403
        for name in ("rae", "ada"):
            client = browser(people[name])
            assert "For Bob" in client.get(page("admin:annotations_queue_changelist")).content.decode()
            assert "In no queue?" in client.get(turns).content.decode()

    def test_the_verdict_is_shown_after_ones_own(self, queue: Queue, people: dict[str, User]) -> None:
        turn = queue.items.all()[0].turn
        submit(turn=turn, annotator=people["bob"], verdict="bad", reasons=["wrong"], queue=queue)
        ann = browser(people["ann"])
        assert ann.get(page("admin:capture_turn_change", turn.pk)).context["page"].resolution is None
        submit(turn=turn, annotator=people["ann"], verdict="good")
        submit(turn=turn, annotator=people["rae"], verdict="good")
        assert ann.get(page("admin:capture_turn_change", turn.pk)).context["page"].resolution is not None

    def test_only_those_who_label_for_the_assistant_can_be_chosen(
        self, queue: Queue, assistant: Assistant, people: dict[str, User]
    ) -> None:
        stranger = make_user("stranger")
        add_member(make_assistant(members={"admin": [people["ada"]]}), stranger)
        form = {
            "assistant": assistant.pk, "name": "New", "labels_needed": 1, "overlap_share": 0, "gold_share": "0.1",
            "daily_goal": 30, "guideline": "",
        }  # fmt: skip
        ada = browser(people["ada"])
        refused = ada.post(page("admin:annotations_queue_add"), {**form, "people": [stranger.pk]})
        assert "These do not label for" in refused.content.decode()
        assert ada.post(page("admin:annotations_queue_add"), {**form, "people": [people["ann"].pk]}).status_code == 302
        made = Queue.objects.get(name="New")
        assert (list(made.people.all()), made.daily_goal, made.gold_share) == ([people["ann"]], 30, 0.1)
        changed = {**form, "people": [people["ann"].pk, people["bob"].pk], "gold_share": "0.9"}
        assert "0.5" in ada.post(page("admin:annotations_queue_change", made.pk), changed).content.decode()
        assert browser(people["ann"]).get(page("admin:annotations_queue_change", made.pk)).status_code == 200

    def test_the_goal_is_shown_while_one_works_and_in_the_list(self, queue: Queue, people: dict[str, User]) -> None:
        Queue.objects.update(daily_goal=2)
        ann = browser(people["ann"])
        item = next_item(queue=queue, annotator=people["ann"])
        assert item is not None
        said = ann.post(page("annotations:submit", queue.pk), {"item": item.pk, "choice": "good"}, **FETCH).json()
        assert "<b>1</b> of 2 today" in said["html"]
        assert "1 of 2" in ann.get(page("admin:annotations_queue_changelist")).content.decode()


class TestSteering:
    def test_pause_and_open_again(self, queue: Queue, people: dict[str, User]) -> None:
        ada = browser(people["ada"])
        for name in ("ann", "rae"):
            assert browser(people[name]).post(page("annotations:pause", queue.pk), {"paused": "1"}).status_code == 403
        assert ada.post(page("annotations:pause", queue.pk), {"paused": "1"}).status_code == 302
        queue.refresh_from_db()
        assert next_item(queue=queue, annotator=people["ann"]) is None
        set_paused(queue=queue, actor=people["ada"], paused=True)
        ada.post(page("annotations:pause", queue.pk), {"paused": "0"})
        queue.refresh_from_db()
        assert next_item(queue=queue, annotator=people["ann"]) is not None
        told = list(AuditEvent.objects.filter(action__startswith="queue.").values_list("action", flat=True))
        assert sorted(action for action in told if not action.endswith(".viewed")) == ["queue.paused", "queue.reopened"]

    def test_handing_over_moves_what_is_open(self, queue: Queue, people: dict[str, User]) -> None:
        ann, bob = people["ann"], people["bob"]
        queue.people.set([ann])
        item = next_item(queue=queue, annotator=ann)
        assert item is not None
        data = {"person": ann.pk, "to": bob.pk}
        assert browser(bob).post(page("annotations:hand_over", queue.pk), data).status_code == 403
        assert browser(people["ada"]).post(page("annotations:hand_over", queue.pk), data).status_code == 302
        assert list(queue.people.all()) == [bob]
        assert next_item(queue=queue, annotator=bob) == item
        with pytest.raises(AlreadyDone):  # ann's page is still open, and bob is at it
            submit(turn=item.turn, annotator=ann, verdict="good", queue=queue)
        assert AuditEvent.objects.get(action="queue.handed_over").details == {"from": "ann", "to": "bob", "open": 1}

    def test_handing_over_to_nobody_frees_it(self, queue: Queue, people: dict[str, User]) -> None:
        item = next_item(queue=queue, annotator=people["ann"])
        assert hand_over(queue=queue, actor=people["ada"], person=people["ann"]) == 1
        assert next_item(queue=queue, annotator=people["bob"]) == item

    def test_what_the_other_has_labelled_is_not_reserved(self, assistant: Assistant, people: dict[str, User]) -> None:
        queue = make_queue(assistant, turns=[make_turn(assistant, contexts=())], labels_needed=2)
        ann, bob = people["ann"], people["bob"]
        submit(turn=queue.items.get().turn, annotator=bob, verdict="good", queue=queue)
        assert next_item(queue=queue, annotator=ann) is not None
        hand_over(queue=queue, actor=people["ada"], person=ann, to=bob)
        assert not Assignment.objects.exists()

    def test_bad_hand_overs(self, queue: Queue, people: dict[str, User]) -> None:
        queue.people.set([people["ann"]])
        for to in (None, people["ann"], make_user("stranger")):
            with pytest.raises(ValidationError):
                hand_over(queue=queue, actor=people["ada"], person=people["ann"], to=to)
        assert list(queue.people.all()) == [people["ann"]]
        ada = browser(people["ada"])
        for data in ({}, {"person": "x"}, {"person": people["ann"].pk, "to": "999999"}, {"person": "²"}):
            assert ada.post(page("annotations:hand_over", queue.pk), data).status_code == 302
        assert not AuditEvent.objects.filter(action="queue.handed_over").exists()

    def test_disagreements_get_one_more_label(self, assistant: Assistant, people: dict[str, User]) -> None:
        turns = [make_turn(assistant, contexts=()) for _ in range(2)]
        queue = make_queue(assistant, turns=turns, labels_needed=2)
        submit(turn=turns[0], annotator=people["ann"], verdict="good", queue=queue)
        submit(turn=turns[0], annotator=people["bob"], verdict="bad", reasons=["wrong"], queue=queue)
        assert ask_again(queue=queue, actor=people["ada"]) == 1
        assert ask_again(queue=queue, actor=people["ada"]) == 0
        assert next_item(queue=queue, annotator=people["rae"]) == queue.items.get(turn=turns[0])
        submit(turn=turns[0], annotator=people["rae"], verdict="good", queue=queue)
        assert queue.items.get(turn=turns[0]).turn.resolution.verdict == "good"

    def test_people_show_what_is_open_and_who_is_meant(self, queue: Queue, people: dict[str, User]) -> None:
        queue.people.set([people["ann"], people["bob"]])
        next_item(queue=queue, annotator=people["ann"])
        rows = {row.name: row for row in people_progress(queue)}
        assert (rows["ann"].open, rows["ann"].assigned, rows["ann"].labels) == (1, True, 0)
        assert (rows["bob"].open, rows["bob"].assigned) == (0, True)
        html = browser(people["ada"]).get(page("admin:annotations_queue_change", queue.pk)).content.decode()
        assert "ann (1 open)" in html
        assert "Only those marked" in html


class TestLateWork:
    """The overlap holds for labels too, not only for what is given out."""

    def test_an_ended_lease_gives_way_to_who_is_at_it(self, queue: Queue, people: dict[str, User]) -> None:
        item = next_item(queue=queue, annotator=people["ann"])
        assert item is not None
        Assignment.objects.update(expires_at=ENDED)
        assert next_item(queue=queue, annotator=people["bob"]) == item
        with pytest.raises(AlreadyDone):
            submit(turn=item.turn, annotator=people["ann"], verdict="good", queue=queue)
        release_lease(item_id=item.pk, annotator=people["bob"])
        submit(turn=item.turn, annotator=people["ann"], verdict="good", queue=queue)

    def test_a_skip_is_undone_only_while_there_is_room(self, assistant: Assistant, people: dict[str, User]) -> None:
        queue = make_queue(assistant, turns=[make_turn(assistant, contexts=())])
        item = next_item(queue=queue, annotator=people["ann"])
        assert item is not None
        skip(item_id=item.pk, annotator=people["ann"], reason="I cannot tell")
        assert next_item(queue=queue, annotator=people["bob"]) == item
        with pytest.raises(AlreadyDone):
            undo_last(queue=queue, annotator=people["ann"])
        release_lease(item_id=item.pk, annotator=people["bob"])
        assert undo_last(queue=queue, annotator=people["ann"]).item == item


class TestItems:
    def test_states_words_and_gold(self, queue: Queue, assistant: Assistant, people: dict[str, User]) -> None:
        first, second, third = queue.items.order_by("pk")
        submit(turn=first.turn, annotator=people["bob"], verdict="good", queue=queue)
        assert next_item(queue=queue, annotator=people["ann"]) == second
        client, url = browser(people["rae"]), page("annotations:items", queue.pk)

        def shown(**query: str) -> list[int]:
            return [item.pk for item, _ in client.get(url, query).context["rows"]]

        assert shown() == [first.pk, second.pk, third.pk]
        assert shown(state="done") == [first.pk]
        assert shown(state="leased") == [second.pk]
        assert shown(state="open", q="fixed plan") == [second.pk, third.pk]
        assert shown(q="zebra\x00") == []
        assert "No item fits" in client.get(url, {"q": "zebra"}).content.decode()
        marked = client.post(page("annotations:gold", queue.pk, first.pk), {"gold": "1", "back": "state=done&x=1"})
        assert marked["Location"] == f"{url}?state=done"
        assert shown(state="gold") == [first.pk]
        assert shown(state="done") == []
        outside = client.post(
            page("annotations:gold", queue.pk, first.pk), {"gold": "0", "back": "https://x.example/?"}
        )
        assert outside["Location"] == url
        assert shown(state="gold") == []
        refused = client.post(page("annotations:gold", queue.pk, third.pk), {"gold": "1"}, follow=True)
        assert "settle it first" in refused.content.decode()

    def test_annotators_and_strangers_are_refused(self, queue: Queue, people: dict[str, User]) -> None:
        stranger = make_user()
        make_assistant(members={"admin": [stranger], "reviewer": [stranger]})
        item = queue.items.all()[0]
        for user in (people["ann"], stranger):
            client = browser(user)
            assert client.get(page("annotations:items", queue.pk)).status_code == 403
            assert client.post(page("annotations:gold", queue.pk, item.pk), {"gold": "1"}).status_code == 403
            for name in ("pause", "hand_over", "ask_again"):
                assert client.post(page(f"annotations:{name}", queue.pk)).status_code == 403

    def test_the_same_number_of_queries_however_many(self, assistant: Assistant, people: dict[str, User]) -> None:
        counts = []
        client = browser(people["rae"])
        for n in (2, 15):
            queue = make_queue(assistant, turns=[make_turn(assistant, contexts=()) for _ in range(n)])
            for item in queue.items.all()[: n // 2]:
                submit(turn=item.turn, annotator=people["bob"], verdict="good", queue=queue)
            client.get(page("annotations:items", queue.pk))
            with CaptureQueriesContext(connection) as captured:
                assert client.get(page("annotations:items", queue.pk)).status_code == 200
            counts.append(len(captured))
        assert counts[0] == counts[1]


class TestLooks:
    def looks(self, who: User) -> list[str]:
        rows = AuditEvent.objects.filter(actor=who, action__endswith=".viewed").order_by("pk")
        return list(rows.values_list("action", flat=True))

    def test_each_page_with_turns_leaves_a_look(self, queue: Queue, people: dict[str, User]) -> None:
        ann, rae = browser(people["ann"]), browser(people["rae"])
        ann.get(page("annotations:label", queue.pk))
        item = queue.items.order_by("pk")[0]
        ann.get(page("admin:capture_turn_change", item.turn_id))
        ann.get(page("admin:capture_turn_changelist"), {"q": "fee"})
        assert self.looks(people["ann"]) == ["item.viewed", "turn.viewed", "turn_list.viewed"]
        seen = AuditEvent.objects.get(action="item.viewed")
        assert (seen.target, seen.details, seen.assistant) == (str(item.turn_id), {"queue": queue.pk}, queue.assistant)
        assert AuditEvent.objects.get(action="turn_list.viewed").details == {"n": 3, "filters": ["q"]}
        label = submit(turn=item.turn, annotator=people["ann"], verdict="good", queue=queue)
        rae.get(page("admin:annotations_annotation_changelist"))
        rae.get(page("admin:annotations_annotation_change", label.pk))
        rae.get(page("annotations:items", queue.pk))
        rae.get(page("annotations:adjudicate", queue.pk, item.pk))
        rae.get(page("annotations:disagreements", queue.pk))
        assert self.looks(people["rae"]) == [
            "annotation_list.viewed", "annotation.viewed", "item_list.viewed", "item.viewed", "disagreements.viewed",
        ]  # fmt: skip

    def test_who_is_refused_has_seen_nothing(self, queue: Queue) -> None:
        stranger = make_user()
        client = browser(stranger)
        client.get(page("annotations:label", queue.pk))
        client.get(page("admin:capture_turn_change", queue.items.all()[0].turn_id))
        assert self.looks(stranger) == []

    def test_looks_are_forgotten_and_acts_are_not(self, queue: Queue, settings: Any) -> None:
        settings.RATCHET_VIEW_AUDIT_DAYS = 30
        old, recent = timezone.now() - timedelta(days=31), timezone.now() - timedelta(days=29)
        for action, at in (("item.viewed", old), ("item.viewed", recent), ("label.submitted", old)):
            event = AuditEvent.objects.create(assistant=queue.assistant, actor_name="ann", action=action)
            AuditEvent.objects.filter(pk=event.pk).update(at=at)
        assert forget_views() == 1
        assert list(AuditEvent.objects.order_by("at").values_list("action", flat=True)) == [
            "label.submitted",
            "item.viewed",
        ]
