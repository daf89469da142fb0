"""A live adapter that was trained on logged questions, and a week of traffic with vectors of two topics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pgvector import HalfVector

from assistants.models import Assistant
from capture.models import Conversation, Turn
from serving.drift.models import DriftReport
from serving.drift.services import start_report
from serving.models import Deployment
from tests.factories import make_adapter, make_assistant, make_user
from training.models import DatasetVersion, Example, Run

TOPICS = {
    "fees": ("What does leaving the plan cost?", "Is there an exit fee?", "How much is the fee for leaving?"),
    "solar": ("Do you buy power from solar panels?", "My solar inverter blinks", "What do solar panels earn?"),
}


@dataclass
class House:
    assistant: Assistant
    ada: User
    dataset: DatasetVersion
    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))

    def turns(self, topics: Sequence[str], at: datetime, **fields: Any) -> list[Turn]:
        """One turn of a conversation of its own for each topic."""
        talks = Conversation.objects.bulk_create(
            Conversation(assistant=self.assistant, external_id=f"{at.timestamp()}-{fields.get('tags')}-{i}")
            for i in range(len(topics))
        )
        return Turn.objects.bulk_create(
            Turn(
                assistant=self.assistant, conversation=talk, client_id=f"t-{talk.pk}", asked_at=at, response="Yes.",
                question=TOPICS[topic][i % 3], policy_digest="test", embedding=self.vector(topic), **fields,
            )
            for i, (talk, topic) in enumerate(zip(talks, topics, strict=True))
        )  # fmt: skip

    def vector(self, topic: str) -> HalfVector:
        centre = np.zeros(384)
        centre[list(TOPICS).index(topic)] = 3.0
        vector = centre + self.generator.normal(size=384)
        return HalfVector((vector / np.linalg.norm(vector)).astype(np.float32))

    def report(self, **more: Any) -> DriftReport:
        report = start_report(assistant=self.assistant, actor=self.ada, **more)
        report.refresh_from_db()
        assert report.state == "succeeded", report.error
        return report


@pytest.fixture
def house(db: None, settings: Any) -> House:
    settings.RATCHET_FOREGROUND = True
    ada = make_user("ada")
    assistant = make_assistant("bot", members={"admin": [ada]})
    dataset = DatasetVersion.objects.create(
        assistant=assistant, number=1, rows=120, state="succeeded", prompt_digest=assistant.prompt_digest,
        documents=["fees.md", "gone.md"],
    )  # fmt: skip
    run = Run.objects.create(
        assistant=assistant, dataset=dataset, base_model="base", state="succeeded", prompt_digest=dataset.prompt_digest
    )
    Deployment.objects.create(assistant=assistant, adapter=make_adapter(assistant, run=run))
    made = House(assistant, ada, dataset)
    learnt = made.turns(["fees"] * 120, timezone.now() - timedelta(days=30))
    Example.objects.bulk_create(
        Example(
            dataset=dataset, position=i, split="train", origin="good", kind="answer", group=str(i), turn=turn,
            question=turn.question, digest="d", evidence=[[1, 0, 0.5 + i / 1000]],
        )
        for i, turn in enumerate(learnt)
    )  # fmt: skip
    return made
