"""Two retrieval configurations compared in pairs, and a threshold read off labels."""

from __future__ import annotations

import random
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from annotations.models import Resolution
from assistants.models import Assistant, AuditEvent
from capture.models import Turn
from knowledge.benchmarking import Outcome, Question
from knowledge.configuration import RetrievalSettings, config_digest
from knowledge.configuring import save_configuration
from knowledge.models import RetrievalConfiguration
from knowledge.services import load_document
from tests.factories import make_adapter, make_assistant, make_evaluation, make_turn, make_user
from training.models import Benchmark, BenchmarkItem, EvaluationAnswer, RetrievalComparison
from training.retrieval.calibration import (
    Labelled,
    calibrate,
    choose,
    labelled_items,
    labelled_turns,
    operating,
    with_intervals,
)
from training.retrieval.comparing import compare, sentence, start_comparison
from training.retrieval.worth import Judged, effects, judged_items, judged_turns, most_right, unseen
from training.services import NotPossible

DOCUMENTS = {
    "leaving.md": "# Leaving\n\nA fixed plan has an exit fee of £35.",
    "solar.md": "# Solar\n\nWe pay 12 p for each unit that you export.",
    "meters.md": "# Meters\n\nRead the meter on the first day of the month.",
}
THRESHOLD = "admin:training_retrieval_threshold"
APPLY = "admin:training_retrieval_threshold_apply"


def benchmark_of(assistant: Assistant) -> Benchmark:
    benchmark = Benchmark.objects.create(assistant=assistant, name="Held out", content_hash="x")
    rows = [("a", "What is the exit fee?", "leaving.md", DOCUMENTS["leaving.md"].partition("\n\n")[2]),
            ("b", "What do you pay for <export>?", "solar.md", DOCUMENTS["solar.md"].partition("\n\n")[2])]  # fmt: skip
    for key, question, path, text in rows:
        BenchmarkItem.objects.create(
            benchmark=benchmark, key=key, question=question, kind="answer", gold=[{"path": path, "sentence": text}],
            contexts={"clean": {"evidence": [[1, 0, 0.8]], "has_gold": key == "a"}},
        )  # fmt: skip
    BenchmarkItem.objects.create(
        benchmark=benchmark, key="c", question="Who won?", kind="decline",
        contexts={"clean": {"evidence": [[1, 0, 0.1], [1, 1, 0.2]], "has_gold": False}},
    )  # fmt: skip
    return benchmark


# --- Pure functions ---------------------------------------------------------------------------------------------------


def questions(answerable: list[float], unanswerable: list[float]) -> list[Labelled]:
    rows = [Labelled(s, False, f"a{i}") for i, s in enumerate(answerable)]
    return rows + [Labelled(s, True, f"u{i}") for i, s in enumerate(unanswerable)]


def test_what_a_threshold_does_by_hand() -> None:
    point = operating(questions([0.9, 0.8, 0.3, 0.7], [0.2, 0.4, 0.85]), 0.5)
    assert (point.declined, point.precision, point.recall, point.lost) == (3, 2 / 3, 2 / 3, 0.25)
    nothing = operating(questions([0.9], [0.2]), 0.0)
    assert (nothing.declined, nothing.precision, nothing.recall, nothing.lost) == (0, 1.0, 0.0, 0.0)


def test_the_proposal_loses_no_more_than_allowed() -> None:
    rows = questions([0.5 + i / 100 for i in range(20)], [0.3 + i / 100 for i in range(25)])
    strict, lax = choose(rows, 0.0), choose(rows, 0.2)
    assert strict.lost == 0
    assert strict.recall == pytest.approx(20 / 25)
    assert lax.lost <= 0.2
    assert lax.recall > strict.recall
    found = calibrate(rows)
    assert found.proposed is not None
    assert found.honest is not None
    # By hand: the last five unanswerable ones tie with, or are above, the first answerable ones.
    assert found.auc == pytest.approx((20 * 20 + sum(19 - i + 0.5 for i in range(5))) / (20 * 25), abs=0.001)
    assert calibrate(rows[:5]).proposed is None
    assert calibrate([]).curve == []


def test_the_area_is_a_half_where_similarity_says_nothing() -> None:
    assert calibrate(questions([0.5] * 12, [0.5] * 12)).auc == 0.5
    assert calibrate(questions([0.9] * 12, [0.1] * 12)).auc == 1.0


def test_differences_are_paired() -> None:
    asked = [Question.model_validate({"id": str(i), "question": "q", "gold": [f"{i}.md"]}) for i in range(30)]
    first = [Outcome(q, (2,), 0.5, 0.01) for q in asked]
    second = [Outcome(q, (1,) if i else (0,), 0.5, 0.02) for i, q in enumerate(asked)]
    result = compare(first, second)
    assert (result["n"], result["first"]["recall@1"]) == (30, 0)
    test = result["tests"]["recall@1"]
    assert (test["better"], test["worse"]) == (29, 0)
    assert test["difference"]["value"] == pytest.approx(29 / 30)
    assert result["ranks"][:2] == [["0", 2, 0], ["1", 2, 1]]


# --- With the database ------------------------------------------------------------------------------------------------


@pytest.fixture
def assistant(db: None) -> Assistant:
    members = {"admin": [make_user("ada")], "reviewer": [make_user("rob")], "annotator": [make_user("ann")]}
    bot = make_assistant("bot", members=members)
    for path, text in DOCUMENTS.items():
        load_document(assistant=bot, path=path, data=text.encode())
    return bot


def enter(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client


def shown(response: Any) -> str:
    assert response.status_code == 200, response.status_code
    return str(response.content.decode())


def versions(assistant: Assistant) -> tuple[RetrievalConfiguration, RetrievalConfiguration]:
    one = save_configuration(assistant=assistant, name="Words", settings=RetrievalSettings(vectors=0, sentences=0))
    return one, save_configuration(assistant=assistant, name="Both", settings=RetrievalSettings())


def test_a_comparison_from_the_form_to_its_page(assistant: Assistant, settings: Any) -> None:
    settings.RATCHET_FOREGROUND = True
    benchmark = benchmark_of(assistant)
    client = enter("ada")
    add = reverse("admin:training_retrievalcomparison_add")
    assert "not two versions" in shown(client.get(add))
    first, second = versions(assistant)
    page = shown(client.post(add, {"benchmark": benchmark.pk, "first": first.pk, "second": first.pk}))
    assert "two different" in page
    page = shown(client.post(add, {"benchmark": benchmark.pk, "first": first.pk, "second": second.pk}, follow=True))
    comparison = RetrievalComparison.objects.get()
    assert comparison.state == "succeeded", comparison.error
    assert comparison.result["n"] == 2
    assert comparison.result["second"]["recall@1"] == 1.0
    assert "Both" in sentence(comparison)
    assert "ndcg@10" in page
    change = reverse("admin:training_retrievalcomparison_change", args=[comparison.pk])
    page = shown(enter("rob").get(change, {"show": "all"}))
    assert "&lt;export&gt;" in page
    assert shown(client.get(change, {"show": "worse"}))
    assert "Words" in shown(client.get(reverse("admin:training_retrievalcomparison_changelist")))
    make_assistant("other", members={"admin": [make_user("sam")]})
    assert enter("ann").get(change).status_code == 403
    assert enter("sam").get(change).status_code == 404
    enter("sam").post(add, {"benchmark": benchmark.pk, "first": first.pk, "second": second.pk})
    assert RetrievalComparison.objects.count() == 1
    assert enter("rob").get(add).status_code == 403


def test_versions_of_different_assistants_are_not_compared(assistant: Assistant) -> None:
    first, second = versions(assistant)
    other, _ = versions(make_assistant())
    benchmark = benchmark_of(assistant)
    with pytest.raises(NotPossible, match="different assistants"):
        start_comparison(benchmark=benchmark, first=first, second=other)
    BenchmarkItem.objects.update(gold=[])
    with pytest.raises(NotPossible, match="where its answer stands"):
        start_comparison(benchmark=benchmark, first=first, second=second)
    assert not RetrievalComparison.objects.exists()


def resolved(assistant: Assistant, similarity: float, response: str) -> Turn:
    turn = make_turn(assistant)
    turn.retrievals.update(evidence=[])
    first = turn.retrievals.order_by("rank")[0]
    first.evidence = [[0, 0, similarity], [1, 1, similarity / 2]]
    first.save()
    Resolution.objects.create(turn=turn, verdict="good", response=response, how="single")
    return turn


def test_labels_say_when_declining_was_right(assistant: Assistant) -> None:
    assistant.handoff_sentence = "I pass you on."
    assistant.save()
    resolved(assistant, 0.8, "The fee is £35. [1]")
    resolved(assistant, 0.3, assistant.decline_sentence)
    resolved(assistant, 0.5, assistant.handoff_sentence)
    resolved(make_assistant(), 0.9, "Another house.")
    assert sorted((q.similarity, q.decline) for q in labelled_turns(assistant)) == [(0.3, True), (0.8, False)]
    items = labelled_items(benchmark_of(assistant))
    # The right sentence was not offered for b, so declining is right there.
    assert sorted((q.similarity, q.decline) for q in items) == [(0.2, True), (0.8, False), (0.8, True)]


def test_intervals_hold_the_share_and_are_wider_with_fewer_groups() -> None:
    asked = questions([0.5 + i / 100 for i in range(40)], [0.2 + i / 100 for i in range(40)])
    point = operating(asked, 0.55)
    (alone,) = with_intervals(asked, [point])
    together = [Labelled(q.similarity, q.decline, f"{i // 10}") for i, q in enumerate(asked)]
    (grouped,) = with_intervals(together, [point])
    for name in ("precision", "recall", "lost"):
        low, high = alone.bounds[name]
        assert low <= getattr(point, name) <= high
    widths = [high - low for low, high in (alone.bounds["recall"], grouped.bounds["recall"])]
    assert widths[1] > widths[0] > 0
    assert with_intervals([], [point]) == [point]


def test_the_best_threshold_depends_on_who_answers() -> None:
    good, bad = "adapter_rag", "base_rag"
    judged = [
        Judged(0.2, "a", 1.0, {good: 0.0, bad: 0.0}),
        Judged(0.4, "b", 0.0, {good: 1.0, bad: 0.0}),
        Judged(0.5, "c", 1.0, {good: 0.0, bad: 0.0}),
        Judged(0.6, "d", 0.0, {good: 1.0, bad: 1.0}),
    ]
    assert most_right(judged, bad) == 0.6  # below it nothing is right when it answers
    assert most_right(judged, good) == 0.4  # of two that are as good the lower one: it answers more
    changed = {one.who: one for one in effects(judged, now=0.0, then=0.6)}
    assert (changed[bad].before, changed[bad].after) == (0.25, 0.75)
    assert (changed[good].before, changed[good].after) == (0.5, 0.75)
    assert changed[bad].difference.value == pytest.approx(0.5)
    assert most_right([Judged(0.3, "a", 0.0, {good: 1.0})], good) == 0.0
    # Below a threshold that counts nobody was asked: nothing speaks for a lower one.
    assert most_right([Judged(0.7, "a", 0.0, {good: 1.0})], good, now=0.5) == 0.5
    assert most_right(judged, good, now=0.5) == 0.4


def test_a_choice_that_luck_has_made_is_worth_nothing_on_other_questions() -> None:
    drawn = random.Random(3)
    flips = [(drawn.random(), drawn.random() < 0.5) for _ in range(200)]
    judged = [Judged(round(s, 4), str(i), float(yes), {"base_rag": float(not yes)}) for i, (s, yes) in enumerate(flips)]
    (chosen,) = effects(judged, now=0.0, then=most_right(judged, "base_rag"))
    fair = unseen(judged, "base_rag", now=0.0)
    assert chosen.difference.value > 0
    assert fair.difference.value < chosen.difference.value
    assert fair.before == chosen.before


def test_what_an_arm_would_gain_is_read_off_an_evaluation_without_a_threshold(assistant: Assistant) -> None:
    benchmark = benchmark_of(assistant)
    assert judged_items(benchmark) == (None, [])
    adapter = make_adapter(assistant)
    make_evaluation(adapter, benchmark=benchmark, plan={"threshold": 0.4})
    plain = make_evaluation(adapter, benchmark=benchmark)
    later = make_evaluation(adapter, benchmark=benchmark, plan={"threshold": 0.2})
    for evaluation, right in ((plain, 1.0), (later, 0.0)):
        for item in benchmark.items.all():
            for arm in ("base", "base_rag", "extractive"):
                EvaluationAnswer.objects.create(
                    evaluation=evaluation, item=item, arm=arm, condition="clean", completion="x", text="x",
                    measures={"grounded_correct": right if item.key == "a" else 0.0},
                )  # fmt: skip
    found, judged = judged_items(benchmark)
    assert found == plain
    # The second question may be answered, but its sentence was not found: declining it is right.
    assert [(one.similarity, one.declining, one.answered) for one in judged] == [
        (0.8, 0.0, {"base_rag": 1.0}),
        (0.8, 1.0, {"base_rag": 0.0}),
        (0.2, 1.0, {"base_rag": 0.0}),
    ]
    (effect,) = effects(judged, now=0.0, then=0.5)
    assert effect.before == pytest.approx(1 / 3)
    assert effect.after == pytest.approx(2 / 3)


def test_a_turn_that_the_threshold_declined_calibrates_but_answers_nothing(assistant: Assistant) -> None:
    declined = resolved(assistant, 0.3, assistant.decline_sentence)
    resolved(assistant, 0.6, "The fee is £35. [1]")
    Turn.objects.filter(pk=declined.pk).update(withheld=True)
    assert {q.similarity for q in labelled_turns(assistant)} == {0.3, 0.6}
    assert [one.similarity for one in judged_turns(assistant)] == [0.6]


def test_the_threshold_page_proposes_and_applies(assistant: Assistant, django_assert_max_num_queries: Any) -> None:
    client = enter("ada")
    assert "Too few labels" in shown(client.get(reverse(THRESHOLD)))
    for i in range(12):
        resolved(assistant, 0.6 + i / 100, "The fee is £35. [1]")
        resolved(assistant, 0.3 + i / 100, assistant.decline_sentence)
    client.get(reverse(THRESHOLD))
    with django_assert_max_num_queries(14):
        page = shown(client.get(reverse(THRESHOLD), {"assistant": "bot"}))
    assert "declining is right 100 %" in page
    assert "<svg" in page
    assert "Apply as a new version" not in shown(enter("rob").get(reverse(THRESHOLD)))
    before = config_digest(assistant)
    page = shown(client.post(reverse(APPLY), {"assistant": "bot", "threshold": "0.5"}, follow=True))
    assert "declines below 0.5 from now on" in page
    assert "Take it back" in page
    assert "Take it back" not in shown(enter("rob").get(reverse(THRESHOLD)))
    assistant.refresh_from_db()
    assert assistant.evidence_threshold == 0.5
    assert config_digest(assistant) != before
    assert AuditEvent.objects.filter(assistant=assistant, action="retrieval.activated").count() == 1
    for wrong in ("2", "x", "nan", ""):
        shown(client.post(reverse(APPLY), {"assistant": "bot", "threshold": wrong}, follow=True))
    assistant.refresh_from_db()
    assert assistant.evidence_threshold == 0.5
    assert enter("rob").post(reverse(APPLY), {"assistant": "bot", "threshold": "0.1"}).status_code == 404
    former = RetrievalConfiguration.objects.get(assistant=assistant, digest=before)
    shown(client.post(reverse("admin:knowledge_retrieval_activate", args=[former.pk]), follow=True))
    assistant.refresh_from_db()
    assert assistant.evidence_threshold == 0.0
    assert config_digest(assistant) == before
    assert AuditEvent.objects.filter(assistant=assistant, action="retrieval.activated").count() == 2
    assert enter("ann").get(reverse(THRESHOLD)).status_code == 403
