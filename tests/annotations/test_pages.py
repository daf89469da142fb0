from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from annotations.adjudicate_views import MAX_WORDS, word_changes
from annotations.models import Annotation, Assignment, Queue, QueueItem, Resolution
from annotations.services import next_item, submit
from assistants.models import Assistant, AuditEvent
from tests.annotations.streams import whole
from tests.factories import add_member, make_assistant, make_feedback, make_queue, make_turn, make_user

pytestmark = pytest.mark.django_db
FETCH = {"HTTP_X_REQUESTED_WITH": "fetch"}


@pytest.fixture
def ann() -> User:
    return make_user("ann")


@pytest.fixture
def rae() -> User:
    return make_user("rae")


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def carol() -> User:
    """She works for somebody else."""
    carol = make_user("carol")
    make_assistant("other", members={"annotator": [carol], "reviewer": [carol], "admin": [carol]})
    return carol


@pytest.fixture
def assistant(ann: User, rae: User, ada: User) -> Assistant:
    return make_assistant(members={"annotator": [ann], "reviewer": [rae], "admin": [ada]})


@pytest.fixture
def queue(assistant: Assistant) -> Queue:
    return make_queue(assistant, turns=[make_turn(assistant), make_turn(assistant)])


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def first_item(queue: Queue) -> QueueItem:
    return queue.items.select_related("turn").order_by("pk")[0]


class TestRoles:
    PAGES = ("label", "disagreements")
    ACTIONS = ("submit", "skip", "undo", "renew", "release")

    def test_strangers_are_refused_everywhere(self, queue: Queue, carol: User) -> None:
        client = browser(carol)
        item = first_item(queue)
        for name in self.PAGES:
            assert client.get(reverse(f"annotations:{name}", args=[queue.pk])).status_code == 403
        for name in self.ACTIONS:
            data = {"item": item.pk, "choice": "good", "reason": "no"}
            assert client.post(reverse(f"annotations:{name}", args=[queue.pk]), data, **FETCH).status_code == 403
        assert client.get(reverse("annotations:adjudicate", args=[queue.pk, item.pk])).status_code == 403
        assert client.post(reverse("annotations:adjudicate", args=[queue.pk, item.pk]), {}).status_code == 403
        assert client.get(reverse("admin:annotations_queue_fill", args=[queue.pk])).status_code == 403
        assert client.get(reverse("admin:annotations_queue_export", args=[queue.pk])).status_code == 403
        assert not Annotation.objects.exists()
        assert not Assignment.objects.exists()

    def test_the_lists_show_only_ones_own(self, queue: Queue, carol: User, ann: User) -> None:
        submit(turn=first_item(queue).turn, annotator=ann, verdict="good", queue=queue)
        client = browser(carol)
        for model in ("queue", "annotation", "resolution"):
            page = client.get(reverse(f"admin:annotations_{model}_changelist"))
            assert page.status_code == 200
            assert page.context["cl"].result_count == 0

    def test_annotators_label_and_do_not_settle(self, queue: Queue, ann: User) -> None:
        client = browser(ann)
        assert client.get(reverse("annotations:label", args=[queue.pk])).status_code == 200
        assert client.get(reverse("annotations:disagreements", args=[queue.pk])).status_code == 403
        assert client.get(reverse("admin:annotations_queue_fill", args=[queue.pk])).status_code == 403
        assert client.get(reverse("admin:annotations_queue_export", args=[queue.pk])).status_code == 403

    def test_nobody_without_a_login(self, queue: Queue) -> None:
        page = Client().get(reverse("annotations:label", args=[queue.pk]))
        assert page.status_code == 302
        assert "/admin/login/" in page["Location"]

    def test_an_item_of_another_queue_cannot_be_labelled_through_mine(
        self, queue: Queue, carol: User, assistant: Assistant
    ) -> None:
        theirs = make_queue(Assistant.objects.get(slug="other"))
        data = {"item": first_item(queue).pk, "choice": "good"}
        answer = browser(carol).post(reverse("annotations:submit", args=[theirs.pk]), data, **FETCH)
        assert answer.status_code == 409
        assert answer.json()["gone"]


class TestLabelling:
    def test_submit_answers_with_the_next_item(self, queue: Queue, ann: User) -> None:
        client = browser(ann)
        client.get(reverse("annotations:label", args=[queue.pk]))
        first, second = queue.items.order_by("pk")
        data = {"item": first.pk, "choice": "bad", "reasons": ["wrong"], "mark-1": "relevant", "seconds": "7"}
        answer = client.post(reverse("annotations:submit", args=[queue.pk]), data, **FETCH)
        assert answer.status_code == 200
        assert f'data-item="{second.pk}"' in answer.json()["html"]
        label = Annotation.objects.get()
        assert (label.seconds, label.queue, label.marks.get().relevance) == (7.0, queue, "relevant")

    def test_what_is_hidden_while_good_is_chosen_does_not_count(self, queue: Queue, ann: User) -> None:
        data = {"item": first_item(queue).pk, "choice": "good", "reasons": ["wrong"], "correction": "Other."}
        assert browser(ann).post(reverse("annotations:submit", args=[queue.pk]), data, **FETCH).status_code == 200
        assert Annotation.objects.get().reasons == []

    def test_bad_input_names_the_field(self, queue: Queue, ann: User) -> None:
        data = {"item": first_item(queue).pk, "choice": "bad", "correction": "x [8]", "seconds": "soon"}
        answer = browser(ann).post(reverse("annotations:submit", args=[queue.pk]), data, **FETCH)
        assert answer.status_code == 422
        assert set(answer.json()["errors"]) == {"reasons", "correction"}

    @pytest.mark.parametrize("item", ["", "x", "99999999999999999999", "-1", "²"])
    def test_nonsense_items(self, queue: Queue, ann: User, item: str) -> None:
        answer = browser(ann).post(
            reverse("annotations:submit", args=[queue.pk]), {"item": item, "choice": "good"}, **FETCH
        )
        assert answer.status_code == 409

    def test_it_works_without_the_script(self, queue: Queue, ann: User) -> None:
        client = browser(ann)
        label = reverse("annotations:label", args=[queue.pk])
        item = first_item(queue)
        bad = client.post(reverse("annotations:submit", args=[queue.pk]), {"item": item.pk, "choice": "bad"})
        assert bad.status_code == 422
        assert "choose at least one reason" in bad.content.decode()
        good = client.post(reverse("annotations:submit", args=[queue.pk]), {"item": item.pk, "choice": "good"})
        assert (good.status_code, good["Location"]) == (302, label)
        undone = client.post(reverse("annotations:undo", args=[queue.pk]))
        assert (undone.status_code, undone["Location"]) == (302, label)

    def test_renew_and_release(self, queue: Queue, ann: User) -> None:
        client = browser(ann)
        item = next_item(queue=queue, annotator=ann)
        assert item is not None
        renewed = client.post(reverse("annotations:renew", args=[queue.pk]), {"item": item.pk}, **FETCH).json()
        late = client.post(
            reverse("annotations:release", args=[queue.pk]), {"item": item.pk, "expires": "2020-01-01T00:00:00Z"}
        )
        assert late.status_code == 204
        assert Assignment.objects.exists()
        client.post(reverse("annotations:release", args=[queue.pk]), {"item": item.pk, "expires": renewed["expires"]})
        assert not Assignment.objects.exists()

    def test_pages_need_the_right_method(self, queue: Queue, ann: User) -> None:
        client = browser(ann)
        assert client.post(reverse("annotations:label", args=[queue.pk])).status_code == 405
        assert client.get(reverse("annotations:submit", args=[queue.pk])).status_code == 405

    def test_forms_are_protected(self, queue: Queue, ann: User) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(ann)
        data = {"item": first_item(queue).pk, "choice": "good"}
        assert client.post(reverse("annotations:submit", args=[queue.pk]), data, **FETCH).status_code == 403

    def test_constant_number_of_queries(self, assistant: Assistant, ann: User) -> None:
        counts = []
        for items, passages in ((2, 1), (12, 15)):
            contexts = [{"text": f"Fact {i}."} for i in range(passages)]
            queue = make_queue(assistant, turns=[make_turn(assistant, contexts=contexts) for _ in range(items)])
            client = browser(ann)
            with CaptureQueriesContext(connection) as captured:
                assert client.get(reverse("annotations:label", args=[queue.pk])).status_code == 200
            counts.append(len(captured))
        assert counts[0] == counts[1]

    def test_states_without_work(self, assistant: Assistant, ann: User) -> None:
        client = browser(ann)
        empty = make_queue(assistant)
        assert "This queue is empty" in client.get(reverse("annotations:label", args=[empty.pk])).content.decode()
        paused = make_queue(assistant, paused=True, turns=[make_turn(assistant)])
        assert "This queue is paused" in client.get(reverse("annotations:label", args=[paused.pk])).content.decode()


class TestAdjudicating:
    @pytest.fixture
    def split(self, assistant: Assistant, ann: User) -> QueueItem:
        bob = make_user("bob")
        add_member(assistant, bob)
        turn = make_turn(assistant)
        queue = make_queue(assistant, turns=[turn], labels_needed=2)
        submit(turn=turn, annotator=ann, verdict="good", queue=queue)
        submit(
            turn=turn,
            annotator=bob,
            verdict="bad",
            reasons=["wrong"],
            queue=queue,
            correction="The exit fee is £40. [1]",
        )
        return queue.items.get()

    def test_disagreements_are_listed_and_settled(self, split: QueueItem, rae: User) -> None:
        client = browser(rae)
        listed = client.get(reverse("annotations:disagreements", args=[split.queue_id]))
        assert "1</b> disagreement left" in listed.content.decode()
        page = client.get(reverse("annotations:adjudicate", args=[split.queue_id, split.pk])).content.decode()
        assert "<ins> £40.</ins>" in page
        refused = client.post(
            reverse("annotations:adjudicate", args=[split.queue_id, split.pk]), {"choice": "bad", "correction": "x [9]"}
        )
        assert refused.status_code == 422
        done = client.post(
            reverse("annotations:adjudicate", args=[split.queue_id, split.pk]),
            {"choice": "bad", "reasons": ["wrong"], "correction": "It is £35. [1]"},
        )
        assert done["Location"] == reverse("annotations:disagreements", args=[split.queue_id])
        resolution = Resolution.objects.get()
        assert (resolution.how, resolution.response, resolution.resolved_by) == ("adjudicated", "It is £35. [1]", rae)

    def test_the_list_of_queues_sends_only_those_who_may_settle(
        self, split: QueueItem, rae: User, ann: User, ada: User
    ) -> None:
        """And it does not call a queue done while somebody has to settle something."""
        settle, listed = (
            reverse("annotations:disagreements", args=[split.queue_id]),
            "admin:annotations_queue_changelist",
        )
        pages = {user: browser(user).get(reverse(listed)).content.decode() for user in (ann, rae, ada)}
        assert [settle in pages[user] for user in (ann, rae, ada)] == [False, True, True]
        for page in pages.values():
            assert "1 to settle" in page
            assert "labelled, 1 to settle" in page
        Queue.objects.filter(pk=split.queue_id).update(paused=True)
        assert "labelled, 1 to settle" not in browser(rae).get(reverse(listed)).content.decode()

    def test_nobody_is_overruled_unawares(self, split: QueueItem, rae: User, ada: User) -> None:
        """Two reviewers have the page open: the second one is told what the first has settled, and may overrule it."""
        address = reverse("annotations:adjudicate", args=[split.queue_id, split.pk])
        mine, theirs = browser(rae), browser(ada)
        assert 'name="seen" value=""' in theirs.get(address).content.decode()
        assert mine.post(address, {"choice": "good", "seen": ""}).status_code == 302
        late = {"choice": "bad", "reasons": ["wrong"], "correction": "It is £40. [1]"}
        refused = theirs.post(address, {**late, "seen": ""})
        assert refused.status_code == 422
        assert Resolution.objects.get().verdict == "good"
        page = refused.content.decode()
        assert "has changed since you opened it" in page
        assert "by rae" in page
        assert "It is £40. [1]</textarea>" in page, "what they wrote stays"
        stamp = Resolution.objects.get().stamp
        assert refused.context["seen"] == stamp
        assert theirs.post(address, {**late, "seen": stamp}).status_code == 302
        resolution = Resolution.objects.get()
        assert (resolution.verdict, resolution.resolved_by) == ("bad", ada)
        assert mine.post(address, {"choice": "good", "seen": stamp}).status_code == 422, "that one is gone too"

    def test_an_item_of_another_queue(self, split: QueueItem, assistant: Assistant, rae: User) -> None:
        other = make_queue(assistant)
        assert browser(rae).get(reverse("annotations:adjudicate", args=[other.pk, split.pk])).status_code == 404

    def test_long_texts_are_not_compared(self) -> None:
        short, long = "one " * MAX_WORDS, "two " * (MAX_WORDS + 1)
        assert {change.kind for change in word_changes(short, short + " ")} == {"kept"}
        assert {change.kind for change in word_changes(short, "two " * MAX_WORDS)} == {"gone", "added"}
        for before, after in ((short, long), (long, short)):
            (change,) = word_changes(before, after)
            assert (change.kind, change.text) == ("kept", after)

    def test_word_changes(self) -> None:
        changes = word_changes("The fee is £35. [1]", "The exit fee is £35. [1]")
        assert [(change.text, change.kind) for change in changes] == [
            ("The", "kept"),
            (" exit", "added"),
            (" fee is £35. [1]", "kept"),
        ]


class TestAdmin:
    def test_the_queue_page_shows_progress_people_and_agreement(self, queue: Queue, ada: User, ann: User) -> None:
        queue.guideline = "**Bold** <script>alert(1)</script>"
        queue.save()
        submit(turn=first_item(queue).turn, annotator=ann, verdict="good", queue=queue, seconds=12)
        page = browser(ada).get(reverse("admin:annotations_queue_change", args=[queue.pk]))
        html = page.content.decode()
        assert page.status_code == 200
        assert "<b>1</b> of 2 done" in html
        assert ">ann</a>" in html
        assert "<strong>Bold</strong> &lt;script&gt;" in html
        assert browser(ann).get(reverse("admin:annotations_queue_change", args=[queue.pk])).status_code == 200

    def test_a_queue_is_made_by_its_admin(self, assistant: Assistant, ada: User, ann: User) -> None:
        data = {"assistant": assistant.pk, "name": "New", "labels_needed": 1, "overlap_share": "0.2", "guideline": ""}
        data |= {"daily_goal": 0, "gold_share": 0}
        assert browser(ann).post(reverse("admin:annotations_queue_add"), data).status_code == 403
        assert browser(ada).post(reverse("admin:annotations_queue_add"), data).status_code == 302
        assert Queue.objects.get(name="New").overlap_share == 0.2
        assert AuditEvent.objects.filter(action="queue.created").exists()

    def test_turns_are_added_by_filter(self, assistant: Assistant, ada: User) -> None:
        queue = make_queue(assistant)
        fee, down = make_turn(assistant), make_turn(assistant, question="When does the boiler need a service?")
        make_feedback(down, value=-1.0)
        make_turn(make_assistant())
        client = browser(ada)
        url = reverse("admin:annotations_queue_fill", args=[queue.pk])
        form = {"order": "newest", "limit": "50"}
        assert client.post(url, {**form, "count": "", "words": "boiler"}).context["found"] == 1
        client.post(url, {**form, "add": "", "feedback": "down"})
        assert [item.turn for item in queue.items.all()] == [down]
        client.post(url, {**form, "add": "", "order": "random"})
        assert {item.turn for item in queue.items.all()} == {fee, down}
        wrong = client.post(url, {**form, "add": "", "since": "2026-02-01", "until": "2026-01-01"})
        assert "before the first day" in wrong.content.decode()

    def test_export_as_json_lines(self, queue: Queue, rae: User, ann: User) -> None:
        item = first_item(queue)
        submit(turn=item.turn, annotator=ann, verdict="good", queue=queue, marks={2: "unsure"})
        submit(turn=item.turn, annotator=ann, verdict="bad", reasons=["tone"], queue=queue)
        answer = browser(rae).get(reverse("admin:annotations_queue_export", args=[queue.pk]))
        records = [json.loads(line) for line in whole(answer).splitlines()]
        assert [(record["verdict"], record["counts"]) for record in records] == [("good", False), ("bad", True)]
        assert [context["relevance"] for context in records[0]["contexts"]] == [None, "unsure", None]
        assert AuditEvent.objects.filter(action="annotations.exported", actor=rae).count() == 1
        listed = browser(rae).post(
            reverse("admin:annotations_annotation_changelist"),
            {"action": "export_selected", "_selected_action": [records[0]["id"]]},
        )
        assert len(whole(listed).splitlines()) == 1

    def test_lists_open(self, queue: Queue, rae: User, ann: User) -> None:
        label = submit(turn=first_item(queue).turn, annotator=ann, verdict="bad", reasons=["wrong"], queue=queue)
        client = browser(rae)
        for url in (
            reverse("admin:annotations_queue_changelist"),
            reverse("admin:annotations_annotation_changelist") + "?verdict__exact=bad&q=fixed",
            reverse("admin:annotations_annotation_change", args=[label.pk]),
            reverse("admin:annotations_resolution_changelist"),
            reverse("admin:annotations_resolution_change", args=[Resolution.objects.get().pk]),
        ):
            page = client.get(url)
            assert page.status_code == 200
            assert "/admin/auth/user/" not in page.content.decode(), "accounts are not for reviewers"
