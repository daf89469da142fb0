"""The item after the one on the screen is leased ahead: it is never given out beyond its need, and keeps nobody
waiting."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Count, F, Q
from django.utils import timezone

from annotations.errors import AlreadyDone
from annotations.models import Annotation, Assignment, Queue, QueueItem
from annotations.services import item_ahead, next_item, release_lease, renew_lease, skip, submit, undo_last
from tests.factories import make_assistant, make_queue, make_turn, make_user

ENDED = "2020-01-01T00:00:00Z"


def queue_of(n: int, **fields: object) -> Queue:
    assistant = make_assistant()
    return make_queue(assistant, turns=[make_turn(assistant, contexts=()) for _ in range(n)], **fields)


def opened(queue: Queue, person: User) -> QueueItem:
    item = next_item(queue=queue, annotator=person)
    assert item is not None
    return item


def ahead(queue: Queue, person: User, but: QueueItem) -> QueueItem | None:
    found = item_ahead(queue=queue, annotator=person, but=but.pk)
    return None if found is None else found[0]


@pytest.mark.django_db
class TestAhead:
    def test_another_item_is_leased_once_and_stays_the_same(self) -> None:
        queue, ann = queue_of(4), make_user()
        first = opened(queue, ann)
        second = ahead(queue, ann, first)
        assert second is not None
        assert second != first
        assert ahead(queue, ann, first) == second
        assert Assignment.objects.live().filter(annotator=ann).count() == 2

    def test_a_reload_shows_what_was_on_the_screen(self) -> None:
        queue, ann = queue_of(3), make_user()
        first = opened(queue, ann)
        second = ahead(queue, ann, first)
        assert opened(queue, ann) == first
        submit(turn=first.turn, annotator=ann, verdict="good", queue=queue)
        assert opened(queue, ann) == second
        assert not Assignment.objects.get(item=second).ahead

    def test_others_get_other_items_first(self) -> None:
        queue, ann, bob = queue_of(3), make_user(), make_user()
        first = opened(queue, ann)
        second = ahead(queue, ann, first)
        assert opened(queue, bob) not in {first, second}

    def test_who_finds_nothing_else_takes_it_over(self) -> None:
        queue, ann, bob = queue_of(2), make_user(), make_user()
        first = opened(queue, ann)
        second = ahead(queue, ann, first)
        assert second is not None
        assert opened(queue, bob) == second
        assert not Assignment.objects.filter(item=second, annotator=ann).exists()
        with pytest.raises(AlreadyDone):
            renew_lease(item_id=second.pk, annotator=ann)  # ann's page comes to show it
        assert next_item(queue=queue, annotator=make_user()) is None  # what is on a screen stays there

    def test_fetching_ahead_takes_nothing_over(self) -> None:
        queue, ann, bob = queue_of(3), make_user(), make_user()
        first = opened(queue, ann)
        ahead(queue, ann, first)
        assert ahead(queue, bob, opened(queue, bob)) is None

    def test_what_comes_to_the_screen_is_not_ahead_any_more(self) -> None:
        queue, ann = queue_of(2), make_user()
        second = ahead(queue, ann, opened(queue, ann))
        assert second is not None
        renew_lease(item_id=second.pk, annotator=ann)
        assert next_item(queue=queue, annotator=make_user()) is None

    def test_a_page_that_is_left_gives_both_back(self) -> None:
        queue, ann = queue_of(2), make_user()
        first = opened(queue, ann)
        found = item_ahead(queue=queue, annotator=ann, but=first.pk)
        assert found is not None
        release_lease(item_id=first.pk, annotator=ann)
        release_lease(item_id=found[0].pk, annotator=ann, expires_at=found[1])
        assert not Assignment.objects.exists()

    def test_a_page_that_crashed_holds_nothing_for_longer_than_a_lease(self) -> None:
        queue, ann, bob = queue_of(2, labels_needed=2), make_user(), make_user()
        ahead(queue, ann, opened(queue, ann))
        Assignment.objects.update(expires_at=ENDED)
        second = ahead(queue, bob, opened(queue, bob))
        assert second is not None

    def test_undo_brings_the_last_one_back_and_keeps_the_rest(self) -> None:
        queue, ann = queue_of(4), make_user()
        first = opened(queue, ann)
        second = ahead(queue, ann, first)
        assert second is not None
        submit(turn=first.turn, annotator=ann, verdict="good", queue=queue)
        renew_lease(item_id=second.pk, annotator=ann)
        undo_last(queue=queue, annotator=ann)
        assert opened(queue, ann) == first
        assert ahead(queue, ann, first) == second

    def test_nothing_ahead_of_the_last_one_or_in_a_paused_queue(self) -> None:
        queue, ann = queue_of(2), make_user()
        first = opened(queue, ann)
        skip(item_id=queue.items.exclude(pk=first.pk).get().pk, annotator=ann, reason="I cannot tell")
        assert ahead(queue, ann, first) is None
        queue.paused = True
        assert item_ahead(queue=queue, annotator=make_user(), but=0) is None


def beyond_their_need() -> int:
    """Items that more people work on than they need."""
    live = Q(assignments__skipped_at=None, assignments__expires_at__gt=timezone.now())
    taken = QueueItem.objects.annotate(n=Count("assignments", filter=live))
    return taken.filter(labels_needed__lt=F("n") + F("labels_done")).count()


@pytest.mark.django_db(transaction=True)
def test_many_at_once_who_fetch_ahead_never_go_beyond_the_need() -> None:
    queue, needed = queue_of(10, labels_needed=2), 2
    people = [make_user() for _ in range(8)]
    excess = []

    def work(person: User) -> int:
        """Labels until nothing is left, as the page does; when somebody has taken the next item over, asks again."""
        done = 0
        try:
            item = next_item(queue=queue, annotator=person)
            while item is not None:
                following = ahead(queue, person, item)
                excess.append(beyond_their_need())
                submit(turn=item.turn, annotator=person, verdict="good", queue=queue)
                done += 1
                try:
                    if following is not None:
                        renew_lease(item_id=following.pk, annotator=person)
                        item = following
                        continue
                except AlreadyDone:
                    pass
                item = next_item(queue=queue, annotator=person)
        finally:
            connection.close()
        return done

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(work, people))
    assert max(excess) == 0
    assert sum(done) == Annotation.objects.count() == 10 * needed
    assert not queue.items.exclude(labels_done=needed, done=True).exists()
    assert not Assignment.objects.exists()
