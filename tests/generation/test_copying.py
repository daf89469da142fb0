"""Guessed tokens change how long an answer takes, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from generation.copying import LONGEST_GUESS, Copier
from generation.decoding import Row
from generation.engines import GenerationRequest
from generation.local import TransformersEngine
from generation.padded import PaddedBatch


def test_a_pointer_that_stands_once_says_where_to_go_on() -> None:
    copier = Copier([90, 1, 2, 3, 4, 5, 91, 1, 2, 7, 8, 9, 1])
    assert copier.guess([91], 9) == [1, 2, 7, 8]
    copier.learn(4, 4)
    assert copier.guess([91, 1, 2, 7, 8, 9], 9) == [1]  # from where the copying stopped
    assert copier.guess([1], 9) == []  # stands there three times: a guess would be a bet
    assert copier.guess([50, 3], 4) == [4, 5, 91, 1]  # once in the prompt
    assert copier.guess([1, 2], 2) == [3, 4]
    assert copier.guess([60], 9) == []


def test_wrong_guesses_make_the_next_ones_shorter_and_right_ones_longer() -> None:
    copier = Copier(list(range(100)))
    for width, right in ((4, 4), (8, 8), (LONGEST_GUESS, 1), (2, 2), (4, 0), (2, 2)):
        guess = copier.guess([20], 50)
        assert len(guess) == width
        copier.learn(len(guess), right)
        copier._at = 0


def test_a_copy_that_runs_to_the_end_of_the_prompt_begins_anew() -> None:
    copier = Copier([1, 2, 3])
    assert copier.guess([1], 10) == [2, 3]
    copier.learn(2, 2)
    assert copier.guess([1, 2, 3, 4], 10) == []


def ask(words: int, adapter: str | None = None, **more: Any) -> GenerationRequest:
    content = f"Question: {'What is the exit fee? ' * words}"
    return GenerationRequest(
        messages=[{"role": "user", "content": content}], **{"adapter": adapter, "max_new_tokens": 40, **more}
    )


@pytest.fixture(scope="module")
def engines(models: Path) -> tuple[TransformersEngine, TransformersEngine]:
    """One that guesses and one that does not."""
    pair = tuple(TransformersEngine(models / "base", cut_loops=False, copies=copies) for copies in (True, False))
    for engine in pair:
        for name in ("one", "two"):
            engine.load_adapter(name, models / name)
    return pair  # type: ignore[return-value]


def test_mixed_batches_say_the_same_with_and_without(
    engines: tuple[TransformersEngine, TransformersEngine],
) -> None:
    guessing, plain = engines
    requests = [ask(i % 7 + 1, (None, "one", "two")[i % 3], max_new_tokens=10 + 7 * i) for i in range(12)]
    for group in (requests, requests[:1], requests[3:5]):
        found, expected = guessing.generate(group), plain.generate(group)
        assert [r.text for r in found] == [r.text for r in expected]
        assert [r.completion_tokens for r in found] == [r.completion_tokens for r in expected]
        assert [r.finish_reason for r in found] == [r.finish_reason for r in expected]


class Echo:
    """A model that copies its prompt: what follows the last token in it, by position."""

    device = torch.device("cpu")

    def __init__(self, text: list[int], start: int) -> None:
        self.text, self.start, self.passes = text, start, 0

    def forward(self, adapters: Any, **inputs: Any) -> Any:
        self.passes += 1
        places = inputs["position_ids"][:, -inputs["logits_to_keep"] :]
        logits = torch.zeros(*places.shape, 200)
        for i, row in enumerate(places.tolist()):
            for j, place in enumerate(row):
                logits[i, j, self.text[min(place + 1 - self.start, len(self.text) - 1)]] = 1.0
        shape = (len(adapters), 1, inputs["input_ids"].shape[1], 2)
        inputs["past_key_values"].update(torch.zeros(shape), torch.zeros(shape), 0)
        return type("Output", (), {"logits": logits})()


def test_a_copied_answer_takes_a_fraction_of_the_steps() -> None:
    prompt = list(range(1, 61))
    said = [*range(20, 50), 0]
    steps = {}
    for copies in (True, False):
        source = Echo(said, start=len(prompt))
        row = Row(prompt=prompt, max_new_tokens=100, copies=copies)
        batch = PaddedBatch(source, end_tokens=frozenset({0}), pad_token=0)
        batch.add([row])
        while batch.rows:
            batch.step()
        assert (row.tokens, row.finish) == (said[:-1], "stop")
        steps[copies] = source.passes
    assert steps[False] == 31
    assert steps[True] <= 6


def test_no_token_beyond_the_limit(engines: tuple[TransformersEngine, TransformersEngine]) -> None:
    for length in (1, 2, 3, 5, 17):
        (found,) = engines[0].generate([ask(4, max_new_tokens=length)])
        assert found.completion_tokens == length


def test_a_full_context_is_not_overrun(engines: tuple[TransformersEngine, TransformersEngine]) -> None:
    prompt = len(engines[0].encode(ask(40)))
    request = ask(40, max_new_tokens=engines[0].context - prompt)
    found, expected = engines[0].generate([request]), engines[1].generate([request])
    assert found[0].text == expected[0].text
    assert found[0].completion_tokens == engines[0].context - prompt
