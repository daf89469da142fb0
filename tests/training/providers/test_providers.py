"""Training at a provider, against a server over HTTP that speaks OpenAI's fine-tuning API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test import Client
from django.urls import reverse

from assistants.background import launch
from assistants.models import Assistant, AuditEvent
from generation.engines import AdapterRefused, GenerationRequest
from generation.openai_compatible import OpenAIEngine
from serving.answering import load, load_now
from tests.factories import make_assistant, make_user
from tests.training.finetune.conftest import make_dataset
from tests.training.providers.provider import KEY, Provider
from training.models import Adapter, Example, Run, TrainingProvider
from training.providers import client as client_module
from training.providers import running
from training.providers.client import FineTuningClient, ProviderAway, ProviderError
from training.providers.erasing import delete_there, files_there
from training.providers.services import save_provider
from training.providers.serving import served_elsewhere
from training.services import NotPossible, cancel, resume_run, start_run

pytestmark = pytest.mark.usefixtures("run_settings", "quick")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(running, "BEAT_SECONDS", 0.01)
    start = FineTuningClient.__init__
    monkeypatch.setattr(
        FineTuningClient,
        "__init__",
        lambda self, url, key, pause=0.01, **more: start(self, url, key, pause=pause, **more),
    )


@pytest.fixture
def server() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.stop()


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant(members={"admin": [make_user("ada")], "reviewer": [make_user("rob")]})


@pytest.fixture
def there(assistant: Assistant, server: Provider) -> TrainingProvider:
    return save_provider(
        assistant=assistant, name="Elsewhere", base_url=server.url, model="small-1", api_key=KEY, actor=None
    )


@pytest.fixture
def run(assistant: Assistant, there: TrainingProvider) -> Run:
    return start_run(
        assistant=assistant,
        dataset=make_dataset(assistant, rows=4, validation=1),
        settings={"epochs": 2.4, "batch": 4},
        provider=there,
        method="sft",
        seed=7,
    )


@contextlib.contextmanager
def listening(handler: type[BaseHTTPRequestHandler], kind: type[HTTPServer] = HTTPServer) -> Iterator[str]:
    """The address of a server that answers so."""
    with kind(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def perform(run: Run) -> Run:
    launch(run, foreground=True)
    run.refresh_from_db()
    return run


def test_a_run_there_becomes_an_adapter_here(run: Run, server: Provider) -> None:
    perform(run)
    assert (run.state, run.error) == (Run.State.SUCCEEDED, "")
    (job,) = server.jobs.values()
    asked = job["asked"]
    assert (asked["model"], asked["seed"]) == ("small-1", 7)
    assert asked["method"] == {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}},
    }
    rows = [json.loads(line) for line in server.files[asked["training_file"]].splitlines()]
    assert len(rows) == 5  # the first row weighs 2
    assert rows[0] == rows[1]
    assert [m["role"] for m in rows[0]["messages"]] == ["system", "user", "assistant"]
    assert rows[0]["messages"][-1]["content"].startswith("[1] Plan 0 costs")

    assert [(m.step, m.loss) for m in run.metrics.all()] == [(1, 2.0), (2, 1.0)]
    assert sorted(server.deleted) == sorted(server.files)  # nothing of ours stays there
    adapter = Adapter.objects.get()
    assert (adapter.source, adapter.folder, adapter.run) == ("remote", "", run)
    assert adapter.remote_model.startswith("ft:small-1:")
    assert adapter.manifest["provider"]["trained_tokens"] == 4321
    assert KEY not in json.dumps(adapter.manifest) + json.dumps(run.remote)


def test_pairs_go_in_the_shape_of_preferences(assistant: Assistant, there: TrainingProvider, server: Provider) -> None:
    dataset = make_dataset(assistant, rows=3, validation=0)
    Example.objects.filter(dataset=dataset).update(rejected="[2] Plan 1 costs £99.", weight=1)
    run = start_run(assistant=assistant, dataset=dataset, provider=there, method="dpo", settings={"beta": 0.2})
    perform(run)
    assert run.error == ""
    (job,) = server.jobs.values()
    assert job["asked"]["method"]["dpo"]["hyperparameters"]["beta"] == 0.2
    row = json.loads(server.files["file-1"].splitlines()[0])
    assert set(row) == {"input", "preferred_output", "non_preferred_output"}
    assert row["preferred_output"][0]["role"] == "assistant"


def test_what_it_cannot_do_is_said_before_anything_leaves(assistant: Assistant, there: TrainingProvider) -> None:
    dataset = make_dataset(assistant, rows=3)
    Example.objects.filter(dataset=dataset).update(rejected="[2] Plan 1 costs £99.")
    with pytest.raises(NotPossible, match="not kto"):
        start_run(assistant=assistant, dataset=dataset, provider=there, method="kto")
    parent = Adapter.objects.create(assistant=assistant, number=1, base_digest="", prompt_digest="p")
    with pytest.raises(NotPossible, match="cannot continue"):
        start_run(assistant=assistant, dataset=dataset, provider=there, parent=parent)
    stranger = make_assistant()
    with pytest.raises(NotPossible, match="another assistant"):
        start_run(assistant=stranger, dataset=make_dataset(stranger), provider=there)


def test_a_provider_that_is_away_for_a_moment_is_waited_for(run: Run, server: Provider) -> None:
    server.looks_until_done = 3
    look = server.look

    def away_once(job: dict[str, Any]) -> dict[str, Any]:
        server.look = look  # type: ignore[method-assign]
        server.fail = 6  # more than one request is tried
        return look(job)

    server.look = away_once  # type: ignore[method-assign]
    perform(run)
    assert (run.state, run.error) == (Run.State.SUCCEEDED, "")
    assert len(server.jobs) == 1


def test_a_job_that_fails_says_what_the_provider_said(run: Run, server: Provider) -> None:
    server.outcome = "failed"
    perform(run)
    assert run.state == Run.State.FAILED
    assert run.error == "The provider's job failed: The file has a row that we refuse."
    assert sorted(server.deleted) == sorted(server.files)
    assert not Adapter.objects.exists()


def test_a_job_that_is_refused_leaves_no_rows_there_and_can_be_asked_again(run: Run, server: Provider) -> None:
    server.refuse = True
    perform(run)
    assert run.state == Run.State.FAILED
    assert "break a rule" in run.error
    assert sorted(server.deleted) == sorted(server.files)
    assert files_there(run) == []
    server.refuse = False
    Run.objects.filter(pk=run.pk).update(state=Run.State.QUEUED, finished_at=None)
    perform(Run.objects.get(pk=run.pk))
    run.refresh_from_db()
    assert (run.state, run.error) == (Run.State.SUCCEEDED, "")
    assert len(server.files) == 4  # the deleted ones were brought once more
    assert sorted(server.deleted) == sorted(server.files)


def test_what_stays_there_is_deleted_later_or_told(run: Run, server: Provider) -> None:
    server.refuse = server.refuse_deleting = True
    perform(run)
    assert len(files_there(run)) == 2
    assert delete_there(run) == 0
    assert len(files_there(run)) == 2
    server.refuse_deleting = False
    assert delete_there(run) == 2
    assert files_there(Run.objects.get(pk=run.pk)) == []
    assert sorted(server.deleted) == sorted(server.files)


def test_what_a_cluster_keeps_of_a_job_is_told(run: Run, server: Provider) -> None:
    run.remote = {"job": "ratchet-bot-7-1", "jobs": 1, "ended": True}
    assert files_there(run) == ["files of the job ratchet-bot-7-1"]
    assert delete_there(run) == 0  # nobody is asked
    assert server.deleted == []


def test_a_wrong_key_is_one_sentence(run: Run, there: TrainingProvider) -> None:
    there.api_key = "sk-wrong"
    there.save()
    perform(Run.objects.get(pk=run.pk))
    run.refresh_from_db()
    assert run.state == Run.State.FAILED
    assert "(401)" in run.error
    assert "does not know the key" in run.error


def test_who_takes_over_makes_no_second_job(run: Run, server: Provider) -> None:
    server.lose_answer_of_create = True  # it made the job, and we never heard of it
    perform(run)
    assert run.state == Run.State.FAILED
    assert "does not answer" in run.error
    assert resume_run(run=run, actor=None)
    perform(run)
    assert (run.state, run.error) == (Run.State.SUCCEEDED, "")
    assert len(server.jobs) == 1
    assert len(server.files) == 2  # the rows went once


def test_numbers_of_a_provider_that_no_number_can_hold_are_left_out(run: Run, server: Provider) -> None:
    look = server.look

    def boast(job: dict[str, Any]) -> dict[str, Any]:
        found = look(job)
        for event in server.events:
            event["data"] |= {"total_steps": 10**400, "train_loss": 10**400}
        return {**found, "estimated_finish": 10**400}

    server.look = boast  # type: ignore[method-assign]
    perform(run)
    assert (run.state, run.error) == (Run.State.SUCCEEDED, "")
    assert "total" not in run.progress or run.progress["total"] < 2**31


def test_a_cancel_reaches_the_provider(run: Run, server: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    server.looks_until_done = 10_000
    take = running._take

    def cancel_then_take(work: Run, event: Any) -> None:
        Run.objects.get(pk=run.pk).request_cancel()
        take(work, event)

    monkeypatch.setattr(running, "_take", cancel_then_take)
    perform(run)
    assert run.state == Run.State.CANCELLED
    assert [job["status"] for job in server.jobs.values()] == ["cancelled"]
    assert sorted(server.deleted) == sorted(server.files)


def test_a_provider_that_refuses_to_cancel_keeps_nobody(
    run: Run, server: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job may have ended just now."""

    def refuse(client: FineTuningClient, job: str) -> None:
        raise ProviderAway("The provider refused (409).")

    server.looks_until_done = 10_000
    take = running._take

    def cancel_then_take(work: Run, event: Any) -> None:
        Run.objects.get(pk=run.pk).request_cancel()
        take(work, event)

    monkeypatch.setattr(running, "_take", cancel_then_take)
    monkeypatch.setattr(FineTuningClient, "cancel", refuse)
    perform(run)
    assert (run.state, run.error) == (Run.State.CANCELLED, "")
    assert sorted(server.deleted) == sorted(server.files)


@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"])
def test_a_provider_that_drips_is_given_up_in_time(sent: bytes) -> None:
    """A byte now and then, in the headers as well as behind them, keeps every limit of a single read."""
    asked: list[float] = []

    class Dripping(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(time.monotonic())
            with contextlib.suppress(OSError):
                self.wfile.write(sent)
                while time.monotonic() < asked[-1] + 20:
                    self.wfile.write(b"x")
                    time.sleep(0.02)

        def log_message(self, *args: Any) -> None:
            pass

    with listening(Dripping) as url, FineTuningClient(url, KEY, whole=0.3) as client:
        with pytest.raises(ProviderAway, match="has not answered to the end within 0 seconds"):
            client.job("ftjob-1")
        assert len(asked) == 1  # not tried again at once
        assert time.monotonic() - asked[0] < 10


def test_who_is_told_to_stop_in_the_middle_of_a_request_can_still_ask() -> None:
    """A signal becomes an exception wherever the performer is; after that it cancels the job and deletes its files."""

    class Stopped(Exception):
        pass

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(1.5)

        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args: Any) -> None:
            pass

    def stop(number: int, frame: Any) -> None:
        raise Stopped

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with listening(Silent, ThreadingHTTPServer) as url, FineTuningClient(url, KEY) as client:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(Stopped):
                client.job("ftjob-1")
            client.cancel("ftjob-1")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_answer_without_an_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b" " * 65536)

        def log_message(self, *args: Any) -> None:
            pass

    monkeypatch.setattr(client_module, "MAX_ANSWER", 1_000_000)
    with (
        listening(Endless) as url,
        FineTuningClient(url, KEY) as client,
        pytest.raises(ProviderError, match="does not end"),
    ):
        client.job("ftjob-1")


@pytest.mark.parametrize(
    "page", [{}, {"data": None}, {"data": 7}, {"data": {"a": 1}}, {"data": [None, 7, {"metadata": [1]}, {"id": [5]}]}]
)
def test_lists_of_another_shape_hold_nothing(page: dict[str, Any]) -> None:
    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({**page, "has_more": True}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with listening(Answering) as url, FineTuningClient(url, KEY) as client:
        assert client.find_job("mark") is None
        assert all(isinstance(event, dict) for event in client.events("job", seen=frozenset()))


def test_a_loss_that_is_no_number_is_left_out() -> None:
    """The database holds none in JSON."""
    assert [running._number(value) for value in (float("nan"), float("inf"), True, "1", 0.5)] == [None] * 4 + [0.5]


def test_a_run_there_leaves_the_machine_to_others(run: Run) -> None:
    assert not run.needs_device
    assert Run.needs_device
    assert list(Run.objects.filter(Run.elsewhere())) == [run]
    assert cancel(work=run, actor=None)


def test_its_model_answers_where_it_was_trained(run: Run, server: Provider, settings: Any) -> None:
    perform(run)
    adapter = Adapter.objects.get()
    with pytest.raises(AdapterRefused, match="answers only there"):
        served_elsewhere(adapter)
    with pytest.raises(AdapterRefused, match="answers only there"):  # a chat whose engine does not know it
        load_now(adapter, prompt_digest=adapter.prompt_digest)
    settings.RATCHET_OPENAI_BASE_URL = server.url + "/"
    assert served_elsewhere(adapter)
    with pytest.raises(AdapterRefused, match="does not know"):
        load_now(adapter, prompt_digest=adapter.prompt_digest)
    engine = OpenAIEngine(server.url, KEY, "small-1")
    ask = [{"role": "user", "content": "Hello?"}]
    base, tuned = engine.generate(
        [
            GenerationRequest(messages=ask),  # type: ignore[arg-type]
            GenerationRequest(messages=ask, adapter=adapter.engine_name),  # type: ignore[arg-type]
        ]
    )
    assert (base.text, tuned.text) == ("small-1 says hello", f"{adapter.remote_model} says hello")


def test_a_key_does_not_follow_to_another_address(assistant: Assistant, there: TrainingProvider) -> None:
    def change(**values: str) -> TrainingProvider:
        given = {"name": "Elsewhere", "base_url": there.base_url, "model": "small-1", "api_key": "", **values}
        return save_provider(assistant=assistant, provider=there, actor=None, **given)

    assert change(model="small-2").api_key == KEY
    with pytest.raises(ValidationError, match="Enter the key of this address"):
        change(base_url="https://evil.example.org/v1")
    for bad in (
        "ftp://x/v1",
        "https://user:pw@x/v1",
        "nonsense",
        "http://169.254.169.254/v1",
        "http://[::ffff:169.254.169.254]/v1",
    ):
        with pytest.raises(ValidationError):
            change(base_url=bad, api_key=KEY)


def login(name: str) -> Client:
    client = Client()
    assert client.login(username=name, password="tulip-cable-96")
    return client


def test_the_pages_are_for_admins_and_never_show_the_key(assistant: Assistant, there: TrainingProvider) -> None:
    make_assistant(members={"admin": [make_user("eve")]})
    page = reverse("admin:training_trainingprovider_change", args=[there.pk])
    assert login("eve").get(page).status_code == 404
    assert login("rob").get(page).status_code in (403, 404)
    shown = login("ada").get(page).content.decode()
    assert there.base_url in shown
    assert KEY not in shown
    assert KEY.encode() not in bytes(TrainingProvider.objects.get().sealed_key)
    values = {"assistant": assistant.pk, "name": "Second", "base_url": there.base_url, "model": "m", "api_key": "k"}
    assert login("ada").post(reverse("admin:training_trainingprovider_add"), values).status_code == 302
    added = AuditEvent.objects.filter(action="provider.added").first()
    assert added is not None
    assert added.details["key_changed"] is True
    assert login("ada").get(reverse("admin:training_trainingprovider_changelist")).status_code == 200
    remove = reverse("admin:training_trainingprovider_delete", args=[there.pk])
    assert login("rob").post(remove, {"post": "yes"}).status_code in (302, 403, 404)
    assert login("eve").post(remove, {"post": "yes"}).status_code in (302, 403, 404)
    assert TrainingProvider.objects.filter(pk=there.pk).exists()
    assert login("ada").post(remove, {"post": "yes"}).status_code == 302
    assert not TrainingProvider.objects.filter(pk=there.pk).exists()
    assert AuditEvent.objects.filter(action="provider.removed", actor_name="ada").count() == 1


@pytest.mark.django_db(transaction=True)
def test_loading_keeps_no_connection_in_the_thread_that_looked(run: Run) -> None:
    """Of a web process's threads each would keep one, until its pool is empty."""

    def sessions() -> set[int]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
            return {row[0] for row in cursor.fetchall()}

    Adapter.objects.create(
        assistant=run.assistant, number=1, source="remote", remote_model="ft:small-1", run=run, base_digest="",
        prompt_digest="p",
    )  # fmt: skip
    adapter = Adapter.objects.get()
    before = sessions()
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        with pytest.raises(AdapterRefused, match="answers only there"):
            loop.run_until_complete(load(adapter, prompt_digest="p"))
        until = time.monotonic() + 10
        while sessions() - before:
            assert time.monotonic() < until, "a connection stayed"
            time.sleep(0.05)
        loop.run_until_complete(loop.shutdown_default_executor())
