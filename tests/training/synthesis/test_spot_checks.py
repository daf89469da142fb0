"""Spot checks: drawn at random, looked at by one person each, counted with an interval; and who may do what."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from assistants.models import Assistant, AuditEvent
from tests.factories import make_assistant, make_user
from training.models import SpotCheck, Synthesis, SyntheticItem
from training.synthesis.spot_checks import CheckRefused, decide, draw_sample, next_check, precision_of, undo

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def people(db: None) -> dict[str, User]:
    return {name: make_user(name) for name in ("ada", "ann", "bob", "rob", "sam")}


@pytest.fixture
def assistant(people: dict[str, User]) -> Assistant:
    members = {"admin": [people["ada"]], "annotator": [people["ann"], people["bob"]], "reviewer": [people["rob"]]}
    return make_assistant("bot", members=members)


@pytest.fixture
def synthesis(assistant: Assistant) -> Synthesis:
    synthesis = Synthesis.objects.create(assistant=assistant, wanted=20, state="succeeded")
    passage = {"rank": 1, "title": "Fees", "source": "fees.md", "text": f"The fee is £5. It is due now. {HOSTILE}"}
    SyntheticItem.objects.bulk_create(
        SyntheticItem(
            synthesis=synthesis, source="fees.md", sentence=0, question=f"Question {i}? {HOSTILE}", task=f"single:{i}",
            response="The fee is £5.", dropped_by="" if i < 20 else "verbatim",
            contexts={"gold": [1, 0], "passages": [passage], "evidence": [[1, 0, 0.5]]},
        )
        for i in range(25)
    )  # fmt: skip
    return synthesis


def enter(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def page(name: str, *args: Any) -> str:
    return reverse(f"admin:training_synthesis_{name}", args=args)


def test_a_sample_is_random_grows_and_holds_kept_items_once(synthesis: Synthesis, people: dict[str, User]) -> None:
    assert precision_of(synthesis) is None
    assert draw_sample(synthesis=synthesis, size=8, actor=people["ada"]) == 8
    first = list(SpotCheck.objects.of(synthesis).values_list("item", flat=True))
    assert first != sorted(first)
    assert draw_sample(synthesis=synthesis, size=100, actor=people["ada"]) == 12
    drawn = SpotCheck.objects.of(synthesis)
    assert drawn.count() == drawn.values("item").distinct().count() == 20
    assert not drawn.exclude(item__dropped_by="").exists()
    assert sorted(drawn.values_list("position", flat=True)) == list(range(1, 21))
    with pytest.raises(CheckRefused, match="in the sample already"):
        draw_sample(synthesis=synthesis, size=1, actor=people["ada"])
    with pytest.raises(CheckRefused, match="holds 1 to"):
        draw_sample(synthesis=synthesis, size=0, actor=people["ada"])
    assert AuditEvent.objects.filter(action="synthesis.sampled").count() == 2


def test_one_person_looks_at_each_and_the_interval_is_wilsons(synthesis: Synthesis, people: dict[str, User]) -> None:
    draw_sample(synthesis=synthesis, size=20, actor=people["ada"])
    for number in range(20):
        check = next_check(synthesis, people["ann"])
        assert check is not None
        bad = number in (3, 7)
        decide(check=check, person=people["ann"], verdict="bad" if bad else "good", reason="useless" if bad else "")
        with pytest.raises(CheckRefused, match="Somebody else"):
            decide(check=check, person=people["bob"], verdict="good")
    assert next_check(synthesis, people["bob"]) is None
    found = precision_of(synthesis)
    assert found is not None
    assert (found.good, found.n, found.open, found.value) == (18, 20, 0, 0.9)
    assert (round(found.low or 0, 4), round(found.high or 0, 4)) == (0.6990, 0.9721)  # by hand, z = 1.96
    assert found.reasons == (("Nobody would ask this here", 2),)
    assert undo(synthesis=synthesis, person=people["ann"])
    assert not undo(synthesis=synthesis, person=people["bob"])
    left = precision_of(synthesis)
    assert left is not None
    assert (left.n, left.open) == (19, 1)


def test_only_sound_verdicts_are_taken(synthesis: Synthesis, people: dict[str, User]) -> None:
    draw_sample(synthesis=synthesis, size=1, actor=people["ada"])
    check = SpotCheck.objects.get()
    for verdict, reason in (("", ""), ("fine", ""), ("good", "useless"), ("bad", "nonsense")):
        with pytest.raises(CheckRefused):
            decide(check=check, person=people["ann"], verdict=verdict, reason=reason)
    check.refresh_from_db()
    assert check.verdict == ""


def test_annotators_look_at_what_admins_draw(synthesis: Synthesis, people: dict[str, User]) -> None:
    ann, ada = enter(people["ann"]), enter(people["ada"])
    assert "No sample was drawn yet" in ann.get(page("checks")).content.decode()
    assert ann.post(page("sample", synthesis.pk), {"size": 5}).status_code == 404
    assert enter(people["rob"]).post(page("sample", synthesis.pk), {"size": 5}).status_code == 404
    assert ada.post(page("sample", synthesis.pk), {"size": 5}).status_code == 302
    assert ada.post(page("sample", synthesis.pk), {"size": "x"}).status_code == 302
    assert SpotCheck.objects.count() == 5
    assert "Spot checks" in ann.get(reverse("admin:index")).content.decode()
    assert str(synthesis) in ann.get(page("checks")).content.decode()

    shown = ann.get(page("check", synthesis.pk)).content.decode()
    assert HOSTILE not in shown
    assert '<strong class="rt-sentence-offered">The fee is £5.</strong>' in shown
    check = next_check(synthesis, people["ann"])
    assert check is not None
    assert ann.post(page("check", synthesis.pk), {"check": check.pk, "verdict": "bad:wrong_kind"}).status_code == 302
    check.refresh_from_db()
    assert (check.verdict, check.reason, check.checked_by) == ("bad", "wrong_kind", people["ann"])
    answer = ann.post(page("check", synthesis.pk), {"check": check.pk, "verdict": "good"}, follow=True)
    assert "Somebody else has just decided" in answer.content.decode()
    for wrong in ({"check": "999999", "verdict": "good"}, {"check": "x" * 50}, {}):
        assert "not in this sample" in ann.post(page("check", synthesis.pk), wrong, follow=True).content.decode()
    ann.post(page("check", synthesis.pk), {"undo": "1"})
    check.refresh_from_db()
    assert check.verdict == ""
    assert "nothing of yours" in ann.post(page("check", synthesis.pk), {"undo": "1"}, follow=True).content.decode()
    read = ada.get(reverse("admin:training_synthesis_change", args=[synthesis.pk])).content.decode()
    assert "5 more wait" in read


def test_strangers_and_visitors_see_nothing(synthesis: Synthesis, people: dict[str, User]) -> None:
    make_assistant("other", members={"admin": [people["sam"]], "annotator": [people["sam"]]})
    draw_sample(synthesis=synthesis, size=5, actor=people["ada"])
    sam, check = enter(people["sam"]), SpotCheck.objects.first()
    assert check is not None
    assert str(synthesis) not in sam.get(page("checks")).content.decode()
    for name in ("check", "sample", "go_on", "export"):
        url = page(name, synthesis.pk)
        if name != "sample" and name != "go_on":
            assert sam.get(url).status_code == 404
        assert sam.post(url, {"check": check.pk, "verdict": "good", "size": 3}).status_code in (404, 405)
        assert "login" in Client().get(url).headers.get("Location", "") or Client().get(url).status_code == 405
    assert enter(make_user("nobody")).get(page("checks")).status_code == 403
    # Another synthesis's item cannot be decided through one's own.
    own = Synthesis.objects.create(assistant=Assistant.objects.get(slug="other"), wanted=1, state="succeeded")
    sam.post(page("check", own.pk), {"check": check.pk, "verdict": "good"})
    check.refresh_from_db()
    assert check.verdict == ""


def test_pages_cost_the_same_for_few_and_for_many(
    synthesis: Synthesis, people: dict[str, User], django_assert_num_queries: Any
) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    ada = enter(people["ada"])
    urls = [
        page("checks"),
        page("check", synthesis.pk),
        reverse("admin:training_synthesis_change", args=[synthesis.pk]),
    ]

    def cost() -> list[int]:
        found = []
        for url in urls:
            with CaptureQueriesContext(
                connection,
            ) as queries:
                assert ada.get(url).status_code == 200
            found.append(len(queries))
        return found

    draw_sample(synthesis=synthesis, size=2, actor=people["ada"])
    cost()
    few = cost()
    draw_sample(synthesis=synthesis, size=18, actor=people["ada"])
    assert cost() == few


def test_one_that_failed_goes_on_by_its_button(
    synthesis: Synthesis, people: dict[str, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.services.launch", lambda work: None)
    Synthesis.objects.filter(pk=synthesis.pk).update(state="failed", error="The teacher is gone.")
    url = reverse("admin:training_synthesis_change", args=[synthesis.pk])
    assert "Go on where it stopped" in enter(people["ada"]).get(url).content.decode()
    assert "Go on where it stopped" not in enter(people["rob"]).get(url).content.decode()
    assert enter(people["rob"]).post(page("go_on", synthesis.pk)).status_code == 404
    enter(people["ada"]).post(page("go_on", synthesis.pk))
    synthesis.refresh_from_db()
    assert (synthesis.state, synthesis.error) == ("queued", "")
    answer = enter(people["ada"]).post(page("go_on", synthesis.pk), follow=True).content.decode()
    assert "is at work, or has ended" in answer
