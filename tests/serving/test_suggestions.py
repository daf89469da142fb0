"""What is live answers a queue's items again, with the real (tiny) engine: who sees it, and when nobody does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings as django_settings
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotations import services as labelling
from annotations.models import ComparisonPair, ComparisonRound, LiveAnswer, Queue, SuggestionView
from annotations.suggesting import show_suggestions
from assistants.background import launch
from assistants.models import Assistant
from capture.canaries import check
from capture.leaks import canaries_of
from capture.models import Turn
from capture.services import receive_turns, scrub_waiting
from capture.stored_texts import Changes, StoredTurn, stored_turns
from serving import answering
from serving.experiments.erasing import forget_made_of
from serving.models import Deployment, SuggestionRun
from serving.suggesting import asking
from serving.suggesting.services import begin, begin_due, cancel_run
from tests.factories import add_member, make_adapter, make_assistant, make_queue, make_turn, make_user
from tests.tiny_model import shared_base

pytestmark = pytest.mark.django_db


@pytest.fixture
def house(settings: Any) -> Assistant:
    settings.RATCHET_BASE_MODEL = str(shared_base())
    settings.RATCHET_FOREGROUND = True
    return make_assistant()


def queue_of(house: Assistant, turns: int = 2, **fields: Any) -> Queue:
    queue: Queue = make_queue(house, **{"show_suggestions": True, "ask_live": True, **fields})
    labelling.add_turns(queue=queue, turns=[make_turn(house) for _ in range(turns)])
    return queue


def test_what_is_live_answers_open_items_once(house: Assistant, engine_url: str) -> None:
    queue = queue_of(house, 6)
    adapter = make_adapter(house, number=1, seed=1)
    Deployment.objects.create(assistant=house, adapter=adapter)
    run = begin(queue)
    assert run is not None
    run.refresh_from_db()
    assert (run.state, run.answered, run.stopped, run.agent) == ("succeeded", 6, "", adapter.engine_name)
    said = LiveAnswer.objects.first()
    assert said is not None
    assert not said.problem
    assert said.text
    assert (said.agent, said.version) == (adapter.engine_name, house.prompt_digest)
    assert said.declined or said.score is None or 0 <= said.score <= 1
    # It is the adapter that speaks, asked as a user's question would be.
    asked = asking._asked(Turn.objects.select_related("assistant").with_contexts().get(pk=said.turn_id))
    live = asking.live_of(house)
    (again,) = answering.client().generate([asking._request(asked.prompt, live)])
    base = asking.Live(None, "", "")
    (other,) = answering.client().generate([asking._request(asked.prompt, base)])
    assert again.text != other.text
    assert begin(queue) is None
    assert begin_due() == 0

    Deployment.objects.update(adapter=None)
    assert begin_due() == 1  # something else is live: asked again, and its answer takes the place of the first
    assert LiveAnswer.objects.count() == 6
    assert not LiveAnswer.objects.filter(agent=adapter.engine_name).exists()


def test_it_is_shown_where_the_queue_says_so_and_that_is_kept(house: Assistant, engine_url: str) -> None:
    queue, ann = queue_of(house, 1), make_user("ann")
    add_member(house, ann, "annotator")
    begin(queue)
    client = Client()
    client.force_login(ann)
    page = client.get(reverse("annotations:label", args=[queue.pk])).content.decode()
    said = LiveAnswer.objects.get()
    assert said.version not in page
    assert "lb-suggestions" in page
    item = queue.items.get()
    url = reverse("annotations:suggestions", args=[queue.pk])
    told = client.post(url, {"item": item.pk, "choice": ""}).json()["html"]
    assert said.agent in told
    assert said.version in told
    assert SuggestionView.objects.get().decided == ""
    label = labelling.submit(turn=item.turn, annotator=ann, queue=queue, verdict="good")
    assert label.suggested == "before"

    Queue.objects.update(show_suggestions=False)
    item.queue.refresh_from_db()
    assert said.version not in client.post(url, {"item": item.pk, "choice": "good"}).json()["html"]
    stranger = make_user("eve")
    add_member(make_assistant(slug="elsewhere"), stranger, "admin")
    client.force_login(stranger)
    assert client.post(url, {"item": item.pk}).status_code == 403


def test_not_beside_a_blind_comparison_of_the_same_turn(house: Assistant, engine_url: str) -> None:
    queue, ann = queue_of(house, 2), make_user("ann")
    begin(queue)
    item = queue.items.select_related("queue").order_by("pk")[0]
    opened = ComparisonRound.objects.create(
        assistant=house, name="A/B", source="experiment", source_id=1, questions=1, differing=1, seed=1
    )
    ComparisonPair.objects.create(round=opened, position=1, key="q", turn=item.turn, question="q")
    assert show_suggestions(item=item, annotator=ann, decided="good").live is None
    LiveAnswer.objects.all().delete()
    begin(queue)
    assert [said.turn_id for said in LiveAnswer.objects.all()] == [queue.items.order_by("pk")[1].turn_id]
    ComparisonRound.objects.update(closed=True)
    assert begin_due() == 1
    assert LiveAnswer.objects.count() == 2


def test_an_engine_that_is_away_costs_nothing_but_the_suggestion(house: Assistant, settings: Any) -> None:
    settings.RATCHET_ENGINE_URL = f"unix:{django_settings.VAR_DIR}/nobody.sock"
    queue, ann = queue_of(house), make_user("ann")
    run = begin(queue)
    assert run is not None
    run.refresh_from_db()
    assert run.state == "succeeded"
    assert run.answered == 0
    assert "away or busy" in run.stopped
    assert not LiveAnswer.objects.exists()
    assert begin_due() == 0  # it is left alone for a while
    assert begin_due(timezone.now() + timedelta(minutes=6)) == 1
    item = labelling.next_item(queue=queue, annotator=ann)
    assert item is not None
    assert show_suggestions(item=item, annotator=ann, decided="good").live is None


def test_what_does_not_fit_is_said_once_and_holds_nothing_up(house: Assistant, engine_url: str) -> None:
    queue = queue_of(house, 1)
    long = make_turn(house, question="why " * 4000)
    labelling.add_turns(queue=queue, turns=[long])
    begin(queue)
    found = {said.turn_id: said for said in LiveAnswer.objects.all()}
    assert len(found) == 2
    assert found[long.pk].problem == asking.REFUSED
    assert found[long.pk].text == ""
    assert begin(queue) is None
    item = queue.items.select_related("queue").get(turn=long)
    assert show_suggestions(item=item, annotator=make_user("ann"), decided="").live is None


@pytest.mark.parametrize("then", [False, True])
def test_below_the_threshold_of_now_it_declines_without_a_model(house: Assistant, settings: Any, then: bool) -> None:
    settings.RATCHET_ENGINE_URL = f"unix:{django_settings.VAR_DIR}/nobody.sock"
    queue = queue_of(house, 1)
    Turn.objects.update(withheld=then)  # by the threshold of then
    Assistant.objects.update(evidence_threshold=1.0)
    house.refresh_from_db()
    queue.refresh_from_db()
    begin(queue)
    said = LiveAnswer.objects.get()
    assert said.declined
    assert said.score is None
    assert said.text == house.decline_sentence


def test_cancelling_ends_the_pass_and_the_asking(house: Assistant, engine_url: str, settings: Any) -> None:
    settings.RATCHET_FOREGROUND = False
    queue, ada = queue_of(house, 9), make_user("ada")
    add_member(house, ada, "admin")
    run = begin(queue)
    assert run is not None
    assert begin(queue) is None
    assert run.claim()
    run.request_cancel()
    with pytest.raises(Exception, match="") as stopped:
        run.perform()
    assert type(stopped.value).__name__ == "WorkCancelled"
    assert not LiveAnswer.objects.exists()
    run.finish(SuggestionRun.State.CANCELLED)
    Queue.objects.filter(pk=queue.pk).update(ask_live=True)
    second = begin(queue)
    assert second is not None
    assert cancel_run(run=second, actor=ada)
    queue.refresh_from_db()
    assert not queue.ask_live
    assert begin_due() == 0


def test_switching_it_off_or_pausing_ends_a_running_pass(house: Assistant, engine_url: str) -> None:
    queue = queue_of(house, 3)
    run = SuggestionRun.objects.create(assistant=house, queue=queue)
    Queue.objects.update(paused=True)
    launch(run, foreground=True)
    run.refresh_from_db()
    assert run.state == "succeeded"
    assert "does not ask any more" in run.stopped
    assert not LiveAnswer.objects.exists()


def test_nothing_is_stored_of_a_turn_that_was_masked_or_erased_meanwhile(
    house: Assistant, engine_url: str, monkeypatch: Any
) -> None:
    queue = queue_of(house, 3)
    first, second, third = [item.turn for item in queue.items.select_related("turn").order_by("pk")]
    answered = asking._completions

    def meanwhile(asked: Any, live: Any) -> Any:
        said = answered(asked, live)
        Turn.objects.filter(pk=first.pk).update(question="Who is [PERSON_1]?")
        Turn.objects.filter(pk=second.pk).delete()
        return said

    monkeypatch.setattr(asking, "_completions", meanwhile)
    begin(queue)
    assert [said.turn_id for said in LiveAnswer.objects.all()] == [third.pk]


def test_it_goes_with_its_turn_and_with_what_its_history_quoted(house: Assistant, engine_url: str) -> None:
    queue = queue_of(house, 2)
    begin(queue)
    first, second = [item.turn for item in queue.items.select_related("turn").order_by("pk")]
    first.delete()
    assert [said.turn_id for said in LiveAnswer.objects.all()] == [second.pk]
    assert forget_made_of([second.pk])["answers for annotators"] == 1
    assert not LiveAnswer.objects.exists()


def test_no_canary_is_in_what_the_live_model_answers(house: Assistant, engine_url: str) -> None:
    (person,) = canaries_of(house, 1)
    said = f"My name is {person.name}, mail {person.mail}, phone {person.phone}. What does leaving cost?"
    item = {
        "id": str(uuid4()), "conversation": "c", "question": said, "response": f"Hello {person.name}, £35.",
        "contexts": [{"text": "A fixed plan has an exit fee of £35.", "title": "Leaving"}],
    }  # fmt: skip
    receive_turns(assistant=house, api_key=None, items=[item])
    assert scrub_waiting().held == 0
    queue = queue_of(house, 0)
    labelling.add_turns(queue=queue, turns=list(Turn.objects.of(house)))
    begin(queue)
    assert LiveAnswer.objects.count() == 1
    assert check([person], folders=[]).places == {}


def test_the_form_asks_only_where_suggestions_are_shown(house: Assistant) -> None:
    ada = make_user("ada")
    add_member(house, ada, "admin")
    client = Client()
    client.force_login(ada)
    queue = queue_of(house, 1)
    url = reverse("admin:annotations_queue_change", args=[queue.pk])
    form = {
        "name": queue.name, "labels_needed": "1", "overlap_share": "0", "daily_goal": "0", "gold_share": "0",
        "ask_live": "on",
    }  # fmt: skip
    refused = client.post(url, form)
    assert refused.status_code == 200
    assert "Show suggestions too" in refused.content.decode()
    assert client.post(url, {**form, "show_suggestions": "on"}).status_code == 302
    page = client.get(url).content.decode()
    assert "has answered 0 of 1 open items" in page


def test_only_people_of_the_assistant_see_and_cancel_passes(house: Assistant) -> None:
    queue = queue_of(house, 1)
    run = SuggestionRun.objects.create(assistant=house, queue=queue)
    page = reverse("admin:serving_suggestionrun_change", args=[run.pk])
    cancel = reverse("admin:serving_suggestionrun_cancel", args=[run.pk])
    client = Client()
    assert client.get(page).status_code == 302  # to the login
    other = make_assistant(slug="elsewhere")
    for name, of, role, sees, cancels in (
        ("ann", house, "annotator", False, False), ("eve", other, "admin", False, False),
        ("rex", house, "reviewer", True, False), ("ada", house, "admin", True, True),
    ):  # fmt: skip
        user = make_user(name)
        add_member(of, user, role)
        client.force_login(user)
        assert (client.get(page).status_code == 200) is sees, name
        assert (client.post(cancel).status_code == 302) is cancels, name
    run.refresh_from_db()
    assert run.state == "cancelled"


def test_later_masks_reach_it(house: Assistant) -> None:
    turn = make_turn(house)
    LiveAnswer.objects.create(turn=turn, agent="base", version="v", text="Ask Jane Doe about the fee. [1]")
    stored = StoredTurn(stored_turns(turn.conversation).get())
    texts = [place.text.replace("Jane Doe", "[PERSON_1]") for place in stored.places]
    changed = stored.change(texts)
    assert [place.name.partition(".")[0] for place in changed] == ["live_answers"]
    changes = Changes()
    stored.save(changed, changes, pii=[])
    assert LiveAnswer.objects.get().text == "Ask [PERSON_1] about the fee. [1]"
    assert changes.rows == {"live_answers": 1}


def test_old_passes_are_forgotten(house: Assistant) -> None:
    queue = queue_of(house, 0)
    now = timezone.now()
    for days in (1, 30):
        SuggestionRun.objects.create(
            assistant=house, queue=queue, state="succeeded", finished_at=now - timedelta(days=days)
        )
    begin_due(now)
    assert SuggestionRun.objects.get().finished_at == now - timedelta(days=1)
