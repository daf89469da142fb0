"""What the annotation bench does in the database of DATABASE_URL, a step per call; each prints a line of JSON."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

EXPORTED = 2000
_BATCH = 5000
SENTENCES = (
    "A fixed plan has an exit fee for each fuel.",
    "No fee is due in the last weeks of the plan.",
    "Tell us ten days before you move, and the plan moves with you.",
    "Read the meter on the first day of the month.",
    "Send the figures before the dot only.",
    "We pay for each unit that you send back to the grid.",
    "A smart meter sends its figures by itself, twice a day.",
    "The bill comes once a month and can be paid by direct debit.",
    "If the payment fails, we try again after five working days.",
    "Prices change four times a year, and we write to you before they do.",
)


def fill(turns: int, labels: int, annotators: int, extra: int) -> dict[str, Any]:
    """Turns, a queue with ``labels`` items that are done and ``extra`` that are not, people with sessions, and a queue
    whose `EXPORTED` labels are exported. What is there already is kept."""
    from _capture_million import fill as fill_turns

    from annotations.models import Annotation, Queue, QueueItem
    from assistants.models import Assistant, Role

    house, _ = Assistant.objects.get_or_create(slug="stored", defaults={"name": "Stored"})
    fill_turns(house.pk, turns, _say)
    people = [_person(f"annotator-{n}", house, Role.ANNOTATOR) for n in range(annotators)]
    reviewer = _person("reviewer", house, Role.REVIEWER, superuser=True)
    queue, _ = Queue.objects.get_or_create(assistant=house, name="Bench")
    exported = _exported(people)
    if not Annotation.objects.filter(queue=queue).exists():
        _add_labels(queue, people, range(labels))
        _settle_in()
    left = QueueItem.objects.filter(queue=queue, done=False).count()
    if left < extra:
        start = QueueItem.objects.filter(queue=queue).count()
        _add_items(queue, range(start, min(turns, start + extra - left)), done=False)
        _settle_in()
    return {
        "queue": queue.pk,
        "export_queue": exported.pk,
        "exported": Annotation.objects.current().filter(queue=exported).count(),
        "sessions": [_session(person) for person in people],
        "reviewer": _session(reviewer),
    }


def _exported(people: list[Any]) -> Any:
    """A queue with `EXPORTED` labels on turns in plain English: words of random letters look like names to the leak
    audit, which every export must pass."""
    from django.utils import timezone

    from annotations.models import Annotation, ContextMark, Queue
    from assistants.models import Assistant
    from capture.models import Conversation, Passage, Retrieval, Turn

    own, _ = Assistant.objects.get_or_create(slug="exported", defaults={"name": "Exported"})
    queue, made = Queue.objects.get_or_create(assistant=own, name="Export")
    if not made:
        return queue
    draw = random.Random(7)
    talk = Conversation.objects.create(assistant=own, external_id="talk")
    passages = Passage.objects.bulk_create(
        Passage(assistant=own, digest=f"{n:064x}", title=f"Page {n}", text=" ".join(draw.choices(SENTENCES, k=22)))
        for n in range(200)
    )
    turns = Turn.objects.bulk_create(
        Turn(
            assistant=own, conversation=talk, client_id=f"turn-{n}", question=draw.choice(SENTENCES), model="base",
            response=f"{draw.choice(SENTENCES)} [1]", asked_at=timezone.now(),
        )
        for n in range(EXPORTED)
    )  # fmt: skip
    contexts = Retrieval.objects.bulk_create(
        Retrieval(turn=turn, passage=passage, rank=rank)
        for turn in turns
        for rank, passage in enumerate(draw.sample(passages, 5), start=1)
    )
    labels = Annotation.objects.bulk_create(
        Annotation(turn=turn, queue=queue, annotator=people[n % len(people)], verdict="good", seconds=9)
        for n, turn in enumerate(turns)
    )
    ContextMark.objects.bulk_create(
        ContextMark(annotation=label, retrieval=first, relevance="relevant")
        for label, first in zip(labels, contexts[::5], strict=True)
    )
    return queue


def house(slug: str) -> dict[str, Any]:
    """An assistant to import into, with a key and an empty queue."""
    from annotations.models import Queue
    from assistants.models import Assistant
    from assistants.services import issue_key

    assistant = Assistant.objects.create(slug=slug, name=slug)
    key = issue_key(assistant=assistant, name="bench", scopes=["log"])[1]
    return {
        "assistant": assistant.pk,
        "queue": Queue.objects.create(assistant=assistant, name="Imported").pk,
        "key": key,
    }


def scrub(assistant: int, seconds: int) -> dict[str, Any]:
    """Scrubs what waits, as one worker does; the recognisers are loaded before the clock starts."""
    from capture.models import Turn
    from capture.scrub import scrub_waiting
    from privacy.scrubber import Scrubber

    Scrubber().scrub_text("Nothing personal.")
    begun = time.perf_counter()
    scrub_waiting(seconds=seconds, batch=10)  # it looks at the clock between batches
    return {"seconds": time.perf_counter() - begun, "turns": Turn.objects.filter(assistant=assistant).count()}


def leave(assistant: int, queue: int) -> dict[str, Any]:
    """How many items the queue got; then everything of that assistant goes."""
    from annotations.models import QueueItem
    from assistants.models import Assistant
    from capture.models import Turn

    items = QueueItem.objects.filter(queue=queue).count()
    Turn.objects.filter(assistant=assistant).delete()  # first: they hold its passages
    Assistant.objects.filter(pk=assistant).delete()
    return {"items": items}


def check(queue: int) -> dict[str, Any]:
    """Whether nobody was given too much, and how the statements of next and submit are planned."""
    from _annotate_plans import plans
    from django.db.models import Count, F, Q

    from annotations.models import Annotation, QueueItem

    current = Q(turn__annotations__replaced_by=None, turn__annotations__withdrawn_at=None)
    labelled = QueueItem.objects.filter(queue=queue).annotate(n=Count("turn__annotations", filter=current))
    return {
        "over_labelled": labelled.filter(n__gt=F("labels_needed")).count(),
        "stored_labels": Annotation.objects.filter(queue=queue).count(),
        **plans(queue),
    }


def _person(name: str, assistant: Any, role: str, *, superuser: bool = False) -> Any:
    from django.contrib.auth.models import User

    from assistants.models import Membership

    person, _ = User.objects.get_or_create(username=name, defaults={"is_staff": True, "is_superuser": superuser})
    Membership.objects.get_or_create(assistant=assistant, user=person, role=role)
    return person


def _session(person: Any) -> str:
    from django.test import Client

    client = Client()
    client.force_login(person)
    return str(client.cookies["sessionid"].value)


def _add_items(queue: Any, numbers: range, *, done: bool) -> None:
    from _capture_million import turn_key

    from annotations.models import QueueItem

    for start in range(numbers.start, numbers.stop, _BATCH):
        QueueItem.objects.bulk_create(
            QueueItem(queue=queue, turn_id=turn_key(n), labels_done=int(done), done=done)
            for n in range(start, min(numbers.stop, start + _BATCH))
        )


def _add_labels(queue: Any, people: list[Any], numbers: range) -> None:
    """Items that are done, with a label, a mark and a resolution each: seven of ten good."""
    from _capture_million import turn_key

    from annotations.models import Annotation, ContextMark, Resolution
    from capture.models import Retrieval

    _add_items(queue, numbers, done=True)
    counted = Resolution.annotations.through
    for start in range(numbers.start, numbers.stop, _BATCH):
        keys = {turn_key(n): n for n in range(start, min(numbers.stop, start + _BATCH))}
        said = {key: ("bad", ["incomplete"]) if n % 10 > 6 else ("good", []) for key, n in keys.items()}
        labels = Annotation.objects.bulk_create(
            Annotation(
                turn_id=key, queue=queue, annotator=people[n % len(people)], verdict=said[key][0], reasons=said[key][1],
                seconds=9,
            )
            for key, n in keys.items()
        )  # fmt: skip
        first = dict(Retrieval.objects.filter(turn__in=keys, rank=1).values_list("turn", "pk"))
        ContextMark.objects.bulk_create(
            ContextMark(annotation=label, retrieval_id=first[label.turn_id], relevance="relevant") for label in labels
        )
        verdicts = Resolution.objects.bulk_create(
            Resolution(turn_id=key, verdict=said[key][0], reasons=said[key][1], how="single") for key in keys
        )
        counted.objects.bulk_create(
            counted(resolution_id=verdict.pk, annotation_id=label.pk)
            for verdict, label in zip(verdicts, labels, strict=True)
        )
        _say(f"  labels: {start + len(keys):,}")


def _settle_in() -> None:
    """Labels of the last quarter instead of this minute, and statistics for the planner."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("UPDATE annotations_annotation SET created_at = now() - interval '1 day' * (1 + id % 90)")
        for table in connection.introspection.table_names(cursor):
            if table.startswith("annotations_"):
                cursor.execute(f"VACUUM ANALYZE {connection.ops.quote_name(table)}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "fill": fill, "house": house, "scrub": scrub, "leave": leave, "check": check,
}  # fmt: skip

if __name__ == "__main__":
    import django

    django.setup()
    given = [int(value) if value.isdecimal() else value for value in sys.argv[2:]]
    print(json.dumps(STEPS[sys.argv[1]](*given)))
