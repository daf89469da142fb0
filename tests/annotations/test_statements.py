"""How many statements a label costs: what an annotator waits for, and what twenty of them ask of one database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotations import progress, services
from annotations.errors import AlreadyDone, ItemGone
from annotations.models import Assignment, Queue, QueueItem, Resolution, SavedDraft
from assistants.models import Assistant
from tests.factories import add_member, make_assistant, make_queue, make_turn, make_user

pytestmark = pytest.mark.django_db

SCRIPT = {"X-Requested-With": "fetch"}
SUBMIT = 19
"""Session, user, queue, roles and item; then one transaction of 12; the item that is shown by now; the counts."""
AHEAD = 18


@pytest.fixture
def house() -> Assistant:
    return make_assistant()


@pytest.fixture
def ann(house: Assistant) -> User:
    user = make_user("ann")
    add_member(house, user, "annotator")
    return user


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def work(house: Assistant, turns: int = 5, **fields: Any) -> Queue:
    return make_queue(house, turns=[make_turn(house) for _ in range(turns)], **fields)


def post(client: Client, queue: Queue, what: str, **data: Any) -> tuple[Any, int]:
    with CaptureQueriesContext(connection) as asked:
        answer = client.post(reverse(f"annotations:{what}", args=[queue.pk]), data, headers=SCRIPT)
    assert answer.status_code == 200, answer.content
    return answer.json(), len(asked)


def first_item(client: Client, queue: Queue) -> QueueItem:
    client.get(reverse("annotations:label", args=[queue.pk]))
    return Assignment.objects.live().select_related("item").get(ahead=False).item


def test_a_label_and_the_item_behind_it(house: Assistant, ann: User) -> None:
    queue, client = work(house), logged_in(ann)
    item = first_item(client, queue)
    ahead, asked = post(client, queue, "ahead", item=item.pk)
    assert asked == AHEAD
    told, asked = post(
        client, queue, "submit", item=item.pk, choice="good", shown=ahead["item"], **{"mark-1": "relevant"}
    )
    assert asked == SUBMIT
    assert told["shown"] == ahead["item"]
    assert "1" in told["progress"]
    assert Resolution.objects.get().relevant_ranks == [1]
    assert Assignment.objects.get(annotator=ann).item_id == ahead["item"]  # the lease of what was labelled is gone


def test_as_many_whatever_others_have_said(house: Assistant, ann: User) -> None:
    """Their marks are one statement more, however many people and marks there are."""
    counts = []
    for others in (1, 3):
        queue = work(house, labels_needed=others + 1)
        client = logged_in(ann)
        item = first_item(client, queue)
        for name in range(others):
            marks = {1: "relevant", 2: "not_relevant"}
            services.submit(turn=item.turn, annotator=make_user(f"p{others}{name}"), verdict="good", marks=marks)
        ahead, _ = post(client, queue, "ahead", item=item.pk)
        _, asked = post(
            client, queue, "submit", item=item.pk, choice="good", shown=ahead["item"], **{"mark-1": "relevant"}
        )
        counts.append(asked)
        assert Resolution.objects.get(turn=item.turn).how == "agreed"
        Assignment.objects.all().delete()
    assert counts[0] == counts[1] <= SUBMIT + 2  # their marks; the links of the labels that counted


def test_large_queues_are_counted_once_in_a_while(house: Assistant, ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MANY", 3)
    monkeypatch.setattr(progress, "_counted", {})
    queue = work(house, turns=4)
    shown, today = progress.progress_and_today(queue, ann)
    assert (shown.total, shown.done, today) == (4, 0, 0)
    item = queue.items.select_related("turn").order_by("pk")[0]
    services.submit(turn=item.turn, annotator=ann, queue=queue, verdict="good")
    shown, today = progress.progress_and_today(queue, ann)
    assert (shown.done, today) == (0, 1)  # what is theirs is exact
    monkeypatch.setattr(progress, "COUNTED_SECONDS", -1.0)
    assert progress.progress_and_today(queue, ann)[0].done == 1
    assert progress.progress_and_today(make_queue(house), ann)[0].total == 0


def test_one_statement_renews_only_a_live_lease_on_an_item_of_the_queue(house: Assistant, ann: User) -> None:
    queue, other = work(house, turns=1), work(house, turns=1)
    item = services.next_item(queue=queue, annotator=ann)
    assert item is not None
    Assignment.objects.update(ahead=True)
    with CaptureQueriesContext(connection) as asked:
        ends = services.renew_lease(item_id=item.pk, annotator=ann, queue=queue)
    assert len(asked) == 1
    lease = Assignment.objects.get()
    assert (lease.expires_at, lease.ahead) == (ends, False)
    with pytest.raises(ItemGone):
        services.renew_lease(item_id=item.pk, annotator=ann, queue=other)
    rob = make_user("rob")
    Assignment.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert services.next_item(queue=queue, annotator=rob) == item
    with pytest.raises(AlreadyDone):
        services.renew_lease(item_id=item.pk, annotator=ann, queue=queue)
    Assignment.objects.filter(annotator=rob).delete()
    assert services.renew_lease(item_id=item.pk, annotator=ann) > timezone.now()  # nobody is at it: theirs again


def test_a_label_takes_leases_and_drafts_of_its_turn_along_and_no_others(house: Assistant, ann: User) -> None:
    queue, rob = work(house, turns=2, labels_needed=2), make_user("rob")
    first, second = queue.items.select_related("turn").order_by("pk")
    now = timezone.now()
    for item in (first, second):
        for person in (ann, rob):
            Assignment.objects.create(item=item, annotator=person, expires_at=now + timedelta(minutes=5))
            SavedDraft.objects.create(item=item, annotator=person, sealed=b"x", saved_at=now)
    services.submit(turn=first.turn, annotator=ann, queue=queue, verdict="good")
    left = {(first.pk, rob.pk), (second.pk, ann.pk), (second.pk, rob.pk)}
    assert set(Assignment.objects.values_list("item", "annotator")) == left
    assert set(SavedDraft.objects.values_list("item", "annotator")) == left
