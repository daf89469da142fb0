"""A judge on a real socket: blind, both orders, never asked twice, and counted only as far as it agrees with people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from annotations.comparing.models import ComparisonChoice
from assistants.background import launch
from tests.factories import make_adapter, make_assistant, make_benchmark, make_evaluation, make_user
from tests.servers import serving
from training.comparing import start_comparison
from training.evaluation.gate import GateRule
from training.evaluation.judge import read_reply
from training.evaluation.judged import counting, judged_preference, said_of
from training.evaluation.services import NotPossible, start_judging
from training.models import BenchmarkItem, Evaluation, EvaluationAnswer, Judging


class Judge:
    """Prefers the answer that names the fee; ``replies`` overrides it."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.reply: str | None = None
        self.down = False

    async def chat(self, request: Request) -> Response:
        if self.down:
            return JSONResponse({"error": {"message": "overloaded"}}, status_code=503)
        body = await request.json()
        self.bodies.append(body)
        shown = json.loads(body["messages"][1]["content"])
        better = "A" if "£35" in shown["A"] else "B" if "£35" in shown["B"] else "TIE"
        said = self.reply if self.reply is not None else f"Both are short. {better}"
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        return JSONResponse({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 4}})


@pytest.fixture
def judge(settings: Any) -> Iterator[Judge]:
    judge = Judge()
    app = Starlette(routes=[Route("/v1/chat/completions", judge.chat, methods=["POST"])])
    with serving(app) as address:
        settings.RATCHET_JUDGE_BASE_URL = f"{address}/v1"
        settings.RATCHET_JUDGE_MODEL = "judge-large"
        yield judge


@pytest.fixture
def evaluation(db: None, monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    monkeypatch.setattr("training.evaluation.services.launch", lambda work: None)
    people = {"admin": [make_user("alice")], "reviewer": [make_user("rob")], "annotator": [make_user("ann")]}
    assistant = make_assistant("bot", members=people)
    return answered(assistant)


def answered(assistant: Any, n: int = 12, **fields: Any) -> Evaluation:
    """The candidate names the fee on all but the last two questions, where both say the same."""
    evaluation = make_evaluation(
        make_adapter(assistant, number=assistant.adapters.count() + 1), benchmark=make_benchmark(assistant), **fields
    )
    frozen = {
        "passages": [{"rank": 1, "title": "T", "source": "s", "text": "The fee is £35."}], "evidence": [[1, 0, 0.8]],
        "has_gold": True,
    }  # fmt: skip
    for i in range(n):
        item = BenchmarkItem.objects.create(
            benchmark=evaluation.benchmark, key=f"q{i}", question=f"Question {i}?", kind="answer",
            answers=["The fee is £35."], contexts={"clean": frozen}, gold=[{"path": f"{i}.md", "sentence": "x"}],
        )  # fmt: skip
        for arm, said in (("base_rag", "I cannot find it."), ("adapter_rag", "The fee is £35. [1]")):
            text = "The same." if i >= n - 2 else said
            EvaluationAnswer.objects.create(
                evaluation=evaluation, item=item, arm=arm, condition="clean", completion=text, text=text,
                measures={"grounded_correct": float(arm == "adapter_rag"), "answer_presence": 1.0},
            )  # fmt: skip
    return evaluation


def judged(evaluation: Evaluation, **fields: Any) -> Judging:
    judging = start_judging(evaluation=evaluation, **fields)
    launch(judging, foreground=True)
    judging.refresh_from_db()
    return judging


def test_blind_and_in_both_orders(evaluation: Evaluation, judge: Judge) -> None:
    judging = judged(evaluation)
    assert (judging.state, judging.error) == ("succeeded", "")
    assert len(judge.bodies) == 20  # ten pairs that differ, each in both orders
    assert {body["model"] for body in judge.bodies} == {"judge-large"}
    sent = json.dumps(judge.bodies)
    for word in ("adapter", "candidate", "baseline", "today", "base_rag"):
        assert word not in sent.lower()
    firsts = [json.loads(body["messages"][1]["content"])["A"] for body in judge.bodies]
    assert len([text for text in firsts if "£35" in text]) == 10
    found = judging.results
    assert (found["win_rate"]["value"], found["win_rate"]["n"], found["consistent"]) == (1.0, 10, 1.0)
    assert found["counts"] == {"candidate": 10, "baseline": 0, "tie": 0}
    assert found["agreement"]["kappa"] is None


def test_the_same_is_never_asked_twice(evaluation: Evaluation, judge: Judge) -> None:
    first = judged(evaluation, pairs=4)
    assert len(judge.bodies) == 8
    second = judged(evaluation)
    assert len(judge.bodies) == 20
    assert second.results["win_rate"]["value"] == first.results["win_rate"]["value"] == 1.0
    assert judged(evaluation).results == second.results
    assert len(judge.bodies) == 20


def test_a_choice_that_follows_the_place_is_none(evaluation: Evaluation, judge: Judge) -> None:
    judge.reply = "A"
    found = judged(evaluation).results
    assert found["counts"] == {"candidate": 0, "baseline": 0, "tie": 10}
    assert (found["win_rate"]["value"], found["consistent"]) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("text", "first", "said"),
    [
        ("A", True, "candidate"), ("A", False, "baseline"), ("B", True, "baseline"), ("B", False, "candidate"),
        ("TIE", True, "tie"), ("A is vague, so B", True, "baseline"), ("neither", True, "unreadable"),
        ("", True, "unreadable"), ("BAD", False, "unreadable"),
    ],
)  # fmt: skip
def test_replies_are_read(text: str, first: bool, said: str) -> None:
    assert read_reply(text, candidate_first=first) == said


def test_a_judge_that_is_away_or_babbles(evaluation: Evaluation, judge: Judge, settings: Any) -> None:
    judge.down = True
    away = judged(evaluation)
    assert away.state == "failed"
    assert "ask it again later" in away.error
    judge.down, judge.reply = False, "As a language model I like both."
    babbling = judged(evaluation)
    assert babbling.state == "failed"
    assert "0 only" in babbling.error
    assert "£35" not in babbling.error
    judge.reply = None
    assert judged(evaluation).state == "succeeded"  # what was unreadable is asked again
    settings.RATCHET_JUDGE_MODEL = ""
    with pytest.raises(NotPossible, match="RATCHET_JUDGE_BASE_URL"):
        start_judging(evaluation=evaluation)


def test_it_counts_only_as_far_as_it_agrees_with_people(evaluation: Evaluation, judge: Judge) -> None:
    """Forty pairs that a person judged: with agreement it may count, against it never."""
    large = answered(evaluation.assistant, n=42, gate_rule=GateRule(margins={"judge": 0.0}).as_dict())
    rob = User.objects.get(username="rob")
    opened = start_comparison(evaluation=large, name="r", pairs=40, people=[rob], created_by=None)
    pairs = list(opened.pairs.all())
    assert judged_preference(large, 0.6, 30) is None
    for place, pair in enumerate(pairs):
        choice = "candidate" if place % 4 else "baseline"
        ComparisonChoice.objects.create(pair=pair, person=rob, choice=choice, candidate_left=True)
    disagreeing = judged(large)
    assert disagreeing.results["agreement"]["n"] == 40
    assert disagreeing.results["agreement"]["kappa"] == 0.0
    assert judged_preference(large, 0.6, 30) is None
    large.refresh_from_db()
    assert next(line for line in large.gate if line["name"] == "judge")["value"] is None
    # The judge now sees what the person saw: on every fourth question the fee is missing.
    for place, pair in enumerate(pairs):
        if place % 4 == 0:
            answers = large.answers.filter(item__key=pair.key)
            answers.filter(arm="base_rag").update(text="Certainly £35.")
            answers.filter(arm="adapter_rag").update(text="No idea.")
    agreeing = judged(large)
    assert agreeing.results["agreement"]["kappa"] == 1.0
    # The first that people could be compared with counts: nobody asks until the answer pleases.
    assert counting(said_of(large)) == disagreeing
    assert judged_preference(large, 0.6, 30) is None
    page = reverse("admin:training_judging_change", args=[agreeing.pk])
    reader = Client()
    reader.force_login(User.objects.get(username="alice"))
    said = reader.get(page).content.decode()
    assert "Judges were asked 2 times about this evaluation." in said
    assert f"{disagreeing}</a> counts in a gate" in said
    Judging.objects.all().delete()  # what counts now is said by the one that asks for the gate
    judged(large)
    preferred = judged_preference(large, 0.6, 30)
    assert preferred is not None
    assert preferred.value == pytest.approx(0.25)
    large.refresh_from_db()
    assert next(line for line in large.gate if line["name"] == "judge")["passed"]


def test_pages(evaluation: Evaluation, judge: Judge) -> None:
    def enter(name: str) -> Client:
        client = Client()
        client.force_login(User.objects.get(username=name))
        return client

    start = reverse("admin:training_evaluation_judge", args=[evaluation.pk])
    assert enter("rob").post(start).status_code == 404
    assert enter("ann").post(start).status_code == 404
    assert enter("alice").get(start).status_code == 405
    response = enter("alice").post(start)
    judging = Judging.objects.get()
    assert response.url == reverse("admin:training_judging_change", args=[judging.pk])
    launch(judging, foreground=True)
    text = enter("rob").get(response.url).content.decode()
    assert "judge-large prefers the candidate on 100.0 % of 10 pairs" in text
    assert "It counts in no gate." in text
    assert enter("ann").get(response.url).status_code in (302, 403, 404)
    start_comparison(
        evaluation=evaluation, name="r", pairs=5, people=[User.objects.get(username="rob")], created_by=None
    )
    blind = enter("rob").get(response.url).content.decode()
    assert "100.0 %" not in blind
    assert "judge blind" in blind
    assert "100.0 %" in enter("alice").get(response.url).content.decode()
