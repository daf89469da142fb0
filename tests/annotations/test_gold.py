"""Items with known answers: firm, unannounced, once for everybody, and a change of mind is as free as elsewhere."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from annotations.errors import NotSettled
from annotations.gold import draws_gold, mark_gold, unmark_gold
from annotations.models import Annotation, Assignment, GoldItem, Queue, QueueItem, Resolution
from annotations.progress import queue_progress
from annotations.services import adjudicate, next_item, renew_lease, skip, submit, undo_last
from assistants.models import AuditEvent
from tests.factories import make_assistant, make_queue, make_turn, make_user

pytestmark = pytest.mark.django_db
ENDED = "2020-01-01T00:00:00Z"


@pytest.fixture
def rae() -> User:
    return make_user("rae")


@pytest.fixture
def queue(rae: User) -> Queue:
    """Twelve ordinary items and one gold."""
    assistant = make_assistant()
    turns = [make_turn(assistant, contexts=()) for _ in range(13)]
    queue = make_queue(assistant, turns=turns, gold_share=0.5)
    gold = queue.items.order_by("pk")[5]
    adjudicate(turn=gold.turn, reviewer=rae, verdict="bad", reasons=["should_have_declined"], response="")
    mark_gold(item=gold, reviewer=rae)
    return queue


def gold_of(queue: Queue) -> QueueItem:
    return QueueItem.objects.select_related("turn", "gold").get(queue=queue, gold__isnull=False)


def label_all(queue: Queue, person: User) -> list[QueueItem]:
    got = []
    while (item := next_item(queue=queue, annotator=person)) is not None:
        got.append(item)
        submit(turn=item.turn, annotator=person, verdict="good", queue=queue)
    return got


def test_what_is_expected_is_stored_and_the_verdict_made_firm(queue: Queue, rae: User) -> None:
    gold = gold_of(queue).gold
    assert (gold.verdict, gold.reasons, gold.declines, gold.marked_by) == ("bad", ["should_have_declined"], True, rae)
    item = queue.items.order_by("pk")[0]
    submit(turn=item.turn, annotator=make_user(), verdict="good", marks={})
    mark_gold(item=item, reviewer=rae)
    resolution = Resolution.objects.get(turn=item.turn)
    assert (resolution.how, resolution.resolved_by, resolution.verdict) == ("adjudicated", rae, "good")
    for _ in range(2):
        submit(turn=item.turn, annotator=make_user(), verdict="bad", reasons=["wrong"], queue=queue)
    assert Resolution.objects.get(turn=item.turn).verdict == "good"
    assert AuditEvent.objects.filter(action="gold.marked", actor=rae).count() == 2


def test_everybody_gets_it_once_mixed_in_with_the_others(queue: Queue) -> None:
    gold = gold_of(queue)
    ann = make_user()
    got = label_all(queue, ann)
    assert got.count(gold) == 1
    assert len(got) == 13
    assert Annotation.objects.filter(turn=gold.turn, annotator=ann).count() == 1
    assert Resolution.objects.get(turn=gold.turn).verdict == "bad"


def test_it_needs_no_room_and_comes_only_while_there_is_other_work(queue: Queue) -> None:
    gold = gold_of(queue)
    first, second = make_user(), make_user()
    for person in (first, second):
        submit(turn=gold.turn, annotator=person, verdict="bad", reasons=["wrong"], queue=queue)
    queue.items.exclude(pk=gold.pk).update(done=True)
    assert next_item(queue=queue, annotator=make_user()) is None


def test_who_marked_it_does_not_get_it(queue: Queue, rae: User) -> None:
    assert gold_of(queue) not in label_all(queue, rae)


def test_a_reload_and_an_ended_lease_keep_it(queue: Queue) -> None:
    gold, ann = gold_of(queue), make_user()
    Assignment.objects.create(item=gold, annotator=ann, expires_at="2100-01-01T00:00:00Z")
    assert next_item(queue=queue, annotator=ann) == gold
    Assignment.objects.update(expires_at=ENDED)
    assert renew_lease(item_id=gold.pk, annotator=ann)
    Assignment.objects.update(expires_at=ENDED)
    submit(turn=gold.turn, annotator=ann, verdict="good", queue=queue)


def test_a_label_on_it_is_taken_back_like_any_other(queue: Queue) -> None:
    gold, ann = gold_of(queue), make_user()
    submit(turn=gold.turn, annotator=ann, verdict="good", queue=queue)
    assert undo_last(queue=queue, annotator=ann).item == gold
    assert next_item(queue=queue, annotator=ann) == gold


def test_only_turns_with_a_verdict(queue: Queue, rae: User) -> None:
    with pytest.raises(NotSettled):
        mark_gold(item=queue.items.order_by("pk")[0], reviewer=rae)
    assert GoldItem.objects.count() == 1


def test_unmarked_it_is_an_ordinary_item(queue: Queue, rae: User) -> None:
    gold = gold_of(queue)
    unmark_gold(item=gold, reviewer=rae)
    unmark_gold(item=gold, reviewer=rae)
    assert gold not in label_all(queue, make_user())
    assert AuditEvent.objects.filter(action="gold.unmarked").count() == 1


def test_progress_counts_work_and_not_gold(queue: Queue) -> None:
    assert (queue_progress(queue).total, queue_progress(queue).done) == (12, 0)


def test_the_share_is_kept_over_many_draws(queue: Queue) -> None:
    queue.gold_share = 0.2
    drawn = 0
    for _ in range(10):
        person = make_user()
        for item in queue.items.all():
            drawn += draws_gold(queue, person)
            Annotation.objects.create(turn=item.turn, annotator=person, verdict="good", queue=queue)
    assert 12 <= drawn <= 42  # 26 of 130 expected
    queue.gold_share = 0.0
    assert not any(draws_gold(queue, make_user()) for _ in range(20))


def test_undo_gives_a_skipped_one_back_and_leaves_the_label_before_it(queue: Queue) -> None:
    ann, gold, first = make_user(), gold_of(queue), queue.items.order_by("pk")[0]
    label = submit(turn=first.turn, annotator=ann, verdict="good", queue=queue)
    skip(item_id=gold.pk, annotator=ann, reason="I cannot tell")
    undone = undo_last(queue=queue, annotator=ann)
    assert (undone.item, undone.annotation) == (gold, None)
    label.refresh_from_db()
    assert label.withdrawn_at is None
    assert next_item(queue=queue, annotator=ann) == gold


def test_unmarked_the_labels_decide_again(queue: Queue, rae: User) -> None:
    """The mark alone made the verdict firm; without it, what people said since counts."""
    item = queue.items.select_related("turn").order_by("pk")[0]
    first, second = make_user(), make_user()
    submit(turn=item.turn, annotator=first, verdict="good", queue=queue)
    mark_gold(item=item, reviewer=rae)
    submit(turn=item.turn, annotator=second, verdict="bad", reasons=["wrong"], queue=queue)
    assert Resolution.objects.get(turn=item.turn).how == "adjudicated"
    unmark_gold(item=item, reviewer=rae)
    item.refresh_from_db()
    assert not Resolution.objects.filter(turn=item.turn).exists()  # one says good, one bad: a disagreement
    assert (item.done, item.labels_done) == (True, 2)
    assert list(QueueItem.objects.filter(queue=queue).split()) == [item]
    undo_last(queue=queue, annotator=second)  # nobody has settled it, so a label can be taken back
    resolution = Resolution.objects.get(turn=item.turn)
    assert (resolution.how, resolution.verdict, resolution.resolved_by) == ("single", "good", None)


def test_unmarked_it_wants_the_labels_that_it_lacks(queue: Queue, rae: User) -> None:
    """A mark closes the item for good; taken back while labels are missing, it is open again."""
    item = queue.items.select_related("turn").order_by("pk")[0]
    submit(turn=item.turn, annotator=make_user(), verdict="good", queue=queue)
    QueueItem.objects.filter(pk=item.pk).update(labels_needed=2)
    mark_gold(item=item, reviewer=rae)
    unmark_gold(item=item, reviewer=rae)
    item.refresh_from_db()
    assert (item.done, Resolution.objects.filter(turn=item.turn).exists()) == (False, False)


def test_a_reviewers_own_word_outlives_the_mark(queue: Queue, rae: User) -> None:
    before = gold_of(queue)
    unmark_gold(item=before, reviewer=rae)  # settled by hand before it was marked
    assert Resolution.objects.get(turn=before.turn).how == "adjudicated"
    item = queue.items.select_related("turn").order_by("pk")[0]
    submit(turn=item.turn, annotator=make_user(), verdict="good", queue=queue)
    mark_gold(item=item, reviewer=rae)
    adjudicate(turn=item.turn, reviewer=rae, verdict="bad", reasons=["wrong"], response="")  # and one by hand since
    unmark_gold(item=item, reviewer=rae)
    resolution = Resolution.objects.get(turn=item.turn)
    assert (resolution.how, resolution.verdict, resolution.resolved_by) == ("adjudicated", "bad", rae)


def test_the_last_mark_of_a_turn_gives_the_word_back(queue: Queue, rae: User) -> None:
    """A turn in two queues, marked in both: as long as one mark stands, everybody is measured by it."""
    item = queue.items.select_related("turn").order_by("pk")[0]
    twin = make_queue(queue.assistant, turns=[item.turn]).items.get()
    submit(turn=item.turn, annotator=make_user(), verdict="good", queue=queue)
    mark_gold(item=item, reviewer=rae)
    mark_gold(item=twin, reviewer=rae)
    unmark_gold(item=item, reviewer=rae)
    assert Resolution.objects.get(turn=item.turn).how == "adjudicated"
    unmark_gold(item=twin, reviewer=rae)
    assert Resolution.objects.get(turn=item.turn).how == "single"
