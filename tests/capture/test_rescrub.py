"""Stored texts under a new policy: what a dry run counts, what a re-scrub writes, and that it survives being killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from annotations.models import Annotation, MissedPassage
from assistants.background import BackgroundWork, WorkCancelled
from assistants.models import AuditEvent
from assistants.performing import perform_here
from assistants.policies import change_policy, policy_of, rules_of
from capture import rescrub
from capture.models import Feedback, Passage, Rescrub, Turn, UncertainMask
from capture.rescrubbing import AlreadyRunning, cancel_rescrub, start_rescrub
from privacy.findings import ScrubError
from tests.capture.conftest import Cast
from tests.factories import make_conversation, make_feedback, make_turn

pytestmark = pytest.mark.django_db
NAME = "copper kettle"


def deny(cast: Cast, *values: str, **changes: Any) -> None:
    rules = rules_of(cast.bot)
    policy = replace(rules.policy, deny=values, **changes)
    change_policy(assistant=cast.bot, rules=replace(rules, policy=policy), actor=None, reason="Told by the house.")


@pytest.fixture
def turns(cast: Cast) -> list[Turn]:
    """Three conversations; the first two name somebody whom nothing recognises."""
    context = {"text": f"Ask {NAME} first. Then wait.", "title": "Help"}
    first = make_turn(
        cast.bot, question=f"Who is {NAME}? Not [PERSON_1].", response="A fitter. [1]", contexts=[context],
        conversation=make_conversation(cast.bot, "c-1"), metadata={"note": NAME.upper()},
    )  # fmt: skip
    make_feedback(first, kind="comment", value=None, text=f"{NAME} was late")
    Annotation.objects.create(turn=first, annotator=cast.bob, verdict="bad", correction=f"Call {NAME}.", note="ok")
    second = make_turn(
        cast.bot, question="When?", contexts=[context], response="At nine. [1]",
        conversation=make_conversation(cast.bot, "c-2"),
    )  # fmt: skip
    third = make_turn(cast.bot, question="Fees?", contexts=[], conversation=make_conversation(cast.bot, "c-3"))
    return [first, second, third]


def run(cast: Cast, *, dry_run: bool = False) -> Rescrub:
    work = start_rescrub(assistant=cast.bot, dry_run=dry_run, actor=cast.dana)
    assert perform_here(work)
    work.refresh_from_db()
    assert work.state == BackgroundWork.State.SUCCEEDED, work.error
    return work


def stored() -> str:
    return json.dumps(
        [
            list(Turn.objects.order_by("asked_at").values_list("question", "response", "metadata", "pii")),
            list(Passage.objects.order_by("pk").values_list("title", "text")),
            list(Feedback.objects.values_list("text", flat=True)),
            list(Annotation.objects.values_list("correction", "note")),
        ]
    )


def test_a_dry_run_counts_and_writes_nothing_and_the_real_one_does_what_it_counted(
    cast: Cast, turns: list[Turn]
) -> None:
    deny(cast, NAME)
    before, digests = stored(), list(Turn.objects.values_list("policy_digest", flat=True))
    dry = run(cast, dry_run=True)
    assert (stored(), list(Turn.objects.values_list("policy_digest", flat=True))) == (before, digests)
    counted = {name: dry.counts.get(name, 0) for name in ("turns", "passages", "feedback", "annotations")}
    assert counted == {"turns": 1, "passages": 2, "feedback": 1, "annotations": 1}
    assert dry.counts["seen"] == 3
    real = run(cast)
    assert {name: real.counts.get(name, 0) for name in counted} == counted
    assert real.counts["masks"] == dry.counts["masks"]
    assert "kettle" not in stored().lower()
    first = Turn.objects.get(pk=turns[0].pk)
    assert first.question == "Who is [PERSON_2]? Not [PERSON_1]."
    assert first.metadata == {"note": "[PERSON_2]"}
    assert first.retrievals.get().passage.text == "Ask [PERSON_2] first. Then wait."
    assert Turn.objects.get(pk=turns[1].pk).retrievals.get().passage.text == "Ask [PERSON_1] first. Then wait."
    assert Feedback.objects.get().text == "[PERSON_2] was late"
    assert Annotation.objects.get().correction == "Call [PERSON_2]."
    assert set(Turn.objects.values_list("policy_digest", flat=True)) == {policy_of(cast.bot).digest()}
    assert not Passage.objects.filter(retrievals=None).exists()
    assert (
        not Passage.objects.filter(sentence_embeddings=None)
        .exclude(retrievals=None)
        .filter(text__contains="[")
        .exists()
    )
    again = run(cast)
    assert again.counts.get("seen", 0) == 0


def test_what_an_added_passage_was_called_is_masked_too(cast: Cast, turns: list[Turn]) -> None:
    label = Annotation.objects.get()
    MissedPassage.objects.create(annotation=label, digest="d", title=f"Letter to {NAME}", source=f"letters/{NAME}.md")
    MissedPassage.objects.create(annotation=label, digest="e", title="Fees", source="fees.md")
    deny(cast, NAME)
    counted = run(cast, dry_run=True).counts
    assert run(cast).counts == counted
    assert counted["missed"] == 2
    masked, other = MissedPassage.objects.order_by("pk")
    assert NAME not in masked.title + masked.source
    assert masked.title.startswith("Letter to [")
    assert (other.title, other.source) == ("Fees", "fees.md")


def test_trusted_passages_keep_what_the_house_prints(cast: Cast) -> None:
    text = "Write to help@heathmere.co.uk or call 0300 440 220. Ask for Wendeline Okafor."
    turn = make_turn(cast.bot, question="Whom do I ask?", contexts=[{"text": text, "source": "a.md"}])
    Passage.objects.update(trusted=True)
    run(cast)
    assert turn.retrievals.get().passage.text == text
    Passage.objects.update(trusted=False)
    Turn.objects.update(policy_digest="old")
    run(cast)
    assert "help@" not in turn.retrievals.get().passage.text


def test_what_is_uncertain_comes_before_an_officer(cast: Cast) -> None:
    turn = make_turn(cast.bot, question="From Vienna?", contexts=[])
    deny(cast, thresholds={**policy_of(cast.bot).thresholds, "LOCATION": 1.0}, review_band={"LOCATION": 0.6})
    run(cast)
    mask = UncertainMask.objects.get()
    assert (mask.turn_id, mask.placeholder) == (turn.pk, "[LOCATION_1]")
    from capture.review import release

    release(mask=mask, actor=cast.dana)
    assert Turn.objects.get().question == "From Vienna?"
    Turn.objects.update(policy_digest="old")
    run(cast)
    assert Turn.objects.get().question == "From Vienna?"  # what was released in a conversation stays released


def test_killed_in_the_middle_it_goes_on(cast: Cast, turns: list[Turn], monkeypatch: pytest.MonkeyPatch) -> None:
    deny(cast, NAME)
    work = start_rescrub(assistant=cast.bot, dry_run=False, actor=cast.dana)
    real, seen = rescrub._Pass._conversation, []

    def die(self: Any, key: int) -> None:
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(key)
        real(self, key)
        self._store()

    monkeypatch.setattr(rescrub._Pass, "_conversation", die)
    with pytest.raises(KeyboardInterrupt):
        perform_here(work)
    assert Turn.objects.filter(policy_digest="test").count() == 2
    monkeypatch.setattr(rescrub._Pass, "_conversation", real)
    work.refresh_from_db()
    assert work.take_back()
    assert perform_here(work)
    work.refresh_from_db()
    assert work.state == "succeeded"
    assert "kettle" not in stored().lower()
    assert Turn.objects.filter(policy_digest="test").count() == 0


def test_a_turn_that_cannot_be_scrubbed_is_counted_and_taken_up_again(
    cast: Cast, turns: list[Turn], monkeypatch: pytest.MonkeyPatch
) -> None:
    deny(cast, NAME)
    real = rescrub.Scrubber.scrub_turn

    def fail(self: Any, texts: Any, table: Any, **kwargs: Any) -> Any:
        if any("Who is" in item.text for item in texts):
            raise ScrubError("too long")
        return real(self, texts, table, **kwargs)

    monkeypatch.setattr(rescrub.Scrubber, "scrub_turn", fail)
    assert run(cast).counts["failed"] == 1
    assert Turn.objects.get(pk=turns[0].pk).policy_digest == "test"
    monkeypatch.undo()
    assert run(cast).counts["seen"] == 1


def test_one_at_a_time_and_cancelled(cast: Cast, turns: list[Turn], monkeypatch: pytest.MonkeyPatch) -> None:
    work = start_rescrub(assistant=cast.bot, dry_run=True, actor=cast.dana)
    with pytest.raises(AlreadyRunning):
        start_rescrub(assistant=cast.bot, dry_run=False, actor=cast.alice)
    start_rescrub(assistant=cast.other, dry_run=True, actor=cast.carol)
    assert cancel_rescrub(work=work, actor=cast.dana)
    work.refresh_from_db()
    assert work.state == "cancelled"
    running = start_rescrub(assistant=cast.bot, dry_run=False, actor=cast.dana)

    def cancelled(*args: Any) -> None:
        raise WorkCancelled

    monkeypatch.setattr(rescrub._Pass, "_conversation", cancelled)
    perform_here(running)
    running.refresh_from_db()
    assert running.state == "cancelled"
    assert AuditEvent.objects.filter(action="rescrub.started").count() == 3


@contextmanager
def entered(client: Client, user: Any) -> Iterator[Client]:
    client.force_login(user)
    yield client
    client.logout()


def test_pages_and_who_may(client: Client, cast: Cast, turns: list[Turn]) -> None:
    start = reverse("admin:capture_rescrub_start", args=[cast.bot.pk])
    listing = reverse("admin:capture_rescrub_changelist")
    for user in (cast.bob, cast.carol):
        with entered(client, user):
            assert client.post(start).status_code == 404
    with entered(client, cast.bob):
        assert client.get(listing).status_code == 403
    deny(cast, NAME)
    with entered(client, cast.dana):
        assert client.get(start).status_code == 405
        assert "dry run" in client.get(listing).content.decode()
        page = client.post(start)["Location"]
        work = Rescrub.objects.get()
        assert work.dry_run
        assert "Waiting for a worker" in client.get(page).content.decode()
        perform_here(work)
        text = client.get(page).content.decode()
        assert "What would change" in text
        assert "Scrub again now" in text
        assert NAME not in text
        deny(cast, NAME, "Vlimset")
        assert "Make another dry run" in client.get(page).content.decode()
        client.post(start, {"apply": "1"})
        real = Rescrub.objects.latest("pk")
        assert not real.dry_run
        cancel = reverse("admin:capture_rescrub_cancel", args=[real.pk])
        assert client.post(cancel).status_code == 302
        real.refresh_from_db()
        assert real.state == "cancelled"
    with entered(client, cast.carol):
        assert client.get(page).status_code == 404
