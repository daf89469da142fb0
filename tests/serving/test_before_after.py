"""Before/after beyond its basics: who must stay blind, reports, adapters over time, seeds, going on, the gate."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from annotations.comparing.models import ComparisonChoice
from assistants.models import Assistant, AuditEvent
from tests.factories import make_adapter, make_assistant, make_evaluation, make_user
from tests.serving.test_pages import ESCAPED, HOSTILE, body, enter, measured
from tests.training.finetune.conftest import make_dataset
from training.comparing import start_comparison
from training.evaluation.declaring import declaration_of
from training.evaluation.gate import GUARDRAILS, GateRule
from training.evaluation.seeds import over_seeds, same_recipe
from training.evaluation.summary import summarise
from training.models import Adapter, Benchmark, Evaluation, GateDeclaration, Run

PAGES = ("before-after", "evaluation-report", "evaluation-export")


@pytest.fixture
def assistant(db: None) -> Assistant:
    people = {
        "admin": [make_user("alice")], "reviewer": [make_user("rob")], "annotator": [make_user("ann")],
        "privacy": [make_user("pia")],
    }  # fmt: skip
    make_assistant("other", members={"admin": [make_user("carol")]})
    return make_assistant("bot", members=people)


def address(name: str, evaluation: Evaluation) -> str:
    return reverse(f"dashboards:{name}", args=[evaluation.pk])


def told(response: Any) -> str:
    return b"".join(response).decode() if response.streaming else response.content.decode()


# --- Staying blind ----------------------------------------------------------------------------------------------------


def test_who_still_judges_sees_no_answers_by_arm(assistant: Assistant) -> None:
    """Neither on the page, nor in the exports, nor on another evaluation with the same answers."""
    evaluation = measured(assistant)
    twin = make_evaluation(evaluation.adapter, benchmark=evaluation.benchmark, results=evaluation.results)
    for answer in evaluation.answers.all():
        answer.pk, answer.evaluation = None, twin
        answer.save()
    rob = User.objects.get(username="rob")
    assert told(enter("rob").get(address("before-after", evaluation))).count('class="rt-example"') == 2
    opened = start_comparison(evaluation=evaluation, name="r", pairs=2, people=[rob], created_by=None)
    for one in (evaluation, twin):
        page = body(enter("rob").get(address("before-after", one)))
        assert 'class="rt-example"' not in page
        assert "The exit fee is £35." not in page
        assert "to judge blind" in page
        for name in ("evaluation-report", "evaluation-export"):
            response = enter("rob").get(address(name, one), follow=True)
            assert response.redirect_chain
            assert "The exit fee is £35." not in told(response)
    # Whoever is not asked to judge reads on.
    assert "rt-example" in body(enter("alice").get(address("before-after", evaluation)))
    for pair in opened.pairs.all():
        ComparisonChoice.objects.create(pair=pair, person=rob, choice="candidate", candidate_left=True)
    assert told(enter("rob").get(address("before-after", twin))).count('class="rt-example"') == 2


def test_a_closed_round_ends_it(assistant: Assistant) -> None:
    evaluation = measured(assistant)
    opened = start_comparison(evaluation=evaluation, name="r", pairs=2, people=[], created_by=None)
    assert "to judge blind" in body(enter("alice").get(address("before-after", evaluation)))
    opened.closed = True
    opened.save()
    assert "to judge blind" not in body(enter("alice").get(address("before-after", evaluation)))


# --- Taking it away ---------------------------------------------------------------------------------------------------


class Outside(HTMLParser):
    """Everything in a page that would load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe", "form"):
            self.found.append(tag)
        self.found += [name for name, value in attrs if name in ("src", "href", "action") or name.startswith("on")]


def test_the_report_is_one_file_that_needs_nothing(assistant: Assistant) -> None:
    evaluation = measured(assistant)
    response = enter("rob").get(address("evaluation-report", evaluation))
    text = body(response)
    assert response["Content-Disposition"] == f'attachment; filename="evaluation-{evaluation.pk}.html"'
    parser = Outside()
    parser.feed(text)
    assert parser.found == []
    assert "url(" not in text
    assert text.count('class="rt-example"') == 3  # two wins and a loss
    assert ESCAPED in text
    assert "<rect" in text
    for label in ("Grounded and correct", "Base + retrieval (today)", "not shown", "By topic"):
        assert label in text
    event = AuditEvent.objects.get(action="evaluation.exported")
    assert (event.actor.username, event.details) == ("rob", {"format": "html"})


def test_the_json_holds_every_answer(assistant: Assistant) -> None:
    evaluation = measured(assistant)
    found = json.loads(told(enter("rob").get(address("evaluation-export", evaluation))))
    assert {row["arm"] for row in found["answers"]} == set(evaluation.answers.values_list("arm", flat=True))
    assert found["gate"] == evaluation.gate
    assert found["comparison"]["by_document"]


def test_there_is_nothing_to_export_of_what_is_not_finished(assistant: Assistant) -> None:
    running = make_evaluation(make_adapter(assistant), state="running", verdict="", sentence="")
    for name in PAGES[1:]:
        response = enter("rob").get(address(name, running), follow=True)
        assert "nothing to export yet" in body(response)
    assert not AuditEvent.objects.filter(action="evaluation.exported").exists()


@pytest.mark.parametrize("name", ["carol", "ann", "pia"])
def test_strangers_take_nothing_away(assistant: Assistant, name: str) -> None:
    evaluation = measured(assistant)
    for page in PAGES:
        assert enter(name).get(address(page, evaluation)).status_code == 403
    for view in ("resume", "score", "judge"):
        url = reverse(f"admin:training_evaluation_{view}", args=[evaluation.pk])
        assert enter(name).post(url).status_code in (302, 403, 404)
        assert Client().post(url).status_code == 302
    assert not Evaluation.objects.filter(state="queued").exists()


# --- Among others -----------------------------------------------------------------------------------------------------


def test_adapters_over_time(assistant: Assistant) -> None:
    first = measured(assistant)
    assert 'id="trend"' not in body(enter("rob").get(address("before-after", first)))
    second = make_evaluation(
        make_adapter(assistant, number=2), benchmark=first.benchmark, comparison=first.comparison, verdict="passed"
    )
    text = body(enter("rob").get(address("before-after", second)))
    trend = text[text.index('id="trend"') : text.index("</section>", text.index('id="trend"'))]
    assert re.findall(r"Adapter \d", trend).count("Adapter 2") >= 1
    assert address("before-after", first) in trend
    assert "Passed" in trend


def test_seeds_of_one_recipe_are_taken_together(assistant: Assistant) -> None:
    dataset = make_dataset(assistant)
    evaluations = []
    for seed in (1, 2, 3):
        evaluation = measured(assistant) if not evaluations else copied(evaluations[0], seed)
        evaluation.adapter.run = Run.objects.create(
            assistant=assistant, dataset=dataset, prompt_digest="p", base_model="b", seed=seed, settings={"rank": 8}
        )
        evaluation.adapter.save()
        evaluations.append(evaluation)
    other = copied(evaluations[0], 9)
    other.adapter.run = Run.objects.create(
        assistant=assistant, dataset=dataset, prompt_digest="p", base_model="b", seed=9, settings={"rank": 16}
    )
    other.adapter.save()
    continuing = copied(evaluations[0], 10)
    continuing.adapter.run = Run.objects.create(
        assistant=assistant, dataset=dataset, prompt_digest="p", base_model="b", seed=10, settings={"rank": 8},
        parent=other.adapter,
    )  # fmt: skip
    continuing.adapter.save()
    found = same_recipe(evaluations[1])
    assert found == evaluations
    together = over_seeds(found)
    assert together is not None
    gain = evaluations[0].comparison["grounded_correct"]["difference"]["value"]
    assert together.gain.value == pytest.approx(gain)
    assert (together.gain.n, together.deviation, together.lowest) == (6, 0.0, gain)
    assert "3 seeds of this recipe" in body(enter("rob").get(address("before-after", evaluations[2])))
    assert same_recipe(measured(assistant)) != []
    assert "seeds of this recipe" not in body(enter("rob").get(address("before-after", other)))


def copied(evaluation: Evaluation, number: int) -> Evaluation:
    twin = make_evaluation(
        make_adapter(evaluation.assistant, number=number + 20), benchmark=evaluation.benchmark,
        results=evaluation.results, comparison=evaluation.comparison,
    )  # fmt: skip
    for answer in evaluation.answers.all():
        answer.pk, answer.evaluation = None, twin
        answer.save()
    return twin


def test_the_page_costs_the_same_however_many_evaluations(assistant: Assistant) -> None:
    evaluation = measured(assistant)
    counts = []
    for extra in (1, 6):
        for i in range(extra):
            copied(evaluation, 10 * extra + i)
        client = enter("rob")
        client.get(address("before-after", evaluation))
        with CaptureQueriesContext(connection) as captured:
            client.get(address("before-after", evaluation))
        counts.append(len(captured))
    assert counts[0] == counts[1] <= 30


# --- Attempts ---------------------------------------------------------------------------------------------------------


def test_what_was_tried_before_stands_on_the_page_in_the_report_and_in_the_export(assistant: Assistant) -> None:
    first = measured(assistant)
    run = Run.objects.create(
        assistant=assistant, dataset=make_dataset(assistant), base_model="b", prompt_digest=assistant.prompt_digest
    )
    assert "The first attempt with this adapter or its data" in body(enter("rob").get(address("before-after", first)))
    again = make_evaluation(
        first.adapter, benchmark=first.benchmark, plan={"threshold": 0.4}, state="succeeded", results=first.results
    )
    for answer in first.answers.all():
        answer.pk, answer.evaluation = None, again
        answer.save()
    Adapter.objects.filter(pk=first.adapter_id).update(run=run)
    Benchmark.objects.filter(pk=first.benchmark_id).update(name=f"Fees {HOSTILE}")
    again = Evaluation.objects.select_related("assistant", "adapter__run__dataset", "benchmark").get(pk=again.pk)
    summarise(again, list(again.benchmark.items.all()))
    page = body(enter("rob").get(address("before-after", again)))
    assert "Attempt 2 with this adapter or its data" in page
    assert "held to an interval of 97.50 %" in page
    assert f'href="{address("before-after", first)}">{first.pk}</a>' in page
    report = told(enter("rob").get(address("evaluation-report", again)))
    assert "Attempt 2 with this adapter or its data" in report
    assert address("before-after", first) not in report
    kept = json.loads(told(enter("rob").get(address("evaluation-export", again))))["comparison"]["attempts"]
    told_of = kept["earlier"][0]
    assert (kept["number"], told_of["evaluation"], told_of["verdict"]) == (2, first.pk, first.get_verdict_display())
    assert "Attempt 2 with this adapter or its data, held to 97.50 %." in again.sentence


# --- Going on ---------------------------------------------------------------------------------------------------------


def test_a_stopped_evaluation_goes_on(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[Any] = []
    monkeypatch.setattr("training.evaluation.services.launch", launched.append)
    stopped = make_evaluation(make_adapter(assistant), state="cancelled", verdict="", progress={"done": 12})
    page = body(enter("alice").get(address("before-after", stopped)))
    assert "Go on where it stopped" in page
    assert "12 answers are there" in page
    assert "Go on where it stopped" not in body(enter("rob").get(address("before-after", stopped)))
    url = reverse("admin:training_evaluation_resume", args=[stopped.pk])
    assert enter("rob").post(url).status_code == 404
    enter("alice").post(url)
    stopped.refresh_from_db()
    assert (stopped.state, stopped.attempt, stopped.cancel_requested_at) == ("queued", 0, None)
    assert "nothing to go on with" in body(enter("alice").post(url, follow=True))


# --- The gate ---------------------------------------------------------------------------------------------------------


def gate_form(rule: GateRule, version: int = 0, **changes: Any) -> dict[str, Any]:
    sent: dict[str, Any] = {
        "primary": rule.primary, "minimum_gain": rule.minimum_gain * 100, "alpha": rule.alpha,
        "judge_agreement": rule.judge_agreement, "least_questions": rule.least_questions,
        "judge_pairs": rule.judge_pairs, "benchmark": rule.benchmark,
        "reason": "The regulator asks.", "version": version,
    }  # fmt: skip
    for name, rail in GUARDRAILS.items():
        sent[f"margin_{name}"] = rule.margins.get(name, rail.margin) * 100
        if name in rule.margins:
            sent[f"on_{name}"] = "on"
    return {**sent, **changes}


def test_the_gate_is_declared_on_its_page(assistant: Assistant) -> None:
    url = reverse("admin:training_gate", args=["bot"])
    assert "The standard gate counts" in body(enter("alice").get(url))
    assert "Declare the next version" not in body(enter("rob").get(url))
    wanted = GateRule(margins={"over_refusal": 0.01, "counterfactual": 0.02})
    assert enter("rob").post(url, gate_form(wanted)).status_code == 403
    for name in ("carol", "ann"):
        assert enter(name).get(url).status_code in (403, 404)
        assert enter(name).post(url, gate_form(wanted)).status_code in (403, 404)
    assert GateDeclaration.objects.count() == 0
    text = body(enter("alice").post(url, gate_form(wanted), follow=True))
    assert "Version 1 counts" in text
    assert "margin of counterfactual: none → 0.02" in text
    declared = declaration_of(assistant)
    assert declared is not None
    assert GateRule.from_dict(declared.rule) == wanted
    assert "was declared meanwhile" in body(enter("alice").post(url, gate_form(wanted)))
    assert "This field is required" in body(enter("alice").post(url, gate_form(wanted, 1, reason="")))
    assert GateDeclaration.objects.count() == 1
    listed = enter("rob").get(reverse("admin:training_gatedeclaration_changelist"))
    assert listed.url == url


def test_a_gate_names_its_own_benchmark(assistant: Assistant) -> None:
    url = reverse("admin:training_gate", args=["bot"])
    own, other = measured(assistant).benchmark, measured(Assistant.objects.get(slug="other")).benchmark
    Benchmark.objects.filter(pk=own.pk).update(content_hash="f" * 64)
    Benchmark.objects.filter(pk=other.pk).update(content_hash="e" * 64, name="Theirs")
    page = body(enter("alice").get(url))
    assert own.name in page
    assert "Theirs" not in page
    strange = enter("alice").post(url, gate_form(GateRule(benchmark="e" * 64)))
    assert "Select a valid choice" in body(strange)
    text = body(enter("alice").post(url, gate_form(GateRule(benchmark="f" * 64, judge_pairs=50)), follow=True))
    assert "It is to be passed on" in text
    declared = declaration_of(assistant)
    assert declared is not None
    assert (declared.rule["benchmark"], declared.rule["judge_pairs"]) == ("f" * 64, 50)
    few = body(enter("alice").post(url, gate_form(GateRule(), 1, judge_pairs=29)))
    assert "greater than or equal to 30" in few


def test_text_of_a_reason_is_no_markup(assistant: Assistant) -> None:
    url = reverse("admin:training_gate", args=["bot"])
    text = body(enter("alice").post(url, gate_form(GateRule(), reason="<script>alert(1)</script>"), follow=True))
    assert ESCAPED in text
