"""The pages of benchmarks, syntheses, datasets and evaluations: who sees them, what they start, what they show."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from assistants.models import Assistant, AuditEvent
from knowledge.services import load_document
from tests.factories import make_adapter, make_assistant, make_benchmark, make_document, make_turn, make_user
from tests.training.finetune.conftest import make_dataset
from training.data.benchmark import perform
from training.data.recipe import Recipe
from training.evaluation.declaring import declare_gate
from training.evaluation.gate import GateRule
from training.models import (
    Benchmark,
    BenchmarkItem,
    BenchmarkUpload,
    DatasetVersion,
    Evaluation,
    Synthesis,
    SyntheticItem,
)
from training.synthesis.filters import EXPLAINED

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def ada(db: None) -> User:
    return make_user("ada")


@pytest.fixture
def assistant(ada: User) -> Assistant:
    return make_assistant("bot", members={"admin": [ada], "reviewer": [make_user("rob")]})


@pytest.fixture
def stranger(db: None) -> Client:
    """An admin, but of another assistant."""
    user = make_user("sam")
    make_assistant("other", members={"admin": [user]})
    return enter(user)


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    works: list[Any] = []
    monkeypatch.setattr("training.services.launch", works.append)
    return works


def enter(user: User | str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=user) if isinstance(user, str) else user)
    return client


def shown(response: Any) -> str:
    assert response.status_code == 200
    return str(response.content.decode())


def page(name: str, *args: Any) -> str:
    return reverse(f"admin:training_{name}", args=args)


# --- Benchmarks -------------------------------------------------------------------------------------------------------


def line(**fields: Any) -> str:
    item = {
        "id": "one", "question": "What is the exit fee?", "kind": "answer", "answers": ["It is £35."],
        "must_contain": [["£35"]], "gold": [{"path": "fees.md", "sentence": "A fixed plan has an exit fee of £35."}],
        "slice": "fees",
    }  # fmt: skip
    return json.dumps({**item, **fields}, ensure_ascii=False)


def upload(client: Client, assistant: Assistant, content: str | bytes, name: str = "Held out") -> Any:
    data = content.encode() if isinstance(content, str) else content
    sent = {"assistant": assistant.pk, "name": name, "file": SimpleUploadedFile("items.jsonl", data)}
    return client.post(page("benchmark_add"), sent)


def test_a_benchmark_is_checked_uploaded_frozen_and_read(
    assistant: Assistant, launched: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    load_document(assistant=assistant, path="fees.md", data="# Fees\n\nA fixed plan has an exit fee of £35.".encode())
    lines = [line(), line(id="two", question=f"And the\u2028weather? {HOSTILE}", kind="decline", answers=[], gold=[])]
    with django_capture_on_commit_callbacks(execute=True):
        response = upload(enter("ada"), assistant, "\ufeff" + "\r\n".join(lines) + "\n")
    work = BenchmarkUpload.objects.get()
    assert launched == [work]
    assert response.url == page("benchmarkupload_change", work.pk)
    assert "Queued" in shown(enter("rob").get(response.url))
    assert "Upload of “Held out”" in shown(enter("ada").get(page("benchmark_changelist")))

    work.claim()
    perform(work)
    work.finish(BenchmarkUpload.State.SUCCEEDED)
    benchmark = Benchmark.objects.get()
    assert enter("ada").get(response.url).url == page("benchmark_change", benchmark.pk)
    read = shown(enter("rob").get(page("benchmark_change", benchmark.pk)))
    assert "the answer is among the sentences" in read
    assert HOSTILE not in read
    assert "Export" not in read  # held-out questions stay in the house
    for query, fits in (({"kind": "decline"}, False), ({"slice": "fees", "gold": "yes"}, True), ({"q": "exit"}, True)):
        found = shown(enter("rob").get(page("benchmark_change", benchmark.pk), query))
        assert ("What is the exit fee?" in found) is fits, query

    assert enter("rob").get(page("benchmark_export", benchmark.pk)).status_code == 404
    exported = enter("ada").get(page("benchmark_export", benchmark.pk)).getvalue().decode()
    again = upload(enter("ada"), assistant, exported, "Held out, again")
    assert again.status_code == 302  # what is exported can be uploaded
    assert AuditEvent.objects.filter(action="benchmark.exported").count() == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "line 1: JSON"),
        (line(kind="maybe"), "line 1: kind"),
        (line() + "\n" + line(), "the id one stands twice"),
        (line(answers=[]), "an answerable question needs an answer"),
        ("\n\n", "has no questions"),
        (b"\xff\xfe", "not UTF-8"),
        (b"\x00", "NUL"),
    ],
)
def test_what_is_no_benchmark_is_refused_with_a_sentence(
    assistant: Assistant, content: str | bytes, sentence: str
) -> None:
    assert sentence in shown(upload(enter("ada"), assistant, content))
    assert not BenchmarkUpload.objects.exists()


def test_benchmarks_have_a_limit_and_a_name_of_their_own(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    make_benchmark(assistant, name="Held out")
    assert "is there already" in shown(upload(enter("ada"), assistant, line()))
    monkeypatch.setattr("training.services.MAX_BENCHMARK_ITEMS", 1)
    assert "at most 1 make" in shown(upload(enter("ada"), assistant, line() + "\n" + line(id="two"), "Other"))
    assert upload(enter("rob"), assistant, line(), "Third").status_code == 403


# --- Syntheses --------------------------------------------------------------------------------------------------------


@pytest.fixture
def synthesis(assistant: Assistant) -> Synthesis:
    synthesis = Synthesis.objects.create(assistant=assistant, wanted=2, state="succeeded")
    dropped = ["", "", "verbatim", "not retrieved"]
    SyntheticItem.objects.bulk_create(
        SyntheticItem(
            synthesis=synthesis, source="fees.md", sentence=i, question=f"Question {i}? {HOSTILE}",
            response=f"Answer {i}.", dropped_by=why, contexts={"gold": [1, 0], "passages": [], "evidence": []},
        )
        for i, why in enumerate(dropped)
    )  # fmt: skip
    return synthesis


def test_a_synthesis_is_started_by_admins_with_limits(assistant: Assistant, launched: list[Any]) -> None:
    url = page("synthesis_add")
    sent = {"assistant": assistant.pk, "wanted": 20, "seed": 3, "writer": "rules", "style": "plain"}
    assert "no documents" in shown(enter("ada").post(url, sent))
    make_document(assistant)
    assert "greater than or equal to 1" in shown(enter("ada").post(url, {**sent, "wanted": 0}))
    assert "No teacher is set up" in shown(enter("ada").post(url, {**sent, "writer": "teacher"}))
    assert "one of them is above 0" in shown(enter("ada").post(url, {**sent, "mix_single": 0}))
    assert enter("rob").get(url).status_code == 403
    response = enter("ada").post(url, {**sent, "mix_single": 60, "mix_near_miss": 20, "max_minutes": 7})
    started = Synthesis.objects.get()
    assert (started.wanted, started.seed, response.url) == (20, 3, page("synthesis_change", started.pk))
    mix = started.plan["mix"]
    assert (mix["near_miss"], mix["several"], started.plan["max_minutes"]) == (0.2, 0, 7)
    assert "Cancel" in shown(enter("ada").get(response.url))
    assert "Cancel" not in shown(enter("rob").get(response.url))
    enter("ada").post(page("synthesis_cancel", started.pk))
    started.refresh_from_db()
    assert started.state == Synthesis.State.CANCELLED


def test_the_funnel_explains_each_filter_and_shows_what_it_dropped(synthesis: Synthesis) -> None:
    url = page("synthesis_change", synthesis.pk)
    read = shown(enter("rob").get(url))
    assert "2 of 4 written questions were kept" in read
    assert all(name in read for name in EXPLAINED)
    assert "Question 0?" in read
    assert "Question 2?" not in read
    assert HOSTILE not in read
    dropped = shown(enter("rob").get(url, {"show": "verbatim"}))
    assert "Question 2?" in dropped
    assert "Question 0?" not in dropped
    assert "Question 1?" in shown(enter("rob").get(url, {"show": "nonsense", "q": "question 1"}))
    rows = enter("ada").get(page("synthesis_export", synthesis.pk)).getvalue().decode().splitlines()
    assert [json.loads(row)["dropped_by"] for row in rows] == ["", "", "verbatim", "not retrieved"]
    for side, n in (("kept", 2), ("dropped", 2)):
        exported = enter("ada").get(page("synthesis_export", synthesis.pk), {"show": side}).getvalue().decode()
        assert len(exported.splitlines()) == n
        assert all((json.loads(row)["dropped_by"] == "") is (side == "kept") for row in exported.splitlines())


# --- Datasets ---------------------------------------------------------------------------------------------------------


def test_a_dataset_is_built_from_the_form(assistant: Assistant, synthesis: Synthesis, launched: list[Any]) -> None:
    benchmark = make_benchmark(assistant)
    url = page("datasetversion_add")
    assert "Largest share of declining rows" in shown(enter("ada").get(url))
    sent = {
        **Recipe(seed=7).as_dict(), "assistant": assistant.pk, "benchmark": benchmark.pk, "synthesis": synthesis.pk,
    }  # fmt: skip
    wrong = shown(enter("ada").post(url, {**sent, "max_decline_share": 2}))
    assert "must be between 0 and 0.9" in wrong
    assert "<details open>" in wrong
    foreign = make_benchmark(make_assistant())
    assert "valid choice" in shown(enter("ada").post(url, {**sent, "benchmark": foreign.pk}))
    assert enter("rob").post(url, sent).status_code == 403
    response = enter("ada").post(url, sent)
    dataset = DatasetVersion.objects.get()
    assert response.url == page("datasetversion_change", dataset.pk)
    assert (dataset.recipe["seed"], dataset.benchmark, dataset.synthesis) == (7, benchmark, synthesis)
    assert "Waiting for a worker" in shown(enter("ada").get(response.url))


@pytest.fixture
def dataset(assistant: Assistant) -> DatasetVersion:
    dataset = make_dataset(
        assistant,
        rows=25,
        validation=3,
        mix={"good": {"answer": 28}},
        funnel=[{"step": "caps", "before": 30, "kept": 28, "why": {"sentence asked often enough": 2}}],
        blocked=[{"question": f"Blocked? {HOSTILE}", "item": "b-1", "by": "meaning", "score": 0.95}],
        documents=["plans.md"],
        recipe=Recipe().as_dict(),
    )
    turn = make_turn(assistant)
    dataset.examples.filter(position=1).update(turn=turn, question=f"Row one? {HOSTILE}", rejected="A bad answer.")
    return dataset


def test_a_dataset_shows_what_is_in_it_and_what_is_not(dataset: DatasetVersion) -> None:
    url = page("datasetversion_change", dataset.pk)
    read = shown(enter("rob").get(url))
    for part in ("28 rows, frozen", dataset.content_hash[:12], "sentence asked often enough", "Blocked?", "plans.md"):
        assert part in read, part
    assert HOSTILE not in read
    assert "Row 19" in read
    assert "Row 20" not in read
    assert "Export" not in read
    assert reverse("admin:capture_turn_change", args=[dataset.examples.get(position=1).turn_id]) in read
    assert "Row 20" in shown(enter("rob").get(url, {"page": 2}))
    mine = shown(enter("ada").get(url))
    assert f"{page('run_start')}?dataset={dataset.pk}" in mine


@pytest.mark.parametrize(
    ("query", "n"),
    [
        ({"split": "validation"}, 3),
        ({"origin": "declined"}, 0),
        ({"document": "plans.md"}, 28),
        ({"document": "other.md"}, 28),
        ({"q": "row ONE"}, 1),
        ({"q": "Plan 3 costs"}, 7),
        ({"kind": "nonsense"}, 28),
    ],
)
def test_rows_are_filtered_and_searched(dataset: DatasetVersion, query: dict[str, str], n: int) -> None:
    read = shown(enter("rob").get(page("datasetversion_change", dataset.pk), query))
    assert f"{n} row{'' if n == 1 else 's'}</span>" in read


def test_a_row_is_shown_as_the_model_reads_it(dataset: DatasetVersion) -> None:
    read = shown(enter("rob").get(page("datasetversion_row", dataset.pk, 1)))
    assert "Answer from the passages and cite them." in read
    assert "[2] Plan 1 costs" in read
    assert "judged bad" in read
    assert HOSTILE not in read
    assert enter("rob").get(page("datasetversion_row", dataset.pk, 99)).status_code == 404
    dataset.assistant.decline_sentence = "No."
    dataset.assistant.save()
    assert "prompt format has changed" in shown(enter("rob").get(page("datasetversion_row", dataset.pk, 1)))
    assert "cannot be trained on any more" in shown(enter("ada").get(page("datasetversion_change", dataset.pk)))


def test_rows_are_exported_for_training(dataset: DatasetVersion) -> None:
    url = page("datasetversion_export", dataset.pk)
    assert enter("rob").get(url).status_code == 404
    rows = [json.loads(row) for row in enter("ada").get(url, {"split": "validation"}).getvalue().splitlines()]
    assert len(rows) == 3
    assert [m["role"] for m in rows[0]["prompt"]] == ["system", "user"]
    assert rows[0]["completion"][0]["content"].startswith("[")
    assert enter("ada").get(url, {"split": "x"}).status_code == 404
    assert AuditEvent.objects.get(action="dataset.exported").details["split"] == "validation"


def test_versions_are_compared(dataset: DatasetVersion) -> None:
    other = make_dataset(dataset.assistant, rows=20, validation=0, recipe=Recipe(weight_good=4).as_dict())
    url = page("datasetversion_difference", dataset.pk)
    read = shown(enter("rob").get(url, {"with": other.pk}))
    assert "<dt>In both</dt><dd>20</dd>" in read
    assert "8 good" in read
    assert "Weight of good" in read
    foreign = make_dataset(make_assistant())
    assert enter("rob").get(url, {"with": foreign.pk}).status_code == 404


# --- Evaluations ------------------------------------------------------------------------------------------------------


def test_an_evaluation_is_started_and_listed(assistant: Assistant, launched: list[Any]) -> None:
    url = page("evaluation_add")
    assert "There is no adapter yet" in shown(enter("ada").get(url))
    adapter, benchmark = make_adapter(assistant), make_benchmark(assistant)
    sent = {"adapter": adapter.pk, "benchmark": benchmark.pk, "arms": ["base"], "conditions": ["shuffled"], "timed": 0}
    assert enter("rob").post(url, sent).status_code == 403
    assert "has no questions" in shown(enter("ada").post(url, sent))
    benchmark.items.create(key="a", question="What?", kind="decline")
    declare_gate(assistant=assistant, rule=GateRule(minimum_gain=0.02), reason="Worth it", actor=None, read_version=0)
    assert "version 1" in shown(enter("ada").get(url))
    response = enter("ada").post(url, sent)
    evaluation = Evaluation.objects.get()
    assert response.url == reverse("dashboards:before-after", args=[evaluation.pk])
    assert (evaluation.gate_rule["minimum_gain"], evaluation.gate_version) == (0.02, 1)
    assert evaluation.plan["arms"] == ["extractive", "base", "base_rag", "adapter_rag"]
    assert evaluation.plan["conditions"] == ["clean", "missing_oracle", "shuffled"]  # the gate asks for the second
    assert "Between 20 and 200" in shown(enter("ada").post(url, {**sent, "timed": 3}))
    assert "with itself" in shown(enter("ada").post(url, {**sent, "rival": adapter.pk}))
    Evaluation.objects.update(state="succeeded", verdict="not_proven", sentence=f"No gain is proved. {HOSTILE}")
    listed = shown(enter("rob").get(page("evaluation_changelist")))
    assert response.url in listed
    assert "No gain is proved." in listed
    assert HOSTILE not in listed
    assert enter("rob").get(page("evaluation_change", evaluation.pk)).url == response.url


def test_another_assistants_benchmark_does_not_measure(assistant: Assistant, ada: User) -> None:
    second = make_assistant(members={"admin": [ada]})
    sent = {"adapter": make_adapter(assistant).pk, "benchmark": make_benchmark(second).pk, "minimum_gain": 0}
    assert "belong to different assistants" in shown(enter("ada").post(page("evaluation_add"), sent))


# --- Everything -------------------------------------------------------------------------------------------------------


def test_strangers_find_nothing(
    stranger: Client, assistant: Assistant, dataset: DatasetVersion, synthesis: Synthesis
) -> None:
    benchmark = make_benchmark(assistant)
    work = BenchmarkUpload.objects.create(assistant=assistant, name="b")
    for url in (
        page("benchmark_change", benchmark.pk),
        page("benchmark_export", benchmark.pk),
        page("benchmarkupload_change", work.pk),
        page("synthesis_change", synthesis.pk),
        page("synthesis_live", synthesis.pk),
        page("synthesis_export", synthesis.pk),
        page("datasetversion_change", dataset.pk),
        page("datasetversion_row", dataset.pk, 0),
        page("datasetversion_export", dataset.pk),
        page("datasetversion_live", dataset.pk),
    ):
        assert stranger.get(url).status_code == 404, url
    assert stranger.post(page("synthesis_cancel", synthesis.pk)).status_code == 404
    nobody = enter(make_user("nobody"))
    for name in ("benchmark", "synthesis", "datasetversion", "evaluation"):
        assert nobody.get(page(f"{name}_changelist")).status_code == 403, name
        assert nobody.get(page(f"{name}_add")).status_code == 403, name
        assert "No " in shown(stranger.get(page(f"{name}_changelist"))), name  # empty, and says what fills it


def test_only_admins_are_led_to_training(assistant: Assistant, dataset: DatasetVersion) -> None:
    DatasetVersion.objects.filter(pk=dataset.pk).update(state="succeeded", rows=3, erased_rows=0)
    start = page("run_start")
    assert start in shown(enter("ada").get(page("datasetversion_changelist")))
    assert f"{start}?dataset" not in shown(enter("rob").get(page("datasetversion_changelist")))
    assert enter("rob").get(start).status_code == 403


def test_adapters_are_searched_by_number_and_digest(assistant: Assistant) -> None:
    for number in (1, 2, 12):
        make_adapter(assistant, number=number, base_digest=f"{number:064x}"[::-1])
    wanted = {"Adapter 2": {2}, "12": {12}, "bot": {1, 2, 12}, "c000000000": {12}, "Adapter 9": set()}
    for words, found in wanted.items():
        text = shown(enter("rob").get(page("adapter_changelist"), {"q": words}))
        assert {number for number in (1, 2, 12) if f">Adapter {number}<" in text} == found, words
    text = shown(enter("rob").get(page("adapter_changelist")))
    assert re.search(r'<time datetime="[^"]+" title="[^"]+">[^<]+ ago</time>', text)


def test_pages_cost_a_fixed_number_of_queries(
    assistant: Assistant, dataset: DatasetVersion, django_assert_max_num_queries: Any
) -> None:
    benchmark = make_benchmark(assistant)
    BenchmarkItem.objects.bulk_create(
        BenchmarkItem(benchmark=benchmark, key=f"k{i}", question="Q?", kind="answer", contexts={}) for i in range(40)
    )
    client = enter("ada")
    for url in (page("datasetversion_change", dataset.pk), page("benchmark_change", benchmark.pk)):
        client.get(url)
        with django_assert_max_num_queries(30):
            client.get(url)


def test_a_running_evaluation_shows_progress_cancel_and_log(assistant: Assistant) -> None:
    evaluation = Evaluation.objects.create(
        assistant=assistant, adapter=make_adapter(assistant), benchmark=make_benchmark(assistant)
    )
    evaluation.claim()
    evaluation.beat(stage="asking", done=3, total=8)
    url = reverse("dashboards:before-after", args=[evaluation.pk])
    mine = shown(enter("ada").get(url))
    assert page("evaluation_cancel", evaluation.pk) in mine
    assert page("evaluation_cancel", evaluation.pk) not in shown(enter("rob").get(url))
    live = enter("rob").get(page("evaluation_live", evaluation.pk)).json()
    assert (live["stage"], live["done"], live["total"]) == ("asking", 3, 8)
    evaluation.finish(Evaluation.State.FAILED, "The disk is full.")
    assert "The disk is full." in shown(enter("rob").get(url))
