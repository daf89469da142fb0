"""A day of simulated users in front of the real services: one bad candidate, then a good one.

Drawing, noting, measuring, looking, guardrails, steps, promotion and audit are those of every day, minute by minute of
a simulated clock. What is simulated is the users and the answers: turns and feedback are written as they are stored
after scrubbing, no model is asked, and so there is no shadow stage.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from assistants.models import Assistant
from capture.models import Conversation, Feedback, Passage, Retrieval, Turn
from serving.experiments import exposures, rules
from serving.experiments.assignment import Unit, choose_arm
from serving.experiments.models import Experiment
from serving.experiments.plan import Plan
from serving.experiments.services import start
from serving.models import Deployment
from serving.services import promote
from training.models import Adapter, Benchmark, Evaluation, GateVerdict

SLUG = "simulated-day"
FEE = "A fixed plan has an exit fee of £35."
WORDS = ("exit fee fixed plan", "meter reading month", "moving house address", "solar panels inverter", "direct debit")


@dataclass(frozen=True)
class Manner:
    """How often something happens: with a question, except ``down``: with a rating."""

    declined: float
    escalated: float
    again: float
    down: float
    unsupported: float
    milliseconds: float


LIVE = Manner(declined=0.12, escalated=0.05, again=0.12, down=0.30, unsupported=0.15, milliseconds=900)
GOOD = Manner(declined=0.10, escalated=0.02, again=0.06, down=0.15, unsupported=0.10, milliseconds=900)
BAD = Manner(declined=0.40, escalated=0.12, again=0.25, down=0.60, unsupported=0.40, milliseconds=1000)
RATED = 0.15


@dataclass
class Day:
    """``conversations``: of the whole day. ``tell`` gets a line for everything that happens. ``every``: minutes between
    two passes of the rules."""

    conversations: int
    seed: int
    tell: Callable[[str], object]
    midnight: datetime
    every: int = 1
    manners: dict[str, Manner] = field(default_factory=dict)
    met: dict[str, int] = field(default_factory=dict)

    def run(self) -> Assistant:
        """Makes the assistant and lives the day; what to do with the rows is the caller's."""
        self.generator = np.random.default_rng(self.seed)
        self.assistant = Assistant.objects.create(slug=SLUG, name="Simulated day")
        self.passage = Passage.objects.create(assistant=self.assistant, digest="d" * 64, title="Fees", text=FEE)
        live, bad, good = (self._adapter(number, manner) for number, manner in ((1, LIVE), (2, BAD), (3, GOOD)))
        promote(
            assistant=self.assistant, adapter=live, evaluation=live.evaluations.first(), actor=None, reason="Before."
        )  # fmt: skip
        waiting = [bad, good]
        experiment: Experiment | None = None
        for minute in range(24 * 60):
            now = self.midnight + timedelta(minutes=minute)
            if experiment is None and waiting and minute >= 60:
                experiment = self._start(waiting.pop(0), now)
            self._minute(now)
            if experiment is not None and minute % self.every == 0:
                experiment = self._pass(experiment, now)
        return self.assistant

    def _adapter(self, number: int, manner: Manner) -> Adapter:
        adapter = Adapter.objects.create(
            assistant=self.assistant, number=number, folder=f"simulated/{number}", base_digest="0" * 64,
            prompt_digest=self.assistant.prompt_digest,
        )  # fmt: skip
        benchmark = Benchmark.objects.create(assistant=self.assistant, name=f"Simulated {number}", content_hash="0")
        Evaluation.objects.create(
            assistant=self.assistant, adapter=adapter, benchmark=benchmark, state=Evaluation.State.SUCCEEDED,
            verdict=GateVerdict.PASSED, prompt_digest=adapter.prompt_digest, sentence="Simulated.",
        )  # fmt: skip
        self.manners[adapter.engine_name] = manner
        return adapter

    def _start(self, adapter: Adapter, now: datetime) -> Experiment:
        plan = Plan(by_rule=True, shadow_pairs=0, canary_share=0.1, canary_units=60, days=2)
        evaluation = adapter.evaluations.first()
        started = start(
            assistant=self.assistant, adapter=adapter, plan=plan, evaluation=evaluation, actor=None, now=now
        )  # fmt: skip
        self.tell(f"{now:%H:%M} {adapter} starts")
        return started

    def _pass(self, experiment: Experiment, now: datetime) -> Experiment | None:
        before = (experiment.stage, experiment.epoch)
        rules.run(experiment, now=now)
        experiment = Experiment.objects.select_related("assistant", "candidate", "control", "evaluation").get(
            pk=experiment.pk
        )
        if (experiment.stage, experiment.epoch) != before:
            met = experiment.exposures.filter(arm="candidate").values("unit").distinct().count()
            said = experiment.reason or f"share {experiment.share:.0%}"
            name = experiment.get_ending_display() or experiment.get_stage_display()
            self.tell(f"{now:%H:%M} {experiment.candidate}: {name} ({met} conversations have met it). {said}")
        return experiment if experiment.is_running else None

    def _minute(self, now: datetime) -> None:
        """Users come as they do by day: few at night, most after noon."""
        by_hour = 1.0 - 0.8 * math.cos(2 * math.pi * (now.hour + now.minute / 60 - 2) / 24)
        number = int(self.generator.poisson(self.conversations / 1440 * by_hour))
        if not number:
            return
        related = ("adapter__assistant", "experiment__candidate__assistant")
        deployment = Deployment.objects.select_related(*related).get(assistant=self.assistant)
        turns: list[Turn] = []
        feedback: list[Feedback] = []
        for place in range(number):
            name = f"{now:%H%M}-{place}"
            adapter, exposed = choose_arm(deployment, Unit(conversation=name))
            assert adapter is not None
            talk = Conversation.objects.create(assistant=self.assistant, external_id=name)
            self.met[adapter.engine_name] = self.met.get(adapter.engine_name, 0) + 1
            for turn in self._talk(talk, adapter.engine_name, now):
                turns.append(turn)
                feedback += self._said(turn)
                if exposed is not None:
                    exposures.note(exposed, turn.client_id, at=turn.asked_at)
        Turn.objects.bulk_create(turns)
        Retrieval.objects.bulk_create(Retrieval(turn=turn, passage=self.passage, rank=1) for turn in turns)
        Feedback.objects.bulk_create(feedback)
        exposures.flush()

    def _talk(self, talk: Conversation, adapter: str, now: datetime) -> list[Turn]:
        manner, draw = self.manners[adapter], self.generator
        words = WORDS[int(draw.integers(len(WORDS)))]
        turns: list[Turn] = []
        for number in range(1 + int(draw.poisson(0.7))):
            again = number > 0 and draw.random() < manner.again / 0.45  # about half of all questions have a next one
            words = words if again else WORDS[(WORDS.index(words) + 1) % len(WORDS)]
            declined = draw.random() < manner.declined
            unsupported = draw.random() < manner.unsupported
            turns.append(
                Turn(
                    assistant=self.assistant, conversation=talk, client_id=f"chatcmpl-{talk.external_id}-{number}",
                    question=f"What about {words}?", adapter=adapter, tags=["chat"], policy_digest="simulated",
                    response=self.assistant.decline_sentence if declined else FEE if not unsupported else "It is £99.",
                    declined=declined, asked_at=now + timedelta(seconds=20 * number),
                    prompt_digest=self.assistant.prompt_digest,
                    latency_ms=int(draw.lognormal(math.log(manner.milliseconds), 0.3)),
                    outcome=Turn.Outcome.ESCALATED if draw.random() < manner.escalated else "",
                )
            )  # fmt: skip
        return turns

    def _said(self, turn: Turn) -> list[Feedback]:
        if self.generator.random() >= RATED:
            return []
        down = self.generator.random() < self.manners[turn.adapter].down
        value = -1.0 if down else 1.0
        return [Feedback(assistant=self.assistant, turn=turn, kind="thumb", value=value, given_at=turn.asked_at)]
