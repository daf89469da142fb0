"""Runs before they start and after they stopped: preflight, going on, cleaning up, comparing, the API."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import AsyncClient, Client
from django.urls import reverse
from django.utils import timezone

from assistants.models import Assistant, AuditEvent
from assistants.services import issue_key
from generation.adapters import base_digest
from tests.factories import make_adapter, make_assistant, make_user
from tests.training.finetune.conftest import make_dataset, make_run
from training import views_run_live
from training.finetune.bases import from_state
from training.finetune.cleaning import clean, clean_old_runs
from training.finetune.config import FinetuneConfig
from training.finetune.preflight import preflight
from training.finetune.runs import run_folder
from training.finetune.sizes import size_of_base
from training.models import Adapter, DatasetVersion, Example, Run, RunMetric
from training.providers.services import save_provider
from training.services import NotPossible, resume_run, start_run

pytestmark = pytest.mark.usefixtures("run_settings")


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant(members={"admin": [make_user("ada")], "reviewer": [make_user("rob")]})


@pytest.fixture
def dataset(assistant: Assistant) -> DatasetVersion:
    return make_dataset(assistant)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr("training.services.launch", calls.append)
    return calls


def login(name: str) -> Client:
    client = Client()
    assert client.login(username=name, password="tulip-cable-96")
    return client


# --- Preflight --------------------------------------------------------------------------------------------------------


def test_preflight_says_rows_lengths_memory_and_time(dataset: DatasetVersion, base: Path) -> None:
    found = preflight(dataset=dataset, settings=FinetuneConfig())
    assert (found.method, found.recommended, found.problems) == ("sft", "sft", [])
    assert found.counts.sft == 12
    (plan,) = found.plans
    assert (plan.rows, plan.epochs, plan.batch) == (13, 6.0, 8)  # one row weighs 2
    assert found.seconds is None  # nothing was ever timed on this base
    assert found.sampled == 12
    assert sum(count for _, count in found.histogram) == 12
    assert 0 < found.median <= found.longest < found.limit == 1024
    assert found.memory_mb > 500
    size = size_of_base(base)
    # 3 layers of q, k, v, o (64 → 64, 32, 32, 64) and gate, up, down (64 ↔ 160), rank 16.
    assert size.lora_parameters(16) == 3 * 16 * (128 + 96 + 96 + 128 + 224 + 224 + 224)
    assert found.adapter_mb == round(size.lora_parameters(16) * 4 / 1024**2, 1)

    run = make_run(dataset, base)
    Run.objects.filter(pk=run.pk).update(base_digest=base_digest(base))
    RunMetric.objects.bulk_create(RunMetric(run=run, step=step, tokens_per_second=500.0) for step in (1, 2, 3))
    timed = preflight(dataset=dataset, settings=FinetuneConfig())
    assert timed.seconds == pytest.approx(timed.plans[0].tokens / 500, abs=0.1)
    assert timed.speed_from == str(run)


def test_preflight_names_what_stands_against_a_run(dataset: DatasetVersion) -> None:
    assert "no pairs" in preflight(dataset=dataset, settings=FinetuneConfig(), method="sft+dpo").problems[0]
    short = preflight(dataset=dataset, settings=FinetuneConfig(max_length=20))
    assert "would be cut" in short.problems[0]
    DatasetVersion.objects.filter(pk=dataset.pk).update(erased_rows=2)
    dataset.refresh_from_db()
    assert "erasure" in preflight(dataset=dataset, settings=FinetuneConfig()).problems[0]


def test_preflight_says_that_rows_leave_the_house(dataset: DatasetVersion) -> None:
    there = save_provider(
        assistant=dataset.assistant,
        name="Elsewhere",
        base_url="http://127.0.0.1:9/v1",
        model="m",
        api_key="k",
        actor=None,
    )
    found = preflight(dataset=dataset, settings=FinetuneConfig(), provider=there)
    assert "The rows leave this platform for Elsewhere" in found.warnings[0]
    assert "not kto" in preflight(dataset=dataset, settings=FinetuneConfig(), method="kto", provider=there).problems[-1]


def test_the_lengths_of_preflight_are_those_of_the_run(dataset: DatasetVersion, base: Path, tmp_path: Path) -> None:
    from training.data.render import sft_rows
    from training.finetune.rows import read_rows, tokenise, write_rows

    write_rows(tmp_path / "rows.jsonl", sft_rows(dataset, Example.Split.TRAIN))
    from transformers import AutoTokenizer

    exact = [
        len(t.input_ids) for t in tokenise(read_rows(tmp_path / "rows.jsonl"), AutoTokenizer.from_pretrained(base))
    ]
    found = preflight(dataset=dataset, settings=FinetuneConfig())
    assert abs(found.longest - max(exact)) <= 12


def test_the_check_button_starts_nothing(dataset: DatasetVersion, launched: list[Any]) -> None:
    url = reverse("admin:training_run_start")
    page = login("ada").post(url, {"dataset": dataset.pk, "method": "auto", "seed": 1, "check": "1"}).content.decode()
    assert "Ready: supervised" in page
    assert "What suits this dataset" in page
    refused = login("ada").post(url, {"dataset": dataset.pk, "method": "kto", "seed": 1, "check": "1"}).content.decode()
    assert "no bad one" in refused
    assert not Run.objects.exists()


# --- Starting ---------------------------------------------------------------------------------------------------------


def test_a_method_without_rows_is_refused_before_it_starts(dataset: DatasetVersion, launched: list[Any]) -> None:
    for method, words in (("kto", "no bad one"), ("sft+dpo", "no pairs"), ("grpo", "no method")):
        with pytest.raises(NotPossible, match=words):
            start_run(assistant=dataset.assistant, dataset=dataset, method=method)
    assert not Run.objects.exists()


def test_only_a_fitting_adapter_is_continued(dataset: DatasetVersion, base: Path, launched: list[Any]) -> None:
    assistant = dataset.assistant
    fields = {"base_digest": base_digest(base), "prompt_digest": assistant.prompt_digest}
    fine = Adapter.objects.create(assistant=assistant, number=1, folder="x", **fields)
    assert start_run(assistant=assistant, dataset=dataset, parent=fine).parent == fine
    for number, change, words in (
        (2, {"base_digest": "f" * 64}, "another base model"),
        (3, {"prompt_digest": "0" * 16}, "prompt format"),
        (4, {"source": "remote"}, "weights are not here"),
    ):
        other = Adapter.objects.create(assistant=assistant, number=number, folder="x", **{**fields, **change})
        with pytest.raises(NotPossible, match=words):
            start_run(assistant=assistant, dataset=dataset, parent=other)
    stranger = Adapter.objects.create(assistant=make_assistant(), number=1, folder="x", **fields)
    with pytest.raises(NotPossible, match="another assistant"):
        start_run(assistant=assistant, dataset=dataset, parent=stranger)


def test_what_was_erased_reaches_through_what_continues_it(dataset: DatasetVersion, base: Path) -> None:
    from training.erasing import adapters_of, holding_erased

    assistant = dataset.assistant
    first = Adapter.objects.create(assistant=assistant, number=1, run=make_run(dataset, base), base_digest="b")
    fresh = make_run(make_dataset(assistant), base)
    second = Adapter.objects.create(assistant=assistant, number=2, run=fresh, parent=first, base_digest="b")
    assert list(adapters_of([dataset.pk])) == [first, second]
    DatasetVersion.objects.filter(pk=dataset.pk).update(erased_rows=3)
    assert set(holding_erased(assistant)) == {first, second}
    assert Adapter.objects.get(pk=second.pk).erased_rows == 3


# --- Going on, cleaning up --------------------------------------------------------------------------------------------


def stopped(run: Run, state: str = "cancelled") -> Path:
    """A run that ended with checkpoints and row files on disk."""
    folder = run_folder(run)
    (folder / "work" / "checkpoints").mkdir(parents=True)
    (folder / "work" / "checkpoints" / "x").write_text("12345")
    (folder / "train.jsonl").write_text("{}\n")
    Run.objects.filter(pk=run.pk).update(state=state, finished_at=timezone.now(), attempt=3, error="It stopped.")
    run.refresh_from_db()
    return folder


def test_a_stopped_run_goes_on(
    dataset: DatasetVersion, base: Path, launched: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    run = make_run(dataset, base)
    assert not launched
    with pytest.raises(NotPossible, match="no checkpoint"):
        resume_run(run=run, actor=None)
    stopped(run)
    url = reverse("admin:training_run_resume", args=[run.pk])
    assert login("rob").post(url).status_code == 403
    assert (
        "Go on from the last checkpoint"
        in login("ada").get(reverse("admin:training_run_change", args=[run.pk])).content.decode()
    )
    with django_capture_on_commit_callbacks(execute=True):
        assert login("ada").post(url).status_code == 302
    run.refresh_from_db()
    assert (run.state, run.attempt, run.error, run.cancel_requested_at) == ("queued", 0, "", None)
    assert launched == [run]
    assert not resume_run(run=run, actor=None)  # it waits already
    assert AuditEvent.objects.filter(action="run.resumed").count() == 1


def test_files_go_by_policy_and_by_hand_and_never_under_a_run_at_work(
    dataset: DatasetVersion, base: Path, settings: Any
) -> None:
    old, new, busy = (make_run(dataset, base) for _ in range(3))
    folders = [stopped(run) for run in (old, new, busy)]
    Run.objects.filter(pk=old.pk).update(finished_at=timezone.now() - timedelta(days=9))
    Run.objects.filter(pk=busy.pk).update(state="running", finished_at=timezone.now() - timedelta(days=9))
    settings.RATCHET_KEEP_RUN_DAYS = 7
    assert clean_old_runs() == 8
    assert [(folder / "work").exists() for folder in folders] == [False, True, True]
    assert not (folders[0] / "train.jsonl").exists()
    busy.refresh_from_db()
    assert clean(busy) == 0
    url = reverse("admin:training_run_clean", args=[new.pk])
    assert login("rob").post(url).status_code == 403
    assert login("ada").post(url).status_code == 302
    assert not (from_state(Run.objects.get(pk=new.pk).folder) / "work").exists()


# --- Live and compared ------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.django_db(transaction=True)
async def test_events_tell_what_is_new_and_the_end(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from asgiref.sync import sync_to_async

    def prepare() -> tuple[Run, Any]:
        user = make_user("ada")
        run = make_run(make_dataset(make_assistant(members={"admin": [user]})), base)
        run.claim()
        RunMetric.objects.create(run=run, step=1, loss=2.0)
        run.beat(stage="training", done=1, total=4)
        return run, user

    def go_on(run: Run) -> None:
        RunMetric.objects.create(run=run, step=2, loss=1.0)
        run.beat(done=2)

    monkeypatch.setattr(views_run_live, "TICK_SECONDS", 0.05)
    run, user = await sync_to_async(prepare)()
    client = AsyncClient()
    await client.aforce_login(user)
    answer = await client.get(reverse("admin:training_run_events", args=[run.pk]))
    assert (answer.status_code, answer["Content-Type"], answer["X-Accel-Buffering"]) == (200, "text/event-stream", "no")
    heard: list[dict[str, Any]] = []
    ended = False
    async for piece in answer.streaming_content:
        for block in piece.decode().split("\n\n"):
            if block.startswith("id:"):
                heard.append(json.loads(block.partition("data: ")[2]))
                if len(heard) == 1:
                    await sync_to_async(go_on)(run)
                elif len(heard) == 2:
                    await sync_to_async(run.finish)(Run.State.SUCCEEDED)
            ended |= block.startswith("event: end")
    assert ended
    assert [[point[0] for point in state["points"]] for state in heard] == [[1], [1, 2], [2]]
    assert [state["active"] for state in heard] == [True, True, False]
    assert views_run_live._open == 0


def test_events_are_for_readers_and_not_without_bound(
    dataset: DatasetVersion, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(dataset, base)
    url = reverse("admin:training_run_events", args=[run.pk])
    make_assistant(members={"admin": [make_user("eve")]})
    assert Client().get(url).status_code == 302
    assert login("eve").get(url).status_code == 403
    monkeypatch.setattr(views_run_live, "_open", views_run_live.MAX_STREAMS)
    answer = login("ada").get(url)
    assert (answer.status_code, answer["Retry-After"]) == (503, "30")


def test_runs_are_compared_side_by_side(
    dataset: DatasetVersion, base: Path, django_assert_max_num_queries: Any
) -> None:
    runs = [make_run(dataset, base, rank=rank) for rank in (4, 8, 16)]
    for run in runs:
        RunMetric.objects.bulk_create(RunMetric(run=run, step=step, loss=1 / step) for step in range(1, 900))
    url = reverse("admin:training_run_compare")
    client = login("rob")
    with django_assert_max_num_queries(22):
        page = client.get(url, {"run": [run.pk for run in runs]}).content.decode()
    assert "≠ rank" in page
    assert "≠ alpha" not in page
    curves = json.loads(page.partition('id="run-curves" type="application/json">')[2].partition("</script>")[0])
    assert [curve["name"] for curve in curves["runs"]] == [str(run) for run in runs]
    assert all(300 <= len(curve["points"]) <= 460 for curve in curves["runs"])
    make_assistant(members={"admin": [make_user("eve")]})
    assert login("eve").get(url, {"run": [run.pk for run in runs]}).status_code == 404
    assert client.get(url, {"run": ["x", "9" * 30]}).status_code == 404


# --- API --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def key(assistant: Assistant) -> str:
    return issue_key(assistant=assistant, name="trainer", scopes=["train"], created_by=None)[1]


def call(secret: str, method: str, path: str, body: Any = None) -> Any:
    client = Client(HTTP_AUTHORIZATION=f"Bearer {secret}")
    if method == "get":
        return client.get(path, body)
    return client.post(path, json.dumps(body), content_type="application/json")


def test_programs_start_list_look_and_cancel(dataset: DatasetVersion, key: str, launched: list[Any]) -> None:
    asked = {"dataset": dataset.number, "method": "sft", "seed": 4, "settings": {"rank": 8}}
    checked = call(key, "post", "/api/v1/runs", {**asked, "check": True})
    assert (checked.status_code, checked.json()["problems"]) == (200, [])
    assert not Run.objects.exists()
    made = call(key, "post", "/api/v1/runs", asked)
    assert made.status_code == 201
    assert (made.json()["state"], made.json()["settings"]["rank"], made.json()["seed"]) == ("queued", 8, 4)
    for _ in range(2):
        call(key, "post", "/api/v1/runs", asked)
    first = call(key, "get", "/api/v1/runs", {"limit": 2}).json()
    assert [len(first["runs"]), first["next"] is None] == [2, False]
    rest = call(key, "get", "/api/v1/runs", {"limit": 2, "before": first["next"]}).json()
    assert [run["id"] for run in rest["runs"]] == [made.json()["id"]]
    path = f"/api/v1/runs/{made.json()['id']}"
    assert call(key, "get", path).json()["dataset"] == dataset.number
    assert call(key, "post", f"{path}/cancel").json()["state"] == "cancelled"
    assert call(key, "post", f"{path}/cancel").json()["state"] == "cancelled"  # nothing more to stop
    assert len(call(key, "get", "/api/v1/runs", {"state": "cancelled"}).json()["runs"]) == 1


def test_programs_get_one_sentence_for_what_is_wrong(dataset: DatasetVersion, key: str, launched: list[Any]) -> None:
    good = {"dataset": dataset.number}
    for body, status, words in (
        ({"dataset": 9999}, 404, "no such dataset"),
        ({**good, "method": "kto"}, 422, "no bad one"),
        ({**good, "method": "x"}, 422, "method"),
        ({**good, "settings": {"rank": 0}}, 422, "rank must be between"),
        ({**good, "settings": {"dora": True}}, 422, "dora is not possible"),
        ({**good, "settings": []}, 422, "must be an object"),
        ({**good, "seed": True}, 422, "whole number"),
        ({**good, "extra": 1}, 422, "extra"),
        ([], 422, "one JSON object"),
    ):
        answer = call(key, "post", "/api/v1/runs", body)
        assert answer.status_code == status, body
        assert words in answer.json()["detail"], body
    assert call(key, "get", "/api/v1/runs", {"limit": "0"}).status_code == 422
    assert call(key, "get", "/api/v1/runs", {"state": "odd"}).status_code == 422


def test_programs_name_a_provider_with_a_scope_of_its_own_and_the_checks_of_the_form(
    dataset: DatasetVersion, assistant: Assistant, key: str, launched: list[Any]
) -> None:
    local = key
    named, key = issue_key(assistant=assistant, name="sender", scopes=["train", "providers"], created_by=None)
    provider = save_provider(
        assistant=assistant, name="Elsewhere", base_url="http://127.0.0.1:9/v1", model="small", api_key="s3cret",
        actor=None,
    )  # fmt: skip
    save_provider(
        assistant=make_assistant(), name="Theirs", base_url="http://127.0.0.1:9/v1", model="m", api_key="k", actor=None
    )
    asked = {"dataset": dataset.number, "method": "sft", "provider": "Elsewhere"}
    for body, status, words in (
        ({**asked, "provider": "Theirs"}, 404, "no such provider"),
        ({**asked, "provider": "Nobody"}, 404, "no such provider"),
        ({**asked, "provider": 7}, 422, "must be the name of a provider"),
        ({**asked, "provider": ""}, 422, "must be the name of a provider"),
        ({**asked, "method": "kto"}, 422, "no bad one"),
        ({**asked, "continues": make_adapter(assistant).number}, 422, "cannot continue an adapter"),
    ):
        answer = call(key, "post", "/api/v1/runs", body)
        assert answer.status_code == status, body
        assert words in answer.json()["detail"], body
    for body in (asked, {**asked, "check": True}, {**asked, "provider": "Nobody"}):
        refused = call(local, "post", "/api/v1/runs", body)
        assert (refused.status_code, "'providers'" in refused.json()["detail"]) == (403, True)
    assert call(key, "post", "/api/v1/runs", {**asked, "check": True}).status_code == 200
    assert not Run.objects.exists()
    made = call(key, "post", "/api/v1/runs", asked)
    assert (made.status_code, made.json()["provider"]) == (201, "Elsewhere")
    started = AuditEvent.objects.get(action="run.started")
    assert (started.details["provider"], started.details["key"]) == ("Elsewhere", str(named))
    call(key, "post", f"/api/v1/runs/{made.json()['id']}/cancel")
    assert AuditEvent.objects.get(action="run.cancelled").details["key"] == str(named)
    assert Run.objects.get().provider == provider
    assert "s3cret" not in made.content.decode()
    assert AuditEvent.objects.filter(action="run.started").latest("pk").details["provider"] == "Elsewhere"
    assert call(key, "post", "/api/v1/runs", {**asked, "provider": None}).json()["provider"] is None


def test_a_key_sees_its_own_assistants_runs_and_needs_the_scope(
    dataset: DatasetVersion, base: Path, assistant: Assistant, launched: list[Any]
) -> None:
    run = make_run(dataset, base)
    other = issue_key(assistant=make_assistant(), name="other", scopes=["train"], created_by=None)[1]
    reader = issue_key(assistant=assistant, name="reader", scopes=["read", "log"], created_by=None)[1]
    for method, path in (("get", f"/api/v1/runs/{run.pk}"), ("post", f"/api/v1/runs/{run.pk}/cancel")):
        assert call(other, method, path).status_code == 404
        assert call(reader, method, path).status_code == 403
        assert call("rk_wrong", method, path).status_code == 401
    assert call(other, "post", "/api/v1/runs", {"dataset": dataset.number}).status_code == 404
    assert call(other, "get", "/api/v1/runs").json() == {"runs": [], "next": None}
