"""Loops are cut to one repetition, in the same way whoever asks and however the answer travels."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from generation.decoding import Row
from generation.engines import GenerationRequest, GenerationResult
from generation.local import TransformersEngine
from generation.loops import LONGEST_BLOCK, REPEATS, LoopWatch
from generation.metrics import EngineMetrics
from generation.padded import PaddedBatch
from generation.scheduler import Scheduler

END = 0


class Script:
    """A model that says what is written, whatever it reads: the last token's successor in a table by position."""

    device = torch.device("cpu")

    def __init__(self, *texts: Sequence[int]) -> None:
        self._texts, self._at = texts, [0] * len(texts)

    def forward(self, adapters: Sequence[str | None], **inputs: Any) -> Any:
        logits = torch.zeros(len(adapters), 1, 100)
        for i, name in enumerate(adapters):
            row = int(name or i)
            logits[i, 0, [*self._texts[row], END][self._at[row]]] = 1.0
            self._at[row] += 1
        cache = inputs["past_key_values"]
        width = inputs["input_ids"].shape[1]
        cache.update(torch.zeros(len(adapters), 1, width, 2), torch.zeros(len(adapters), 1, width, 2), 0)
        return type("Output", (), {"logits": logits})()


def written(text: Sequence[int], prompt: Sequence[int] = (1, 2, 3), limit: int = 200) -> Row:
    row = Row(prompt=list(prompt), max_new_tokens=limit, adapter="0")
    batch = PaddedBatch(Script(text), end_tokens=frozenset({END}), pad_token=0)
    batch.add([row])
    while batch.rows:
        batch.step()
    return row


def test_a_loop_ends_the_completion_and_stands_there_once() -> None:
    for block in ([7], [7, 8], [7, 8, 9, 7, 10], list(range(11, 11 + LONGEST_BLOCK))):
        row = written([5, 6, *block * 30])
        assert (row.tokens, row.finish, row.looped) == ([5, 6, *block], "stop", True), block


def test_what_repeats_a_little_or_in_long_blocks_stays() -> None:
    for text in ([5, *[7] * (REPEATS - 1), 6], [7, 8] * (REPEATS - 1), [*range(10, 19)] * 6):
        row = written(text)
        assert (row.tokens, row.finish, row.looped) == (text, "stop", False)


def test_a_quotation_is_no_loop_until_it_outgrows_its_source() -> None:
    row = written([5, 7, 7, 7, 7, 7, 6], prompt=[1, 7, 7, 7, 7, 7, 2])
    assert (row.tokens, row.looped) == ([5, 7, 7, 7, 7, 7, 6], False)
    row = written([5, *[7] * 20], prompt=[1, 7, 7, 7, 7, 7, 2])
    assert (row.tokens, row.looped) == ([5, 7], True)


def test_the_limit_is_the_limit() -> None:
    row = written([5, 6, 7, 7, 7, 7], limit=5)
    assert (row.tokens, row.finish, row.looped) == ([5, 6, 7, 7, 7], "length", False)
    row = written([5, 7, 7, 7, 7], limit=5)
    assert (row.tokens, row.finish, row.looped) == ([5, 7], "stop", True)


def test_a_row_that_loops_leaves_its_companions_alone() -> None:
    rows = [Row(prompt=[1], max_new_tokens=50, adapter=str(i)) for i in range(2)]
    batch = PaddedBatch(Script([5, *[7] * 40], list(range(10, 40))), end_tokens=frozenset({END}), pad_token=0)
    batch.add(rows)
    while batch.rows:
        batch.step()
    assert rows[0].tokens == [5, 7]
    assert (rows[1].tokens, rows[1].looped) == (list(range(10, 40)), False)


@given(st.lists(st.integers(1, 3), max_size=60))
def test_seen_as_soon_as_it_is_there_and_never_more_than_was_held_back(tokens: list[int]) -> None:
    watch, out = LoopWatch([]), list[int]()
    for n in range(1, len(tokens) + 1):
        so_far = tokens[:n]
        plain = any(
            n >= REPEATS * p and so_far[-REPEATS * p :] == so_far[n - p :] * REPEATS
            for p in range(1, LONGEST_BLOCK + 1)
        )
        repeated = watch.follow(so_far)
        assert bool(repeated) == plain
        assert repeated <= watch.pending
        shown = so_far[: n - watch.pending]
        assert shown[: len(out)] == out  # what went out once stays
        out = shown
        if repeated:
            kept = so_far[: n - repeated]
            assert kept[: len(out)] == out
            break


def test_streams_and_whole_answers_of_a_looping_model_are_the_same_text(models: Path) -> None:
    """A random model loops soon: what a stream shows on the way is what the whole answer keeps."""
    engine = TransformersEngine(models / "base")
    for name in ("one", "two"):
        engine.load_adapter(name, models / name)
    requests = [
        GenerationRequest(
            messages=[{"role": "user", "content": f"Question: {'What is the exit fee? ' * n}"}],
            adapter=(None, "one", "two")[n % 3],
            max_new_tokens=300,
        )
        for n in range(1, 7)
    ]
    whole = engine.generate(requests)
    assert any(result.looped for result in whole)
    assert all(result.finish_reason == "stop" for result in whole if result.looped)
    scheduler = Scheduler(engine, EngineMetrics())
    scheduler.start()
    for request, expected in zip(requests, whole, strict=True):
        pieces: list[str] = []
        (job,) = scheduler.submit([request], pieces.append)
        result: GenerationResult = job.done.result(timeout=60)
        assert (result.text, result.looped, result.completion_tokens) == (
            expected.text, expected.looped, expected.completion_tokens,
        )  # fmt: skip
        assert "".join(pieces).strip() == expected.text

        async def streamed(request: GenerationRequest = request) -> str:
            return "".join([piece async for piece in engine.stream(request)])

        assert asyncio.run(streamed()).strip() == expected.text
    scheduler.stop()
