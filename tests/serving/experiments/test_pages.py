"""Pages of experiments and of what is live: who sees them, what they show and cost; nothing of users is markup."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotations.comparing.models import ComparisonPair, ComparisonRound
from serving.dashboards import adapters
from serving.experiments import rules
from serving.experiments.models import Experiment, ShadowAnswer
from serving.experiments.services import step, take_back
from serving.models import Deployment
from serving.services import promote
from tests.factories import add_member, make_adapter, make_assistant, make_evaluation, make_turn, make_user
from tests.serving.experiments.conftest import Bot
from tests.serving.experiments.test_rules import fill, passed

HOSTILE = "<script>alert(1)</script> \"'><img src=x onerror=alert(2)>"


@pytest.fixture
def people(bot: Bot) -> None:
    add_member(bot.assistant, make_user("rob"), "reviewer")
    add_member(bot.assistant, make_user("ann"), "annotator")
    make_assistant("other", members={"admin": [make_user("carol")]})


def enter(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client


def page_of(experiment: Experiment) -> str:
    return reverse("admin:serving_experiment_change", args=[experiment.pk])


def body(response: Any) -> str:
    assert response.status_code == 200, response.status_code
    text: str = response.content.decode()
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    return text


def shadows(experiment: Experiment, number: int) -> None:
    for i in range(number):
        turn = make_turn(
            experiment.assistant, question=f"Question {i}? {HOSTILE}", response=f"Shown {i} {HOSTILE}", contexts=(),
            prompt_digest=experiment.assistant.prompt_digest, tags=["chat"],
        )  # fmt: skip
        ShadowAnswer.objects.create(
            experiment=experiment, turn=turn, arm="candidate", text=f"Other {i} {HOSTILE}", completion="x"
        )  # fmt: skip


def queries(client: Client, address: str) -> int:
    client.get(address)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(address).status_code == 200
    return len(captured)


def test_the_page_tells_where_it_stands(bot: Bot) -> None:
    experiment = bot.in_ab()
    fill(bot, experiment, 150)
    passed(experiment)
    text = body(enter("ada").get(page_of(experiment)))
    for said in (
        "No difference is shown yet",
        "Go on",
        "Guardrails",
        "✓ holds",
        "Trouble",
        "effect-chart",
        "150 units",
    ):
        assert said in text
    assert 'aria-current="step"' in text
    assert "Let Adapter 2 go live" in text


def steps_shown(text: str) -> list[str]:
    """“✓ Shadow skipped” and the like."""
    way = text[text.index('<ol class="rt-way">') : text.index("</ol>", text.index('<ol class="rt-way">'))]
    return [" ".join(re.sub("<[^>]*>", " ", one).split()) for one in way.split("</li>")[:-1]]


def test_only_steps_that_were_taken_are_ticked(bot: Bot) -> None:
    ada = enter("ada")
    experiment = bot.start()
    evaluation = bot.candidate.evaluations.get()
    promote(assistant=bot.assistant, adapter=bot.candidate, evaluation=evaluation, actor=bot.ada, reason="It is urgent")
    text = body(ada.get(page_of(experiment)))
    assert steps_shown(text) == [
        "✓ Shadow answers unseen, beside what is live", "◌ Canary skipped", "◌ A/B skipped", "● Live answers everybody",
    ]  # fmt: skip
    assert "<h2>Adapter 2 went live.</h2>" in text
    assert "Why: It is urgent" in text


def test_one_that_was_taken_back_shows_how_far_it_came(bot: Bot) -> None:
    experiment = step(experiment=bot.start(), actor=bot.ada)
    take_back(experiment=experiment, actor=bot.ada, reason="Users complain")
    text = body(enter("ada").get(page_of(experiment)))
    assert [one.split()[:2] for one in steps_shown(text)] == [
        ["✓", "Shadow"], ["✗", "Canary"], ["A/B", "both"], ["Live", "answers"],
    ]  # fmt: skip
    assert "<h2>Adapter 2 was taken back by a person.</h2>" in text
    assert "Why: Users complain" in text


def test_shadow_answers_are_side_by_side_and_never_markup(bot: Bot) -> None:
    experiment = bot.start()
    shadows(experiment, 12)
    passed(experiment)
    text = body(enter("ada").get(page_of(experiment)))
    assert "12 compared, 0 the same" in text
    assert "&lt;script&gt;" in text
    assert "1 of 2" in text


@pytest.mark.usefixtures("people")
def test_who_may_see_and_who_may_act(bot: Bot) -> None:
    experiment = bot.in_ab()
    deployment = Deployment.objects.get()
    pages = [
        page_of(experiment), reverse("dashboards:experiment-json", args=[experiment.pk]),
        reverse("admin:serving_deployment_change", args=[deployment.pk]),
    ]  # fmt: skip
    for page in pages:
        assert enter("rob").get(page).status_code == 200
        for stranger in ("ann", "carol"):
            # The admin sends away from a row that one may not see; our own pages refuse.
            assert enter(stranger).get(page).status_code in (302, 403)
        assert Client().get(page).status_code == 302
    assert "Take Adapter 2 back" not in body(enter("rob").get(page_of(experiment)))
    acts = [reverse("dashboards:experiment-act", args=[experiment.pk, what]) for what in ("step", "back", "share")]
    acts += [
        reverse("dashboards:experiment-start", args=["bot"]),
        reverse("dashboards:experiment-compare", args=[experiment.pk]),
    ]
    for address in acts:
        for refused in ("rob", "ann", "carol"):
            assert enter(refused).post(address, {"reason": "x", "percent": "30"}).status_code == 403
        assert Client().post(address).status_code == 302
    experiment.refresh_from_db()
    assert (experiment.stage, experiment.epoch) == ("ab", 2)


def test_steps_from_the_page(bot: Bot) -> None:
    ada = enter("ada")
    address = reverse("dashboards:experiment-start", args=["bot"])
    assert "Guardrails" in body(ada.get(address))
    form: dict[str, object] = {
        "reason": "",
        "adapter": bot.candidate.pk, "unit": "conversation", "by_rule": "on", "shadow_share": "20",
        "shadow_pairs": "30", "canary_share": "5", "canary_units": "100", "ab_share": "50", "pair_share": "5",
        "days": "14", "primary": "trouble", "goal": "better", "margin": "2", "guard_declined": "4",
    }  # fmt: skip
    assert ada.post(address, {**form, "ab_share": "99"}).status_code == 422
    assert ada.post(address, {**form, "guard_declined": ""}).status_code == 422  # no guardrail at all
    assert ada.post(address, form).status_code == 302
    experiment = Experiment.objects.get()
    assert experiment.rules.guardrails == {"declined": 0.04}
    assert experiment.evaluation == bot.candidate.evaluations.get()

    def act(what: str, **data: str) -> Experiment:
        url = reverse("dashboards:experiment-act", args=[experiment.pk, what])
        assert ada.post(url, data).status_code == 302
        experiment.refresh_from_db()
        return experiment

    assert act("step").stage == "shadow"  # the page says from where
    assert act("step", stage="shadow").stage == "canary"
    assert act("step", stage="shadow").stage == "canary"  # pressed twice
    assert act("share", percent="12,5", reason="more").share == 0.125
    assert act("share", percent="much", reason="more").share == 0.125
    assert act("back").stage == "canary"  # without a reason
    assert act("back", reason="enough").ending == "taken_back"
    assert ada.post(reverse("dashboards:experiment-act", args=[experiment.pk, "nonsense"])).status_code == 404


def test_over_an_unpassed_gate_only_with_a_reason(bot: Bot) -> None:
    bot.candidate.evaluations.update(verdict="not_proven")
    experiment = bot.start()
    ada = enter("ada")
    text = body(ada.get(page_of(experiment)))
    assert "without a passed gate" in text
    assert "● Adapter 2 has not passed the gate." in text
    assert "Adapter 2 answers 20.0 % of the questions in shadow, where no user sees it; 0 are compared." in text
    address = reverse("dashboards:experiment-act", args=[experiment.pk, "step"])
    ada.post(address, {"reason": "", "override": "1", "stage": "shadow"})
    experiment.refresh_from_db()
    assert experiment.stage == "shadow"
    ada.post(address, {"reason": "the pilot", "override": "1", "stage": "shadow"})
    experiment.refresh_from_db()
    assert (experiment.stage, experiment.override_reason) == ("canary", "the pilot")


def test_live_pairs_are_judged_blind(bot: Bot) -> None:
    experiment = bot.start()
    shadows(experiment, 5)
    ada = enter("ada")
    address = reverse("dashboards:experiment-compare", args=[experiment.pk])
    assert "5 of the 5" in body(ada.get(address))
    assert ada.post(address, {"name": "", "pairs": "3"}).status_code == 422
    assert ada.post(address, {"name": "Live one", "pairs": "3"}).status_code == 302
    opened = ComparisonRound.objects.get()
    assert (opened.source, opened.source_id, opened.candidate_arm) == ("experiment", experiment.pk, "Adapter 2")
    pair = ComparisonPair.objects.filter(round=opened).first()
    assert pair is not None
    assert pair.turn is not None
    assert (pair.candidate_text[:5], pair.baseline_text[:5], bool(pair.prompt)) == ("Other", "Shown", True)
    # Who judges must not see on this page which answer is whose.
    text = body(ada.get(page_of(experiment)))
    assert "Results show when you have judged" in text
    assert "Other 1" not in text
    pair.turn.delete()
    assert ComparisonPair.objects.filter(round=opened).count() == 2  # an erasure takes it along


def test_opening_the_form_reads_no_texts_and_the_round_only_what_was_drawn(bot: Bot) -> None:
    experiment = bot.start()
    shadows(experiment, 3)
    ada = enter("ada")
    address = reverse("dashboards:experiment-compare", args=[experiment.pk])
    few = queries(ada, address)
    shadows(experiment, 9)
    spaced = experiment.shadows.select_related("turn").first()
    assert spaced is not None
    spaced.text = f"  {spaced.turn.response} \n".replace(" ", "  ")
    spaced.save()
    assert queries(ada, address) == few
    with CaptureQueriesContext(connection) as captured:
        assert "11 of the 12" in body(ada.get(address))
    asked = [query["sql"] for query in captured if 'FROM "serving_shadowanswer"' in query["sql"]]
    assert len(asked) == 1  # counted there, and no table of contexts is read
    assert not [query for query in captured if "capture_retrieval" in query["sql"]]
    ada.post(address, {"name": "Two", "pairs": "2"})
    opened = ComparisonRound.objects.get()
    assert (opened.pairs.count(), opened.differing, opened.questions) == (2, 11, 12)
    for pair in opened.pairs.select_related("turn"):
        assert pair.turn is not None
        assert pair.question == pair.turn.question


def test_nothing_to_compare_says_so(bot: Bot) -> None:
    experiment = bot.start()
    text = body(enter("ada").get(reverse("dashboards:experiment-compare", args=[experiment.pk])))
    assert "no question was answered by both yet" in text


def test_the_page_costs_the_same_however_long_it_ran(bot: Bot) -> None:
    experiment = bot.in_ab()
    fill(bot, experiment, 60)
    shadows(experiment, 2)
    passed(experiment)
    ada = enter("ada")
    before = queries(ada, page_of(experiment))
    shadows(experiment, 9)
    for minute in range(0, 60, 16):
        rules.run(experiment, now=timezone.now() + timedelta(minutes=minute))
    assert queries(ada, page_of(experiment)) == before
    assert before <= 30


def test_what_is_live_lists_adapters_steps_and_trail(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "why_base_answers", lambda _: "")  # there are no files behind them
    deployment = Deployment.objects.get()
    address = reverse("admin:serving_deployment_change", args=[deployment.pk])
    ada = enter("ada")
    text = body(ada.get(address))
    for said in ("answers with Adapter 1", "● live", "Let it meet users", "No candidate is on its way", "Promoted"):
        assert said in text
    before = queries(ada, address)
    for number in range(3, 8):
        make_evaluation(make_adapter(bot.assistant, number=number), verdict="worse")
    assert queries(ada, address) == before
    experiment = bot.start()
    step(experiment=experiment, actor=bot.ada, reason=HOSTILE)
    text = body(ada.get(address))
    assert "On its way: Adapter 2" in text
    assert ">Canary<" in text


def test_lists_and_the_way_to_start(bot: Bot) -> None:
    ada = enter("ada")
    assert "Start one for Bot" in body(ada.get(reverse("admin:serving_experiment_changelist")))
    bot.start()
    assert "Adapter 2" in body(ada.get(reverse("admin:serving_experiment_changelist")))


def test_the_export_holds_numbers_and_no_words_of_users(bot: Bot) -> None:
    experiment = bot.in_ab()
    shadows(experiment, 3)
    fill(bot, experiment, 60)
    passed(experiment)
    response = enter("ada").get(reverse("dashboards:experiment-json", args=[experiment.pk]))
    assert response.json()["looks"][0]["units"] == {"control": 60, "candidate": 60}
    assert "Question" not in response.content.decode()
