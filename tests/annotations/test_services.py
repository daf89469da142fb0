from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotations import scrubbing
from annotations.errors import AlreadyDone, AlreadySettled, CannotScrub, ItemGone, NothingToUndo
from annotations.models import Annotation, Assignment, Queue, QueueItem, Resolution
from annotations.services import add_turns, adjudicate, next_item, resolve, skip, submit, undo_last
from assistants.models import AuditEvent
from privacy.findings import ScrubError
from tests.factories import make_assistant, make_queue, make_turn, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def queue() -> Queue:
    return make_queue(make_assistant())


def item_of(queue: Queue, **fields: object) -> QueueItem:
    turn = make_turn(queue.assistant, **fields)
    add_turns(queue=queue, turns=[turn])
    return QueueItem.objects.get(queue=queue, turn=turn)


def problems(caught: pytest.ExceptionInfo[ValidationError]) -> dict[str, list[str]]:
    return caught.value.message_dict


class TestAddTurns:
    def test_adds_each_turn_once(self, queue: Queue) -> None:
        turns = [make_turn(queue.assistant) for _ in range(3)]
        assert add_turns(queue=queue, turns=[*turns, turns[0]]) == 3
        assert add_turns(queue=queue, turns=[*turns, make_turn(queue.assistant)]) == 1

    def test_overlap_is_drawn_by_hash_and_stays(self) -> None:
        queue = make_queue(make_assistant(), labels_needed=1, overlap_share=0.3)
        turns = [make_turn(queue.assistant, contexts=()) for _ in range(120)]
        add_turns(queue=queue, turns=turns)
        drawn = set(queue.items.filter(labels_needed=2).values_list("turn", flat=True))
        assert 18 <= len(drawn) <= 54  # 36 expected
        queue.items.all().delete()
        add_turns(queue=queue, turns=reversed(turns))
        assert set(queue.items.filter(labels_needed=2).values_list("turn", flat=True)) == drawn

    def test_knows_labels_that_are_there(self, queue: Queue) -> None:
        turn = make_turn(queue.assistant)
        submit(turn=turn, annotator=make_user(), verdict="good")
        add_turns(queue=queue, turns=[turn])
        assert queue.items.get().done

    def test_refuses_turns_of_another_assistant(self, queue: Queue) -> None:
        with pytest.raises(ValidationError):
            add_turns(queue=queue, turns=[make_turn(queue.assistant), make_turn()])
        assert not queue.items.exists()

    def test_constant_number_of_queries(self, queue: Queue, django_assert_max_num_queries: object) -> None:
        turns = [make_turn(queue.assistant, contexts=()) for _ in range(40)]
        with django_assert_max_num_queries(7):  # type: ignore[operator]
            add_turns(queue=queue, turns=turns)


class TestSubmit:
    def test_good_label_resolves_with_the_logged_answer(self, queue: Queue) -> None:
        item = item_of(queue)
        label = submit(
            turn=item.turn, annotator=make_user(), verdict="good", marks={1: "relevant", 2: "not_relevant"}, queue=queue
        )
        resolution = Resolution.objects.get(turn=item.turn)
        assert (resolution.verdict, resolution.response) == ("good", item.turn.response)
        assert resolution.relevant_ranks == [1]
        assert list(resolution.annotations.all()) == [label]
        item.refresh_from_db()
        assert (item.labels_done, item.done) == (1, True)
        assert AuditEvent.objects.filter(action="label.submitted", target=str(item.turn_id)).count() == 1

    @pytest.mark.parametrize(
        ("label", "field"),
        [
            ({"verdict": "maybe"}, "verdict"),
            ({"verdict": "bad"}, "reasons"),
            ({"verdict": "bad", "reasons": ["ugly"]}, "reasons"),
            ({"verdict": "good", "reasons": ["wrong"]}, "reasons"),
            ({"verdict": "bad", "reasons": ["should_have_declined", "should_have_answered"]}, "reasons"),
            ({"verdict": "good", "correction": "Other. [1]"}, "correction"),
            ({"verdict": "bad", "reasons": ["wrong"], "correction": "Other. [9]"}, "correction"),
            ({"verdict": "bad", "reasons": ["wrong"], "correction": "Other. [1, 9]"}, "correction"),
            ({"verdict": "bad", "reasons": ["wrong"], "correction": "x" * 100_000}, "correction"),
            ({"verdict": "good", "marks": {4: "relevant"}}, "marks"),
            ({"verdict": "good", "marks": {1: "perfect"}}, "marks"),
            ({"verdict": "good", "note": "x" * 4_001}, "note"),
        ],
    )
    def test_bad_content_is_refused_by_field(self, queue: Queue, label: dict[str, object], field: str) -> None:
        item = item_of(queue)
        with pytest.raises(ValidationError) as caught:
            submit(turn=item.turn, annotator=make_user(), queue=queue, **label)  # type: ignore[arg-type]
        assert list(problems(caught)) == [field]
        assert not Annotation.objects.exists()

    def test_an_untouched_correction_is_none(self, queue: Queue) -> None:
        item = item_of(queue)
        label = submit(
            turn=item.turn,
            annotator=make_user(),
            verdict="bad",
            reasons=["tone"],
            correction=f" {item.turn.response}\r\n",
        )
        assert label.correction == ""

    def test_the_same_again_changes_nothing(self, queue: Queue) -> None:
        item, ann = item_of(queue), make_user()
        again = {"verdict": "bad", "reasons": ["wrong", "tone"], "correction": "It is £35. [1]", "marks": {2: "unsure"}}
        first = submit(turn=item.turn, annotator=ann, queue=queue, **again)  # type: ignore[arg-type]
        second = submit(turn=item.turn, annotator=ann, queue=queue, **again)  # type: ignore[arg-type]
        assert first.pk == second.pk
        assert Annotation.objects.count() == 1

    def test_a_change_of_mind_keeps_the_old_label(self, queue: Queue) -> None:
        item, ann = item_of(queue), make_user()
        old = submit(turn=item.turn, annotator=ann, verdict="good", queue=queue)
        new = submit(turn=item.turn, annotator=ann, verdict="bad", reasons=["wrong"], queue=queue)
        old.refresh_from_db()
        assert old.replaced_by == new
        assert list(Annotation.objects.current()) == [new]
        assert Resolution.objects.get().verdict == "bad"
        item.refresh_from_db()
        assert item.labels_done == 1

    def test_overlap_resolves_when_both_are_there_and_splits_wait(self) -> None:
        queue = make_queue(make_assistant(), labels_needed=2)
        item = item_of(queue)
        ann, bob, cas = make_user(), make_user(), make_user()
        submit(turn=item.turn, annotator=ann, verdict="good", queue=queue)
        assert resolve(turn=item.turn) is None
        submit(turn=item.turn, annotator=bob, verdict="bad", reasons=["wrong"], queue=queue)
        assert not Resolution.objects.exists()
        assert list(queue.items.split()) == [item]
        submit(turn=item.turn, annotator=cas, verdict="bad", reasons=["wrong"])
        assert Resolution.objects.get().how == Resolution.How.MAJORITY

    def test_an_ended_lease_is_fine_while_the_item_needs_a_label(self, queue: Queue) -> None:
        item, ann = item_of(queue), make_user()
        assert next_item(queue=queue, annotator=ann) == item
        Assignment.objects.update(expires_at="2020-01-01T00:00:00Z")
        assert submit(turn=item.turn, annotator=ann, verdict="good", queue=queue).pk

    def test_an_ended_lease_on_a_done_item_is_told(self, queue: Queue) -> None:
        item, ann = item_of(queue), make_user()
        next_item(queue=queue, annotator=ann)
        Assignment.objects.update(expires_at="2020-01-01T00:00:00Z")
        submit(turn=item.turn, annotator=make_user(), verdict="good", queue=queue)
        with pytest.raises(AlreadyDone):
            submit(turn=item.turn, annotator=ann, verdict="good", queue=queue)
        assert Annotation.objects.count() == 1

    def test_a_live_lease_is_honoured(self, queue: Queue) -> None:
        item, ann = item_of(queue), make_user()
        next_item(queue=queue, annotator=ann)
        submit(turn=item.turn, annotator=make_user(), verdict="good")
        assert submit(turn=item.turn, annotator=ann, verdict="good", queue=queue).pk

    def test_an_erased_turn(self, queue: Queue) -> None:
        turn = item_of(queue).turn
        type(turn).objects.filter(pk=turn.pk).delete()
        with pytest.raises(ItemGone):
            submit(turn=turn, annotator=make_user(), verdict="good", queue=queue)

    def test_a_turn_outside_the_queue(self, queue: Queue) -> None:
        with pytest.raises(ItemGone):
            submit(turn=make_turn(queue.assistant), annotator=make_user(), verdict="good", queue=queue)

    def test_constant_number_of_queries(self, queue: Queue) -> None:
        counts = set()
        for n in (2, 12):
            item, ann = item_of(queue, contexts=[{"text": f"Fact {i}."} for i in range(n)]), make_user()
            marks = dict.fromkeys(range(1, n + 1), "relevant")
            with CaptureQueriesContext(connection) as captured:
                submit(turn=item.turn, annotator=ann, verdict="good", queue=queue, marks=marks)
            counts.add(len(captured))
        assert len(counts) == 1
        assert max(counts) <= 32


class TestScrubbing:
    def test_what_is_typed_is_masked_with_the_conversation_table(self, queue: Queue) -> None:
        item = item_of(queue)
        label = submit(
            turn=item.turn,
            annotator=make_user(),
            verdict="bad",
            reasons=["wrong"],
            correction="Write to jane.miller@example.org. The fee is £35. [1]",
            note="Her address jane.miller@example.org was in the chat.",
        )
        assert "jane.miller" not in label.correction + label.note
        assert "[EMAIL_1]" in label.correction
        assert "[EMAIL_1]" in label.note
        assert "£35. [1]" in label.correction
        item.turn.conversation.refresh_from_db()
        assert item.turn.conversation.entities
        assert Resolution.objects.get().response == label.correction

    def test_it_fails_closed(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        from privacy.scrubber import Scrubber

        def broken(*_: object, **__: object) -> None:
            raise ScrubError("no")

        monkeypatch.setattr(Scrubber, "scrub_turn", broken)
        item = item_of(queue)
        with pytest.raises(CannotScrub):
            submit(turn=item.turn, annotator=make_user(), verdict="good", note="hello")
        assert not Annotation.objects.exists()

    def test_nothing_typed_costs_nothing(self, queue: Queue, django_assert_num_queries: object) -> None:
        turn = item_of(queue).turn
        with django_assert_num_queries(0):  # type: ignore[operator]
            assert scrubbing.scrub(turn=turn, texts=("", " ")) == ["", " "]


class TestSkipAndUndo:
    def test_a_skipped_item_does_not_return_to_the_same_person(self, queue: Queue) -> None:
        item, ann, bob = item_of(queue), make_user(), make_user()
        skip(item_id=item.pk, annotator=ann, reason="Not my subject")
        assert next_item(queue=queue, annotator=ann) is None
        assert next_item(queue=queue, annotator=bob) == item

    def test_a_skip_needs_a_reason(self, queue: Queue) -> None:
        item = item_of(queue)
        for reason in ("  ", "x" * 201):
            with pytest.raises(ValidationError):
                skip(item_id=item.pk, annotator=make_user(), reason=reason)

    def test_undo_takes_the_label_back_and_leases_the_item_again(self, queue: Queue) -> None:
        item, ann = item_of(queue), make_user()
        label = submit(turn=item.turn, annotator=ann, verdict="good", queue=queue)
        undone = undo_last(queue=queue, annotator=ann)
        assert undone.annotation == label
        assert (undone.item.done, undone.item.labels_done) == (False, 0)
        assert not Resolution.objects.exists()
        assert Annotation.objects.filter(pk=label.pk).exists()
        assert next_item(queue=queue, annotator=ann) == item
        assert submit(turn=item.turn, annotator=ann, verdict="good", queue=queue).pk != label.pk

    def test_undo_of_a_change_of_mind_brings_the_first_back(self, queue: Queue) -> None:
        item, ann = item_of(queue), make_user()
        first = submit(turn=item.turn, annotator=ann, verdict="good", queue=queue)
        submit(turn=item.turn, annotator=ann, verdict="bad", reasons=["tone"], queue=queue)
        undo_last(queue=queue, annotator=ann)
        assert list(Annotation.objects.current()) == [first]
        assert Resolution.objects.get().verdict == "good"

    def test_undo_goes_back_step_by_step_over_skips_too(self, queue: Queue) -> None:
        first, second, ann = item_of(queue), item_of(queue), make_user()
        submit(turn=first.turn, annotator=ann, verdict="good", queue=queue)
        skip(item_id=second.pk, annotator=ann, reason="I cannot tell")
        assert undo_last(queue=queue, annotator=ann).item == second
        assert undo_last(queue=queue, annotator=ann).item == first
        with pytest.raises(NothingToUndo):
            undo_last(queue=queue, annotator=ann)

    def test_undo_is_refused_after_adjudication(self, queue: Queue) -> None:
        item, ann = item_of(queue), make_user()
        submit(turn=item.turn, annotator=ann, verdict="good", queue=queue)
        adjudicate(turn=item.turn, reviewer=make_user(), verdict="bad", reasons=["wrong"], response="")
        with pytest.raises(AlreadySettled):
            undo_last(queue=queue, annotator=ann)


class TestAdjudicate:
    def test_a_reviewer_settles_and_later_labels_do_not_change_it(self) -> None:
        queue = make_queue(make_assistant(), labels_needed=2)
        item, reviewer, ann = item_of(queue), make_user(), make_user()
        submit(turn=item.turn, annotator=ann, verdict="good", queue=queue)
        bob = submit(
            turn=item.turn, annotator=make_user(), verdict="bad", reasons=["wrong"], queue=queue, marks={1: "relevant"}
        )
        resolution = adjudicate(
            turn=item.turn, reviewer=reviewer, verdict="bad", reasons=["wrong"], response="It is £35. [1]"
        )
        assert resolution.how == Resolution.How.ADJUDICATED
        assert resolution.resolved_by == reviewer
        assert (resolution.response, resolution.relevant_ranks) == ("It is £35. [1]", [1])
        assert list(resolution.annotations.all()) == [bob]
        assert not queue.items.split().exists()
        submit(turn=item.turn, annotator=ann, verdict="bad", reasons=["tone"], queue=queue)
        resolution.refresh_from_db()
        assert resolution.reasons == ["wrong"]
        item.refresh_from_db()
        assert item.done

    def test_good_takes_the_logged_answer(self, queue: Queue) -> None:
        turn = item_of(queue).turn
        resolution = adjudicate(turn=turn, reviewer=make_user(), verdict="good", reasons=[], response="whatever")
        assert resolution.response == turn.response

    def test_declining(self, queue: Queue) -> None:
        turn = item_of(queue).turn
        resolution = adjudicate(
            turn=turn, reviewer=make_user(), verdict="bad", reasons=["should_have_declined"], response=""
        )
        assert resolution.response == queue.assistant.decline_sentence

    def test_content_is_checked(self, queue: Queue) -> None:
        with pytest.raises(ValidationError):
            adjudicate(turn=item_of(queue).turn, reviewer=make_user(), verdict="bad", reasons=[], response="")
