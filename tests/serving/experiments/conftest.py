"""A bot with a live adapter and a candidate that passed the gate, and traffic written as it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from assistants.models import Assistant
from capture.models import Receipt, Turn
from serving.experiments import exposures
from serving.experiments.assignment import Exposed, Unit, choose_arm
from serving.experiments.models import Experiment
from serving.experiments.plan import Plan
from serving.experiments.services import start, step
from serving.models import Deployment
from serving.services import promote
from tests.factories import make_adapter, make_assistant, make_evaluation, make_feedback, make_turn, make_user
from training.models import Adapter


@dataclass
class Bot:
    assistant: Assistant
    ada: User
    live: Adapter
    candidate: Adapter

    def start(self, **plan: Any) -> Experiment:
        evaluation = self.candidate.evaluations.first()
        return start(
            assistant=self.assistant, adapter=self.candidate, plan=Plan(**plan), evaluation=evaluation,
            actor=self.ada, reason="It answers more.",
        )  # fmt: skip

    def in_ab(self, **plan: Any) -> Experiment:
        experiment = self.start(**plan)
        for _ in range(2):
            experiment = step(experiment=experiment, actor=self.ada)
        return experiment

    def choose(self, **unit: str) -> tuple[Adapter | None, Exposed | None]:
        related = ("adapter", "experiment__candidate")
        deployment = Deployment.objects.select_related(*related).get(assistant=self.assistant)
        return choose_arm(deployment, Unit(**unit))

    def ask(
        self, unit: str, *, thumb: float | None = None, answered: bool = True, at: datetime | None = None,
        **fields: Any,
    ) -> Turn | None:  # fmt: skip
        """One question through the draw: noted, and stored as capture stores it."""
        at = at or timezone.now() - timedelta(minutes=20)
        adapter, exposed = self.choose(conversation=unit)
        client_id = f"chatcmpl-{self.assistant.pk}-{unit}-{at.timestamp()}"
        if exposed is not None:
            exposures.note(exposed, client_id, at=at)
        if not answered:
            return None
        Receipt.objects.create(assistant=self.assistant, client_id=client_id, payload_digest="x")
        turn = make_turn(
            self.assistant, client_id=client_id, asked_at=at, tags=["chat"], latency_ms=200,
            adapter=adapter.engine_name if adapter else "", prompt_digest=self.assistant.prompt_digest, **fields,
        )  # fmt: skip
        if thumb is not None:
            make_feedback(turn, value=thumb)
        return turn


def make_bot() -> Bot:
    ada = make_user("ada")
    assistant = make_assistant("bot", members={"admin": [ada]})
    live, candidate = (make_adapter(assistant, number=n) for n in (1, 2))
    for adapter in (live, candidate):
        make_evaluation(adapter, verdict="passed")
    promote(assistant=assistant, adapter=live, evaluation=live.evaluations.first(), actor=ada)
    exposures.reset()
    return Bot(assistant, ada, live, candidate)


@pytest.fixture
def bot(db: None) -> Iterator[Bot]:
    yield make_bot()
    exposures.reset()
