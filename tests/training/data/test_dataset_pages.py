"""Pages of recipes, previews, versions and imported sets: who may, what they start, what they show."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from assistants.models import Assistant, AuditEvent
from assistants.performing import perform_here
from tests.factories import make_assistant, make_benchmark, make_user
from tests.training.data.test_build import DECLINE, HANDOFF, build, curate, resolved, synthesise
from training.data.recipe import Recipe
from training.models import BenchmarkItem, CuratedSet, DatasetPreview, DatasetVersion

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def assistant(db: None) -> Assistant:
    people: Any = {"admin": [make_user("ada")], "reviewer": [make_user("rob")], "annotator": [make_user("ann")]}
    return make_assistant("bot", decline_sentence=DECLINE, handoff_sentence=HANDOFF, members=people)


@pytest.fixture
def stranger(db: None) -> Client:
    make_assistant("other", members={"admin": [make_user("sam")]})
    return enter("sam")


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    works: list[Any] = []
    monkeypatch.setattr("training.services.launch", works.append)
    monkeypatch.setattr("training.data.services.launch", works.append)
    return works


def enter(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client


def page(name: str, *args: Any) -> str:
    return reverse(f"admin:training_{name}", args=args)


def shown(response: Any) -> str:
    assert response.status_code == 200, response.status_code
    return str(response.content.decode())


def sent(assistant: Assistant, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"assistant": assistant.pk, "benchmark": "", "synthesis": ""}
    for name, value in Recipe(**changes).as_dict().items():
        if not isinstance(value, bool) or value:
            values[name] = "\n".join(value) if isinstance(value, list) else value
    return values


def test_a_recipe_is_counted_before_it_is_built(assistant: Assistant, stranger: Client) -> None:
    curate(assistant)
    resolved(assistant, f"May I {HOSTILE} pay later?", DECLINE)
    benchmark = make_benchmark(assistant, name="Held out")
    BenchmarkItem.objects.create(
        benchmark=benchmark, key="k", question="On which day do I look at the meter?", kind="answer"
    )
    values = {**sent(assistant, missing_oracle_share=0.0), "benchmark": benchmark.pk, "count": ""}
    response = enter("ada").post(page("datasetversion_add"), values)
    preview = DatasetPreview.objects.get()
    assert response.url == page("datasetpreview_change", preview.pk)
    assert not DatasetVersion.objects.exists()
    assert "Queued" in shown(enter("rob").get(response.url))
    perform_here(preview)
    preview.refresh_from_db()
    assert preview.state == "succeeded", preview.error
    stored = str(preview.result)
    assert "pay later" not in stored  # what users ask stays where an erasure finds it
    assert "look at the meter" not in stored
    read = shown(enter("rob").get(response.url))
    assert "It would have" in read
    assert "pay later" in read
    assert HOSTILE not in read
    assert "Build and freeze" not in read  # for admins
    assert "same words" in read
    for client in (stranger, enter("ann")):
        assert client.get(response.url).status_code in (403, 404)
        assert client.post(page("datasetpreview_build", preview.pk)).status_code in (403, 404)
    assert enter("rob").post(page("datasetpreview_build", preview.pk)).status_code == 404
    built = enter("ada").post(page("datasetpreview_build", preview.pk))
    dataset = DatasetVersion.objects.get()
    assert built.url == page("datasetversion_change", dataset.pk)
    assert (dataset.recipe, dataset.benchmark) == (preview.recipe, benchmark)
    perform_here(dataset)
    dataset.refresh_from_db()
    assert dataset.rows == preview.result["rows"]


def test_a_recipe_that_yields_nothing_says_why_with_its_counts(assistant: Assistant) -> None:
    curate(assistant)
    enter("ada").post(
        page("datasetversion_add"), {**sent(assistant, good="leave out", corrected="leave out"), "count": ""}
    )
    preview = DatasetPreview.objects.get()
    perform_here(preview)
    preview.refresh_from_db()
    read = shown(enter("ada").get(page("datasetpreview_change", preview.pk)))
    assert "Nothing would be built" in read
    assert "left out by the recipe" in read


def test_a_recipe_goes_out_as_a_file_and_comes_back(assistant: Assistant, stranger: Client) -> None:
    values = {**sent(assistant, weight_corrected=7, tags=("vip",), per_document_cap=9), "download": ""}
    file = enter("ada").post(page("datasetversion_add"), values)
    assert file.headers["Content-Disposition"].endswith('"recipe.yaml"')
    upload = {"read": "", "recipe_file": SimpleUploadedFile("r.yaml", file.content), "assistant": assistant.pk}
    read = shown(enter("ada").post(page("datasetversion_add"), upload))
    assert "filled in from the file" in read
    for part in ('name="weight_corrected" value="7"', ">\nvip</textarea>", 'name="per_document_cap" value="9"'):
        assert part in read, part
    for content, sentence in ((b"sed: 1", "seed is"), (b"\xff\xfe", "not UTF-8"), (b"seed: x", "whole number")):
        wrong = {"read": "", "recipe_file": SimpleUploadedFile("r.yaml", content), "assistant": assistant.pk}
        assert sentence in shown(enter("ada").post(page("datasetversion_add"), wrong))
    curate(assistant)
    dataset = build(assistant, seed=5)
    assert b"seed: 5" in enter("rob").get(page("datasetversion_recipe", dataset.pk)).content
    assert stranger.get(page("datasetversion_recipe", dataset.pk)).status_code == 404
    like = shown(enter("ada").get(page("datasetversion_add"), {"like": dataset.pk}))
    assert 'name="seed" value="5"' in like
    assert stranger.get(page("datasetversion_add"), {"like": dataset.pk}).status_code == 404


def test_mistakes_stand_at_their_fields(assistant: Assistant) -> None:
    wrong = {**sent(assistant), "max_tokens": 3, "asked_from": "soon", "weight_good": 99}
    read = shown(enter("ada").post(page("datasetversion_add"), wrong))
    assert read.count('role="alert"') == 3
    assert not DatasetVersion.objects.exists()
    assert enter("rob").get(page("datasetversion_add")).status_code == 403
    assert "queues: there is no “Nope” here." in shown(
        enter("ada").post(page("datasetversion_add"), {**sent(assistant, queues=("Nope",)), "count": ""})
    )


def test_rows_are_left_out_into_a_new_version(assistant: Assistant, stranger: Client) -> None:
    curate(assistant)
    dataset = build(assistant, synthesis=synthesise(assistant), missing_oracle_share=0)
    positions = list(dataset.examples.filter(kind="answer").values_list("position", flat=True)[:2])
    address = page("datasetversion_exclude", dataset.pk)
    for client in (stranger, enter("rob"), enter("ann")):
        assert client.post(address, {"row": positions, "note": "x"}).status_code in (403, 404)
    assert Client().post(address, {"row": positions}).status_code == 302  # to the login
    for refused in ({"row": positions}, {"note": "why"}, {"row": [9999], "note": "why"}, {"all": "", "note": "why"}):
        enter("ada").post(address, refused)
    assert DatasetVersion.objects.count() == 1
    response = enter("ada").post(address, {"row": positions, "note": "They praise a rival."})
    child = DatasetVersion.objects.exclude(pk=dataset.pk).get()
    assert response.url == page("datasetversion_change", child.pk)
    perform_here(child)
    child.refresh_from_db()
    assert child.state == "succeeded", child.error
    assert (child.rows, child.parent, child.note) == (dataset.rows - 2, dataset, "They praise a rival.")
    kept = list(dataset.examples.exclude(position__in=positions).values_list("digest", "split", "weight", "turn"))
    assert list(child.examples.values_list("digest", "split", "weight", "turn")) == kept
    assert AuditEvent.objects.filter(action="datasetversion.started", reason="They praise a rival.").exists()
    read = shown(enter("rob").get(page("datasetversion_change", child.pk)))
    assert "They praise a rival." in read
    assert "without 2 rows" in " ".join(read.split())
    by_filter = enter("ada").post(address, {"all": "", "origin": "synthetic", "note": "No written ones."})
    without = DatasetVersion.objects.get(note="No written ones.")
    assert by_filter.url == page("datasetversion_change", without.pk)
    perform_here(without)
    without.refresh_from_db()
    assert "synthetic" not in without.mix


def test_two_versions_are_compared_row_by_row(assistant: Assistant, stranger: Client) -> None:
    curate(assistant)
    first = build(assistant, missing_oracle_share=0)
    second = build(assistant, missing_oracle_share=0, good="leave out")
    address = page("datasetversion_difference", second.pk)
    read = shown(enter("rob").get(address, {"with": first.pk, "side": "there"}))
    assert "Can I keep the tariff in my new flat?" in read
    assert "Good answers" in read
    assert "Can I keep" not in shown(enter("rob").get(address, {"with": first.pk, "side": "there", "origin": "bad"}))
    with CaptureQueriesContext(connection) as queries:
        enter("rob").get(address, {"with": first.pk})
    assert len(queries) < 30
    for client, other in ((stranger, first.pk), (enter("rob"), 999), (enter("rob"), "x"), (enter("ann"), first.pk)):
        assert client.get(address, {"with": other}).status_code in (403, 404)
    foreign = build(make_assistant(decline_sentence=DECLINE), turns=True)
    assert enter("rob").get(address, {"with": foreign.pk}).status_code == 404


def test_a_row_leads_to_its_turn_and_label_and_back(assistant: Assistant, stranger: Client) -> None:
    curate(assistant)
    bad = resolved(assistant, "Is it free?", "", verdict="bad", logged="It costs £99. [1]")
    dataset = build(assistant, missing_oracle_share=0)
    example = dataset.examples.get(turn=bad)
    read = shown(enter("rob").get(page("datasetversion_row", dataset.pk, example.position)))
    assert "what it learns not to say" in read
    assert "what it learns to say" not in read
    assert page("datasetversion_turn", bad.pk) in read
    corrected = dataset.examples.get(origin="corrected", question__startswith="What does it cost")
    pair = shown(enter("rob").get(page("datasetversion_row", dataset.pk, corrected.position)))
    assert "rejected answer of a pair" in pair
    assert "settled as bad" in pair
    back = shown(enter("rob").get(page("datasetversion_turn", bad.pk)))
    assert page("datasetversion_row", dataset.pk, example.position) in back
    assert stranger.get(page("datasetversion_turn", bad.pk)).status_code == 404
    assert enter("ann").get(page("datasetversion_turn", bad.pk)).status_code == 404


def test_exports_by_format_and_method_are_audited(assistant: Assistant, stranger: Client) -> None:
    curate(assistant)
    dataset = build(assistant, missing_oracle_share=0, validation_share=0)
    address = page("datasetversion_export", dataset.pk)
    for asked, name in (
        ({"format": "trl", "method": "dpo"}, "dpo-train.jsonl"),
        ({"format": "openai", "method": "sft"}, "sft-train.jsonl"),
        ({"format": "parquet", "method": "kto"}, "kto-train.parquet"),
        ({"format": "own"}, "-train.jsonl"),
        ({"format": "folder"}, ".zip"),
    ):
        response = enter("ada").get(address, asked)
        assert response.headers["Content-Disposition"].endswith(f'{name}"'), asked
        assert len(b"".join(response.streaming_content)) > 100
    assert AuditEvent.objects.filter(action="dataset.exported", details__method="dpo").count() == 1
    for asked in ({"format": "openai", "method": "kto"}, {"split": "validation"}):
        assert enter("ada").get(address, asked).url == page("datasetversion_change", dataset.pk)
    for asked in ({"format": "csv"}, {"method": "ppo"}, {"split": "test"}):
        assert enter("ada").get(address, asked).status_code == 404
    for client in (stranger, enter("rob"), enter("ann")):
        assert client.get(address).status_code in (403, 404)
    assistant.decline_sentence = "No."
    assistant.save()
    assert enter("ada").get(address).status_code == 302  # its prompts cannot be written as they were
    assert enter("ada").get(address, {"format": "own"}).status_code == 200


def test_an_imported_set_is_read_and_taken_out(assistant: Assistant, stranger: Client) -> None:
    lines = '{"prompt": "May I pay <script>later</script>?", "completion": "Yes."}\nnope\n'

    def values() -> dict[str, Any]:
        return {"assistant": assistant.pk, "name": "Ours", "file": SimpleUploadedFile("a.jsonl", lines.encode())}

    assert enter("rob").post(page("curatedset_add"), values()).status_code == 403
    response = enter("ada").post(page("curatedset_add"), values())
    curated = CuratedSet.objects.get()
    assert response.url == page("curatedset_change", curated.pk)
    perform_here(curated)
    read = shown(enter("rob").get(response.url))
    assert "1 line refused" in read
    assert "<script>later" not in read
    assert "It is not JSON." in read
    assert "Delete the set" not in read
    whole = shown(enter("ada").get(response.url))
    asked = whole[whole.index("<summary>Delete the set …") :]
    assert "cannot be brought back" in asked  # nothing is deleted by one click
    assert page("curatedset_remove", curated.pk) not in whole[: whole.index("<summary>Delete the set …")]
    assert "Ours" in shown(enter("ada").get(page("curatedset_changelist")))
    for client in (stranger, enter("ann")):
        assert client.get(response.url).status_code in (302, 403, 404)
        assert client.post(page("curatedset_remove", curated.pk)).status_code in (403, 404)
    assert enter("rob").post(page("curatedset_remove", curated.pk)).status_code == 403
    assert enter("ada").post(page("curatedset_remove", curated.pk)).url == page("curatedset_changelist")
    assert not CuratedSet.objects.exists()


def test_the_page_of_a_version_costs_the_same_however_many_rows(assistant: Assistant) -> None:
    curate(assistant)
    small = build(assistant, missing_oracle_share=0)
    client = enter("ada")
    client.get(page("datasetversion_change", small.pk))
    with CaptureQueriesContext(connection) as few:
        shown(client.get(page("datasetversion_change", small.pk)))
    for i in range(6):
        resolved(assistant, f"May I pay invoice {i} in {i} parts?", "Tell us 10 days before you move. [2]")
    large = build(assistant, missing_oracle_share=0)
    with CaptureQueriesContext(connection) as many:
        read = shown(client.get(page("datasetversion_change", large.pk), {"judged": "yes", "q": "£"}))
    assert len(many) == len(few)
    assert "How long prompts and answers are" in read
