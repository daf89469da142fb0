"""Labels of programs and judges: in and out through the API, apart from people's labels, counted only where said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, TestCase
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django_q.models import OrmQ

from annotations.machine.agreement import machine_agreement
from annotations.machine.counting import recount
from annotations.machine.jobs import recount_queue
from annotations.machine.payloads import ReasonName
from annotations.machine.receiving import MAX_EXPLAINED, MAX_WITH_EXPLANATION
from annotations.models import Annotation, MachineLabel, QueueItem, Reason, Resolution
from annotations.services import submit
from assistants import limits
from assistants.models import Assistant
from assistants.services import issue_key
from capture.erasing import count_dependents
from capture.models import Turn
from capture.review_page import label_of
from capture.stored_texts import Changes, StoredTurn, stored_turns
from privacy.findings import ScrubError
from tests.factories import add_member, make_assistant, make_queue, make_turn, make_user

pytestmark = pytest.mark.django_db

URL = "/api/v1/annotations"
Call = Callable[..., Any]


@dataclass
class House:
    bot: Assistant
    ann: User
    secrets: dict[str, str]


@pytest.fixture
def house() -> Iterator[House]:
    limits.reset()
    ann = make_user("ann")
    bot = make_assistant("bot", members={"annotator": [ann]})
    secrets = {name: issue_key(assistant=bot, name=name, scopes=[name])[1] for name in ("annotate", "read", "log")}
    yield House(bot, ann, secrets)
    limits.reset()


@pytest.fixture
def post(house: House, client: Client) -> Call:
    def call(body: Any, scope: str = "annotate", kind: str = "application/json") -> Any:
        data = body if isinstance(body, str) else json.dumps(body)
        return client.post(URL, data, content_type=kind, headers={"Authorization": f"Bearer {house.secrets[scope]}"})

    return call


@pytest.fixture
def get(house: House, client: Client) -> Call:
    def call(scope: str = "read", **query: Any) -> Any:
        return client.get(URL, query, headers={"Authorization": f"Bearer {house.secrets[scope]}"})

    return call


def label(turn: Any, ref: str = "1", **fields: Any) -> dict[str, Any]:
    return {"id": f"judge-{ref}", "turn": str(turn), "kind": "LLM", "name": "judge", "verdict": "good", **fields}


# --- In -----------------------------------------------------------------------------------------


def test_a_label_is_stored_once_and_apart_from_those_of_people(post: Call, house: House) -> None:
    turn = make_turn(house.bot, client_id="web-1")
    item = label("web-1", version="3", score=0.4, verdict="bad", reasons=["wrong", "not_supported"])
    assert (post(item).status_code, post(item).json()) == (201, {"id": "judge-1", "status": "duplicate"})
    row = MachineLabel.objects.get()
    assert (row.turn, row.kind, row.machine, row.verdict, row.score) == (turn, "LLM", "judge 3", "bad", 0.4)
    assert row.reasons == ["not_supported", "wrong"]
    assert (Annotation.objects.count(), Resolution.objects.count()) == (0, 0)
    assert post({**item, "turn": str(turn.pk)}).json()["status"] == "duplicate"  # named otherwise, the same turn
    answer = post({**item, "score": 0.5})
    assert (answer.status_code, answer.headers["Content-Type"]) == (409, "application/problem+json")
    assert MachineLabel.objects.get().score == 0.4


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "HUMAN"}, "kind"),
        ({"kind": "llm"}, "kind"),
        ({"verdict": None}, "verdict"),
        ({"verdict": "fine"}, "verdict"),
        ({"score": 1.2}, "score"),
        ({"score": "high"}, "score"),
        ({"name": ""}, "name"),
        ({"name": "<script>"}, "name"),
        ({"reasons": ["wrong"]}, "reasons"),
        ({"verdict": "bad", "reasons": ["ugly"]}, "reasons.0"),
        ({"verdict": "bad", "reasons": ["should_have_declined", "should_have_answered"]}, "reasons"),
        ({"explanation": "x" * 4001}, "explanation"),
        ({"id": "a\u0000b"}, "id"),
        ({"annotator": "ann"}, "annotator"),
    ],
)
def test_what_does_not_fit_is_refused_by_field(change: dict[str, Any], field: str, post: Call, house: House) -> None:
    answer = post({**label(make_turn(house.bot).pk), **change})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field
    assert not MachineLabel.objects.exists()


def test_people_are_told_where_they_label(post: Call, house: House) -> None:
    assert "labelling page" in post(label(make_turn(house.bot).pk, kind="HUMAN")).json()["detail"]


def test_types_know_the_same_reasons() -> None:
    assert set(get_args(ReasonName)) == set(Reason.values)


def test_a_key_needs_the_scope_and_reaches_its_own_assistant_only(post: Call, get: Call, house: House) -> None:
    foreign = make_turn(make_assistant("other"), client_id="theirs")
    assert post(label(make_turn(house.bot).pk), scope="log").status_code == 403
    assert post(label(make_turn(house.bot).pk), scope="read").status_code == 403
    assert get(scope="annotate").status_code == 403
    assert [post(label(name)).status_code for name in ("theirs", foreign.pk, "nobody")] == [404, 404, 404]
    assert get(turn="theirs").json() == {"annotations": [], "next": None}


def test_a_batch_says_of_each_what_became_of_it(post: Call, house: House) -> None:
    turn = make_turn(house.bot, client_id="web-1")
    items = [label("web-1"), label("web-1"), label("web-1", score=0.1), label("gone", "2"), {"id": "judge-3"}, 7]
    answer = post({"annotations": items})
    assert answer.status_code == 207
    assert [row["status"] for row in answer.json()["results"]] == [
        "created", "duplicate", "conflict", "invalid", "invalid", "invalid",
    ]  # fmt: skip
    lines = "\n".join([json.dumps(label(turn.pk, "8")), "{", json.dumps(label(turn.pk, "9"))])
    rows = post(lines, kind="application/x-ndjson").json()["results"]
    assert [(row["line"], row["status"]) for row in rows] == [(1, "created"), (2, "invalid"), (3, "created")]
    assert MachineLabel.objects.count() == 3
    assert post([label(turn.pk, str(i)) for i in range(1001)]).status_code == 413


def test_a_thousand_labels_take_a_fixed_number_of_queries(post: Call, house: House) -> None:
    turns = [make_turn(house.bot, contexts=()) for _ in range(4)]
    with CaptureQueriesContext(
        connection,
    ) as few:
        post([label(turn.pk, f"a{i}") for i, turn in enumerate(turns[:2])])
    with CaptureQueriesContext(connection) as many:
        answer = post([label(turns[i % 4].pk, f"b{i}", name=f"judge-{i}") for i in range(1000)])
    assert answer.json()["created"] == 1000
    assert len(many) <= len(few) + 1  # rows go in by five hundred


def test_explanations_are_masked_with_the_names_of_their_conversation(post: Call, house: House) -> None:
    turn = make_turn(house.bot)
    said = "The user Kwame Mensah (kwame.mensah@example.test) asked for the fee of £35."
    assert post(label(turn.pk, explanation=said)).status_code == 201
    stored = MachineLabel.objects.get().explanation
    assert "kwame" not in stored.lower()
    assert "£35" in stored
    assert post(label(turn.pk, explanation=said)).json()["status"] == "duplicate"


def test_what_cannot_be_checked_is_not_stored(post: Call, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from privacy import scrubber

    def fail(*_: object, **__: object) -> None:
        raise ScrubError("broken")

    monkeypatch.setattr(scrubber.Scrubber, "scrub_turn", fail)
    answer = post(label(make_turn(house.bot).pk, explanation="Kwame Mensah is angry."))
    assert (answer.status_code, bool(answer.headers["Retry-After"])) == (503, True)
    assert "Kwame" not in answer.content.decode()
    assert not MachineLabel.objects.exists()


def test_explanations_of_a_request_are_bounded(post: Call, house: House) -> None:
    turn = make_turn(house.bot)
    many = [label(turn.pk, str(i), explanation="x" * 4000) for i in range(MAX_EXPLAINED // 4000 + 1)]
    assert post(many).status_code == 413
    assert not MachineLabel.objects.exists()


def test_labels_with_an_explanation_are_counted(post: Call, house: House) -> None:
    turn = make_turn(house.bot)
    bare = [label(turn.pk, f"b{i}") for i in range(200)]
    answer = post([*bare, *(label(turn.pk, str(i), explanation="ok") for i in range(MAX_WITH_EXPLANATION + 1))])
    assert (answer.status_code, answer.headers["Content-Type"]) == (413, "application/problem+json")
    assert "at most 100 labels with an explanation" in answer.json()["detail"]
    assert not MachineLabel.objects.exists()
    few = [label(turn.pk, str(i), explanation="ok") for i in range(2)]
    assert post([*bare, *few]).json()["created"] == 202


# --- Out ----------------------------------------------------------------------------------------


def test_the_list_pages_through_all_of_them_and_filters(post: Call, get: Call, house: House) -> None:
    turns = [make_turn(house.bot, client_id=f"web-{i}") for i in range(3)]
    post([label(turn.pk, f"{n}-{i}", name=f"judge-{n}") for n in range(3) for i, turn in enumerate(turns)])
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = get(limit=4, **cursor).json()
        seen += [row["id"] for row in page["annotations"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert len(seen) == len(set(seen)) == 9
    assert len(get(name="judge-1").json()["annotations"]) == 3
    of_turn = get(turn="web-2", kind="LLM").json()["annotations"]
    assert {row["turn_client_id"] for row in of_turn} == {"web-2"}
    assert get(kind="CODE").json()["annotations"] == []
    for bad in ({"kind": "HUMAN"}, {"limit": "0"}, {"cursor": "x"}, {"who": "me"}):
        assert get(**bad).status_code == 422, bad


# --- Whether they count ---------------------------------------------------------------------------


def test_they_settle_a_turn_only_where_every_queue_of_it_says_so(post: Call, house: House) -> None:
    free, counted, both = (make_turn(house.bot) for _ in range(3))
    make_queue(house.bot, turns=[free, both])
    make_queue(house.bot, turns=[counted, both], machines_count=True)
    post([label(turn.pk, str(i)) for i, turn in enumerate((free, counted, both))])
    resolution = Resolution.objects.get()
    assert (resolution.turn, resolution.verdict, resolution.how) == (counted, "good", "single")
    assert (resolution.annotations.count(), resolution.machine_labels.count()) == (0, 1)
    done = dict(QueueItem.objects.filter(turn__in=[free, counted]).values_list("turn", "labels_done"))
    assert done == {free.pk: 0, counted.pk: 1}


def test_with_people_they_are_one_voice_per_machine_and_the_last_word_counts(post: Call, house: House) -> None:
    turn = make_turn(house.bot)
    queue = make_queue(house.bot, turns=[turn], machines_count=True, labels_needed=3)
    post(label(turn.pk, "1", version="1"))
    post(label(turn.pk, "2", version="2", verdict="bad", reasons=["wrong"]))  # a newer version of the same judge
    post(label(turn.pk, "3", verdict=None, score=0.1, name="scorer"))  # no verdict, no vote
    assert QueueItem.objects.get().labels_done == 1
    submit(turn=turn, annotator=house.ann, queue=queue, verdict="bad", reasons=["wrong"])
    assert not Resolution.objects.exists()
    post(label(turn.pk, "4", kind="CODE", name="citation-check"))
    resolution = Resolution.objects.get()
    assert (resolution.verdict, resolution.how, resolution.reasons) == ("bad", "majority", ["wrong"])
    assert (resolution.annotations.count(), resolution.machine_labels.get().version) == (1, "2")


def test_changing_the_rule_settles_anew(post: Call, house: House) -> None:
    turn = make_turn(house.bot)
    queue = make_queue(house.bot, turns=[turn])
    post(label(turn.pk))
    assert not Resolution.objects.exists()
    for counts in (True, False):
        queue.machines_count = counts
        queue.save()
        assert recount(queue) == 1
        assert Resolution.objects.filter(turn=turn).exists() is counts
        assert QueueItem.objects.get().labels_done == int(counts)


# --- Agreement with people ------------------------------------------------------------------------


def test_agreement_with_people_is_told_for_each_version(post: Call, house: House) -> None:
    turns = [make_turn(house.bot) for _ in range(10)]
    queue = make_queue(house.bot, turns=turns)
    for i, turn in enumerate(turns[:8]):
        fields: dict[str, Any] = {"verdict": "good"} if i % 2 else {"verdict": "bad", "reasons": ["wrong"]}
        submit(turn=turn, annotator=house.ann, queue=queue, **fields)
    always_good = [label(turn.pk, f"a{i}", version="1") for i, turn in enumerate(turns)]
    right = [label(turn.pk, f"b{i}", version="2", verdict="good" if i % 2 else "bad") for i, turn in enumerate(turns)]
    one_wrong = [label(turn.pk, f"c{i}", version="3", verdict="good" if i % 2 or not i else "bad")
                 for i, turn in enumerate(turns[:8])]  # fmt: skip
    post([*always_good, *right, *one_wrong])
    found = {machine.version: machine for machine in machine_agreement(queue)}
    assert (found["1"].labels, found["1"].good_percent, found["1"].kappa.n) == (10, 100, 8)
    assert (found["1"].percent.value, found["1"].kappa.value) == (0.5, 0)
    assert found["2"].kappa.value == 1
    kappa = found["3"].kappa
    assert kappa.value == pytest.approx(0.75)
    assert (kappa.low or 0) < 0.75 < (kappa.high or 0) <= 1


# --- Where people see them ------------------------------------------------------------------------


def said(turn: Turn, **fields: Any) -> MachineLabel:
    return MachineLabel.objects.create(
        **{
            "assistant": turn.assistant, "turn": turn, "client_id": f"said-{MachineLabel.objects.count()}",
            "payload_digest": "", "kind": "LLM", "name": "judge", "version": "7", "verdict": "bad",
            "explanation": "Kwame asked for another fee.", **fields,
        }
    )  # fmt: skip


def test_reviewers_see_them_on_the_turn_and_annotators_do_not(client: Client, house: House) -> None:
    turn = make_turn(house.bot)
    said(turn)
    make_queue(house.bot, turns=[turn])
    page = reverse("admin:capture_turn_change", args=[turn.pk])
    rita = make_user("rita")
    add_member(house.bot, rita, "reviewer")
    for person, sees in ((house.ann, False), (rita, True)):
        client.force_login(person)
        shown = client.get(page).content.decode()
        assert ("judge 7" in shown, "another fee" in shown) == (sees, sees)
        listed = client.get(reverse("admin:annotations_machinelabel_changelist"))
        assert listed.status_code == (200 if sees else 403)


def test_the_list_offers_machines_of_ones_own_assistants(client: Client, house: House) -> None:
    rita, other = make_user("rita"), make_assistant("other")
    add_member(house.bot, rita, "reviewer")
    for name, version in (("judge", "7"), ("judge", "8"), ("groundedness", "")):
        said(make_turn(house.bot), name=name, version=version)
    said(make_turn(other), name="secret-judge", version="9")
    client.force_login(rita)
    page = client.get(reverse("admin:annotations_machinelabel_changelist"))
    offered = {spec.field_path: spec.lookup_choices for spec in page.context["cl"].filter_specs if spec.title in
               ("name", "version")}  # fmt: skip
    assert offered == {"name": ["groundedness", "judge"], "version": ["", "7", "8"]}
    chosen = client.get(reverse("admin:annotations_machinelabel_changelist"), {"name": "judge", "version": "8"})
    assert [(label.name, label.version) for label in chosen.context["cl"].result_list] == [("judge", "8")]
    assert "secret-judge" not in page.content.decode()
    one = client.get(reverse("admin:annotations_machinelabel_change", args=[chosen.context["cl"].result_list[0].pk]))
    assert "/admin/assistants/apikey/" not in one.content.decode(), "keys are not for reviewers"
    client.force_login(make_user("root", superuser=True))
    assert "secret-judge" in client.get(reverse("admin:annotations_machinelabel_changelist")).content.decode()


def test_the_queue_shows_agreement_and_its_setting_settles_anew(client: Client, house: House) -> None:
    turns = [make_turn(house.bot) for _ in range(4)]
    queue = make_queue(house.bot, turns=turns)
    for i, turn in enumerate(turns):
        said(turn, verdict="good" if i else "bad")
        submit(turn=turn, annotator=house.ann, queue=queue, verdict="good")
    adam = make_user("adam")
    add_member(house.bot, adam, "admin")
    client.force_login(adam)
    page = reverse("admin:annotations_queue_change", args=[queue.pk])
    shown = client.get(page)
    assert "They do not count here" in shown.content.decode()
    (machine,) = shown.context["machines"]
    assert (machine.percent.value, machine.kappa.n) == (0.75, 4)
    form = shown.context["adminform"].form
    sent = {name: value for name, value in form.initial.items() if value is not None and value is not False}
    sent |= {"assistant": house.bot.pk, "people": [], "machines_count": "on"}
    with TestCase.captureOnCommitCallbacks(execute=True):
        assert client.post(page, sent).status_code == 302
    queue.refresh_from_db()
    assert queue.machines_count
    assert OrmQ.objects.count() == 1
    assert recount_queue(queue.pk) == "4 turns were settled anew."
    assert "They count here" in client.get(page).content.decode()


def test_explanations_are_among_the_texts_that_a_new_policy_masks(house: House) -> None:
    turn = make_turn(house.bot)
    said(turn)
    stored = StoredTurn(stored_turns(turn.conversation).get())
    changed = stored.change([place.text.replace("Kwame", "[PERSON_1]") for place in stored.places])
    changes = Changes()
    stored.save(changed, changes, pii=[])
    assert MachineLabel.objects.get().explanation == "[PERSON_1] asked for another fee."
    assert changes.rows == {"machine_labels": 1}
    assert label_of(changed[0]) == "Explanation by a program"


def test_they_go_with_their_turn(house: House) -> None:
    turn = make_turn(house.bot)
    said(turn)
    assert count_dependents(Turn.objects.filter(pk=turn.pk))["machine labels"] == 1
    turn.delete()
    assert not MachineLabel.objects.exists()
