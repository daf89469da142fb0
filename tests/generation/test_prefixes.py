"""The system message is read once for each adapter, and nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from generation import prefixes
from generation.engines import GenerationRequest
from generation.fused import FusedDecoder, Piece
from generation.local import TransformersEngine
from generation.prefixes import MAX_KEPT_TOKENS, Prefixes
from generation.ragged import AT_ONCE

SYSTEM = "Answer from the passages and cite them. If they do not say, reply: I cannot find that in our documents."


def ask(words: int, adapter: str | None = None, system: str = SYSTEM, **more: Any) -> GenerationRequest:
    content = f"Question: {'What is the exit fee? ' * words}"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": content}]
    return GenerationRequest(messages=messages, **{"adapter": adapter, "max_new_tokens": 30, **more})  # type: ignore[arg-type]


@pytest.fixture(params=[True, False], ids=["fused", "plain"])
def engine(models: Path, request: pytest.FixtureRequest) -> TransformersEngine:
    made = TransformersEngine(models / "base", cut_loops=False, fused=request.param)
    assert (made._adapters.fused is not None) == request.param
    for name in ("one", "two"):
        made.load_adapter(name, models / name)
    return made


def without(engine: TransformersEngine, requests: list[GenerationRequest]) -> list[str]:
    kept, engine.prefixes = engine.prefixes, None  # type: ignore[assignment]
    texts = [result.text for result in engine.generate(requests)]
    engine.prefixes = kept
    return texts


def test_answers_are_the_same_with_what_was_kept(engine: TransformersEngine) -> None:
    requests = [ask(i % 5 + 1, (None, "one", "two")[i % 3]) for i in range(9)]
    expected = without(engine, requests)
    assert [result.text for result in engine.generate(requests)] == expected
    # Three were read; rows that are read one by one find those before them.
    first = engine.prefixes.reused
    assert first == (6 if engine._adapters.fused else 0)
    assert [result.text for result in engine.generate(requests)] == expected
    assert engine.prefixes.reused == first + 9
    assert [engine.generate([request])[0].text for request in requests] == expected
    assert engine.prefixes.reused == first + 18


def test_houses_are_not_mixed_up(engine: TransformersEngine) -> None:
    other = "You are the help of a water company. Be brief, and answer from the passages alone, in one sentence please."
    requests = [ask(2), ask(2, system=other), ask(3, "one"), ask(3, "one", system=other)]
    expected = without(engine, requests)
    assert [engine.generate([request])[0].text for request in requests] == expected
    assert [result.text for result in engine.generate(requests)] == expected
    assert len(set(expected)) == 4


def test_a_prompt_without_a_system_message_or_with_a_short_one_is_read_whole(engine: TransformersEngine) -> None:
    plain = GenerationRequest(messages=[{"role": "user", "content": "Question: fee?"}], max_new_tokens=5)
    for request in (plain, ask(1, system="Be brief.")):
        for _ in range(2):
            engine.generate([request])
    assert engine.prefixes.reused == 0


def test_a_long_one_is_read_in_parts(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any prompt: what lies between two products of one pass takes memory for each of its tokens."""
    engine = TransformersEngine(models / "base", cut_loops=False)
    request = ask(2, system=SYSTEM * 40)
    assert AT_ONCE < engine.row(request).shared < engine.context - 60
    (expected,) = without(engine, [request])
    lengths: list[int] = []
    once = FusedDecoder.next_tokens

    def noting(decoder: FusedDecoder, pieces: Sequence[Piece]) -> list[list[int]]:
        lengths.extend(len(piece.tokens) for piece in pieces)
        return once(decoder, pieces)

    monkeypatch.setattr(FusedDecoder, "next_tokens", noting)
    assert [engine.generate([request])[0].text for _ in range(2)] == [expected, expected]
    assert engine.prefixes.reused == 1
    assert max(lengths) == AT_ONCE


def test_an_adapter_that_goes_takes_its_beginnings_along(engine: TransformersEngine, models: Path) -> None:
    said = engine.generate([ask(2, "one")])[0].text
    engine.unload_adapter("one")
    engine.load_adapter("one", models / "two")  # another voice under that name
    assert engine.generate([ask(2, "one")])[0].text == engine.generate([ask(2, "two")])[0].text != said


def test_the_least_used_is_forgotten() -> None:
    kept = Prefixes()
    tokens = tuple(range(MAX_KEPT_TOKENS // 2))
    kept.put((None, tokens), [])
    kept.put(("a", tokens), [])
    assert kept.get((None, tokens)) is not None
    kept.put(("b", tokens), [])
    assert kept.get(("a", tokens)) is None
    assert kept.get((None, tokens)) is not None
    kept.forget("b")
    assert kept.get(("b", tokens)) is None


@pytest.mark.parametrize("layers", [torch.zeros(2, 2, 1, 25, 3), [(torch.zeros(75), torch.zeros(75))] * 2])
def test_a_large_model_keeps_as_much_as_there_is_room_for(layers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "MAX_KEPT_BYTES", 2500)  # two of 1,200
    kept, tokens = Prefixes(), tuple(range(25))
    for name in ("a", "b", "c", "d"):
        kept.put((name, tokens), layers)
    assert [name for name in "abcd" if kept.get((name, tokens)) is not None] == ["c", "d"]
    kept.forget("c")
    kept.put(("e", tokens), layers)
    assert [name for name in "abcde" if kept.get((name, tokens)) is not None] == ["d", "e"]


def test_one_that_has_no_room_at_all_is_read_for_each_question(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four thousand tokens of a model like Qwen3-0.6B are 0.9 GB."""
    monkeypatch.setattr(prefixes, "MAX_KEPT_BYTES", 100)
    requests = [ask(2), ask(3, "one")]
    expected = without(engine, requests)
    for _ in range(2):
        assert [engine.generate([request])[0].text for request in requests] == expected
    assert [result.text for result in engine.generate([*requests, *requests])] == expected * 2
    assert (engine.prefixes.reused, engine.prefixes._bytes) == (0, 0)
