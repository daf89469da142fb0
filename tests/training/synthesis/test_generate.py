"""Questions written from documents: by the tiny model (which cannot), and by one that asks well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from assistants.background import BackgroundWork, launch
from assistants.models import Assistant
from generation.engines import GenerationRequest, GenerationResult
from generation.prompts import SYSTEM_QUESTION, split_sentences
from knowledge.services import load_document
from tests.factories import make_assistant
from tests.tiny_model import shared_base
from training.models import Synthesis, SyntheticItem
from training.synthesis import generate
from training.synthesis.sentences import sources

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
        words = [w for w in sentence.split() if not any(c.isdigit() for c in w)]
        return GenerationResult(
            text=f"What about {' '.join(words[::-1])}?", prompt_tokens=1, completion_tokens=1, finish_reason="stop",
            seconds=0.0,
        )  # fmt: skip


def start(assistant: Assistant, wanted: int = 5, **fields: Any) -> Synthesis:
    return Synthesis.objects.create(assistant=assistant, wanted=wanted, **fields)


def run(synthesis: Synthesis) -> Synthesis:
    launch(synthesis, foreground=True)
    synthesis.refresh_from_db()
    return synthesis


def adds_up(synthesis: Synthesis) -> bool:
    funnel = synthesis.funnel
    return bool(
        funnel["written"] == synthesis.items.count() == funnel["kept"] + sum(funnel["dropped"].values())
        and funnel["kept"] == synthesis.items.filter(dropped_by="").count()
    )


def test_a_model_that_cannot_write_is_stopped_and_its_questions_are_dropped(assistant: Assistant) -> None:
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
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer()
    monkeypatch.setattr(generate, "bulk_engine", lambda: writer)
    synthesis = run(start(assistant, wanted=100))
    assert (synthesis.state, synthesis.error) == ("succeeded", "")
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
    assert (
        synthesis.items.exclude(dropped_by="").filter(contexts={}).count()
        == synthesis.funnel["written"] - (synthesis.funnel["kept"])
    )


def test_no_more_are_kept_than_wanted(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "bulk_engine", Writer)
    synthesis = run(start(assistant, wanted=3))
    assert (synthesis.funnel["kept"], adds_up(synthesis)) == (3, True)
    assert synthesis.progress["done"] == synthesis.progress["total"] == 3
    assert len({item.source for item in synthesis.items.filter(dropped_by="")}) > 1  # documents take turns


def test_killed_it_goes_on_where_it_stopped_and_doubles_nothing(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
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
    kept = ("source", "sentence", "question", "response", "dropped_by")
    assert list(synthesis.items.values_list(*kept)) == list(expected.items.values_list(*kept))


def test_a_question_that_is_there_already_is_dropped(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    class Parrot(Writer):
        def _one(self, request: GenerationRequest) -> GenerationResult:
            made = super()._one(request)
            return GenerationResult(
                text="What does leaving a fixed plan with an exit fee cost?", prompt_tokens=made.prompt_tokens,
                completion_tokens=1, finish_reason="stop", seconds=0.0,
            )  # fmt: skip

    monkeypatch.setattr(generate, "bulk_engine", Parrot)
    synthesis = run(start(assistant, wanted=100))
    assert synthesis.funnel["kept"] == 1
    assert synthesis.funnel["dropped"]["asked already"] >= 1
    assert adds_up(synthesis)


def test_a_cancelled_one_keeps_what_it_has(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_without_a_base_model_it_fails_with_a_sentence(assistant: Assistant, settings: Any) -> None:
    settings.RATCHET_BASE_MODEL_PATH = "/nonexistent/base"
    synthesis = run(start(assistant))
    assert synthesis.state == "failed"
    assert "missing" in synthesis.error
    assert SyntheticItem.objects.count() == 0
