"""Home, before/after and deployment: who sees them, what they show, what they cost; text from logs is never markup."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotations.models import Annotation, QueueItem, Resolution
from assistants.models import Assistant
from capture.models import Quarantine, Turn
from serving.dashboards import adapters, loop
from serving.models import Deployment, Promotion, TrafficHour
from serving.services import promote
from tests.factories import (
    add_member,
    make_adapter,
    make_assistant,
    make_benchmark,
    make_document,
    make_evaluation,
    make_queue,
    make_turn,
    make_user,
)
from tests.tiny_model import shared_base
from training.evaluation.differences import differences
from training.evaluation.summary import summarise
from training.models import Arm, BenchmarkItem, Evaluation, EvaluationAnswer

HOSTILE = "<script>alert(1)</script> \"'><img src=x onerror=alert(2)>"
ESCAPED = "&lt;script&gt;"


@pytest.fixture
def assistant(db: None) -> Assistant:
    people = {
        "admin": [make_user("alice")], "reviewer": [make_user("rob")], "annotator": [make_user("ann")],
        "privacy": [make_user("pia")],
    }  # fmt: skip
    make_assistant("other", members={"admin": [make_user("carol")]})
    return make_assistant("bot", members=people)


def enter(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client


def measured(
    assistant: Assistant, *, items: int = 6, text: str = "The exit fee is £35. [1]", **fields: Any
) -> Evaluation:
    """An evaluation with answers: the candidate wins the first two items, loses the third, the rest are equal."""
    adapter = make_adapter(assistant, number=assistant.adapters.count() + 1)
    evaluation = make_evaluation(adapter, benchmark=make_benchmark(assistant), **fields)
    frozen = {
        "passages": [{"rank": 1, "title": HOSTILE, "source": "a.md", "text": f"The fee is £35 {HOSTILE}."}],
        "evidence": [[1, 0, 0.8]], "has_gold": True,
    }  # fmt: skip
    for i in range(items):
        item = BenchmarkItem.objects.create(
            benchmark=evaluation.benchmark, key=f"k{i}", question=f"Question {i}? {HOSTILE}", kind="answer",
            answers=[f"It is {i}. {HOSTILE}"], slice="plain", topic=HOSTILE[:60],
            contexts={"clean": frozen, "missing_oracle": {**frozen, "has_gold": False}},
            gold=[{"path": f"{i}.md", "sentence": "x"}],
            history=[{"role": "user", "content": HOSTILE}],
        )  # fmt: skip
        for arm in Arm.values:
            right = {"base_rag": i >= 2, "adapter_rag": i != 2}.get(arm, False)
            for condition in ("clean", "missing_oracle") if arm.endswith("rag") else ("clean",):
                EvaluationAnswer.objects.create(
                    evaluation=evaluation, item=item, arm=arm, condition=condition, completion=text,
                    text=f"{text} {arm} {HOSTILE}",
                    measures={"grounded_correct": float(right), "answer_presence": float(right), "f1": 0.5},
                )  # fmt: skip
    summarise(evaluation, list(evaluation.benchmark.items.all()))
    Evaluation.objects.filter(pk=evaluation.pk).update(
        verdict=fields.get("verdict", evaluation.verdict), sentence=f"Adapter 1 answers more. {HOSTILE}"
    )
    evaluation.refresh_from_db()
    return evaluation


def before_after(evaluation: Evaluation, **query: str) -> tuple[str, dict[str, str]]:
    return reverse("dashboards:before-after", args=[evaluation.pk]), query


def body(response: Any) -> str:
    assert response.status_code == 200, response.status_code
    text: str = response.content.decode()
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    return text


def queries(client: Client, *request: Any) -> int:
    client.get(*request)
    with CaptureQueriesContext(
        connection,
    ) as captured:
        client.get(*request)
    return len(captured)


# --- Before / after ---------------------------------------------------------------------------------------------------


def test_before_after_shows_verdict_gate_arms_and_examples(assistant: Assistant) -> None:
    evaluation = measured(assistant)
    text = body(enter("alice").get(*before_after(evaluation)))
    assert "◌ Not proven" in text
    assert "Adapter 1 answers more." in text
    assert ESCAPED in text
    assert "Grounded and correct" in text
    for label in Arm.labels:
        assert label in text
    assert "Promote against the gate" in text
    assert 'name="override"' in text
    assert text.count('class="rt-example"') == 2  # wins are shown first
    assert "<ins>" in text
    assert "<del>" in text


def test_intervals_are_told_of_enough_documents_only(assistant: Assistant) -> None:
    text = body(enter("alice").get(*before_after(measured(assistant))))
    assert "<td>+100.0</td><td>–</td>" in text  # by document: one each
    assert "<small>0.0 %–39.0 %, n 6</small>" in text  # base alone: none of six is right
    assert "0.0 %–0.0 %" not in text
    assert "100.0 %–100.0 %" not in text


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ({"show": "wins"}, 2), ({"show": "losses"}, 1), ({"show": "both"}, 3), ({"show": "neither"}, 0),
        ({"show": "all"}, 6), ({"show": "all", "q": "Question 4"}, 1), ({"show": "all", "kind": "decline"}, 0),
        ({"show": "all", "condition": "missing_oracle"}, 6), ({"show": HOSTILE, "condition": HOSTILE}, 2),
        ({"show": "all", "q": HOSTILE, "page": "nonsense"}, 6), ({"show": "all", "q": "%_\\'"}, 0),
    ],
)  # fmt: skip
def test_examples_are_filtered(assistant: Assistant, query: dict[str, str], shown: int) -> None:
    text = body(enter("rob").get(*before_after(measured(assistant), **query)))
    assert text.count('class="rt-example"') == shown
    assert ("No example here." in text) is (shown == 0)


def test_the_page_costs_the_same_however_large_the_benchmark(assistant: Assistant) -> None:
    small, large = measured(assistant, items=3), measured(assistant, items=30)
    client = enter("alice")
    counts = [queries(client, *before_after(one, show="all")) for one in (small, large)]
    assert counts[0] == counts[1] <= 30


@pytest.mark.parametrize("name", ["carol", "ann", "pia"])
def test_strangers_and_annotators_see_no_evaluation(assistant: Assistant, name: str) -> None:
    evaluation = measured(assistant, verdict="passed")
    client = enter(name)
    for page in ("before-after", "evaluation-export"):
        assert client.get(reverse(f"dashboards:{page}", args=[evaluation.pk])).status_code == 403
    assert client.post(reverse("dashboards:promote", args=[evaluation.pk])).status_code == 403
    assert client.post(reverse("dashboards:roll-back", args=["bot"]), {"reason": "x"}).status_code == 403
    assert Promotion.objects.count() == 0
    assert client.get(reverse("dashboards:before-after", args=[10**9])).status_code == 404
    assert Client().get(*before_after(evaluation)).status_code == 302


def test_an_evaluation_that_runs_or_failed_says_so(assistant: Assistant) -> None:
    adapter = make_adapter(assistant)
    running = make_evaluation(adapter, state="running", verdict="", sentence="", progress={"stage": HOSTILE})
    failed = make_evaluation(adapter, state="failed", verdict="", error=f"The benchmark is empty. {HOSTILE}")
    client = enter("rob")
    assert "Running" in body(client.get(*before_after(running)))
    assert "The benchmark is empty." in body(client.get(*before_after(failed)))


def test_everything_can_be_exported(assistant: Assistant) -> None:
    evaluation = measured(assistant)
    response = enter("rob").get(reverse("dashboards:evaluation-export", args=[evaluation.pk]))
    exported = json.loads(b"".join(response))
    assert len(exported["answers"]) == evaluation.answers.count() == 6 * 10
    assert exported["gate_rule"] == evaluation.gate_rule
    assert response["Content-Disposition"] == f'attachment; filename="evaluation-{evaluation.pk}.json"'
    assert response["Content-Type"] == "application/json"


def test_admins_promote_from_the_page_and_reviewers_do_not(assistant: Assistant) -> None:
    evaluation = measured(assistant, verdict="passed")
    address = reverse("dashboards:promote", args=[evaluation.pk])
    assert "Promote" not in body(enter("rob").get(*before_after(evaluation)))
    assert enter("rob").post(address).status_code == 403
    alice = enter("alice")
    assert "✓ Passed" in body(alice.get(*before_after(evaluation)))
    assert alice.get(address).status_code == 405
    text = body(alice.post(address, {"reason": HOSTILE}, follow=True))
    assert "is live now" in text
    assert "● This adapter is live." in text
    promotion = Promotion.objects.get()
    assert (promotion.actor.username, promotion.reason) == ("alice", HOSTILE)
    assert "live already" in body(alice.post(address, follow=True))


def test_against_the_gate_only_with_a_reason(assistant: Assistant) -> None:
    evaluation = measured(assistant)
    address = reverse("dashboards:promote", args=[evaluation.pk])
    alice = enter("alice")
    assert "has not passed the gate" in body(alice.post(address, {"reason": "please"}, follow=True))
    assert "needs a reason" in body(alice.post(address, {"override": "1", "reason": " "}, follow=True))
    assert Promotion.objects.count() == 0
    assert "is live now" in body(alice.post(address, {"override": "1", "reason": "pilot"}, follow=True))
    assert Promotion.objects.get().overrides_gate


def test_a_foreign_form_changes_nothing(assistant: Assistant) -> None:
    evaluation = measured(assistant, verdict="passed")
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="alice"))
    assert client.post(reverse("dashboards:promote", args=[evaluation.pk])).status_code == 403
    assert client.post(reverse("dashboards:roll-back", args=["bot"]), {"reason": "x"}).status_code == 403


# --- Deployment -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_pages_say_who_answers_when_what_is_live_cannot_be_served(assistant: Assistant, settings: Any) -> None:
    settings.RATCHET_BASE_MODEL = str(shared_base())
    deployment = Deployment.objects.create(assistant=assistant, adapter=make_adapter(assistant, seed=1))
    address = reverse("admin:serving_deployment_change", args=[deployment.pk])
    adapter_list = reverse("admin:training_adapter_changelist")
    alice = enter("alice")
    assert "Bot answers with Adapter 1." in body(alice.get(address))
    assert "base model answers" not in body(alice.get(reverse("admin:index")))
    assert "● live" in body(alice.get(adapter_list))
    assistant.decline_sentence = "I do not know that."  # a part of the prompt format
    assistant.save()
    text = body(alice.get(address))
    assert "Bot answers with the base model, not with Adapter 1: it was trained on another prompt format." in text
    assert "● Live" not in text
    assert "● live" not in text
    home = body(alice.get(reverse("admin:index")))
    assert "✗ the base model answers, not Adapter 1: it was trained on another prompt format" in home
    assert "Users get the base model&#x27;s answers, not Adapter 1&#x27;s" in home
    listed = body(alice.get(reverse("admin:serving_deployment_changelist")))
    assert "✗ base model answers, not Adapter 1" in listed
    assert "✗ live, not served: it was trained on another prompt format" in body(alice.get(adapter_list))


def test_one_click_and_a_reason_roll_back(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "why_base_answers", lambda _: "")  # there are no files behind it
    adapter = make_adapter(assistant)
    promote(assistant=assistant, adapter=adapter, evaluation=make_evaluation(adapter, verdict="passed"), actor=None)
    deployment = Deployment.objects.get()
    address = reverse("admin:serving_deployment_change", args=[deployment.pk])
    alice = enter("alice")
    text = body(alice.get(address))
    assert "answers with Adapter 1." in text
    assert "Roll back to the base model" in text
    roll = reverse("dashboards:roll-back", args=["bot"])
    assert "Say why" in body(alice.post(roll, {"reason": " "}, follow=True))
    text = body(alice.post(roll, {"reason": HOSTILE}, follow=True))
    assert "Rolled back: the base model is live." in text
    assert ESCAPED in body(alice.get(reverse("admin:serving_promotion_changelist")))
    assert alice.get(roll).status_code == 405
    assert enter("rob").post(roll, {"reason": "x"}).status_code == 403
    for name in ("carol", "ann"):
        assert enter(name).get(address).status_code in (302, 403, 404)
        assert "Adapter 1" not in enter(name).get(reverse("admin:serving_deployment_changelist")).content.decode()


def test_nobody_edits_a_deployment_by_hand(assistant: Assistant) -> None:
    deployment = Deployment.objects.create(assistant=assistant)
    address = reverse("admin:serving_deployment_change", args=[deployment.pk])
    adapter = make_adapter(assistant)
    assert enter("alice").post(address, {"adapter": adapter.pk}).status_code == 403
    assert "Nothing was live before" in body(enter("alice").get(address))
    deployment.refresh_from_db()
    assert deployment.adapter is None


# --- Home -------------------------------------------------------------------------------------------------------------


def fill(assistant: Assistant, n: int) -> None:
    make_document(assistant, title=HOSTILE)
    make_document(assistant, state="failed", error=HOSTILE)
    turns = [make_turn(assistant, question=HOSTILE) for _ in range(n)]
    make_queue(assistant, turns=turns[: n // 2], name=f"{HOSTILE[:30]} {n}")
    for turn in turns[n // 2 :]:
        Resolution.objects.create(turn=turn, verdict="good", response="x", how="single")
    Quarantine.objects.create(assistant=assistant, conversation_key="k", payload=b"x", state="held")


def test_home_shows_the_loop_and_the_next_best_step(assistant: Assistant) -> None:
    fill(assistant, 4)
    evaluation = measured(assistant, verdict="passed")
    text = body(enter("alice").get(reverse("admin:index")))
    for name in ("Documents", "Quarantine", "Turns", "To label", "Resolved", "Dataset", "Adapters", "Live"):
        assert name in text
    assert "1 held: scrubbing failed" in text
    assert "1 could not be read" in text
    assert "2 turns wait for a label." in text
    assert f"{evaluation.adapter} has passed the gate." in text
    assert "1 captured item is held" in text
    assert (
        text.index("the privacy role reviews them")
        < text.index("Read before / after and promote")
        < text.index("Label →")
    )


def test_home_of_an_empty_assistant_says_how_to_begin(assistant: Assistant) -> None:
    text = body(enter("alice").get(reverse("admin:index")))
    assert "The assistant knows nothing yet." in text
    assert "No conversation has been captured yet." in text


def test_home_shows_people_what_waits_for_them_and_strangers_nothing(assistant: Assistant) -> None:
    fill(assistant, 4)
    measured(assistant, verdict="passed")
    carol = body(enter("carol").get(reverse("admin:index"), {"assistant": "bot"}))
    assert ">Bot<" not in carol
    assert "The assistant knows nothing yet." in carol  # her own
    ann = body(enter("ann").get(reverse("admin:index")))
    assert "2 turns wait for a label." in ann
    assert "passed the gate" not in ann
    assert "held" not in ann
    assert 'aria-label="The loop"' not in ann
    assert "1 captured item is held" in body(enter("pia").get(reverse("admin:index")))
    make_user("nina")
    assert "No assistant yet" in body(enter("nina").get(reverse("admin:index")))


def test_home_sends_nobody_to_label_what_they_do_not_get(assistant: Assistant) -> None:
    turns = [make_turn(assistant) for _ in range(3)]
    queue = make_queue(assistant, turns=turns, name="Fees")
    home, alice = reverse("admin:index"), enter("alice")
    assert "3 turns wait for a label." in body(alice.get(home))
    queue.people.add(User.objects.get(username="ann"))
    text = body(alice.get(home))
    assert "3 turns wait for a label by those chosen for it." in text
    assert "Label →" not in text
    assert "3 turns wait for a label." in body(enter("ann").get(home))
    queue.paused = True
    queue.save()
    assert "3 turns wait for a label, and nobody gets them: paused." in body(alice.get(home))
    assert "wait for a label" not in body(enter("ann").get(home))


def test_home_leads_nobody_to_a_page_that_is_not_theirs(assistant: Assistant) -> None:
    fill(assistant, 4)
    measured(assistant, verdict="passed")
    for name in ("alice", "rob"):
        client = enter(name)
        text = body(client.get(reverse("admin:index")))
        shown = text[text.index('<ol class="rt-loop"') :]
        links = set(re.findall(r'<a (?:class="rt-step[^"]*" )?href="(/[^"]*)"', shown))
        assert len(links) > 8
        for link in links:
            assert client.get(link.replace("&amp;", "&"), follow=True).status_code == 200, (name, link)
    assert "and promote" not in text  # a reviewer reads


def test_home_counts_labels_as_they_stand(assistant: Assistant) -> None:
    turn, ann = make_turn(assistant), User.objects.get(username="ann")
    make_annotation = partial(Annotation.objects.create, turn=turn, verdict="good")
    make_annotation(annotator=User.objects.get(username="rob"), withdrawn_at=timezone.now())
    make_annotation(annotator=ann)
    assert loop.week(assistant, loop.loop_counts(assistant))["labels"] == 1
    labels = enter("alice").get("/admin/dashboards/overview/labels/bot/?days=7&csv=numbers").content.decode()
    assert "Labels,1,by 1 person" in labels


def test_home_costs_the_same_however_much_there_is(assistant: Assistant) -> None:
    fill(assistant, 2)
    measured(assistant, verdict="passed", items=1)
    alice = enter("alice")
    few = queries(alice, reverse("admin:index"))
    fill(assistant, 20)
    for _ in range(3):
        measured(assistant, verdict="passed", items=1)
    assert QueueItem.objects.count() == 11
    assert queries(alice, reverse("admin:index")) == few <= 30


def test_home_counts_no_more_turns_than_it_must(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(assistant, 4)
    exact = loop.loop_counts(assistant)["turns"]
    assert exact == Turn.objects.of(assistant).count() > 3
    numbers = ("declined", "up", "down", "escalated", "prompt_tokens", "completion_tokens")
    hour: dict[str, Any] = {"latencies": [], **dict.fromkeys(numbers, 0)}
    for days, turns in ((1, 1_000), (30, 234)):
        TrafficHour.objects.create(assistant=assistant, hour=timezone.now() - timedelta(days=days), turns=turns, **hour)
    assert loop.loop_counts(assistant)["turns"] == exact
    monkeypatch.setattr(loop, "EXACTLY", 3)
    counts = loop.loop_counts(assistant)
    assert (counts["turns"], counts["turns_of_week"]) == (1_234, 1_000)
    assistant.keep_turns_days = 20  # hours stay when their turns go
    assert loop.loop_counts(assistant)["turns"] == 1_000


def test_old_turns_that_are_imported_are_no_traffic_of_this_week(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [make_turn(assistant, question="Old?") for _ in range(5)]
    make_turn(assistant, question="New?")
    Turn.objects.filter(pk__in=[turn.pk for turn in turns]).update(asked_at=timezone.now() - timedelta(days=300))
    assert loop.loop_counts(assistant)["turns_of_week"] == 1
    monkeypatch.setattr(loop, "EXACTLY", 3)
    assert loop.loop_counts(assistant)["turns_of_week"] == 1
    assert "Last 7 days: 1 turn asked" in body(enter("alice").get(reverse("admin:index")))


def test_figures_of_the_loop_are_exported_to_those_who_see_them(assistant: Assistant) -> None:
    fill(assistant, 4)
    address = reverse("dashboards:loop-csv", args=["bot"])
    assert address in body(enter("alice").get(reverse("admin:index")))
    for name in ("alice", "rob"):
        answer = enter(name).get(address)
        assert answer["Content-Disposition"].startswith('attachment; filename="bot-loop-')
        rows = {(row[0], row[2]): row for row in csv.reader(io.StringIO(answer.content.decode()))}
        assert rows["Turns", "captured"][1] == "4"
        assert rows["Quarantine", "not scrubbed"] == ["Quarantine", "1", "not scrubbed", "1 held: scrubbing failed"]
        assert rows["Last 7 days", "turns"][1] == "4"
    for name in ("ann", "pia", "carol"):
        assert enter(name).get(address).status_code == 403, name
        assert address not in body(enter(name).get(reverse("admin:index"), {"assistant": "bot"}))
    assert Client().get(address).status_code == 302  # to the login
    assert enter("alice").get(reverse("dashboards:loop-csv", args=["nobody"])).status_code == 404
    assert enter("alice").post(address).status_code == 405


def test_large_counts_of_the_loop_are_readable(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(assistant, 2)
    monkeypatch.setattr(loop, "_turns", lambda assistant: (1_234_567, 60_480))
    text = body(enter("alice").get(reverse("admin:index")))
    assert ">1,234,567</span>" in text
    assert "Last 7 days: 60,480 turns asked" in text


def test_two_assistants_are_chosen_between(assistant: Assistant) -> None:
    alice = User.objects.get(username="alice")
    add_member(make_assistant("second"), alice, "admin")
    text = body(enter("alice").get(reverse("admin:index"), {"assistant": "second"}))
    assert '<a href="?assistant=second" class="rt-on">Second</a>' in text
    assert '<a href="?assistant=bot" class="">Bot</a>' in text


# --- Differences ------------------------------------------------------------------------------------------------------


def test_differences_mark_words_and_escape_all() -> None:
    before, after = differences("The fee is £30 <b>now</b>.", "The fee is £35 <b>now</b>!")
    assert before == "The fee is <del>£30</del> &lt;b&gt;now&lt;/b&gt;<del>.</del>"
    assert after == "The fee is <ins>£35</ins> &lt;b&gt;now&lt;/b&gt;<ins>!</ins>"
    assert differences("", "") == ("", "")
    same = differences("a\n b", "a\n b")
    assert same == ("a\n b", "a\n b")


@pytest.mark.parametrize(("a", "b"), [("x ", "y "), ("x y ", "x z "), ("!?", "?!."), ("a", "b")])
def test_long_texts_of_few_words_are_compared_at_once(a: str, b: str) -> None:
    began = time.monotonic()
    before, after = differences(a * 9000, b * 9000)
    assert time.monotonic() - began < 5
    assert len(before) < 6000
    assert len(after) < 6000


def test_what_was_rolled_back_is_not_recommended_again(assistant: Assistant) -> None:
    from serving.services import roll_back

    evaluation = make_evaluation(make_adapter(assistant), verdict="passed")
    assert "has passed the gate" in enter("alice").get("/admin/").content.decode()
    promote(assistant=assistant, adapter=evaluation.adapter, evaluation=evaluation, actor=None)
    roll_back(assistant=assistant, actor=None, reason="worse answers")
    assert "has passed the gate" not in enter("alice").get("/admin/").content.decode()
