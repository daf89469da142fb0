"""The cast: Paula is the privacy officer of the bot, Ada its admin, Ann labels; Sam is an officer elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from annotations.models import Annotation, Assignment, ContextMark, Queue, Resolution
from assistants.models import Assistant
from capture.models import Turn
from capture.services import receive_feedback, receive_turns, scrub_waiting
from serving.models import Deployment
from tests.capture.conftest import turn_item
from tests.factories import make_adapter, make_assistant, make_queue, make_user
from tests.training.finetune.conftest import example
from training.models import Adapter, DatasetVersion, Example, Run

ANNA = "anna.smith@example.org"
CONTEXT = {"text": "Only Anna's letter says this: the blue door.", "title": "Letter", "source": "letters/1.md"}
SHARED = {"text": "A fixed plan has an exit fee of £35.", "title": "Leaving early", "source": "tariffs/leaving.md"}


@dataclass
class House:
    paula: User
    ada: User
    ann: User
    sam: User
    bot: Assistant
    other: Assistant


@pytest.fixture
def house(db: None) -> House:
    paula, ada, ann, sam = (make_user(name) for name in ("paula", "ada", "ann", "sam"))
    bot = make_assistant("bot", members={"privacy": [paula], "admin": [ada], "annotator": [ann]})
    other = make_assistant("other", members={"privacy": [sam], "admin": [sam]})
    return House(paula, ada, ann, sam, bot, other)


def enter(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def say(assistant: Assistant, name: str, *, user: Any = ANNA, **fields: Any) -> dict[str, Any]:
    """Posts a turn through the door; it waits in quarantine."""
    item = turn_item(id=name, metadata={"user": user} if user else {}, history=[], contexts=[SHARED, CONTEXT], **fields)
    (result,) = receive_turns(assistant=assistant, api_key=None, items=[item])
    assert result.status == "created", result
    return item


def like(assistant: Assistant, turn: str, text: str) -> None:
    (result,) = receive_feedback(
        assistant=assistant, api_key=None, items=[{"turn": turn, "kind": "comment", "text": text}]
    )
    assert result.status == "created", result


def scrub() -> None:
    report = scrub_waiting()
    assert report.held == 0, report.sentence


def label(house: House, turn: Turn) -> Queue:
    """A queue item with a lease, a label with a mark, and a resolution."""
    queue = make_queue(turn.assistant, turns=[turn])
    item = queue.items.get()
    Assignment.objects.create(item=item, annotator=house.ann, expires_at=turn.created_at)
    annotation = Annotation.objects.create(
        turn=turn, queue=queue, annotator=house.ann, verdict="bad", correction="Better so.", note="A note."
    )
    ContextMark.objects.create(annotation=annotation, retrieval=turn.retrievals.all()[0], relevance="relevant")
    resolution = Resolution.objects.create(turn=turn, verdict="bad", response="Better so.", how="single")
    resolution.annotations.add(annotation)
    return queue


def freeze(assistant: Assistant, turns: list[Turn], *, number: int = 1) -> DatasetVersion:
    """A frozen dataset: a row for each turn, and one that is nobody's."""
    dataset = DatasetVersion.objects.create(
        assistant=assistant, number=number, content_hash="c" * 64, rows=len(turns) + 1, state="succeeded",
        prompt_digest=assistant.prompt_digest,
        blocked=[{"question": turn.question, "item": "k", "by": "words", "score": 1.0} for turn in turns[:1]],
    )  # fmt: skip
    rows = [example(dataset, i, Example.Split.TRAIN) for i in range(len(turns) + 1)]
    for row, turn in zip(rows, turns, strict=False):
        row.turn, row.question, row.rejected = turn, turn.question, "Rejected words."
    Example.objects.bulk_create(rows)
    return dataset


def train(dataset: DatasetVersion, *, number: int = 1, state: str = "succeeded", live: bool = False) -> Adapter:
    run = Run.objects.create(
        assistant=dataset.assistant, dataset=dataset, base_model="base", state=state,
        prompt_digest=dataset.prompt_digest,
        progress={"samples": [{"step": 1, "samples": [{"question": "What?", "answer": "That."}]}]},
    )  # fmt: skip
    adapter = make_adapter(dataset.assistant, number=number, run=run)
    if live:
        Deployment.objects.create(assistant=dataset.assistant, adapter=adapter)
    return adapter
