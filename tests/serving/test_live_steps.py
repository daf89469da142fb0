"""Over HTTP, with a real engine: arms are drawn per conversation and noted, a rollback is done within a second and
gives the same bytes again, shadow answers are the other arm's own."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from django.utils import timezone

from capture.models import Turn
from capture.services import scrub_waiting
from serving import warming
from serving.api import client
from serving.experiments import exposures, shadow
from serving.experiments.looking import look
from serving.experiments.models import Exposure, ShadowAnswer
from serving.experiments.plan import Plan
from serving.experiments.rules import run
from serving.experiments.services import start, step, take_back
from serving.services import promote, roll_back
from tests.factories import make_adapter, make_evaluation
from tests.serving.conftest import QUESTION, Shop, until
from training.models import Adapter


@pytest.fixture
def adapters(shop: Shop) -> Iterator[tuple[Adapter, Adapter]]:
    made = [make_adapter(shop.assistant, number=number, seed=number) for number in (1, 2)]
    for adapter in made:
        make_evaluation(adapter, verdict="passed")
    yield made[0], made[1]
    exposures.flush()
    until(lambda: not exposures.beside.runs, "exposures are still written")
    exposures.reset()


def go_live(adapter: Adapter) -> None:
    promote(assistant=adapter.assistant, adapter=adapter, evaluation=adapter.evaluations.first(), actor=None)


def said(shop: Shop, conversation: str = "", question: str = QUESTION) -> str:
    more = {"metadata": {"conversation": conversation}} if conversation else {}
    text: str = shop.ask(question=question, **more).choices[0].message.content
    return text


def test_a_rollback_takes_less_than_a_second_and_gives_the_same_bytes(
    shop: Shop, adapters: tuple[Adapter, Adapter]
) -> None:
    first, second = adapters
    go_live(first)
    before = said(shop)
    go_live(second)
    assert warming.warm(shop.assistant.pk) >= 1  # what the worker does: both are in the engine
    other = said(shop)
    assert other != before
    began = time.perf_counter()
    roll_back(assistant=shop.assistant, actor=None, reason="it says other things")
    switched = time.perf_counter() - began
    after = said(shop)
    assert after == before
    assert switched < 1.0
    assert {adapter.engine_name for adapter in adapters} <= {one.name for one in client().adapters()}
    assert warming.warm(shop.assistant.pk) == 0  # the one that was taken back stays warm, too


def test_users_meet_their_arm_and_it_is_noted(shop: Shop, adapters: tuple[Adapter, Adapter]) -> None:
    live, candidate = adapters
    go_live(live)
    evaluation = candidate.evaluations.first()
    plan = Plan(ab_share=0.5, pair_share=1.0)
    experiment = start(
        assistant=shop.assistant, adapter=candidate, plan=plan, evaluation=evaluation, actor=None
    )  # fmt: skip
    plain = said(shop, "before")
    for _ in range(2):
        experiment = step(experiment=experiment, actor=None)
    answers = {f"talk-{i}": said(shop, f"talk-{i}") for i in range(10)}
    assert plain in answers.values()
    assert len(set(answers.values())) == 2
    assert said(shop, "talk-0") == answers["talk-0"]  # kept
    assert said(shop) == plain  # of nobody known: what is live
    exposures.flush()
    until(lambda: Exposure.objects.count() == 11, "not every question was noted")
    until(lambda: scrub_waiting().held == 0 and Turn.objects.count() == 13, "not every turn was stored")
    result = run(experiment)
    met = Exposure.objects.select_related("turn")
    assert all((one.turn.adapter == candidate.engine_name) == (one.arm == "candidate") for one in met if one.turn)
    assert met.exclude(turn=None).count() == 11
    assert sum(result["units"].values()) == 10

    Turn.objects.update(pii=[])  # the tiny model's babble may look like a name, and such turns are not answered again
    assert shadow.answer(experiment) == 13
    for other in ShadowAnswer.objects.filter(experiment=experiment, error="").select_related("turn"):
        shown_by_candidate = other.turn.adapter == candidate.engine_name
        assert other.arm == ("control" if shown_by_candidate else "candidate")
        # The same prompt, the other arm: its very words, and more of them, since users' answers are kept short here.
        assert other.text.startswith(plain.rstrip("\ufffd")) == shown_by_candidate
    assert shadow.answer(experiment) == 0  # once each

    take_back(experiment=experiment, actor=None, reason="enough")
    assert {said(shop, name) for name in answers} == {plain}


def test_a_question_that_does_not_fit_is_the_only_one_without_a_shadow_answer(
    shop: Shop, adapters: tuple[Adapter, Adapter]
) -> None:
    live, candidate = adapters
    go_live(live)
    evaluation = candidate.evaluations.first()
    plan = Plan(shadow_share=1.0)
    experiment = start(assistant=shop.assistant, adapter=candidate, plan=plan, evaluation=evaluation, actor=None)
    for number in range(shadow.AT_ONCE):
        said(shop, f"talk-{number}")
    until(lambda: scrub_waiting().held == 0 and Turn.objects.count() == shadow.AT_ONCE, "not every turn was stored")
    Turn.objects.update(pii=[])  # the tiny model's babble may look like a name
    long = Turn.objects.order_by("pk")[0]
    Turn.objects.filter(pk=long.pk).update(question="What is the exit fee? " * 4000)

    assert shadow.answer(experiment) == shadow.AT_ONCE
    wrong = ShadowAnswer.objects.exclude(error="").get()
    assert wrong.turn_id == long.pk
    assert "tokens" in wrong.error
    assert look(experiment, now=timezone.now())["shadow"]["failed"] == 1
