from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.models import User
from django.db import connection

from annotations.errors import AlreadyDone, ItemGone
from annotations.models import Annotation, Assignment, Queue, QueueItem
from annotations.services import next_item, release_lease, renew_lease, submit
from tests.factories import make_assistant, make_queue, make_turn, make_user

ENDED = "2020-01-01T00:00:00Z"


def queue_of(n: int, **fields: object) -> Queue:
    assistant = make_assistant()
    return make_queue(assistant, turns=[make_turn(assistant, contexts=()) for _ in range(n)], **fields)


@pytest.mark.django_db
class TestNextItem:
    def test_two_people_get_different_items(self) -> None:
        queue = queue_of(2)
        first, second = next_item(queue=queue, annotator=make_user()), next_item(queue=queue, annotator=make_user())
        assert first is not None
        assert second is not None
        assert first != second
        assert next_item(queue=queue, annotator=make_user()) is None

    def test_overlap_lets_as_many_in_as_labels_are_needed(self) -> None:
        queue = queue_of(1, labels_needed=2)
        got = [next_item(queue=queue, annotator=make_user()) for _ in range(3)]
        assert [item is not None for item in got] == [True, True, False]

    def test_a_reload_gives_the_same_item(self) -> None:
        queue, ann = queue_of(3), make_user()
        assert next_item(queue=queue, annotator=ann) == next_item(queue=queue, annotator=ann)

    def test_an_ended_lease_frees_the_item(self) -> None:
        queue = queue_of(1)
        next_item(queue=queue, annotator=make_user())
        Assignment.objects.update(expires_at=ENDED)
        assert next_item(queue=queue, annotator=make_user()) is not None

    def test_labelled_items_do_not_return(self) -> None:
        queue, ann = queue_of(2, labels_needed=2), make_user()
        item = next_item(queue=queue, annotator=ann)
        assert item is not None
        submit(turn=item.turn, annotator=ann, verdict="good", queue=queue)
        following = next_item(queue=queue, annotator=ann)
        assert following is not None
        assert following != item

    def test_a_paused_queue_gives_nothing(self) -> None:
        assert next_item(queue=queue_of(1, paused=True), annotator=make_user()) is None

    def test_constant_number_of_queries(self, django_assert_max_num_queries: object) -> None:
        queue, ann = queue_of(30), make_user()
        for item in queue.items.order_by("pk")[:25]:
            Annotation.objects.create(turn=item.turn, annotator=ann, verdict="good", queue=queue)
        with django_assert_max_num_queries(9):  # type: ignore[operator]
            assert next_item(queue=queue, annotator=ann) is not None


@pytest.mark.django_db
class TestRenewAndRelease:
    def test_renewing_pushes_the_end_away(self) -> None:
        queue, ann = queue_of(1), make_user()
        item = next_item(queue=queue, annotator=ann)
        assert item is not None
        before = Assignment.objects.get().expires_at
        assert renew_lease(item_id=item.pk, annotator=ann) > before

    def test_an_ended_lease_is_renewed_while_nobody_has_the_item(self) -> None:
        queue, ann = queue_of(1), make_user()
        item = next_item(queue=queue, annotator=ann)
        assert item is not None
        Assignment.objects.update(expires_at=ENDED)
        assert renew_lease(item_id=item.pk, annotator=ann)
        Assignment.objects.update(expires_at=ENDED)
        next_item(queue=queue, annotator=make_user())
        with pytest.raises(AlreadyDone):
            renew_lease(item_id=item.pk, annotator=ann)

    def test_an_item_that_is_gone(self) -> None:
        with pytest.raises(ItemGone):
            renew_lease(item_id=999_999_999, annotator=make_user())

    def test_releasing_gives_the_item_to_others(self) -> None:
        queue, ann = queue_of(1), make_user()
        item = next_item(queue=queue, annotator=ann)
        assert item is not None
        release_lease(item_id=item.pk, annotator=ann)
        assert next_item(queue=queue, annotator=make_user()) == item

    def test_a_late_release_of_an_older_page_does_nothing(self) -> None:
        queue, ann = queue_of(1), make_user()
        item = next_item(queue=queue, annotator=ann)
        assert item is not None
        old = Assignment.objects.get().expires_at
        next_item(queue=queue, annotator=ann)  # the page was opened again
        release_lease(item_id=item.pk, annotator=ann, expires_at=old)
        assert next_item(queue=queue, annotator=make_user()) is None


@pytest.mark.django_db(transaction=True)
def test_fifty_people_at_once_never_get_an_item_beyond_its_need() -> None:
    queue = queue_of(20, labels_needed=2)
    people = [make_user() for _ in range(50)]

    def ask(person: User) -> int | None:
        try:
            item = next_item(queue=queue, annotator=person)
            return None if item is None else item.pk
        finally:
            connection.close()

    with ThreadPoolExecutor(10) as pool:
        given = list(pool.map(ask, people))
    taken = Counter(pk for pk in given if pk is not None)
    assert taken == dict.fromkeys(QueueItem.objects.filter(queue=queue).values_list("pk", flat=True), 2)
    assert given.count(None) == 10


@pytest.mark.django_db(transaction=True)
def test_double_submit_from_two_tabs_stores_one_label() -> None:
    queue, ann = queue_of(1), make_user()
    item = queue.items.select_related("turn").get()

    def send(_: int) -> int:
        try:
            return submit(turn=item.turn, annotator=ann, verdict="good", queue=queue).pk
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        keys = set(pool.map(send, range(8)))
    assert len(keys) == 1
    assert Annotation.objects.count() == 1
