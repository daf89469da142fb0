"""A draft that is on its way while its label is being stored must not stay behind it."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import connection, transaction

from annotations.drafts import Draft
from annotations.leases import let_go
from annotations.models import QueueItem, SavedDraft
from annotations.saved_drafts import save_draft
from annotations.services import next_item, skip
from tests.factories import make_assistant, make_queue, make_turn, make_user

DRAFT = Draft(choice="bad", reasons=("wrong",), correction="late", marks={}, note="", missed=())


def waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return bool(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("ended_by", ["label", "skip"])
def test_a_draft_that_comes_while_its_item_is_finished_is_not_kept(ended_by: str) -> None:
    assistant, ann = make_assistant(), make_user()
    queue = make_queue(assistant, turns=[make_turn(assistant)])
    item = next_item(queue=queue, annotator=ann)
    assert item is not None
    kept: list[bool] = []

    def send() -> None:
        try:
            kept.append(save_draft(item=item, annotator=ann, draft=DRAFT, at=1.0))
        finally:
            connection.close()

    late = threading.Thread(target=send)
    with transaction.atomic():
        if ended_by == "label":  # as `submit` does
            QueueItem.objects.select_for_update().get(pk=item.pk)
            let_go(turn_id=item.turn_id, annotator=ann)
        else:
            skip(item_id=item.pk, annotator=ann, reason="unclear")
        late.start()
        end = time.monotonic() + 30
        while not waits() and late.is_alive() and time.monotonic() < end:
            time.sleep(0.02)
        assert late.is_alive()
    late.join(30)
    assert kept == [False]
    assert not SavedDraft.objects.exists()
