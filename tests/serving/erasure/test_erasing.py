"""Erasing a person: what goes, what stays, what is told, and what happens when it is interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.urls import reverse
from django.utils import timezone

from annotations.comparing.models import ComparisonPair, ComparisonRound
from annotations.models import Annotation, Assignment, ContextMark, QueueItem, Resolution
from assistants.models import AuditEvent
from assistants.performing import log_path, perform_here
from assistants.vault import encrypt
from capture.models import Conversation, Feedback, Passage, Quarantine, Receipt, Retrieval, Turn, WaitingSpans
from capture.services import receive_feedback, receive_turns, scrub_waiting
from knowledge.models import QueryMap
from serving import spool
from serving.erasure import acting
from serving.erasure.receipt import is_genuine
from serving.erasure.record import Erasure
from serving.erasure.scope import Scope, ScopeError
from serving.erasure.services import ErasureRefused, confirm, go_on, look, withdraw
from serving.erasure.survey import survey
from tests.factories import make_adapter, make_user
from tests.serving.erasure.conftest import ANNA, SHARED, House, enter, freeze, label, like, say, scrub, train
from training.finetune.bases import relative_to_state
from training.models import Benchmark, BenchmarkItem, DatasetVersion, Evaluation, EvaluationAnswer, Example, Run
from training.services import NotPossible, start_run


@pytest.fixture(autouse=True)
def quiet(settings: Any, tmp_path: Path) -> None:
    settings.VAR_DIR, settings.RATCHET_RUNS_DIR = tmp_path, tmp_path / "runs"
    settings.LOG_DIR = tmp_path / "log"


def anna() -> Scope:
    return Scope("user", ANNA)


def erase(house: House, scope: Scope, reason: str = "Request 17") -> Erasure:
    """Dry run, confirmation, act: as on the page."""
    erasure = look(assistant=house.bot, scope=scope, actor=house.paula)
    perform_here(erasure)
    erasure.refresh_from_db()
    assert erasure.state == "succeeded", erasure.error
    erasure = confirm(erasure=erasure, actor=house.paula, reason=reason)
    perform_here(erasure)
    erasure.refresh_from_db()
    return erasure


def everything() -> str:
    """Every column of every table as text: what a leak would stand in."""
    found: list[str] = []
    for model in apps.get_models():
        for row in model._default_manager.all().values():
            found += [bytes(v).hex() if isinstance(v, bytes | memoryview) else str(v) for v in row.values()]
    return "\n".join(found)


def test_all_that_a_user_said_goes_and_nothing_of_others(house: House, tmp_path: Path) -> None:
    say(house.bot, "a-1", conversation="talk", question="Where is the zanzibar kettle?")
    say(house.bot, "a-2", conversation="talk", user=None, question="And the quagmire lid?")
    say(house.bot, "b-1", conversation="other-talk", user="bob", question="Where is the meter?")
    like(house.bot, "a-1", "Hopeless wombat.")
    scrub()
    Retrieval.objects.filter(turn__client_id="b-1", rank=2).delete()
    turn = Turn.objects.get(client_id="a-1")
    kept = Turn.objects.get(client_id="b-1")
    label(house, turn)
    dataset = freeze(house.bot, [turn, kept])
    adapter = train(dataset, live=True)
    folder = tmp_path / "runs" / "bot-1"
    (folder / "work").mkdir(parents=True)
    (folder / "train.jsonl").write_text("zanzibar")
    Run.objects.update(folder=relative_to_state(folder))
    log = log_path("training.Run", adapter.run_id or 0)
    log.parent.mkdir(exist_ok=True)
    log.write_text("zanzibar")
    say(house.bot, "a-3", conversation="a third talk", question="Still waiting")  # in quarantine
    before = survey(house.bot, anna())

    erasure = erase(house, anna())

    assert erasure.state == "succeeded", erasure.error
    text = everything()
    for word in ("zanzibar", "quagmire", "wombat", "blue door", "Better so", "Rejected words"):
        # The row that is Bob's keeps what is Bob's.
        assert (word in text) is (word == "Rejected words"), word
    assert not (folder / "work").exists()
    assert not (folder / "train.jsonl").exists()
    assert not log.exists()
    assert list(Turn.objects.values_list("client_id", flat=True)) == ["b-1"]
    assert list(Conversation.objects.values_list("external_id", flat=True)) == ["other-talk"]
    assert list(Passage.objects.values_list("title", flat=True)) == [SHARED["title"]]
    for model in (Feedback, QueueItem, Assignment, Annotation, ContextMark, Resolution, Quarantine):
        assert not model._default_manager.exists(), model
    row = Example.objects.get(dataset=dataset, position=0)
    assert (row.question, row.contexts, row.sentences, row.rejected, row.turn) == ("[erased]", [], [], "", None)
    assert row.erased_at is not None
    assert row.digest != f"{0:064d}"
    dataset.refresh_from_db()
    assert (dataset.rows, dataset.erased_rows) == (3, 1)
    assert dataset.blocked[0]["question"] == "[erased]"
    assert adapter.run is not None
    assert Run.objects.get().progress == {}
    assert before["turns"] == 2
    assert before["counts"]["quarantined items"] == 1
    told, went = before["counts"], erasure.counts
    for table in ("turns", "retrievals", "annotations", "queue items", "resolutions", "passages nobody else uses"):
        assert told[table] == went[table], table
    assert erasure.receipt["datasets"] == [{"id": dataset.pk, "name": "Dataset 1", "rows": 1, "of": 3}]
    assert [(a["name"], a["live"]) for a in erasure.receipt["adapters"]] == [("Adapter 1", True)]


def test_the_receipt_names_nobody_and_is_signed(house: House) -> None:
    say(house.bot, "a-1")
    scrub()
    erasure = erase(house, anna(), reason=f"Request 17 of {ANNA}")
    receipt = erasure.receipt
    assert is_genuine(receipt)
    assert not is_genuine({**receipt, "reason": "Another one"})
    assert erasure.sealed is None
    assert ANNA not in json.dumps(receipt)
    assert receipt["reason"] == "Request 17 of [EMAIL_1]"
    assert (receipt["asked_by"], receipt["confirmed_by"]) == ("paula", "paula")
    assert receipt["scope"] == {"kind": "user", "keyed_hash": anna().digest(house.bot)}
    assert receipt["counts"]["turns"] == 1
    actions = list(AuditEvent.objects.order_by("pk").values_list("action", flat=True))
    assert actions == ["erasure.looked", "erasure.confirmed", "erasure.done"]
    assert ANNA not in everything()


def test_a_repeated_post_does_not_bring_a_turn_back(house: House) -> None:
    item = say(house.bot, "a-1")
    scrub()
    waiting = say(house.bot, "a-2")
    erase(house, anna())
    assert not Receipt.objects.filter(client_id__in=["a-1", "a-2"]).exists()
    for posted, status in ((item, "duplicate"), (waiting, "duplicate"), ({**item, "question": "Other?"}, "conflict")):
        (result,) = receive_turns(assistant=house.bot, api_key=None, items=[posted])
        assert result.status == status
    (result,) = receive_feedback(
        assistant=house.bot, api_key=None, items=[{"turn": "a-1", "kind": "thumb", "value": 1}]
    )
    assert result.status == "invalid"
    scrub_waiting()
    assert not Turn.objects.exists()
    # Another assistant's ids are its own.
    (result,) = receive_turns(assistant=house.other, api_key=None, items=[item])
    assert result.status == "created"
    # And the person may come back with something new.
    say(house.bot, "a-9")
    scrub()
    assert Turn.objects.of(house.bot).count() == 1


def test_spool_waiting_traces_and_imports_are_looked_through(house: House, tmp_path: Path) -> None:
    def spans(trace: str, user: str) -> None:
        content = [{"trace": trace, "id": "1", "attributes": {"user.id": user, "input.value": "secret words"}}]
        payload = encrypt(json.dumps(content).encode())
        WaitingSpans.objects.create(
            assistant=house.bot, trace=trace, digest=trace, payload=payload, size=len(payload), spans=1,
            received_at=timezone.now(),
        )  # fmt: skip

    spans("a" * 32, ANNA)
    spans("b" * 32, "bob")
    assert spool.keep(house.bot, None, {"id": "s-1", "metadata": {"user": {"email": ANNA}}})
    assert spool.keep(house.bot, None, {"id": "s-2", "metadata": {"user": "bob"}})
    assert spool.keep(house.other, None, {"id": "s-3", "metadata": {"user": ANNA}})
    (tmp_path / "spool" / "x.refused").write_bytes(b"no key opens this")
    states = tmp_path / "imports"
    states.mkdir()
    (states / "one.json").write_text(
        json.dumps({"version": 1, "assistant": house.bot.pk, "units": 1, "last_id": "a-1"})
    )
    # Another assistant knows that id, and has an import whose last turn is gone: neither is the affair of this one.
    Receipt.objects.create(assistant=house.other, client_id="a-1", payload_digest="d")
    (states / "three.json").write_text(
        json.dumps({"version": 1, "assistant": house.other.pk, "units": 1, "last_id": "gone"})
    )
    say(house.bot, "a-1")
    say(house.bot, "b-1", user="bob", conversation="c-b")
    (states / "two.json").write_text(json.dumps({"version": 1, "units": 1, "last_id": "b-1"}))

    erasure = erase(house, anna())

    assert list(WaitingSpans.objects.values_list("trace", flat=True)) == ["b" * 32]
    assert sorted(path.name for path in (tmp_path / "spool").iterdir()) == ["s-2.turn", "s-3.turn", "x.refused"]
    assert sorted(path.name for path in states.iterdir()) == ["three.json", "two.json"]
    assert erasure.receipt["could_not_be_opened"] == 1
    assert erasure.counts["spooled turns on disk"] == erasure.counts["waiting spans"] == 1
    scrub()
    assert list(Turn.objects.values_list("client_id", flat=True)) == ["b-1"]


def test_a_single_turn_is_taken_out_of_the_history_of_later_ones(house: House) -> None:
    question, answer = "What about the zanzibar kettle?", "The fee of the kettle is £35, see there. [1]"
    say(house.bot, "a-1", question=question, response=answer)
    history = [
        {"role": "user", "content": "Thanks"},
        {"role": "user", "content": question},
        {"role": "assistant", "content": "The fee of the kettle is £35, see…"},
    ]
    item = {**say(house.bot, "x", conversation="else", user=None), "id": "a-2", "conversation": "c-1"}
    receive_turns(assistant=house.bot, api_key=None, items=[{**item, "history": history, "question": "And the lid?"}])
    scrub()
    later = Turn.objects.get(client_id="a-2")
    assert len(later.history) == 3
    dataset = freeze(house.bot, [later])
    vector = list(later.embedding)
    scope = Scope("turn", turns=("a-1",))
    assert survey(house.bot, scope)["datasets"][0]["rows"] == 1

    erase(house, scope)

    later.refresh_from_db()
    assert [message["content"] for message in later.history] == ["Thanks", "[erased]", "[erased]"]
    assert list(later.embedding) != vector
    assert Example.objects.get(dataset=dataset, position=0).erased_at is not None
    assert Turn.objects.count() == 2
    assert Conversation.objects.filter(external_id="c-1").exists()
    assert "zanzibar" not in everything()


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        (Scope("conversation", "c-1"), {"b-1"}),
        (Scope("search", search={"q": "kettle"}), {"a-2", "b-1"}),
        (Scope("search", search={"q": "lid", "feedback": "none"}), {"a-1", "b-1"}),
        (Scope("turn", turns=("b-1", "a-2", "nobody")), {"a-1"}),
    ],
)
def test_other_scopes(house: House, scope: Scope, left: set[str]) -> None:
    say(house.bot, "a-1", question="Where is the kettle?")
    say(house.bot, "a-2", question="Where is the lid?")
    say(house.bot, "b-1", conversation="c-2", question="Where is the meter?")
    say(house.other, "o-1", question="Where is the kettle and the lid?")
    scrub()
    erasure = erase(house, scope)
    assert erasure.state == "succeeded", erasure.error
    assert set(Turn.objects.of(house.bot).values_list("client_id", flat=True)) == left
    assert Turn.objects.of(house.other).count() == 1


@pytest.mark.parametrize("by_key", [False, True])
def test_a_user_who_is_named_by_something_like_a_key_is_found(house: House, by_key: bool) -> None:
    user = "0f8fad5bd9cb469fa16570867728950e"  # a UUID without its dashes
    say(house.bot, "a-1", user=user)
    say(house.bot, "b-1", conversation="c-2", user="somebody else")
    scrub()
    key = Turn.objects.get(client_id="a-1").metadata["user_key"]
    erasure = erase(house, Scope("user", key if by_key else user))
    assert erasure.state == "succeeded", erasure.error
    assert erasure.plan["others"] == 0
    assert set(Turn.objects.values_list("client_id", flat=True)) == {"b-1"}


@pytest.mark.parametrize(
    "scope",
    [
        Scope("nothing"),
        Scope("user", " "),
        Scope("user", "x" * 501),
        Scope("conversation", "a\x00b"),
        Scope("turn"),
        Scope("turn", turns=tuple(str(i) for i in range(1_001))),
        Scope("search"),
        Scope("search", search={"q": "", "tag": ""}),
        Scope("search", search={"colour": "red"}),
        Scope("search", search={"since": "yesterday"}),
    ],
)
def test_what_is_no_scope(scope: Scope) -> None:
    with pytest.raises(ScopeError) as told:
        scope.check()
    assert "yesterday" not in str(told.value)


def test_it_goes_on_where_it_was_killed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        say(house.bot, f"a-{i}", conversation=f"c-{i}", question=f"Where is kettle {i}?")
    scrub()
    freeze(house.bot, list(Turn.objects.order_by("client_id")))
    monkeypatch.setattr(acting, "BATCH", 2)
    real: Callable[..., Any] = acting.erase_turns
    calls: list[int] = []

    def dies(*args: Any) -> Any:
        calls.append(1)
        found = real(*args)
        if len(calls) == 2:
            raise KeyboardInterrupt  # inside the transaction of the second batch, after its deletes
        return found

    monkeypatch.setattr(acting, "erase_turns", dies)
    erasure = look(assistant=house.bot, scope=anna(), actor=house.paula)
    perform_here(erasure)
    erasure.refresh_from_db()
    erasure = confirm(erasure=erasure, actor=house.paula, reason="Request 17")
    with pytest.raises(KeyboardInterrupt):
        perform_here(erasure)
    erasure.refresh_from_db()
    # Told is exactly what is gone.
    assert Turn.objects.count() == 3
    assert erasure.counts["turns"] == 2
    assert erasure.counts["dataset rows emptied"] == 2
    assert not erasure.receipt
    assert Example.objects.exclude(erased_at=None).count() == 2

    say(house.bot, "a-8", conversation="c-0", user=None)  # comes in while it lies there
    scrub()
    assert erasure.take_back()
    perform_here(erasure)
    erasure.refresh_from_db()
    assert erasure.state == "succeeded", erasure.error
    assert not Turn.objects.exists()
    assert erasure.receipt["counts"]["turns"] == 6
    assert erasure.receipt["counts"]["dataset rows emptied"] == 5
    assert DatasetVersion.objects.get().erased_rows == 5


def test_an_act_that_failed_can_only_be_finished(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    say(house.bot, "a-1")
    scrub()
    dataset = freeze(house.bot, [Turn.objects.get()])
    train(dataset, state="running")
    Run.objects.update(heartbeat_at=timezone.now())
    monkeypatch.setattr(acting, "STOP_SECONDS", 0.0)
    monkeypatch.setattr(acting, "STOP_STEP", 0.0)
    erasure = erase(house, anna())
    assert erasure.state == "failed"
    assert "does not stop" in erasure.error
    assert Run.objects.get().cancel_requested_at is not None
    assert not Turn.objects.exists()
    assert not withdraw(erasure=erasure, actor=house.paula)
    with pytest.raises(ErasureRefused, match="confirmed already"):
        confirm(erasure=erasure, actor=house.paula, reason="Again")
    Run.objects.update(state="cancelled")
    perform_here(go_on(erasure=erasure, actor=house.paula))
    erasure.refresh_from_db()
    assert erasure.is_done
    with pytest.raises(ErasureRefused):
        go_on(erasure=erasure, actor=house.paula)


def test_a_search_that_finds_more_than_it_did_erases_nothing(house: House) -> None:
    say(house.bot, "a-1", question="Where is the kettle?")
    scrub()
    erasure = look(assistant=house.bot, scope=Scope("search", search={"q": "kettle"}), actor=house.paula)
    perform_here(erasure)
    erasure.refresh_from_db()
    say(house.bot, "a-2", question="Which kettle?")
    scrub()
    confirmed = confirm(erasure=erasure, actor=house.paula, reason="Request 17")
    perform_here(confirmed)
    confirmed.refresh_from_db()
    assert confirmed.state == "failed"
    assert "2 turns now" in confirmed.error
    assert Turn.objects.count() == 2


def test_nobody_trains_on_a_dataset_that_has_lost_rows(house: House) -> None:
    say(house.bot, "a-1")
    scrub()
    dataset = freeze(house.bot, [Turn.objects.get()])
    erase(house, anna())
    dataset.refresh_from_db()
    with pytest.raises(NotPossible, match="removed 1 of the 2 rows"):
        start_run(assistant=house.bot, dataset=dataset)


def test_a_dry_run_touches_nothing_and_is_forgotten(house: House) -> None:
    say(house.bot, "a-1")
    scrub()
    erasure = look(assistant=house.bot, scope=anna(), actor=house.paula)
    before = {model: model._default_manager.count() for model in (Turn, Passage, Receipt, Conversation)}
    perform_here(erasure)
    assert {model: model._default_manager.count() for model in before} == before
    erasure.refresh_from_db()
    with pytest.raises(ErasureRefused, match="Say why"):
        confirm(erasure=erasure, actor=house.paula, reason="  ")
    Erasure.objects.update(created_at=timezone.now() - 2 * Erasure.LOOK_IS_GOOD_FOR)
    with pytest.raises(ErasureRefused, match="older than a day"):
        confirm(erasure=erasure, actor=house.paula, reason="Request 17")
    acting.forget_old_looks(house.bot)
    assert Erasure.objects.get().sealed is None


def test_a_question_kept_in_the_playground_goes_with_its_turn(house: House) -> None:
    """With the models' answers and the pairs made of them; a draft of another turn and of another assistant stay."""
    for name in ("pg-1", "pg-2"):
        say(house.bot, name, conversation=name, user=None, question="Where is the zanzibar kettle?")
    scrub()
    adapter = make_adapter(house.bot)
    for bot in (house.bot, house.other):
        benchmark = Benchmark.objects.create(assistant=bot, name="b", content_hash="c" * 64)
        opened = ComparisonRound.objects.create(
            assistant=bot, name="r", source="evaluation", source_id=1, candidate_arm="a", baseline_arm="b", questions=3,
            differing=3, seed=1,
        )  # fmt: skip
        evaluation = Evaluation.objects.create(
            assistant=bot, adapter=adapter, benchmark=benchmark, prompt_digest=bot.prompt_digest
        )
        for place, key in enumerate(("playground-pg-1-0a1b2c3d", "playground-pg-2-0a1b2c3d", "pg-1"), start=1):
            item = BenchmarkItem.objects.create(benchmark=benchmark, key=key, question="Where?", kind="decline")
            EvaluationAnswer.objects.create(evaluation=evaluation, item=item, arm="base", condition="clean", text="So.")
            ComparisonPair.objects.create(round=opened, position=place, key=key, question="Where?")
        dataset = DatasetVersion.objects.create(
            assistant=bot, number=7, rows=4, state="succeeded", prompt_digest=bot.prompt_digest
        )
        preferred = {
            "dataset": dataset, "split": "train", "origin": "preferred", "kind": "answer", "digest": "d",
            "question": "Where is it, as the prompt says?", "rejected": "There.", "came_from": "comparison r, pair 1",
        }  # fmt: skip
        Example.objects.bulk_create(
            [
                Example(**preferred, position=0, group="comparison:r:playground-pg-1-0a1b2c3d"),
                Example(**preferred, position=1, group="comparison:r:playground-pg-2-0a1b2c3d"),
                Example(**{**preferred, "question": "Where?"}, position=2, group="comparison:gone"),
                Example(**{**preferred, "question": "Where?", "origin": "good"}, position=3, group="else"),
            ]
        )
    scope = Scope("turn", turns=("pg-1",))
    looked = survey(house.bot, scope)
    assert looked["counts"]["held-out questions"] == 1
    assert looked["counts"]["dataset rows emptied"] == 2
    assert [(held["name"], held["rows"]) for held in looked["datasets"]] == [(str(DatasetVersion(number=7)), 2)]

    erasure = erase(house, scope)

    assert erasure.state == "succeeded", erasure.error
    assert (erasure.counts["held-out questions"], erasure.counts["pairs of held-out questions"]) == (1, 1)
    left = BenchmarkItem.objects.filter(benchmark__assistant=house.bot).values_list("key", flat=True)
    assert set(left) == {"playground-pg-2-0a1b2c3d", "pg-1"}
    assert EvaluationAnswer.objects.filter(item__benchmark__assistant=house.bot).count() == 2
    assert ComparisonPair.objects.filter(round__assistant=house.bot).count() == 2
    emptied = Example.objects.exclude(erased_at=None).order_by("position")
    assert [(row.dataset.assistant, row.position, row.rejected) for row in emptied] == [
        (house.bot, 0, ""), (house.bot, 2, ""),
    ]  # fmt: skip
    assert erasure.counts["dataset rows emptied"] == 2
    assert erasure.receipt["datasets"][0]["rows"] == 2
    assert BenchmarkItem.objects.filter(benchmark__assistant=house.other).count() == 3


def test_maps_learned_from_its_labels_and_files_at_a_provider_are_named(house: House) -> None:
    say(house.bot, "t-1", conversation="c-1", user=None, question="Where is the zanzibar kettle?")
    scrub()
    turn = Turn.objects.get(client_id="t-1")
    early = QueryMap.objects.create(assistant=house.bot, number=1, rank=1, down=b"", up=b"", embedder="e")
    made = Annotation.objects.create(turn=turn, annotator=make_user("marker"), verdict="good")
    ContextMark.objects.create(annotation=made, retrieval=turn.retrievals.first(), relevance="relevant")
    QueryMap.objects.create(assistant=house.bot, number=2, rank=1, down=b"", up=b"", embedder="e")
    QueryMap.objects.create(assistant=house.other, number=3, rank=1, down=b"", up=b"", embedder="e")
    dataset = DatasetVersion.objects.create(
        assistant=house.bot, number=1, rows=1, state="succeeded", prompt_digest=house.bot.prompt_digest
    )
    Example.objects.create(
        dataset=dataset, position=0, split="train", origin="good", kind="answer", group="g", digest="d",
        question=turn.question, turn=turn,
    )  # fmt: skip
    Run.objects.create(
        assistant=house.bot, dataset=dataset, base_model="b", state="failed", prompt_digest=dataset.prompt_digest,
        remote={"training_file": "file-1", "validation_file": "file-2", "validation_file_deleted": True},
    )  # fmt: skip
    scope = Scope("turn", turns=("t-1",))
    looked = survey(house.bot, scope)
    assert [found["name"] for found in looked["maps"]] == ["Map 2"]
    assert looked["counts"]["files at providers"] == 1

    receipt = erase(house, scope).receipt

    assert [found["name"] for found in receipt["maps"]] == ["Map 2"]
    assert [left["files"] for left in receipt["at_providers"]] == [["file-1"]]
    assert QueryMap.objects.filter(pk=early.pk).exists()
    page = enter(house.paula).get(reverse("admin:serving_erasure_change", args=[receipt["erasure"]])).content.decode()
    assert "Map 2, learned" in page
    assert "file-1" in page
