"""Blind comparison: what is drawn, who may judge, that nobody can see whose answer is whose, and what comes of it."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from annotations.comparing.blindness import WITHHELD
from annotations.comparing.drawing import stratified
from annotations.comparing.errors import AlreadyChosen, NothingToTakeBack, RoundClosed
from annotations.comparing.models import Choice, ComparisonChoice, ComparisonPair, ComparisonRound
from annotations.comparing.preferences import preference_lines
from annotations.comparing.results import results_of, rounds_of, win_rate
from annotations.comparing.services import choose, may_judge, take_back
from assistants.models import Assistant, AuditEvent
from tests.annotations.streams import whole
from tests.factories import add_member, make_adapter, make_assistant, make_benchmark, make_evaluation, make_user
from training.comparing import SOURCE, differing_pairs, start_comparison
from training.models import BenchmarkItem, Evaluation, EvaluationAnswer

pytestmark = pytest.mark.django_db

CANDIDATE_SAYS = "Leaving a fixed plan early costs £35. [1]"
BASELINE_SAYS = "I can't find that in the documents."
CLEAN = {
    "passages": [
        {"rank": 1, "title": "Leaving early", "source": "leaving.md", "text": "A fixed plan has a fee of £35."}
    ],
    "evidence": [[1, 0, 0.8]],
    "has_gold": True,
}


def evaluate(assistant: Assistant, *, questions: int = 6, equal: int = 1, **fields: Any) -> Evaluation:
    """Answers of both arms; the last ``equal`` questions got the same one."""
    evaluation = make_evaluation(
        make_adapter(assistant), benchmark=make_benchmark(assistant, name="Held out"), **fields
    )
    for i in range(questions):
        item = BenchmarkItem.objects.create(
            benchmark=evaluation.benchmark, key=f"q{i}", question=f"Question {i}: what does leaving cost?",
            kind="answer" if i % 2 else "decline", slice="fees", contexts={"clean": CLEAN},
        )  # fmt: skip
        for arm, said in (("base_rag", BASELINE_SAYS), ("adapter_rag", CANDIDATE_SAYS)):
            text = BASELINE_SAYS + " " if i >= questions - equal else said
            EvaluationAnswer.objects.create(
                evaluation=evaluation, item=item, arm=arm, condition="clean", text=text, completion=f"[1] {text}"
            )
    return evaluation


@pytest.fixture
def rita() -> User:
    return make_user("rita")


@pytest.fixture
def bot(rita: User) -> Assistant:
    return make_assistant("bot", members={"reviewer": [rita], "admin": [make_user("adam")]})


@pytest.fixture
def opened(bot: Assistant) -> ComparisonRound:
    return open_on(evaluate(bot))


def open_on(evaluation: Evaluation, *people: User, pairs: int = 5, name: str = "Round 1") -> ComparisonRound:
    return start_comparison(evaluation=evaluation, name=name, pairs=pairs, people=people, created_by=None)


def pick(pair: ComparisonPair, person: User, wanted: Choice, **fields: Any) -> ComparisonChoice:
    """Chooses an arm, which a person cannot."""
    side: str = wanted.value
    if wanted in (Choice.CANDIDATE, Choice.BASELINE):
        side = "left" if pair.candidate_is_left(person.pk) == (wanted == Choice.CANDIDATE) else "right"
    return choose(pair=pair, person=person, side=side, **fields)


def page_of(client: Client, opened: ComparisonRound, person: User) -> str:
    client.force_login(person)
    return client.get(reverse("annotations:compare", args=[opened.pk])).content.decode()


# --- Drawing --------------------------------------------------------------------------------------


def test_only_questions_with_different_answers_are_drawn(bot: Assistant) -> None:
    evaluation = evaluate(bot, questions=8, equal=3)
    found, questions = differing_pairs(evaluation)
    assert (len(found), questions) == (5, 8)
    opened = open_on(evaluation, pairs=4)
    assert (opened.pairs.count(), opened.differing, opened.questions, opened.held_out) == (4, 5, 8, "Held out")
    pair = opened.pairs.get(position=1)
    assert (pair.candidate_text, pair.baseline_text) == (CANDIDATE_SAYS, BASELINE_SAYS)
    assert [message["role"] for message in pair.prompt] == ["system", "user"]


def test_a_sample_keeps_the_shares_of_its_strata() -> None:
    items = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    drawn = stratified(items, 20, stratum=str, rng=random.Random(1))
    assert Counter(drawn) == {"a": 12, "b": 6, "c": 2}
    assert len(stratified(items, 7, stratum=str, rng=random.Random(1))) == 7
    assert len(stratified(items, 500, stratum=str, rng=random.Random(1))) == 100
    numbered = [f"{name}{i}" for i, name in enumerate(items)]
    assert len(set(stratified(numbered, 50, stratum=lambda item: item[0], rng=random.Random(1)))) == 50


def test_what_cannot_be_opened_says_why(bot: Assistant) -> None:
    evaluation = evaluate(bot)
    open_on(evaluation)
    for fields, field in (
        ({"name": "Round 1"}, "name"),
        ({"name": " "}, "name"),
        ({"pairs": 0}, "pairs"),
        ({"pairs": 501}, "pairs"),
        ({"people": [make_user()]}, "people"),
    ):
        with pytest.raises(ValidationError) as refused:
            start_comparison(**{  # type: ignore[arg-type]
                "evaluation": evaluation, "name": "Round 2", "pairs": 3, "people": [], "created_by": None, **fields
            })  # fmt: skip
        assert list(refused.value.message_dict) == [field]
    with pytest.raises(ValidationError, match="nothing to compare"):
        open_on(evaluate(make_assistant("same"), questions=2, equal=2))
    assert ComparisonRound.objects.count() == 1


# --- Choosing -------------------------------------------------------------------------------------


def test_a_choice_is_stored_with_its_side_and_a_repeat_changes_nothing(opened: ComparisonRound, rita: User) -> None:
    pair = opened.pairs.get(position=1)
    made = pick(pair, rita, Choice.CANDIDATE, aspects=["support", "facts"], seconds=12.5)
    assert (made.choice, made.candidate_left) == ("candidate", pair.candidate_is_left(rita.pk))
    assert (made.aspects, made.seconds) == (["facts", "support"], 12.5)
    assert pick(pair, rita, Choice.CANDIDATE, aspects=["facts", "support"]) == made
    with pytest.raises(AlreadyChosen):
        pick(pair, rita, Choice.BOTH_BAD)
    assert AuditEvent.objects.filter(action="comparison.judged").count() == 1
    for bad in ({"side": "candidate"}, {"side": ""}, {"side": "left", "aspects": ["looks"]}):
        with pytest.raises(ValidationError):
            choose(pair=opened.pairs.get(position=2), person=rita, **bad)  # type: ignore[arg-type]


def test_taking_back_keeps_the_choice_and_shows_the_pair_again(opened: ComparisonRound, rita: User) -> None:
    first, second = opened.pairs.filter(position__lte=2).order_by("position")
    pick(first, rita, Choice.BOTH_GOOD)
    pick(second, rita, Choice.BASELINE)
    assert take_back(opened=opened, person=rita) == second
    assert opened.pairs.unjudged_by(rita).first() == second
    pick(second, rita, Choice.CANDIDATE)
    assert ComparisonChoice.objects.filter(pair=second).count() == 2
    assert ComparisonChoice.objects.current().get(pair=second).choice == "candidate"
    take_back(opened=opened, person=rita)
    take_back(opened=opened, person=rita)
    with pytest.raises(NothingToTakeBack):
        take_back(opened=opened, person=rita)


def test_nobody_judges_in_a_closed_round(opened: ComparisonRound, rita: User) -> None:
    pair = opened.pairs.get(position=1)
    pick(pair, rita, Choice.BOTH_GOOD)
    ComparisonRound.objects.update(closed=True)
    with pytest.raises(RoundClosed):
        pick(opened.pairs.get(position=2), rita, Choice.BOTH_GOOD)
    with pytest.raises(RoundClosed):
        take_back(opened=opened, person=rita)


def test_sides_are_drawn_per_person_and_about_even(opened: ComparisonRound) -> None:
    pair = opened.pairs.get(position=1)
    left = [pair.candidate_is_left(person) for person in range(1000)]
    assert 430 < sum(left) < 570
    assert left == [pair.candidate_is_left(person) for person in range(1000)]


# --- The page --------------------------------------------------------------------------------------


def test_the_page_says_nothing_of_whose_answer_is_whose(client: Client, bot: Assistant, rita: User) -> None:
    opened = open_on(evaluate(bot))
    pair = opened.pairs.get(position=1)
    html = page_of(client, opened, rita)
    left, right = (html.index(text) for text in (("£35. <a", "find that")))
    assert (left < right) is pair.candidate_is_left(rita.pk)
    told = html.replace(pair.question, "").lower()
    for word in ("candidate", "baseline", "adapter", "base_rag", str(opened.seed), "retrieval"):
        assert word not in told, word


def test_five_pairs_and_the_end(client: Client, opened: ComparisonRound, rita: User) -> None:
    client.force_login(rita)
    url = reverse("annotations:compare", args=[opened.pk])
    for place in range(1, 6):
        pair = client.get(url).context["pair"]
        assert pair.position == place
        answer = client.post(f"{url}choose", {"pair": pair.pk, "side": "left", "aspects": "facts", "seconds": "3"})
        assert answer.status_code == 302
    assert "All 5 pairs judged" in client.get(url).content.decode()
    choices = ComparisonChoice.objects.filter(person=rita)
    assert {(c.choice == "candidate") == c.candidate_left for c in choices} == {True}
    assert client.post(f"{url}undo").status_code == 302
    assert client.get(url).context["pair"].position == 5


def test_a_second_tab_is_told_and_loses_nothing(client: Client, opened: ComparisonRound, rita: User) -> None:
    client.force_login(rita)
    url = reverse("annotations:compare", args=[opened.pk])
    pair = opened.pairs.get(position=1)
    script = {"X-Requested-With": "fetch"}
    sent = {"pair": pair.pk, "side": "left"}
    assert "Question" in client.post(f"{url}choose", sent, headers=script).json()["html"]
    assert client.post(f"{url}choose", sent, headers=script).status_code == 200
    other = client.post(f"{url}choose", {**sent, "side": "right"}, headers=script)
    assert (other.status_code, other.json()["gone"]) == (409, True)
    for pk in ("", "x", "9" * 30, str(pair.pk + 1000)):
        assert client.post(f"{url}choose", {"pair": pk, "side": "left"}, headers=script).status_code == 409
    missing = client.post(f"{url}choose", {"pair": pair.pk}, headers=script)
    assert missing.status_code == 422
    assert ComparisonChoice.objects.count() == 1


def test_text_of_answers_is_escaped(client: Client, bot: Assistant, rita: User) -> None:
    evaluation = evaluate(bot)
    EvaluationAnswer.objects.filter(arm="adapter_rag").update(text="<script>alert(1)</script> [1] [9]")
    html = page_of(client, open_on(evaluation), rita)
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "There is no passage 9" in html


def test_who_may_judge(client: Client, bot: Assistant, rita: User) -> None:
    ann, stranger, privacy = make_user("ann"), make_user("stranger"), make_user("pia")
    add_member(bot, ann, "annotator")
    add_member(bot, privacy, "privacy")
    add_member(make_assistant("other"), stranger, "admin")
    evaluation = evaluate(bot)
    free, named = open_on(evaluation), open_on(evaluation, ann, name="Round 2")
    assert [may_judge(person, free) for person in (rita, ann, stranger, privacy)] == [True, False, False, False]
    assert [may_judge(person, named) for person in (rita, ann, stranger, privacy)] == [False, True, False, False]
    for person, opened, status in ((ann, free, 403), (ann, named, 200), (rita, named, 403), (stranger, free, 403)):
        client.force_login(person)
        assert client.get(reverse("annotations:compare", args=[opened.pk])).status_code == status
        assert client.post(reverse("annotations:undo-choice", args=[opened.pk])).status_code in (403, 302)
    client.force_login(ann)
    listed = client.get(reverse("admin:annotations_comparisonround_changelist")).content.decode()
    assert "Round 2" in listed
    assert "Round 1" not in listed
    # An annotator sees the round that they judge in, and no result.
    shown = client.get(reverse("admin:annotations_comparisonround_change", args=[named.pk]))
    assert shown.status_code == 200
    assert "Win rate" not in shown.content.decode()
    for what in ("preferences", "choices"):
        url = reverse("admin:annotations_comparisonround_export", args=[named.pk, what])
        assert client.get(url).status_code == 403


# --- What comes of it -------------------------------------------------------------------------------


def test_the_win_rate_counts_ties_half_and_a_pair_once() -> None:
    rate = win_rate([(1, "candidate"), (1, "baseline"), (2, "both_good"), (3, "candidate"), (4, "candidate")])
    assert (rate.value, rate.n) == (pytest.approx(0.75), 4)  # ½, ½, 1, 1
    assert rate.low == pytest.approx(0.3006, abs=1e-3)  # Wilson, 3 of 4
    assert rate.high == pytest.approx(0.9544, abs=1e-3)
    sweep = win_rate([(pair, "candidate") for pair in range(5)])
    assert sweep.value == 1
    assert sweep.low is not None
    assert 0.5 < sweep.low < 0.6  # five of five is no certainty
    assert win_rate([]).value is None


def test_results_show_people_and_how_far_they_agree(bot: Assistant, rita: User, opened: ComparisonRound) -> None:
    adam = User.objects.get(username="adam")
    for pair in opened.pairs.all():
        pick(pair, rita, Choice.CANDIDATE, seconds=10)
    assert results_of([opened])[0].verdict == "People prefer the candidate."
    for pair in opened.pairs.all():
        pick(pair, adam, Choice.BASELINE if pair.position == 1 else Choice.CANDIDATE, seconds=20)
    with CaptureQueriesContext(connection) as queries:
        (result,) = results_of([opened])
    assert len(queries) == 2
    assert result.win_rate.value == pytest.approx(0.9)
    assert result.verdict == "Which one people prefer is not shown."  # from .48 up
    assert dict(result.counts) == {"The candidate": 9, "The baseline": 1, "Both good": 0, "Both bad": 0}
    assert [(p.name, p.judged, p.candidate, p.median_seconds) for p in result.people] == [
        ("adam", 5, 4, 20), ("rita", 5, 5, 10),
    ]  # fmt: skip
    assert (result.agreement.percent.value, result.agreement.percent.n) == (pytest.approx(0.8), 5)
    assert 0 <= result.left <= result.decided == 10


def test_what_people_agree_on_becomes_preference_pairs(opened: ComparisonRound, rita: User) -> None:
    adam = User.objects.get(username="adam")
    said = {1: (Choice.CANDIDATE, Choice.CANDIDATE), 2: (Choice.CANDIDATE, Choice.BASELINE),
            3: (Choice.BASELINE, Choice.BASELINE), 4: (Choice.BOTH_GOOD, Choice.CANDIDATE)}  # fmt: skip
    for place, choices in said.items():
        for person, choice in zip((rita, adam), choices, strict=True):
            pick(opened.pairs.get(position=place), person, choice)
    pick(opened.pairs.get(position=5), rita, Choice.CANDIDATE)
    rows = [json.loads(line) for line in preference_lines(opened)]
    assert [row["id"].rpartition("-")[2] for row in rows] == ["1", "3", "5"]
    assert [row["people"] for row in rows] == [2, 2, 1]
    assert [row["chosen"][0]["content"] == f"[1] {CANDIDATE_SAYS}" for row in rows] == [True, False, True]
    assert {row["held_out"] for row in rows} == {"Held out"}
    assert rows[0]["prompt"][-1]["content"].endswith(opened.pairs.get(position=1).question)
    assert len(list(preference_lines(opened, people=2))) == 2


def test_pairs_whose_prompt_is_not_known_teach_nothing(bot: Assistant, rita: User) -> None:
    evaluation = evaluate(bot)
    evaluation.prompt_digest = "another"
    opened = open_on(evaluation)
    pick(opened.pairs.get(position=1), rita, Choice.CANDIDATE)
    assert list(preference_lines(opened)) == []


def test_the_evaluation_shows_the_win_rate_and_opens_rounds(client: Client, bot: Assistant, rita: User) -> None:
    evaluation = evaluate(bot, results={}, comparison={"grounded_correct": PRIMARY})
    page, form = (reverse(f"dashboards:{name}", args=[evaluation.pk]) for name in ("before-after", "open-comparison"))
    client.force_login(rita)
    assert "Nobody has compared" in client.get(page).content.decode()
    assert client.get(form).status_code == 403
    client.force_login(User.objects.get(username="adam"))
    assert "5 of the 6 questions" in client.get(form).content.decode()
    assert client.post(form, {"name": "Blind 1", "pairs": "0"}).status_code == 422
    answer = client.post(form, {"name": "Blind 1", "pairs": "3", "people": [rita.pk]})
    opened = ComparisonRound.objects.get(source=SOURCE, source_id=evaluation.pk)
    assert answer.headers["Location"] == reverse("admin:annotations_comparisonround_change", args=[opened.pk])
    for pair in opened.pairs.all():
        pick(pair, rita, Choice.CANDIDATE)
    shown = client.get(page).content.decode()
    assert "Blind 1" in shown
    assert "100.0 %" in shown
    assert "3 of 3" in shown
    assert "people prefer is not shown" in client.get(answer.headers["Location"]).content.decode()
    for what in ("preferences", "choices"):
        export = client.get(reverse("admin:annotations_comparisonround_export", args=[opened.pk, what]))
        assert len(whole(export).splitlines()) == 3
    assert AuditEvent.objects.filter(action="comparison.exported").count() == 2
    client.force_login(rita)
    listed = client.get(reverse("admin:annotations_comparisonround_changelist"))
    (row,) = listed.context["cl"].result_list
    assert (row.n_pairs, row.n_choices, row.n_mine, row.n_left) == (3, 3, 3, 0)


def test_whoever_still_has_pairs_to_judge_sees_no_result(client: Client, bot: Assistant, rita: User) -> None:
    evaluation = evaluate(bot, results={}, comparison={"grounded_correct": PRIMARY})
    opened = open_on(evaluation)
    adam = User.objects.get(username="adam")
    pairs = list(opened.pairs.order_by("position"))
    for pair in pairs:
        pick(pair, adam, Choice.CANDIDATE)
    for pair in pairs[1:]:
        pick(pair, rita, Choice.CANDIDATE)
    page = reverse("admin:annotations_comparisonround_change", args=[opened.pk])
    review = reverse("dashboards:before-after", args=[evaluation.pk])
    exports = [reverse("admin:annotations_comparisonround_export", args=[opened.pk, w]) for w in ("preferences", "all")]

    def sees(person: User) -> bool:
        """The same answer everywhere."""
        client.force_login(person)
        sent = [client.get(url) for url in exports]  # first: what they refuse is told by the next page
        shown, listed = client.get(page), client.get(review)
        html, section = shown.content.decode(), listed.content.decode().partition('id="expert-review"')[2]
        told = {WITHHELD in html, WITHHELD in section, *(answer.status_code == 302 for answer in sent)}
        for answer in sent:
            if answer.status_code == 200:
                assert whole(answer)
        given = {"Win rate" in html, "preference pair" in html, "Median time" in html, "5 of 5" in section}
        assert (len(told), len(given)) == (1, 1)
        assert told != given
        return given == {True}

    assert (sees(adam), sees(rita)) == (True, False)
    assert AuditEvent.objects.filter(action="comparison.exported", actor=rita).count() == 0
    pick(pairs[0], rita, Choice.BOTH_GOOD)
    assert sees(rita)
    take_back(opened=opened, person=rita)
    assert not sees(rita)
    ComparisonRound.objects.filter(pk=opened.pk).update(closed=True)
    assert sees(rita)
    with CaptureQueriesContext(connection) as queries:
        rounds_of(SOURCE, evaluation.pk, viewer=rita)
    few = len(queries)
    open_on(evaluation, name="Round 2")
    open_on(evaluation, rita, name="Round 3")
    again = User.objects.get(pk=rita.pk)
    with CaptureQueriesContext(connection) as queries:
        listed = rounds_of(SOURCE, evaluation.pk, viewer=again)
    assert [one.result is None for one in listed] == [True, True, False]
    assert few <= len(queries) <= 6  # one more for roles, which are read once a request


PRIMARY = {
    "difference": {"value": 0.1, "low": 0.0, "high": 0.2, "n": 6, "clusters": 6},
    "better": 1, "worse": 0, "p_mcnemar": 1.0, "minimum_detectable": 0.4,
}  # fmt: skip
