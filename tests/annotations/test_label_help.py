"""What the labelling page asks for while somebody works."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotations.models import Annotation, Assignment, MachineLabel, Queue, QueueItem, SavedDraft, SuggestionView
from annotations.saved_drafts import saved_draft
from annotations.services import next_item, submit, undo_last
from assistants.models import Assistant
from knowledge.models import Chunk
from knowledge.services import load_document
from tests.annotations.streams import whole
from tests.factories import add_member, make_assistant, make_document, make_queue, make_turn, make_user

pytestmark = pytest.mark.django_db
FETCH = {"HTTP_X_REQUESTED_WITH": "fetch"}
ACTIONS = ("ahead", "effect", "search", "suggestions", "draft")
MOVING = b"# Moving house\n\nTell us ten days before you move. The exit fee is waived when you take the plan with you."


@pytest.fixture
def ann() -> User:
    return make_user("ann")


@pytest.fixture
def assistant(ann: User) -> Assistant:
    return make_assistant(members={"annotator": [ann], "reviewer": [make_user("rae")]})


@pytest.fixture
def queue(assistant: Assistant) -> Queue:
    return make_queue(assistant, turns=[make_turn(assistant), make_turn(assistant)], show_suggestions=True)


@pytest.fixture
def item(queue: Queue, ann: User) -> QueueItem:
    held = next_item(queue=queue, annotator=ann)
    assert held is not None
    return held


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def ask(user: User, queue: Queue, action: str, **data: Any) -> Any:
    return browser(user).post(reverse(f"annotations:{action}", args=[queue.pk]), data, **FETCH)


def make_chunk(assistant: Assistant, text: str, position: int = 0) -> Chunk:
    """One that is only looked at, or found by its words: it has no real vectors."""
    document = make_document(assistant, text=text)
    return Chunk.objects.create(
        assistant=assistant, document=document, position=position, headings=["Guide", "Fees"], text=text,
        digest=f"{position:064}", tokens=9, embedding=[1.0] + [0.0] * 383, sentence_embeddings=b"",
    )  # fmt: skip


def judge(turn: Any, verdict: str = "bad", **fields: Any) -> MachineLabel:
    return MachineLabel.objects.create(
        assistant=turn.assistant, turn=turn, kind="LLM", verdict=verdict,
        **{"name": "judge", "version": "2", "client_id": f"{turn.pk}", "payload_digest": "0", "score": 0.25, **fields},
    )  # fmt: skip


class TestRoles:
    def test_strangers_and_nobody_are_refused(self, queue: Queue, item: QueueItem) -> None:
        stranger = make_user()
        make_assistant(members={"annotator": [stranger]})
        for action in ACTIONS:
            assert ask(stranger, queue, action, item=item.pk, query="fee").status_code == 403
            anonymous = Client().post(reverse(f"annotations:{action}", args=[queue.pk]), {"item": item.pk}, **FETCH)
            assert anonymous.status_code == 302
        assert not SavedDraft.objects.exists()

    def test_items_of_other_queues_are_not_there(self, queue: Queue, ann: User, assistant: Assistant) -> None:
        other = make_queue(make_assistant(), turns=[make_turn()])
        theirs = other.items.get()
        for action in ("effect", "search", "suggestions", "draft"):
            assert ask(ann, queue, action, item=theirs.pk, query="fee").status_code == 409
        assert ask(ann, queue, "ahead", item=theirs.pk).json() == {"html": ""}

    def test_they_are_asked_by_post(self, queue: Queue, ann: User) -> None:
        for action in ACTIONS:
            assert browser(ann).get(reverse(f"annotations:{action}", args=[queue.pk])).status_code == 405


class TestAhead:
    def test_the_next_item_comes_as_the_page_would_show_it(self, queue: Queue, item: QueueItem, ann: User) -> None:
        answer = ask(ann, queue, "ahead", item=item.pk).json()
        following = queue.items.exclude(pk=item.pk).get()
        lease = Assignment.objects.get(item=following)
        assert answer["item"] == following.pk
        assert f'data-item="{following.pk}"' in answer["html"]
        assert lease.expires_at.isoformat() in answer["html"]
        assert lease.ahead

    def test_submitting_makes_what_is_shown_ones_own(self, queue: Queue, item: QueueItem, ann: User) -> None:
        following = ask(ann, queue, "ahead", item=item.pk).json()["item"]
        answer = ask(ann, queue, "submit", item=item.pk, choice="good", shown=following).json()
        assert answer["shown"] == following
        assert "html" not in answer
        assert "<b>1</b> of 2 done" in answer["progress"]
        lease = Assignment.objects.get()
        assert (lease.item_id, lease.ahead) == (following, False)
        assert answer["expires"] == lease.expires_at.isoformat()

    def test_when_somebody_else_has_it_another_one_comes(self, queue: Queue, item: QueueItem, ann: User) -> None:
        following = ask(ann, queue, "ahead", item=item.pk).json()["item"]
        bob = make_user()
        add_member(queue.assistant, bob)
        taken = next_item(queue=queue, annotator=bob)
        assert taken is not None
        assert taken.pk == following
        answer = ask(ann, queue, "submit", item=item.pk, choice="good", shown=following).json()
        assert Annotation.objects.count() == 1
        assert "Nothing left for you here" in answer["html"]

    def test_a_refused_label_leaves_everything_where_it_is(self, queue: Queue, item: QueueItem, ann: User) -> None:
        following = ask(ann, queue, "ahead", item=item.pk).json()["item"]
        assert ask(ann, queue, "submit", item=item.pk, choice="bad", shown=following).status_code == 422
        assert Assignment.objects.get(item=following).ahead


class TestEffect:
    def test_what_the_form_becomes(self, queue: Queue, item: QueueItem, ann: User) -> None:
        answer = ask(ann, queue, "effect", item=item.pk, choice="bad", reasons=["wrong"]).json()
        assert "what not to say" in answer["becomes"]
        text = "A fixed plan has an exit fee of £35. [1] <b>Penguins</b> fly south."
        answer = ask(ann, queue, "effect", item=item.pk, choice="bad", reasons=["wrong"], correction=text).json()
        assert "&lt;b&gt;Penguins&lt;/b&gt; fly south." in answer["checks"]
        assert answer["checks"].count("<li") == 2
        assert "no passage supports it" in answer["checks"]
        assert ask(ann, queue, "effect", item=item.pk).json()["becomes"].strip() == ""

    def test_a_very_long_answer_is_no_harm(self, queue: Queue, item: QueueItem, ann: User) -> None:
        answer = ask(ann, queue, "effect", item=item.pk, choice="bad", reasons=["wrong"], correction="Fee. " * 20_000)
        assert answer.status_code == 200


class TestSearch:
    def test_what_retrieval_missed_is_found_and_kept(
        self, queue: Queue, item: QueueItem, ann: User, assistant: Assistant
    ) -> None:
        load_document(assistant=assistant, path="moving.md", data=MOVING)
        load_document(assistant=make_assistant(), path="theirs.md", data=MOVING)
        found = ask(ann, queue, "search", item=item.pk, query="is the fee waived when moving?").json()["html"]
        chunk = Chunk.objects.get(assistant=assistant)
        assert f'data-chunk="{chunk.pk}"' in found
        assert "theirs.md" not in found

        data = {"choice": "bad", "reasons": ["retrieval_missed"], "missed": [chunk.pk, chunk.pk]}
        assert ask(ann, queue, "submit", item=item.pk, **data).status_code == 200
        kept = Annotation.objects.get().missed.get()
        assert (kept.chunk, kept.digest, kept.source) == (chunk, chunk.digest, "moving.md")
        undo_last(queue=queue, annotator=ann)
        page = browser(ann).get(reverse("annotations:label", args=[queue.pk])).content.decode()
        assert f'name="missed" value="{chunk.pk}"' in page  # it comes back with the label

        chunk.delete()  # the document is loaded anew
        kept.refresh_from_db()
        assert (kept.chunk, kept.digest) == (None, chunk.digest)

    def test_without_the_engine_words_are_compared(
        self, queue: Queue, item: QueueItem, ann: User, assistant: Assistant, settings: Any, tmp_path: Any
    ) -> None:
        settings.PROCESS, settings.RATCHET_ENGINE_URL = "web", f"unix:{tmp_path}/nobody.sock"
        make_chunk(assistant, "Boilers <i>need</i> a service each year.")
        make_chunk(assistant, "A fixed plan has an exit fee of £35. No fee is due in the last 49 days of the plan.", 1)
        found = ask(ann, queue, "search", item=item.pk, query="boiler service").json()["html"]
        assert "only words were compared" in found
        assert "&lt;i&gt;need&lt;/i&gt;" in found
        retrieved = ask(ann, queue, "search", item=item.pk, query="exit fee").json()["html"]
        assert "retrieved: passage 1" in retrieved
        assert "data-add" not in retrieved
        nothing = ask(ann, queue, "search", item=item.pk, query="penguins").json()["html"]
        assert "Nothing in the documents" in nothing

    @pytest.mark.parametrize("query", ["", "  \x00 ", "x" * 301])
    def test_bad_queries_are_told(self, queue: Queue, item: QueueItem, ann: User, query: str) -> None:
        answer = ask(ann, queue, "search", item=item.pk, query=query)
        assert answer.status_code == 422
        assert answer.json()["message"]

    def test_only_what_was_missed_can_be_added(
        self, queue: Queue, item: QueueItem, ann: User, assistant: Assistant
    ) -> None:
        foreign = make_chunk(make_assistant(), "Theirs.")
        shown = make_chunk(assistant, item.turn.retrievals.get(rank=1).passage.text)
        many = [make_chunk(assistant, f"Fact {i}.", i + 1).pk for i in range(21)]
        for missed, said in (
            ([foreign.pk], "not in the knowledge base"),
            ([shown.pk], "was retrieved"),
            (many, "At most 20"),
        ):
            answer = ask(ann, queue, "submit", item=item.pk, choice="good", missed=missed)
            assert answer.status_code == 422
            assert said in answer.json()["errors"]["missed"][0]
        assert not Annotation.objects.exists()
        assert ask(ann, queue, "submit", item=item.pk, choice="good", missed=["x", "²", "-1", ""]).status_code == 200

    def test_adding_a_passage_is_a_change_of_mind(self, queue: Queue, item: QueueItem, ann: User) -> None:
        chunk = make_chunk(queue.assistant, "Another fact.")
        first = submit(turn=item.turn, annotator=ann, verdict="good", queue=queue)
        second = submit(turn=item.turn, annotator=ann, verdict="good", queue=queue, missed=[chunk.pk])
        assert second != first
        assert submit(turn=item.turn, annotator=ann, verdict="good", queue=queue, missed=[chunk.pk]) == second

    def test_reviewers_list_and_export_what_was_missed(self, queue: Queue, item: QueueItem, ann: User) -> None:
        chunk = make_chunk(queue.assistant, "Another fact.")
        submit(turn=item.turn, annotator=ann, verdict="good", queue=queue, missed=[chunk.pk])
        url = reverse("admin:annotations_missedpassage_changelist")
        rae = browser(User.objects.get(username="rae"))
        page = rae.get(url)
        assert page.context["cl"].result_count == 1
        exported = rae.post(
            url, {"action": "export_selected", "_selected_action": [item.turn.annotations.get().missed.get().pk]}
        )
        lines = [json.loads(line) for line in whole(exported).splitlines()]
        assert [(line["turn"], line["digest"], line["text"]) for line in lines] == [
            (str(item.turn_id), chunk.digest, "Another fact.")
        ]
        assert browser(ann).get(url).status_code == 403
        undo_last(queue=queue, annotator=ann)
        assert rae.get(url).context["cl"].result_count == 0  # taken back with its label


class TestSuggestions:
    def test_they_are_not_on_the_page_until_asked_for(self, queue: Queue, item: QueueItem, ann: User) -> None:
        judge(item.turn, explanation="The fee is <b>wrong</b>.")
        page = browser(ann).get(reverse("annotations:label", args=[queue.pk])).content.decode()
        assert "lb-suggestions" in page
        assert "judge" not in page
        shown = ask(ann, queue, "suggestions", item=item.pk).json()["html"]
        assert "✗ Bad" in shown
        assert "0.25" in shown
        assert "The fee is &lt;b&gt;wrong&lt;/b&gt;." in shown
        ask(ann, queue, "suggestions", item=item.pk, choice="good")  # the first time counts
        assert submit(turn=item.turn, annotator=ann, verdict="good", queue=queue).suggested == "before"

    def test_that_they_were_seen_after_deciding_stands_on_the_label(
        self, queue: Queue, item: QueueItem, ann: User
    ) -> None:
        judge(item.turn)
        ask(ann, queue, "suggestions", item=item.pk, choice="decline")
        assert SuggestionView.objects.get().decided == "bad"
        assert submit(turn=item.turn, annotator=ann, verdict="good", queue=queue).suggested == "after"
        assert submit(turn=item.turn, annotator=make_user(), verdict="good").suggested == ""

    def test_nothing_to_see_is_no_seeing(self, queue: Queue, item: QueueItem, ann: User) -> None:
        assert "no judge has labelled" in ask(ann, queue, "suggestions", item=item.pk).json()["html"]
        assert not SuggestionView.objects.exists()

    def test_the_queue_decides(self, queue: Queue, item: QueueItem, ann: User) -> None:
        Queue.objects.update(show_suggestions=False)
        judge(item.turn)
        assert "shows no suggestions" in ask(ann, queue, "suggestions", item=item.pk).json()["html"]
        assert "lb-suggestions" not in browser(ann).get(reverse("annotations:label", args=[queue.pk])).content.decode()
        assert not SuggestionView.objects.exists()


class TestDrafts:
    FORM: dict[str, Any] = {
        "choice": "bad", "reasons": ["wrong", "tone"], "correction": "It is 0171 555 0199 [1]", "mark-2": "unsure",
        "note": "n",
    }  # fmt: skip

    def test_the_form_comes_back_on_another_machine(self, queue: Queue, item: QueueItem, ann: User) -> None:
        assert ask(ann, queue, "draft", item=item.pk, at="1700000000000", **self.FORM).json() == {"kept": True}
        sealed = bytes(SavedDraft.objects.get().sealed)
        assert b"555" not in sealed
        page = browser(ann).get(reverse("annotations:label", args=[queue.pk])).content.decode()
        assert 'data-saved="1700000000000"' in page
        assert "It is 0171 555 0199 [1]" in page
        assert 'data-mark="unsure"' in page
        found = saved_draft(item, ann)
        assert found is not None
        assert (found[0].choice, found[0].reasons, found[0].marks) == ("bad", ("wrong", "tone"), {2: "unsure"})
        assert saved_draft(item, make_user()) is None

    def test_it_is_gone_when_the_label_is_there_and_stays_gone(self, queue: Queue, item: QueueItem, ann: User) -> None:
        ask(ann, queue, "draft", item=item.pk, **self.FORM)
        submit(turn=item.turn, annotator=ann, verdict="good", queue=queue)
        assert not SavedDraft.objects.exists()
        assert ask(ann, queue, "draft", item=item.pk, **self.FORM).json() == {"kept": False}  # late on its way

    def test_limits_and_nonsense(self, queue: Queue, item: QueueItem, ann: User) -> None:
        assert ask(ann, queue, "draft", item=item.pk, correction="x" * 100_000).json() == {"kept": True}
        assert ask(ann, queue, "draft", item=item.pk, correction="x" * 300_000).json() == {"kept": False}
        assert ask(ann, queue, "draft", item=item.pk, at="soon", correction="\x00").json() == {"kept": True}
        assert ask(ann, queue, "draft", item=item.pk, at="inf").json() == {"kept": True}

    def test_a_key_that_is_gone_and_old_drafts(self, queue: Queue, item: QueueItem, ann: User) -> None:
        ask(ann, queue, "draft", item=item.pk, **self.FORM)
        SavedDraft.objects.update(sealed=b"\x01" + bytes(60))
        assert saved_draft(item, ann) is None
        assert browser(ann).get(reverse("annotations:label", args=[queue.pk])).status_code == 200
        other = queue.items.exclude(pk=item.pk).get()
        old = timezone.now() - timedelta(days=15)
        SavedDraft.objects.create(item=other, annotator=make_user(), sealed=b"", saved_at=old)
        ask(ann, queue, "draft", item=item.pk, **self.FORM)
        assert SavedDraft.objects.count() == 1


class TestBadInput:
    def test_a_100_kb_correction_is_told_and_kept(self, queue: Queue, item: QueueItem, ann: User) -> None:
        long = "Fee. " * 20_000
        data = {"item": item.pk, "choice": "bad", "reasons": ["wrong"], "correction": long}
        answer = ask(ann, queue, "submit", **data)
        assert answer.status_code == 422
        assert "at most 20,000" in answer.json()["errors"]["correction"][0]
        page = browser(ann).post(reverse("annotations:submit", args=[queue.pk]), data)  # without the script
        assert page.status_code == 422
        assert page.content.decode().count("Fee. ") >= 20_000

    def test_an_item_that_was_erased_meanwhile(self, queue: Queue, item: QueueItem, ann: User) -> None:
        item.turn.delete()
        answer = ask(ann, queue, "submit", item=item.pk, choice="good")
        assert answer.status_code == 409
        assert answer.json()["gone"]
        assert ask(ann, queue, "effect", item=item.pk, choice="good").status_code == 409

    def test_an_item_that_a_reviewer_settled_meanwhile(self, queue: Queue, item: QueueItem, ann: User) -> None:
        Assignment.objects.update(expires_at="2020-01-01T00:00:00Z")
        QueueItem.objects.filter(pk=item.pk).update(done=True)
        answer = ask(ann, queue, "submit", item=item.pk, choice="good")
        assert answer.status_code == 409
        assert "Your work is kept" in answer.json()["message"]

    def test_constant_number_of_queries(self, assistant: Assistant, ann: User) -> None:
        counts = []
        for n in (1, 12):
            queue = make_queue(
                assistant,
                turns=[make_turn(assistant, contexts=[{"text": f"Fact {i}."} for i in range(n)]) for _ in range(n + 1)],
            )
            held = next_item(queue=queue, annotator=ann)
            assert held is not None
            with CaptureQueriesContext(connection) as captured:
                ask(ann, queue, "ahead", item=held.pk)
                ask(ann, queue, "effect", item=held.pk, choice="good")
            counts.append(len(captured))
        assert counts[0] == counts[1]
