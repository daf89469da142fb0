"""Questions written from documents: by the tiny model (which cannot), by one that asks well, and by rule."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from assistants.background import BackgroundWork, launch
from assistants.models import Assistant
from generation.engines import GenerationRequest, GenerationResult
from generation.overlap import STOP_WORDS, words
from generation.prompts import SYSTEM_QUESTION, split_sentences
from knowledge.models import Chunk
from knowledge.retrieval import retrieve
from knowledge.services import load_document
from tests.factories import make_assistant, make_benchmark, make_turn
from tests.tiny_model import shared_base
from training.data.candidates import Candidate, from_item
from training.models import BenchmarkItem, Synthesis, SyntheticItem
from training.services import NotPossible, build_dataset, go_on_with_synthesis
from training.synthesis import generate
from training.synthesis.sentences import Material, sources

SENTENCES = {
    "leaving.md": [
        "A fixed plan has an exit fee of £35 for each fuel.",
        "No exit fee is due in the last weeks of a fixed plan.",
        "The exit fee appears on your final statement.",
    ],
    "meters.md": [
        "Read the meter on the first day of every month.",
        "Send only the figures that stand before the decimal point.",
        "A blank display usually means that the battery is empty.",
    ],
    "moving.md": [
        "Tell us ten days before you move to another home.",
        "Your plan can move with you to the new address.",
        "We send the final statement within three weeks of your move.",
    ],
}
BY_MODEL = {"writer": "base", "mix": {"single": 1.0}, "style": "plain", "missing_share": 0.0}
TARIFFS = """# Tariffs

Electricity on Owl costs 30p per kWh. Electricity on Drift costs 27p per kWh. Gas on Owl costs 8p per kWh.
The standing charge on Owl is 50p a day. The standing charge on Drift is 54p a day.
The exit fee on Drift is £40 per fuel.

# Visits

A gas safety check costs £72. A gas safety check takes 40 minutes. A boiler repair costs £95.
The yearly boiler service takes 90 minutes. Moving a meter costs £145. The key card is posted within 3 working days.

# Papers

The refund of a deposit is paid within 10 working days. The paper bill is printed every 3 months.
The guarantee of the Tern is 10 years. The monthly report is sent within 5 working days.
"""


@pytest.fixture
def assistant(db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Assistant:
    monkeypatch.setattr(generate, "MAX_QUESTION_TOKENS", 12)  # a random model never ends by itself
    settings.RATCHET_BASE_MODEL_PATH = str(shared_base())
    assistant = make_assistant()
    for path, listed in SENTENCES.items():
        text = f"# {path.removesuffix('.md').title()}\n\n" + "\n\n".join(listed)
        load_document(assistant=assistant, path=path, data=text.encode())
    load_document(
        assistant=assistant,
        path="old.md",
        data=b"# Old\n\nSuperseded by leaving.md.\n\nThe exit fee of old plans was high.",
    )
    return assistant


@pytest.fixture
def no_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sentence goes to the model."""
    monkeypatch.setattr(Material, "asked", lambda self, source: [])


@pytest.fixture
def tariffs(db: None, settings: Any) -> Assistant:
    """Documents from which every form can be built; there is no model, and by rule none is needed."""
    settings.RATCHET_BASE_MODEL_PATH = "/nonexistent/base"
    assistant = make_assistant()
    for part in TARIFFS.split("# ")[1:]:
        name = part.split("\n", 1)[0]
        load_document(assistant=assistant, path=f"{name.lower()}.md", data=f"# {part}".encode())
    return assistant


class Writer:
    """Asks for the marked sentence in words of its own: what a trained base does, without its weights."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.asked: list[str] = []
        self.stop_after = stop_after

    def generate(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        if len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        return [self._one(request) for request in requests]

    def _one(self, request: GenerationRequest) -> GenerationResult:
        assert request.messages[0]["content"] == SYSTEM_QUESTION
        body = request.messages[1]["content"]
        number = body.rpartition("Sentence: ")[2]
        (line,) = [line for line in body.splitlines() if line.startswith(f"{number} ")]
        sentence = line.removeprefix(f"{number} ").rstrip(".")
        self.asked.append(sentence)
        told = dict.fromkeys(w for w in words(sentence) if w not in STOP_WORDS and w.isalpha())
        return GenerationResult(
            text=f"What about {' '.join(list(told)[::-1])}?", prompt_tokens=5, completion_tokens=5,
            finish_reason="stop", seconds=0.0,
        )  # fmt: skip


def start(assistant: Assistant, wanted: int = 5, **fields: Any) -> Synthesis:
    return Synthesis.objects.create(assistant=assistant, wanted=wanted, **{"plan": BY_MODEL, **fields})


def run(synthesis: Synthesis) -> Synthesis:
    launch(synthesis, foreground=True)
    synthesis.refresh_from_db()
    return synthesis


def adds_up(synthesis: Synthesis) -> bool:
    funnel = synthesis.funnel
    return bool(
        funnel["written"] == synthesis.items.count() == funnel["kept"] + sum(funnel["dropped"].values())
        and funnel["kept"] == synthesis.items.filter(dropped_by="").count()
        and sum(form["kept"] for form in funnel["forms"].values()) == funnel["kept"]
    )


def test_a_model_that_cannot_write_is_stopped_and_its_questions_are_dropped(
    assistant: Assistant, no_rules: None
) -> None:
    synthesis = run(start(assistant))
    assert (synthesis.state, synthesis.error) == ("succeeded", "")
    assert adds_up(synthesis)
    assert synthesis.funnel["kept"] <= 5
    assert sum(synthesis.funnel["dropped"].values()) >= 4
    assert synthesis.items.count() <= 9  # each sentence once
    assert synthesis.progress["stage"] == "writing questions"
    again = run(start(assistant))
    assert list(again.items.values_list("question", flat=True)) == list(
        synthesis.items.values_list("question", flat=True)
    )


def test_good_questions_are_kept_with_what_production_retrieves(
    assistant: Assistant, no_rules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer()
    monkeypatch.setattr(generate, "bulk_engine", lambda: writer)
    synthesis = run(start(assistant, wanted=100))
    assert (synthesis.state, synthesis.error) == ("succeeded", "")
    assert "nothing more to ask" in synthesis.stopped_by
    assert adds_up(synthesis)
    assert synthesis.funnel["kept"] >= 6
    assert len(writer.asked) == 9  # all sentences of documents in force, each once; none of the superseded one
    for item in synthesis.items.filter(dropped_by=""):
        rank, sentence = item.contexts["gold"]
        passage = item.contexts["passages"][rank - 1]
        assert split_sentences(passage["text"])[sentence] == item.response
        assert item.contexts["gold"] in [row[:2] for row in item.contexts["evidence"]]
        assert passage["source"] == item.source
        assert item.response in SENTENCES[item.source]
        assert item.lineage["writer"] == "base"
        assert item.lineage["tokens"] == 10
        assert len(item.lineage["prompt"]) == 16
        assert item.lineage["chunks"] == [[item.chunk_id, item.source, item.sentence]]
    assert (
        synthesis.items.exclude(dropped_by="").filter(contexts={}).count()
        == synthesis.funnel["written"] - (synthesis.funnel["kept"])
    )


def test_no_more_are_kept_than_wanted(assistant: Assistant, no_rules: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "bulk_engine", Writer)
    synthesis = run(start(assistant, wanted=3))
    assert (synthesis.funnel["kept"], adds_up(synthesis)) == (3, True)
    assert synthesis.progress["done"] == synthesis.progress["total"] == 3
    assert len({item.source for item in synthesis.items.filter(dropped_by="")}) > 1  # documents take turns


def test_killed_it_goes_on_where_it_stopped_and_doubles_nothing(
    assistant: Assistant, no_rules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "BATCH", 2)
    whole = Writer()
    monkeypatch.setattr(generate, "bulk_engine", lambda: whole)
    expected = run(start(assistant, wanted=100))

    writer = Writer(stop_after=4)
    monkeypatch.setattr(generate, "bulk_engine", lambda: writer)
    synthesis = start(assistant, wanted=100)
    with pytest.raises(KeyboardInterrupt):
        launch(synthesis, foreground=True)
    synthesis.refresh_from_db()
    assert (synthesis.state, synthesis.items.count(), synthesis.funnel) == ("running", 4, {})
    Synthesis.objects.filter(pk=synthesis.pk).update(state=BackgroundWork.State.QUEUED, token=None)
    writer.stop_after = 10**9
    synthesis.refresh_from_db()
    run(synthesis)
    assert sorted(writer.asked) == sorted(whole.asked)  # nothing was asked for twice
    assert (synthesis.funnel, adds_up(synthesis)) == (expected.funnel, True)
    kept = ("source", "sentence", "question", "response", "dropped_by", "task")
    assert list(synthesis.items.values_list(*kept)) == list(expected.items.values_list(*kept))


def test_a_question_that_is_there_already_is_dropped(
    assistant: Assistant, no_rules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Parrot(Writer):
        def _one(self, request: GenerationRequest) -> GenerationResult:
            made = super()._one(request)
            return GenerationResult(
                text="What does leaving a fixed plan with an exit fee cost?", prompt_tokens=made.prompt_tokens,
                completion_tokens=1, finish_reason="stop", seconds=0.0,
            )  # fmt: skip

    monkeypatch.setattr(generate, "bulk_engine", Parrot)
    monkeypatch.setattr("training.synthesis.judging.why_unnatural", lambda *args, **kwargs: "")
    synthesis = run(start(assistant, wanted=100))
    assert synthesis.funnel["kept"] == 1
    assert synthesis.funnel["dropped"]["asked already"] >= 1
    assert adds_up(synthesis)


def test_a_cancelled_one_keeps_what_it_has(
    assistant: Assistant, no_rules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "BATCH", 2)
    synthesis = start(assistant, wanted=100)

    class Cancelling(Writer):
        def generate(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
            Synthesis.objects.get(pk=synthesis.pk).request_cancel()
            return super().generate(requests)

    monkeypatch.setattr(generate, "bulk_engine", Cancelling)
    assert run(synthesis).state == "cancelled"
    assert synthesis.items.count() == 2


def test_sources_depend_on_the_seed_alone_and_take_turns(assistant: Assistant) -> None:
    def order(seed: int) -> list[tuple[str, int]]:
        return [(s.path, s.index) for s in sources(assistant, seed)]

    assert order(1) == order(1)
    assert sorted(order(1)) == sorted(order(2))
    assert order(1) != order(2)
    assert {path for path, _ in order(1)[:3]} == set(SENTENCES)
    assert list(sources(make_assistant(), 1)) == []


def test_the_least_covered_chunk_comes_first(tariffs: Assistant) -> None:
    material = Material(tariffs, 1)
    assert len(material.chunks) >= 3
    one, *others = list(material.chunks)
    order = [s.chunk.pk for s in material.least_covered({one: 1}, {one: 1}, (), by_rule_only=False)]
    assert order[-1] == one
    assert sorted(order) == sorted(material.chunks)  # one sentence of each
    order = [s.chunk.pk for s in material.least_covered({}, {others[0]: 3}, (), by_rule_only=False)]
    assert order[-1] == others[0]


def test_a_question_says_of_which_of_several_things_it_asks(assistant: Assistant) -> None:
    text = (
        "# Prices\n\nThe standing charge on Drift is 54p a day for power. The standing charge on Drift is 31p a day "
        "for gas.\nThe exit fee on Owl is £20 for both. Power on Ember Fix 12 costs 27p. Power on Ember Fix 24 costs "
        "28p.\n"
    )
    load_document(assistant=assistant, path="prices.md", data=text.encode())
    material = Material(assistant, 1)
    by_text = {source.sentence: source for source in material.sources}
    gas = by_text["The standing charge on Drift is 31p a day for gas."]
    assert material.is_one_of_several(gas, "What is the standing charge on Drift?")
    assert not material.is_one_of_several(gas, "What is the standing charge on Drift for gas?")
    assert not material.is_one_of_several(by_text["The exit fee on Owl is £20 for both."], "What is the exit fee?")
    ember = by_text["Power on Ember Fix 12 costs 27p."]
    assert not material.is_one_of_several(ember, "What does power on Ember Fix 12 cost?")
    assert material.is_one_of_several(ember, "What does power on Ember Fix cost?")


def test_without_a_base_model_it_fails_with_a_sentence(assistant: Assistant, no_rules: None, settings: Any) -> None:
    settings.RATCHET_BASE_MODEL_PATH = "/nonexistent/base"
    synthesis = run(start(assistant))
    assert synthesis.state == "failed"
    assert "missing" in synthesis.error
    assert SyntheticItem.objects.count() == 0


# --- By rule, every form ----------------------------------------------------------------------------------------------


def test_every_form_is_built_without_a_model(tariffs: Assistant) -> None:
    mix = {"single": 0.3, "several": 0.1, "follow_up": 0.15, "near_miss": 0.1, "out_of_scope": 0.1}
    plan = {"mix": {**mix, "counterfactual": 0.15}, "style": "plain"}
    compared = run(start(tariffs, wanted=1, plan={"mix": {"comparison": 1.0}, "style": "plain"}))
    synthesis = run(start(tariffs, wanted=20, plan=plan))
    assert (synthesis.state, synthesis.error) == ("succeeded", "")
    assert adds_up(synthesis)
    kept = [*compared.items.filter(dropped_by=""), *synthesis.items.filter(dropped_by="")]
    forms = Counter(item.form for item in kept)
    assert {"single", "follow_up", "comparison", "near_miss", "out_of_scope", "counterfactual"} <= set(forms), forms
    for item in kept:
        row = from_item(item, tariffs)  # what a dataset makes of it
        assert isinstance(row, Candidate)
        by_rank = {c["rank"]: split_sentences(c["text"]) for c in row.contexts}
        offered = [tuple(e[:2]) for e in row.evidence]
        if item.form in ("near_miss", "out_of_scope", "missing"):
            assert (item.kind, item.response) == ("decline", tariffs.decline_sentence)
            assert [s["refs"] for s in row.sentences] == [[]]
            continue
        assert item.kind == "answer"
        for sentence in row.sentences:
            for rank, index in sentence["refs"]:
                assert by_rank[rank][index] == sentence["text"]
                assert (rank, index) in offered
    (follow_up, *_) = [item for item in kept if item.form == "follow_up"]
    assert [m["role"] for m in follow_up.history] == ["user", "assistant"]
    served = retrieve(assistant=tariffs, question=follow_up.question, history=follow_up.history)
    assert [p["text"] for p in follow_up.contexts["passages"]] == [p.text for p in served.passages]
    assert follow_up.contexts["evidence"] == [[e.rank, e.sentence, e.similarity] for e in served.evidence]
    (comparison, *_) = [item for item in kept if item.form == "comparison"]
    assert len(comparison.answer) == 2


def test_a_counterfactual_changes_passage_and_answer_alike(tariffs: Assistant) -> None:
    synthesis = run(start(tariffs, wanted=3, plan={"mix": {"counterfactual": 1.0}, "style": "plain"}))
    kept = list(synthesis.items.filter(dropped_by="", form="counterfactual"))
    assert kept
    for item in kept:
        old, new = item.lineage["edit"]
        original = split_sentences(Chunk.objects.get(pk=item.chunk_id).text)[item.sentence]
        assert item.response == original.replace(old, new, 1) != original
        told = [s for p in item.contexts["passages"] for s in split_sentences(p["text"])]
        assert item.response in told
        assert original not in told  # nothing that is offered says the old value


def test_a_near_miss_asks_for_what_no_sentence_gives(tariffs: Assistant) -> None:
    synthesis = run(start(tariffs, wanted=4, plan={"mix": {"near_miss": 1.0}, "style": "plain"}))
    asked = set(synthesis.items.filter(dropped_by="").values_list("question", flat=True))
    assert asked & {
        "What is the exit fee on Owl?", "How much is the exit fee on Owl?", "How long does a boiler repair take?",
        "How much does the yearly boiler service cost?", "How much does gas on Drift cost?",
        "How long does moving a meter take?",
    }  # fmt: skip
    assert "How long does a gas safety check take?" not in asked


def test_what_retrieval_does_not_find_becomes_a_missing_case(
    tariffs: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.synthesis import found

    real = found.retrieve

    def blind(**kwargs: Any) -> Any:
        result = real(**kwargs)
        result.passages[:] = [p for p in result.passages if "Visits" not in p.title]
        ranks = {p.rank for p in result.passages}
        result.evidence[:] = [e for e in result.evidence if e.rank in ranks]
        return result

    monkeypatch.setattr(found, "retrieve", blind)
    plan = {"mix": {"single": 1.0}, "style": "plain", "missing_share": 0.2}
    synthesis = run(start(tariffs, wanted=10, plan=plan))
    missing = list(synthesis.items.filter(dropped_by="", form="missing"))
    assert 1 <= len(missing) <= 2  # no more than the share
    for item in missing:
        assert (item.kind, item.source) == ("decline", "visits.md")
        assert item.lineage["expected"] not in str(item.contexts)
    assert synthesis.funnel["dropped"]["not retrieved"] >= 1


def test_held_out_questions_and_personal_data_are_dropped(tariffs: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    BenchmarkItem.objects.create(
        benchmark=make_benchmark(tariffs), key="1", question="How much does a gas safety check cost?", kind="answer"
    )
    plan = {"mix": {"single": 1.0}, "style": "plain"}
    synthesis = run(start(tariffs, wanted=50, plan=plan))
    dropped = synthesis.items.get(task__startswith="single", question="How much does a gas safety check cost?")
    assert (dropped.dropped_by, "held-out" in dropped.note) == ("held out", True)

    real = Material.one_asked

    def telling(self: Material, source: Any) -> Any:
        from dataclasses import replace

        asked = real(self, source)
        return asked and replace(asked, question=f"{asked.question[:-1]} for 4111 1111 1111 1111?")

    monkeypatch.setattr(Material, "one_asked", telling)
    synthesis = run(start(tariffs, wanted=50, plan=plan))
    private = list(synthesis.items.filter(dropped_by="personal data"))
    assert private
    for item in private:
        assert (item.question, item.response, item.history) == ("", "", [])
        assert "CREDIT_CARD" in item.note
    assert not synthesis.items.filter(question__contains="4111").exists()


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ({"max_items": 4}, "4 questions were written"),
        ({"max_tokens": 30, "writer": "base"}, "30 tokens were used"),
    ],
)
def test_a_budget_stops_it_with_a_sentence(
    assistant: Assistant, no_rules: None, monkeypatch: pytest.MonkeyPatch, plan: dict[str, Any], why: str
) -> None:
    monkeypatch.setattr(generate, "BATCH", 1)
    monkeypatch.setattr(generate, "bulk_engine", Writer)
    synthesis = run(start(assistant, wanted=50, plan={**BY_MODEL, **plan}))
    assert synthesis.state == "succeeded"
    assert why in synthesis.stopped_by
    assert adds_up(synthesis)


def test_it_sounds_as_people_ask_here(tariffs: Assistant) -> None:
    for number in range(60):
        make_turn(tariffs, question=f"what about fee number {number} on my plan", contexts=())
    synthesis = run(start(tariffs, wanted=6, plan={"mix": {"single": 1.0}}))
    kept = list(synthesis.items.filter(dropped_by=""))
    assert kept
    for item in kept:
        assert item.question == item.question.lower()
        assert "?" not in item.question
        assert item.lineage["style"] == "lower unmarked"


def test_a_wrong_plan_is_said(tariffs: Assistant) -> None:
    for plan, why in (
        ({"writer": "x"}, "writer is one of"), ({"mix": {"x": 1}}, "no kind"), ({"nonsense": 1}, "no field"),
        ({"max_attempts": 9}, "between 1 and 5"), ({"personas": "a"}, "wrong type"), ({"mix": {}}, "above 0"),
    ):  # fmt: skip
        synthesis = run(start(tariffs, plan=plan))
        assert (synthesis.state, why in synthesis.error) == ("failed", True), synthesis.error


def test_the_command_writes_and_prints(tariffs: Assistant, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"mix": {"single": 1.0}}')
    call_command("write_questions", tariffs.slug, wanted=3, style="plain", plan=plan, show=True)
    *items, funnel = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(items) == funnel["kept"] == 3
    assert {item["form"] for item in items} == {"single"}
    assert Synthesis.objects.get(pk=funnel["synthesis"]).plan["style"] == "plain"
    for wrong, why in (("[]", "no JSON object"), ("{", "cannot be read"), ('{"x": 1}', "no field")):
        plan.write_text(wrong)
        with pytest.raises(CommandError, match=why):
            call_command("write_questions", tariffs.slug, plan=plan)
    with pytest.raises(CommandError, match="no such assistant"):
        call_command("write_questions", "nobody")
    with pytest.raises(CommandError, match="Between 1 and"):
        call_command("write_questions", tariffs.slug, wanted=0)


def test_a_dataset_takes_every_kind(tariffs: Assistant) -> None:
    mix = {"single": 0.4, "follow_up": 0.2, "near_miss": 0.1, "out_of_scope": 0.1, "counterfactual": 0.2}
    synthesis = run(start(tariffs, wanted=18, plan={"mix": mix, "style": "plain"}))
    dataset = build_dataset(assistant=tariffs, benchmark=None, synthesis=synthesis)
    launch(dataset, foreground=True)
    dataset.refresh_from_db()
    assert (dataset.state, dataset.error) == ("succeeded", "")
    assert dataset.mix["synthetic"]["answer"] >= 5
    assert dataset.mix["synthetic"]["decline"] >= 1
    (follow_up, *_) = [row for row in dataset.examples.all() if row.history]
    assert [message["role"] for message in follow_up.history] == ["user", "assistant"]
    Synthesis.objects.filter(pk=synthesis.pk).update(state="cancelled")
    with pytest.raises(NotPossible, match="A dataset was made"):
        go_on_with_synthesis(synthesis=synthesis, actor=None)
