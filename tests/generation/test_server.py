"""The engine as a process of its own, over its socket."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from generation.client import EngineClient, default_client
from generation.engines import (
    AdapterRefused,
    EngineBusy,
    EngineError,
    EngineUnavailable,
    GenerationRequest,
    GenerationResult,
    PromptTooLong,
    UnknownAdapter,
)
from generation.local import TransformersEngine

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-for-tests"
MAX_WAITING = 24


def start(*arguments: str, **env: str) -> subprocess.Popen[str]:
    """The command, up to its first line (ready, or the reason why not)."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RATCHET_")}
    return subprocess.Popen(
        [sys.executable, "-m", "generation.server", *arguments],
        env={**inherited, "PYTHONPATH": str(ROOT / "platform"), "OMP_NUM_THREADS": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def ask(words: int = 2, adapter: str | None = None, **more: object) -> GenerationRequest:
    content = "Question: " + "What is the exit fee? " * words
    return GenerationRequest(
        messages=[{"role": "user", "content": content}], **{"adapter": adapter, "max_new_tokens": 16, **more}
    )


@pytest.fixture(scope="module")
def socket_path(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An engine that listens; it ends with the module."""
    path = tmp_path_factory.mktemp("engine") / "engine.sock"
    arguments = ["--base", str(models / "base"), "--uds", str(path), "--adapters", str(models), "--keep-loops"]
    process = start(*arguments, "--max-waiting", str(MAX_WAITING), RATCHET_ENGINE_KEY=TOKEN)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "ready at" in line, line + (process.stderr.read() if process.stderr else "")
    yield path
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    assert not path.exists()


@pytest.fixture
def client(socket_path: Path) -> EngineClient:
    return EngineClient(f"unix:{socket_path}", TOKEN)


@pytest.fixture
def raw(socket_path: Path) -> Iterator[httpx.Client]:
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(socket_path)),
        base_url="http://engine",
        headers={"Authorization": f"Bearer {TOKEN}"},
    ) as http:
        yield http


@pytest.fixture
def voices(client: EngineClient, models: Path) -> Iterator[None]:
    for name in ("one", "two"):
        client.load_adapter(name, models / name)
    yield
    for name in ("one", "two"):
        client.unload_adapter(name)


def wait_until_idle(client: EngineClient, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while (health := client.health()).running + health.waiting:
        assert time.monotonic() < end, health
        time.sleep(0.02)


def test_answers_are_those_of_the_engine_in_process(
    client: EngineClient, voices: None, shared_engine: TransformersEngine
) -> None:
    requests = [ask(i % 5 + 1, (None, "one", "two")[i % 3]) for i in range(12)]
    over_http = client.generate(requests)
    assert [r.text for r in over_http] == [r.text for r in shared_engine.generate(requests)]
    assert all(r.seconds > 0 and r.finish_reason == "length" for r in over_http)


def test_streams_of_several_users_and_adapters_at_once(
    client: EngineClient, voices: None, shared_engine: TransformersEngine
) -> None:
    """Rows join while others are being written, and every stream is what it would be alone."""
    requests = [ask(i % 4 + 1, (None, "one", "two")[i % 3], max_new_tokens=30) for i in range(9)]

    async def one(request: GenerationRequest, delay: float) -> str:
        await asyncio.sleep(delay)
        return "".join([piece async for piece in client.stream(request)])

    async def crowd() -> list[str]:
        return await asyncio.gather(*(one(request, 0.015 * i) for i, request in enumerate(requests)))

    expected = [result.text for result in shared_engine.generate(requests)]
    assert [text.strip() for text in asyncio.run(crowd())] == expected


def test_the_first_piece_comes_long_before_the_last(client: EngineClient) -> None:
    async def watch() -> tuple[list[float], GenerationResult]:
        began = time.monotonic()
        times = []
        async for piece in client.astream(ask(2, max_new_tokens=300)):
            if isinstance(piece, GenerationResult):
                return times, piece
            times.append(time.monotonic() - began)
        raise AssertionError("the stream has no result")

    times, result = asyncio.run(watch())
    assert len(times) > 50
    assert times[0] < times[-1] / 4
    assert result.completion_tokens == 300


def test_whoever_leaves_stops_the_work(client: EngineClient, raw: httpx.Client) -> None:
    def cancelled() -> float:
        lines = raw.get("/metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if 'finish="cancelled"' in line), 0.0)

    before = cancelled()

    async def leave() -> None:
        stream = client.stream(ask(2, max_new_tokens=900))
        await anext(stream)
        await stream.aclose()

    asyncio.run(leave())
    wait_until_idle(client)

    async def give_up() -> None:
        task = asyncio.create_task(client.agenerate(ask(2, max_new_tokens=900)))
        while not (await client.ahealth()).running:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    wait_until_idle(client)
    assert cancelled() == before + 2


def test_a_full_queue_says_when_to_come_back(client: EngineClient, raw: httpx.Client) -> None:
    with pytest.raises(EngineBusy) as busy:
        client.generate([ask()] * (MAX_WAITING + 1))
    assert busy.value.retry_after >= 1
    answer = raw.post(
        "/generate", json={"requests": [{"messages": [{"role": "user", "content": "x"}]}] * (MAX_WAITING + 1)}
    )
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert len(client.generate([ask()] * 3)) == 3  # nothing of the refused call is left


def test_a_deadline_in_the_queue_and_during_the_work(client: EngineClient) -> None:
    assert client.generate([ask(1, max_new_tokens=900, deadline=0.2)])[0].finish_reason == "deadline"

    async def crowd() -> list[object]:
        long = [client.agenerate(ask(1, max_new_tokens=600, deadline=20)) for _ in range(8)]
        tasks = [asyncio.create_task(work) for work in long]
        while (await client.ahealth()).running < 8:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        late = await asyncio.gather(client.agenerate(ask(1, deadline=0.01)), return_exceptions=True)
        assert any(not task.done() for task in tasks)  # it was told while the batch was still full
        assert time.monotonic() - began < 5
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return list(late)

    (late,) = asyncio.run(crowd())
    assert isinstance(late, EngineBusy)
    wait_until_idle(client)


def test_errors_cross_the_socket_as_what_they_are(client: EngineClient, models: Path, tmp_path: Path) -> None:
    with pytest.raises(PromptTooLong) as long:
        client.generate([ask(1), ask(500)])
    assert (long.value.index, long.value.limit) == (1, 1024 - 16)
    with pytest.raises(UnknownAdapter, match="nobody"):
        client.generate([ask(1, "nobody")])
    with pytest.raises(UnknownAdapter):
        client.unload_adapter("nobody")
    with pytest.raises(AdapterRefused) as refused:
        client.load_adapter("one", models / "one", prompt_digest="f" * 16)
    assert refused.value.reason == "prompt"
    elsewhere = shutil.copytree(models / "one", tmp_path / "one")
    with pytest.raises(AdapterRefused, match="outside"):
        client.load_adapter("one", Path(elsewhere))
    with pytest.raises(AdapterRefused, match="outside"):
        client.load_adapter("one", models / ".." / "one")

    async def stream() -> None:
        async for _ in client.stream(ask(500)):
            pass

    with pytest.raises(PromptTooLong):
        asyncio.run(stream())


def test_loading_and_listing_adapters(client: EngineClient, models: Path) -> None:
    loaded = client.load_adapter("one", models / "one", prompt_digest="0123456789abcdef")
    assert client.load_adapter("one", models / "one") == loaded
    assert client.adapters() == [loaded]
    assert client.health().adapters == ("one",)
    assert asyncio.run(client.aload_adapter("one", models / "one")) == loaded
    client.unload_adapter("one")
    assert client.adapters() == []


def test_embeddings(client: EngineClient, shared_engine: TransformersEngine) -> None:
    texts = ["The exit fee is £35.", "What does leaving cost?"]
    here = shared_engine.embed(texts)
    assert np.abs(client.embed(texts) - here).max() < 1e-6
    assert np.abs(asyncio.run(client.aembed(texts)) - here).max() < 1e-6
    assert client.embed([]).shape == (0, 384)
    assert client.embed(["a"] * 300).shape == (300, 384)


def test_without_the_token_only_health_answers(socket_path: Path) -> None:
    for token in ("", "wrong", TOKEN + "x"):
        stranger = EngineClient(f"unix:{socket_path}", token)
        assert stranger.health().ready
        for call in (stranger.adapters, lambda s=stranger: s.generate([ask()]), lambda s=stranger: s.embed(["a"])):
            with pytest.raises(EngineError, match="token"):
                call()


def test_no_other_user_can_open_the_socket(socket_path: Path) -> None:
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600


def test_health_ready_and_metrics(raw: httpx.Client) -> None:
    for path in ("/health", "/healthz", "/ready", "/readyz"):
        assert raw.get(path).json()["ready"] is True
    text = raw.get("/metrics").text
    for name in ("completions_total", "prompt_tokens_total", "first_token_seconds_bucket", "waiting", "adapters"):
        assert f"ratchet_engine_{name}" in text


MESSAGE = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", b"{"),
        ("/generate", b"[]"),
        ("/generate", b"[" * 100_000),
        ("/generate", {"requests": []}),
        ("/generate", {"requests": [[]]}),
        ("/generate", {"requests": [{}]}),
        ("/generate", {"requests": [{"messages": [{"role": "tool", "content": "x"}]}]}),
        ("/generate", {"requests": [{"messages": [{"role": "user", "content": 1}]}]}),
        ("/generate", {"requests": [{"messages": [MESSAGE], "max_new_tokens": "1"}]}),
        ("/generate", {"requests": [{"messages": [MESSAGE], "max_new_tokens": True}]}),
        ("/generate", {"requests": [{"messages": [MESSAGE], "max_new_tokens": 0}]}),
        ("/generate", {"requests": [{"messages": [MESSAGE], "temperature": 1}]}),
        ("/generate", {"requests": [{"messages": [MESSAGE], "deadline": -1}]}),
        ("/generate", b'{"requests": [{"messages": [{"role": "user", "content": "x"}], "deadline": NaN}]}'),
        ("/generate", {"requests": [{"messages": [MESSAGE], "stop": "x"}]}),
        ("/generate", {"requests": [{"messages": [MESSAGE]}] * 33}),
        ("/stream", {"messages": []}),
        ("/embeddings", {"texts": "x"}),
        ("/embeddings", {"texts": [1]}),
        ("/embeddings", {"texts": ["x"] * 257}),
        ("/embeddings", b'{"texts": ["' + b"x" * 5_000_000 + b'"]}'),
        ("/adapters", {"name": 1, "folder": "x"}),
        ("/adapters", {"name": "x", "folder": "x", "base_digest": 1}),
    ],
)
def test_bad_input_is_told_and_changes_nothing(raw: httpx.Client, path: str, body: object) -> None:
    answer = raw.post(path, content=body if isinstance(body, bytes) else json.dumps(body))
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["code"] == "bad_request"
    assert answer.json()["error"]["message"].endswith(".")


def test_surrogates_and_null_bytes_are_survived(raw: httpx.Client) -> None:
    for text, status in ((b"a\\u0000b", 200), (b"a\\ud800b", 422)):
        body = b'{"requests": [{"messages": [{"role": "user", "content": "%s"}], "max_new_tokens": 2}]}' % text
        assert raw.post("/generate", content=body).status_code == status
        assert raw.post("/embeddings", content=b'{"texts": ["%s"]}' % text).status_code == status


def test_nobody_there_is_one_clear_error(tmp_path: Path) -> None:
    absent = default_client(f"unix:{tmp_path}/none.sock")
    assert absent is default_client(f"unix:{tmp_path}/none.sock")
    for call in (absent.health, lambda: absent.embed(["a"]), lambda: asyncio.run(absent.agenerate(ask()))):
        with pytest.raises(EngineUnavailable, match="does not answer") as gone:
            call()
        assert "manage.py up" in gone.value.hint


def test_something_else_at_the_address_is_an_error_too() -> None:
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(EngineError, match="not its own"):
            EngineClient(f"http://127.0.0.1:{server.server_port}").health()
        server.shutdown()


def test_a_second_engine_on_the_same_socket_refuses_to_start(socket_path: Path, models: Path) -> None:
    _, error = finished(start("--base", str(models / "base"), "--uds", str(socket_path)))
    assert "already listens" in error
    assert socket_path.exists()


def test_what_cannot_start_says_so_in_one_line(models: Path, tmp_path: Path) -> None:
    _, error = finished(start("--base", str(tmp_path / "none"), "--port", "0"))
    assert error.startswith("engine: The model folder")
    assert error.count("\n") == 1
    (tmp_path / "token").write_text("")
    _, error = finished(start("--base", str(models / "base"), "--port", "0", "--token-file", str(tmp_path / "token")))
    assert "is empty" in error


def test_a_port_of_its_own_choice_and_a_socket_left_behind(models: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    process = start(
        "--base", str(models / "base"), "--port", "0", "--token-file", str(tmp_path / "token"), "--keep-loops"
    )
    assert process.stdout is not None
    url = process.stdout.readline().split("ready at ")[1].split(" ")[0]
    client = EngineClient(url, TOKEN)
    assert client.generate([ask()])[0].completion_tokens == 16
    process.kill()
    process.wait()
    with pytest.raises(EngineUnavailable):
        client.generate([ask()])


def finished(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, error = process.communicate(timeout=60)
    assert process.returncode == 1, (out, error)
    return out, error


def test_files_that_change_under_a_running_engine_are_noticed(models: Path, tmp_path: Path) -> None:
    from generation.server import Service

    engine = TransformersEngine(models / "base", cut_loops=False)
    folder = shutil.copytree(models / "one", tmp_path / "one")
    engine.load_adapter("one", folder)
    engine.load_adapter("two", models / "two")
    service = Service(engine)
    said = engine.generate([ask(2, "one")])[0].text
    service.look_at_files()
    assert service.changed == ()
    weights = folder / "adapter_model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + b"\x01")
    service.look_at_files()
    assert service.changed == ("one",)
    assert b"ratchet_engine_adapters_changed 1.0" in service.metrics.text()
    assert engine.generate([ask(2, "one")])[0].text == said  # what was evaluated is what answers
    weights.write_bytes(kept)
    service.look_at_files()
    assert service.changed == ()
    shutil.rmtree(folder)
    service.look_at_files()
    assert service.changed == ("one",)
    engine.unload_adapter("one")
    service.look_at_files()
    assert service.changed == ()


def test_a_full_engine_makes_room_for_who_is_asked(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("generation.local.MAX_ADAPTERS", "generation.loading.MAX_ADAPTERS"):
        monkeypatch.setattr(place, 2)
    engine = TransformersEngine(models / "base", cut_loops=False)
    engine.load_adapter("a", models / "one")
    engine.load_adapter("b", models / "two")
    engine.generate([ask(1, "a")])
    engine.load_adapter("c", models / "one")
    assert engine.health().adapters == ("a", "c")  # b was not asked for longest
    row = engine.row(ask(1, "a"))
    engine.load_adapter("d", models / "two")
    assert engine.health().adapters == ("a", "d")
    with pytest.raises(UnknownAdapter):
        engine.generate([ask(1, "b")])
    assert row.finish is None


def test_an_engine_whose_every_adapter_writes_is_busy_and_refuses_nothing(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("generation.local.MAX_ADAPTERS", "generation.loading.MAX_ADAPTERS"):
        monkeypatch.setattr(place, 1)
    engine = TransformersEngine(models / "base", cut_loops=False)
    engine.load_adapter("a", models / "one")
    row = engine.row(ask(1, "a"))
    with pytest.raises(EngineBusy, match="in memory are writing"):
        engine.load_adapter("b", models / "two")
    row.finish = "stop"
    assert engine.load_adapter("b", models / "two").name == "b"  # as soon as it has ended, not half a minute later


def test_adapters_in_use_are_told_while_questions_come(models: Path, shared_engine: TransformersEngine) -> None:
    """Rows are made in the threads of requests while the scheduler's asks which adapters they use."""
    began = threading.Event()
    kept: list[Any] = []

    def come() -> None:
        for _ in range(1500):
            kept.append(shared_engine.row(ask(1, "one")))
            began.set()

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread = threading.Thread(target=come)
        thread.start()
        assert began.wait(20)
        while thread.is_alive():
            assert shared_engine.uses("one")
        thread.join()
    finally:
        sys.setswitchinterval(switch)
    for row in kept:
        row.finish = "cancelled"
    assert not shared_engine.uses("one")
