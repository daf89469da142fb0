"""When something is too long, missing, changed or killed: an answer where one is possible, and the turn stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from django.conf import settings as django_settings

from generation.client import default_client
from generation.prompts import PromptPassage, SentenceRef, build_prompt
from knowledge.services import load_document
from serving import answering
from serving.models import Deployment
from tests.factories import make_adapter
from tests.serving.conftest import QUESTION, Shop, turn_of, until
from tests.tiny_model import make_tiny_adapter, make_tiny_base, shared_base

ROOT = Path(__file__).parents[2]
LONG = "# Fees\n\n" + " ".join(
    f"The exit fee of plan {n} is £{n} and it is due on leaving the plan early, as {'rather ' * 10}usual."
    for n in range(40)
)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    answering._refused.clear()
    yield
    answering._refused.clear()


def rebuilt(shop: Shop, turn: Any) -> Any:
    """The prompt of a stored turn."""
    placed = sorted((place, r.rank, *rest) for r in turn.retrievals.all() for place, *rest in r.evidence)
    return build_prompt(
        house=shop.assistant.house,
        question=turn.question,
        passages=[PromptPassage(r.rank, r.passage.title, r.passage.text) for r in turn.retrievals.all()],
        evidence=[SentenceRef(rank, s) for _, rank, s, _ in placed],
        similarity=[similarity for *_, similarity in placed],
        history=turn.history,
    )


@pytest.mark.parametrize("style", ["sentences", "passages"])
@pytest.mark.parametrize("stream", [False, True])
def test_evidence_that_does_not_fit_is_left_out_from_the_end(shop: Shop, style: str, stream: bool) -> None:
    shop.assistant.prompt_style, shop.assistant.evidence_sentences = style, 30
    shop.assistant.save()
    load_document(assistant=shop.assistant, path="fees.md", data=LONG.encode())
    answer = shop.ask(stream=stream)
    if stream:
        first, *_ = list(answer)
        answer_id, context = first.id, first.choices[0].delta.context
    else:
        answer_id, context = answer.id, answer.choices[0].message.context
        assert answer.usage.prompt_tokens <= 1024 - 12
    assert context["dropped"] > 0
    turn = turn_of(answer_id)
    prompt = rebuilt(shop, turn)
    # Asked again, the stored turn makes the very prompt: nothing of it is more than what was offered.
    offered = len(prompt.pointers) if style == "sentences" else len(prompt.ranks)
    assert offered >= 1
    if not stream:
        client = default_client(django_settings.RATCHET_ENGINE_URL, django_settings.RATCHET_ENGINE_KEY)
        again = client.generate([_request(prompt)])[0]
        assert again.prompt_tokens == answer.usage.prompt_tokens == turn.prompt_tokens


def _request(prompt: Any) -> Any:
    from generation.engines import GenerationRequest

    return GenerationRequest(messages=prompt.messages, max_new_tokens=12)


def test_a_prompt_of_a_hundred_thousand_tokens_is_refused_by_its_field(shop: Shop) -> None:
    with pytest.raises(openai.BadRequestError) as long:
        shop.ask(question="exit fee " * 50_000)
    assert (long.value.param, long.value.code) == ("messages.0.content", "string_above_max_length")
    history = [{"role": "user", "content": "fee " * 4900}] * 30
    answer = shop.openai.chat.completions.create(
        model=shop.assistant.slug, messages=[*history, {"role": "user", "content": QUESTION}], max_tokens=3
    )
    assert answer.choices  # history is cut by the prompt's own rule
    with pytest.raises(openai.BadRequestError) as alone:  # alone too long for the model: nothing is left to leave out
        shop.ask(question="exit fee " * 2000)
    assert alone.value.code == "context_length_exceeded"


def test_a_live_adapter_of_another_base_gives_way_to_the_base_model(
    shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = make_adapter(shop.assistant, number=1)
    folder = Path(django_settings.VAR_DIR) / foreign.folder
    other = make_tiny_base(tmp_path / "other", seed=9)
    make_tiny_adapter(other, folder, 1, prompt_digest=shop.assistant.prompt_digest)
    base = shop.ask(f"{shop.assistant.slug}:base").choices[0].message.content
    turn_of_base = Deployment.objects.create(assistant=shop.assistant, adapter=foreign)
    assert turn_of_base.adapter == foreign
    for stream in (False, True):
        answer = shop.ask(stream=stream)
        if stream:
            chunks = list(answer)
            text, answer_id = "".join(c.choices[0].delta.content or "" for c in chunks), chunks[0].id
        else:
            text, answer_id = answer.choices[0].message.content, answer.id
        assert text == base
        turn = turn_of(answer_id)
        assert turn.adapter == ""  # nobody may think that it wrote this
    assert caplog.text.count("cannot be served") == 1  # the second question did not try again
    with pytest.raises(openai.ConflictError) as pinned:
        shop.ask(f"{shop.assistant.slug}:1")
    assert pinned.value.code == "adapter_refused"


def test_an_adapter_changed_on_disk_is_not_served(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    adapter = make_adapter(shop.assistant, number=1, seed=1)
    Deployment.objects.create(assistant=shop.assistant, adapter=adapter)
    weights = Path(django_settings.VAR_DIR) / adapter.folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    answer = shop.ask()
    assert turn_of(answer.id).adapter == ""
    assert "not the file that the manifest names" in caplog.text


def test_a_reader_who_leaves_in_the_middle_leaves_the_turn(shop: Shop) -> None:
    stream = shop.ask(stream=True, max_tokens=700, user="u-7")
    seen = ""
    for chunk in stream:
        seen += chunk.choices[0].delta.content or ""
        if len(seen) > 40:
            break
    stream.close()
    client = default_client(django_settings.RATCHET_ENGINE_URL, django_settings.RATCHET_ENGINE_KEY)
    until(lambda: client.health().running == 0, "the engine goes on", seconds=20)
    turn = turn_of(chunk.id)
    assert turn.question == QUESTION
    assert turn.tags == ["chat", "unfinished"]
    assert turn.prompt_tokens is None
    assert turn.retrievals.count() == 3


@contextmanager
def engine_process(socket: Path) -> Iterator[subprocess.Popen[str]]:
    """The engine as a process that can be killed."""
    command = [sys.executable, "-m", "generation.server", "--base", str(shared_base()), "--uds", str(socket)]
    process = subprocess.Popen(
        [*command, "--keep-loops"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "platform"),
            "RATCHET_ENGINE_KEY": django_settings.RATCHET_ENGINE_KEY,
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()


def test_an_engine_that_is_killed_in_an_answer(shop: Shop, settings: Any, tmp_path: Path) -> None:
    socket = tmp_path / "engine.sock"
    settings.RATCHET_ENGINE_URL = f"unix:{socket}"
    with engine_process(socket) as process:
        stream = shop.http.stream(
            "POST",
            "/v1/chat/completions",
            json={
                "model": shop.assistant.slug, "messages": [{"role": "user", "content": QUESTION}], "stream": True,
                "max_tokens": 700,
            },
            headers={"Authorization": f"Bearer {shop.secret}"},
        )  # fmt: skip
        with stream as answer:
            events = []
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line.removeprefix("data: ")))
                if len(events) == 4:
                    process.send_signal(signal.SIGKILL)
        assert events[-1]["error"]["type"] == "service_unavailable"
        assert set(events[-1]["error"]) == {"message", "type", "param", "code"}
    with pytest.raises(openai.InternalServerError) as away:
        shop.ask()
    assert away.value.status_code == 503
    with engine_process(socket):  # as the supervisor would
        assert shop.ask().choices[0].message.content
        assert turn_of(events[0]["id"]).tags == ["chat", "unfinished"]
