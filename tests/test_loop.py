"""The whole loop once, on a tiny random model: what is captured over HTTP becomes an adapter that answers over HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection

from annotations.services import add_turns, next_item, submit
from assistants import limits
from assistants.models import Assistant, AuditEvent
from assistants.services import create_assistant, issue_key
from capture.models import Quarantine, Turn
from capture.services import scrub_waiting
from generation.adapters import base_digest
from knowledge.services import load_folder
from serving import capturing
from serving.services import PromotionRefused, deployment_of, promote, roll_back
from tests import servers
from tests.factories import add_member, make_queue, make_user
from tests.serving.conftest import until
from tests.tiny_model import shared_base
from training.data.benchmark import freeze_benchmark, read_items
from training.data.recipe import Recipe
from training.services import build_dataset, start_evaluation, start_run, start_synthesis

DECLINE = "I can't find that in the documents."
DOCUMENTS = {
    "leaving.md": "# Leaving\n\nA fixed plan has an exit fee of £35. No fee is due in the last 49 days of a plan.",
    "meters.md": "# Meter readings\n\nRead the meter on the first day of the month. Send the figures before the dot.",
    "moving.md": "# Moving house\n\nTell us 10 days before you move. Your plan can move with you to the new address.",
}
# (question, logged answer, verdict, correction)
LOG = [
    ("What does it cost to leave a fixed plan early?", "The exit fee of a fixed plan is £35. [1]", "good", ""),
    ("Must I pay in its last weeks?", "Yes, £99.", "bad", "No fee is due in the last 49 days of a plan. [1]"),
    ("On which day shall I look at the meter?", "Read the meter on the first day of the month. [2]", "good", ""),
    ("How soon before a move must you know?", "Tell us 10 days before you move. [3]", "good", ""),
    ("Does my plan come along?", "Maybe.", "bad", "Your plan can move with you to the new address. [3]"),
    ("Can you cook pasta for me?", DECLINE, "good", ""),
]
BENCHMARK = [
    {"id": "a", "question": "Which digits of the display do you need?", "kind": "answer",
     "answers": ["Send the figures before the dot."],
     "gold": [{"path": "meters.md", "sentence": "Send the figures before the dot."}]},
    {"id": "d", "question": "Will it snow in June?", "kind": "decline"},
]  # fmt: skip
TRAINING: dict[str, Any] = {
    "rank": 4, "alpha": 8, "epochs": 2.0, "batch": 4, "threads": 1, "precision": "fp32", "sample_rows": 1,
    "sample_tokens": 4, "learning_rate": 0.01,
}  # fmt: skip


@pytest.fixture
def url(transactional_db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The web application with an engine behind it, on the tiny base; long work is performed where it is started."""
    from config.asgi import application

    os.environ.pop("RATCHET_PROCESS", None)  # its mark for a process of its own, which this one is not

    settings.RATCHET_BASE_MODEL = settings.RATCHET_BASE_MODEL_PATH = str(shared_base())
    settings.RATCHET_FOREGROUND = True
    # A random model never ends by itself.
    monkeypatch.setattr("training.evaluation.asking.MAX_ANSWER_TOKENS", 12)
    monkeypatch.setattr("training.synthesis.generate.MAX_QUESTION_TOKENS", 12)
    limits.reset()
    age, connection.settings_dict["CONN_MAX_AGE"] = connection.settings_dict["CONN_MAX_AGE"], 0
    socket = Path(settings.RATCHET_ENGINE_URL.removeprefix("unix:"))
    adapters = Path(settings.RATCHET_ADAPTERS_DIR)
    adapters.mkdir(parents=True, exist_ok=True)
    with (
        servers.engine(shared_base(), uds=socket, token=settings.RATCHET_ENGINE_KEY, adapters=adapters),
        servers.serving(application) as address,
    ):
        yield address
        until(lambda: not capturing.running(), "captures still run")
    socket.unlink(missing_ok=True)
    connection.settings_dict["CONN_MAX_AGE"] = age


def captured(http: httpx.Client, assistant: Assistant) -> dict[str, Turn]:
    """The log, posted as a frontend posts it and scrubbed; by question."""
    contexts = [
        {"title": text.partition("\n")[0].removeprefix("# "), "source": path, "text": text.partition("\n\n")[2]}
        for path, text in DOCUMENTS.items()
    ]
    items = [
        {"id": f"t{i}", "conversation": f"c{i}", "question": question, "response": response, "contexts": contexts}
        for i, (question, response, *_) in enumerate(LOG)
    ]
    posted = http.post("/api/v1/turns/batch", json={"turns": items})
    assert posted.json()["created"] == len(LOG), posted.text
    assert Quarantine.objects.count() == len(LOG)
    assert Turn.objects.count() == 0  # nothing is readable before it is scrubbed
    assert scrub_waiting().scrubbed == len(LOG)
    return {turn.question: turn for turn in Turn.objects.of(assistant)}


def labelled(assistant: Assistant, turns: dict[str, Turn]) -> None:
    ann = make_user("ann")
    add_member(assistant, ann, "annotator")
    queue = make_queue(assistant)
    assert add_turns(queue=queue, turns=list(turns.values())) == len(LOG)
    answers = {question: (verdict, correction) for question, _, verdict, correction in LOG}
    while item := next_item(queue=queue, annotator=ann):
        verdict, correction = answers[item.turn.question]
        submit(
            turn=item.turn, annotator=ann, queue=queue, verdict=verdict, correction=correction,
            reasons=["wrong"] if verdict == "bad" else [], marks={1: "relevant"},
        )  # fmt: skip
    assert Turn.objects.exclude(resolution=None).count() == len(LOG)


def test_the_ratchet_clicks_once(url: str, tmp_path: Path) -> None:
    for path, text in DOCUMENTS.items():
        (tmp_path / path).write_text(text)
    alice = make_user("alice")
    assistant = create_assistant(slug="bot", name="Bot", created_by=alice, decline_sentence=DECLINE)
    assert len(load_folder(assistant=assistant, folder=tmp_path).loaded) == 3
    _, secret = issue_key(assistant=assistant, name="frontend", scopes=["log", "chat"], created_by=alice)

    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {secret}"}, trust_env=False, timeout=60) as http:
        labelled(assistant, captured(http, assistant))
        benchmark = freeze_benchmark(
            assistant=assistant, name="held out", items=read_items([json.dumps(item) for item in BENCHMARK])
        )
        synthesis = start_synthesis(assistant=assistant, wanted=1, created_by=alice)
        synthesis.refresh_from_db()
        assert synthesis.state == "succeeded", synthesis.error

        dataset = build_dataset(
            assistant=assistant, benchmark=benchmark, synthesis=synthesis, recipe=Recipe(missing_oracle_share=0.2),
            created_by=alice,
        )  # fmt: skip
        dataset.refresh_from_db()
        assert dataset.state == "succeeded", dataset.error
        assert dataset.mix["corrected"] == {"answer": 2}
        assert dataset.mix["good"] == {"answer": 3}
        assert dataset.mix["declined"]["decline"] >= 1

        run = start_run(assistant=assistant, dataset=dataset, settings=TRAINING, seed=1, created_by=alice)
        run.refresh_from_db()
        assert run.state == "succeeded", run.error
        adapter = run.adapter
        assert adapter.manifest["data"]["content_hash"] == dataset.content_hash
        assert adapter.base_digest == base_digest(shared_base())
        assert adapter.prompt_digest == assistant.prompt_digest
        assert run.metrics.count() > 0

        evaluation = start_evaluation(assistant=assistant, adapter=adapter, benchmark=benchmark, created_by=alice)
        evaluation.refresh_from_db()
        assert evaluation.state == "succeeded", evaluation.error
        assert evaluation.answers.count() == 5 * 2 + 3
        assert evaluation.sentence
        with pytest.raises(PromotionRefused, match="has not passed the gate"):
            promote(assistant=assistant, adapter=adapter, evaluation=evaluation, actor=alice)
        promote(
            assistant=assistant, adapter=adapter, evaluation=evaluation, actor=alice, override=True,
            reason="A random model proves nothing; this test wants it live.",
        )  # fmt: skip

        question = "What does it cost to leave a fixed plan early?"
        live, base = (ask(http, model, question) for model in ("bot", "bot:base"))
        turns = {turn.client_id: turn for turn in scrubbed(assistant, (live, base))}
        assert turns[live].adapter == adapter.engine_name == "bot--1"
        assert turns[base].adapter == ""
        assert turns[live].completion != turns[base].completion
        assert turns[live].prompt_digest == dataset.prompt_digest
        assert turns[live].retrievals.get(rank=1).passage.source == "leaving.md"

        roll_back(assistant=assistant, actor=alice, reason="It babbles.")
        assert deployment_of(assistant).adapter is None
        again = ask(http, "bot", question)
        (turn,) = scrubbed(assistant, (again,))
        assert (turn.adapter, turn.completion) == ("", turns[base].completion)
    actions = list(AuditEvent.objects.order_by("pk").values_list("action", flat=True))
    steps = [
        "assistant.created", "key.issued", "label.submitted", "synthesis.started", "datasetversion.started",
        "run.started", "evaluation.started", "adapter.promote", "adapter.roll_back",
    ]  # fmt: skip
    assert [action for action in dict.fromkeys(actions) if action in steps] == steps


def ask(http: httpx.Client, model: str, question: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 16}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def scrubbed(assistant: Assistant, ids: tuple[str, ...]) -> list[Turn]:
    until(lambda: Quarantine.objects.count() == len(ids), "the turns were not captured")
    assert scrub_waiting().scrubbed == len(ids)
    return list(Turn.objects.of(assistant).with_contexts().filter(client_id__in=ids))
