"""Fifty people at one queue at once, each with a connection of their own: nobody gets an item beyond its need, and no
item ends with more labels than it needs."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.db.models import Count, F, Q
from django.utils import timezone

from annotations.errors import LabelRefused
from annotations.gold import mark_gold
from annotations.models import Annotation, Queue, QueueItem
from annotations.services import adjudicate, item_ahead, next_item, release_lease, skip, submit
from tests.factories import make_assistant, make_queue, make_turn, make_user

PEOPLE = 50
ITEMS = 24


def given_out_beyond_need(queue: Queue) -> int:
    """Ordinary items with more labels and live leases than they need, in one snapshot."""
    live = Q(assignments__skipped_at=None, assignments__expires_at__gt=timezone.now())
    items = QueueItem.objects.filter(queue=queue, gold=None)
    leased = items.annotate(leases=Count("assignments", filter=live))
    return leased.filter(labels_needed__lt=F("labels_done") + F("leases")).count()


def connect() -> None:
    """Another test process may hold connections just now: the server has few."""
    for _ in range(100):
        try:
            return connection.ensure_connection()
        except OperationalError:
            time.sleep(0.1)
    return connection.ensure_connection()


@pytest.mark.django_db(transaction=True)
def test_fifty_people_at_once() -> None:
    assistant = make_assistant()
    turns = [make_turn(assistant, contexts=()) for _ in range(ITEMS)]
    queue = make_queue(assistant, turns=turns, labels_needed=2, gold_share=0.2)
    items = list(queue.items.order_by("pk"))
    QueueItem.objects.filter(pk__in=[item.pk for item in items[::5]]).update(labels_needed=3)
    reviewer = make_user("rae")
    adjudicate(turn=items[1].turn, reviewer=reviewer, verdict="good", reasons=(), response="")
    mark_gold(item=items[1], reviewer=reviewer)
    people = [make_user() for _ in range(PEOPLE)]
    start = threading.Barrier(PEOPLE)
    trouble: list[object] = []
    acts: Counter[str] = Counter()

    def work(person: User, seed: int) -> None:
        dice = random.Random(seed)
        try:
            connect()
            start.wait(timeout=60)
            while (item := next_item(queue=queue, annotator=person)) is not None:
                ahead = item_ahead(queue=queue, annotator=person, but=item.pk) if dice.random() < 0.3 else None
                if (beyond := given_out_beyond_need(queue)) != 0:
                    trouble.append(f"{beyond} items given out beyond their need")
                act = dice.choices(("label", "skip", "give back", "walk away"), (8, 1, 1, 1))[0]
                acts[act] += 1
                if act == "label":
                    submit(turn=item.turn, annotator=person, verdict="good", queue=queue)
                elif act == "skip":
                    skip(item_id=item.pk, annotator=person, reason="I cannot tell")
                elif act == "give back":
                    release_lease(item_id=item.pk, annotator=person)
                if ahead is not None and dice.random() < 0.5:
                    release_lease(item_id=ahead[0].pk, annotator=person)
                if act == "walk away":
                    return  # the lease stays until it ends
        except LabelRefused as refused:  # nobody here works on an ended lease, so nothing may be refused
            trouble.append(refused)
        except Exception as error:
            trouble.append(error)
            raise
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(person, seed)) for seed, person in enumerate(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=240)
    assert not any(thread.is_alive() for thread in threads)
    assert trouble == []
    assert given_out_beyond_need(queue) == 0
    ordinary = QueueItem.objects.filter(queue=queue, gold=None)
    labels: Counter[object] = Counter(Annotation.objects.current().values_list("turn_id", flat=True))
    for item in ordinary:
        assert item.labels_done == labels[item.turn_id] <= item.labels_needed
        assert item.done is (item.labels_done >= item.labels_needed)
    by_person = Counter(Annotation.objects.values_list("turn_id", "annotator_id"))
    assert set(by_person.values()) == {1}
    assert acts["label"] > ITEMS
