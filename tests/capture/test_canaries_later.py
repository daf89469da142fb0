"""People who do not exist, down the paths that lead to a turn afterwards and past it: no column and no file knows them.

Beside `test_canaries`, which goes the ways on which turns come in.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from annotations.drafts import Draft
from annotations.leases import next_item
from annotations.missing import search_passages
from annotations.models import MachineLabel, MissedPassage, SavedDraft
from annotations.saved_drafts import save_draft, saved_draft
from annotations.services import adjudicate, skip, submit
from assistants.background import launch
from assistants.policies import change_policy, rules_of
from assistants.services import issue_key
from capture.canaries import check
from capture.leaks import canaries_of
from capture.models import Feedback, Metric, Quarantine, Turn, TurnUpdate
from capture.services import scrub_waiting
from knowledge.models import Document, Upload
from privacy.canaries import Person
from tests.capture.conftest import Call, Cast, turn_item
from tests.factories import make_queue
from training.data.services import import_set
from training.models import BenchmarkItem, CuratedRow
from training.services import start_benchmark


@pytest.fixture(autouse=True)
def state(settings: Any, tmp_path: Path) -> Path:
    settings.VAR_DIR, settings.LOG_DIR = tmp_path, tmp_path / "log"
    return tmp_path


@pytest.fixture
def person(cast: Cast) -> Person:
    return canaries_of(cast.bot, 1)[0]


@pytest.fixture
def said(person: Person) -> str:
    p = person
    return f"My name is {p.name}. Mail {p.mail}, phone {p.phone}, card {p.card}, IBAN {p.iban}."


@pytest.fixture
def turns(api: Call) -> list[Turn]:
    for name in ("t-1", "t-2"):
        assert api("post", "turns", turn_item(id=name, conversation=name)).status_code == 201
    assert scrub_waiting().held == 0
    return list(Turn.objects.order_by("client_id"))


def nothing_left(person: Person, state: Path) -> None:
    found = check([person], folders=[state])
    assert found.places == {}
    assert found.columns > 300


def test_updates_metrics_and_labels_of_machines(
    api: Call, cast: Cast, turns: list[Turn], person: Person, said: str, state: Path
) -> None:
    called = f"call_{person.phone.replace(' ', '')[1:]}"
    update = {
        "metadata": {"note": said, called: {"who": [person.name]}},
        "tags": [person.mail, f"Call {person.phone}"],
    }
    assert api("patch", "turns/t-1", update).status_code == 202
    batch = [{"turn": "t-1", "kind": "metric", "metric": "solved", "value": True, "text": said}]
    batch.append({"turn": "t-1", "kind": "metric", "metric": called, "value": 1})
    batch.append({"turn": "t-1", "kind": "metric", "metric": person.mail, "value": 1})
    batch.append({"turn": "t-1", "kind": "comment", "text": said})
    statuses = [one["status"] for one in api("post", "feedback", batch).json()["results"]]
    assert statuses[-1] == "created"
    assert "created" not in statuses[1:3]
    _, secret = issue_key(assistant=cast.bot, name="judge", scopes=["annotate"])
    judged = {"id": person.mail, "turn": "t-2", "kind": "LLM", "name": "judge", "verdict": "bad", "explanation": said}
    assert api("post", "annotations", judged, secret=secret).status_code == 201
    for field in ("name", "version"):
        named = {**judged, "id": f"l-{field}", field: f"judge {person.phone}"}
        refused = api("post", "annotations", named, secret=secret)
        assert refused.status_code == 422
        assert person.phone not in refused.content.decode()
    assert check([person], folders=[state]).total == 0  # what waits is encrypted
    assert scrub_waiting().held == 0
    assert not Quarantine.objects.exists()
    assert TurnUpdate.objects.get().changes.keys() == {"tags", "metadata"}
    assert (MachineLabel.objects.count(), Feedback.objects.filter(kind="comment").count()) == (1, 1)
    assert set(Metric.objects.values_list("name", flat=True)) <= {"solved"}
    nothing_left(person, state)


def test_what_people_type_and_look_for_while_they_label(
    cast: Cast, turns: list[Turn], person: Person, said: str, state: Path
) -> None:
    rules = replace(rules_of(cast.bot), documents="everything")
    change_policy(assistant=cast.bot, rules=rules, actor=None, reason="It holds letters.")
    _, secret = issue_key(assistant=cast.bot, name="sync", scopes=["documents"])
    path = f"letters/{person.mail}.md"
    letter = f"# Letter of {person.name}\n\n{said}\n\nThe desk answers letters about kettles on Mondays.\n"
    from django.test import Client

    client, headers = Client(), {"Authorization": f"Bearer {secret}"}
    for text in (letter, f"{letter}\nAnd more of {person.name}.\n"):  # a second version of it, too
        answer = client.put(
            f"/api/v1/documents/at/{path}", data=text.encode(), content_type="application/octet-stream", headers=headers
        )
        assert answer.status_code == 202, answer.content
        launch(Upload.objects.get(pk=answer.json()["id"]), foreground=True)
    assert Document.objects.ready().get().version == 2
    first, second = turns
    queue = make_queue(cast.bot, turns=turns)
    held = next_item(queue=queue, annotator=cast.bob)
    assert held is not None
    draft = Draft(choice="bad", reasons=("wrong",), correction=said, note=said)
    assert save_draft(item=held, annotator=cast.bob, draft=draft, at=1.0)
    assert saved_draft(held, cast.bob) is not None
    assert SavedDraft.objects.exists()
    looked = search_passages(first, f"kettles {person.name}")
    submit(
        turn=first, annotator=cast.bob, verdict="bad", reasons=["wrong"], correction=f"{said} So it is.", note=said,
        queue=queue, missed=[hit.chunk_id for hit in looked.found[:1]],
    )  # fmt: skip
    assert MissedPassage.objects.count() == 1
    item = queue.items.get(turn=second)
    skip(item_id=item.pk, annotator=cast.bob, reason=f"Ask {person.name}, {person.mail}.")
    adjudicate(turn=second, reviewer=cast.alice, verdict="bad", reasons=["wrong"], response=f"{said} It is £35.")
    nothing_left(person, state)


def test_files_of_examples_and_of_held_out_questions(cast: Cast, person: Person, said: str, state: Path) -> None:
    passage = {
        "rank": 1,
        "title": f"Letter of {person.name}",
        "source": f"{person.mail}.md",
        "text": f"{said} It is £35.",
    }
    own = {
        "question": said, "history": [{"role": "user", "content": said}], "contexts": [passage], "rejected": said,
        "sentences": [{"text": f"Dear {person.name}, it is £35.", "refs": []}],
    }  # fmt: skip
    chat = {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": f"Noted: {said}"}]}
    broken = {**own, "contexts": said}
    lines = "\n".join(json.dumps(line) for line in (own, chat, broken))
    curated = import_set(assistant=cast.bot, name="Ours", content=f"{lines}\n{said}".encode())
    held_out = {
        "id": person.mail, "question": said, "history": [{"role": "user", "content": said}], "kind": "answer",
        "answers": [f"Dear {person.name}, it is £35."], "gold": [{"path": f"{person.mail}.md", "sentence": said}],
        "must_contain": [[person.phone, "£35"]], "must_not_contain": [person.iban], "slice": person.phone,
        "topic": person.mail,
    }  # fmt: skip
    upload = start_benchmark(assistant=cast.bot, name="Held out", content=json.dumps(held_out))
    assert check([person], folders=[state]).total == 0  # what waits is encrypted
    for work in (curated, upload):
        launch(work, foreground=True)
        work.refresh_from_db()
        assert (work.state, work.error) == ("succeeded", "")
    curated.refresh_from_db()
    assert (CuratedRow.objects.count(), curated.refused) == (2, 2)
    assert BenchmarkItem.objects.get().answers[0].endswith("it is £35.")
    nothing_left(person, state)
