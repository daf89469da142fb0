"""The turns of the capture bench: 10 kB with five contexts, as log API bodies and as OpenTelemetry exports.

The same texts both ways, so that everybody is given the same content.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

BATCH = 50
CONTEXTS = 5
_PASSAGE, _QUESTION, _ANSWER = 1820, 120, 400
_WORDS = 4000
_POOL = 400


class Content:
    """Turns under names that begin with ``run``; the same ``seed`` gives the same texts."""

    def __init__(self, run: str, seed: int = 1) -> None:
        self.run, self.random = run, random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self.words = ["".join(self.random.choices(letters, k=self.random.randint(2, 10))) for _ in range(_WORDS)]
        self.passages = [self._text(_PASSAGE) for _ in range(_POOL)]
        self.made = 0

    def turns(self, count: int) -> list[dict[str, Any]]:
        found = [self._turn(n) for n in range(self.made, self.made + count)]
        self.made += count
        return found

    def batches(self, count: int) -> list[bytes]:
        """Bodies for the log API with `BATCH` turns each, ``count`` turns in all."""
        return [json.dumps(turns).encode() for turns in _in_batches(self.turns(count))]

    def exports(self, count: int) -> list[bytes]:
        """Bodies for OTLP/HTTP as the OpenTelemetry exporter writes them, with `BATCH` traces each."""
        return [_export(turns) for turns in _in_batches(self.turns(count))]

    def _turn(self, n: int) -> dict[str, Any]:
        contexts = [
            {"text": text, "title": f"Page {n % 90}", "source": f"manual/{n % 90}.md", "score": 0.5}
            for text in self.random.sample(self.passages, CONTEXTS)
        ]
        return {
            "id": f"{self.run}-{n}", "conversation": f"{self.run}-{n // 4}", "question": self._text(_QUESTION),
            "contexts": contexts, "response": self._text(_ANSWER), "model": "small-1", "latency_ms": 812.5,
            "prompt_tokens": 2210, "completion_tokens": 90, "time": "2026-03-01T10:00:00Z", "tags": ["web"],
        }  # fmt: skip

    def _text(self, characters: int) -> str:
        return " ".join(self.random.choices(self.words, k=characters // 6))[:characters].strip()


def _in_batches(turns: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    for start in range(0, len(turns), BATCH):
        yield turns[start : start + BATCH]


def _export(turns: Sequence[dict[str, Any]]) -> bytes:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    return encode_spans([span for turn in turns for span in _spans(turn)]).SerializeToString()


def _spans(turn: dict[str, Any]) -> Iterator[Any]:
    """CHAIN over RETRIEVER and LLM, with OpenInference attributes."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, TraceFlags

    now, trace = time.time_ns(), random.getrandbits(128) or 1
    root, asked, said = turn["question"], turn["conversation"], turn["response"]
    documents: dict[str, Any] = {"openinference.span.kind": "RETRIEVER", "input.value": root}
    for place, context in enumerate(turn["contexts"]):
        prefix = f"retrieval.documents.{place}.document"
        documents |= {
            f"{prefix}.content": context["text"],
            f"{prefix}.id": context["source"],
            f"{prefix}.score": context["score"],
            f"{prefix}.metadata": json.dumps({"title": context["title"]}),
        }
    answer = {
        "openinference.span.kind": "LLM", "llm.model_name": turn["model"], "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": root, "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": said, "llm.token_count.prompt": turn["prompt_tokens"],
        "llm.token_count.completion": turn["completion_tokens"],
    }  # fmt: skip
    whole = {"openinference.span.kind": "CHAIN", "input.value": root, "output.value": said, "session.id": asked}

    def context_of() -> SpanContext:
        return SpanContext(trace, random.getrandbits(64) or 1, False, TraceFlags(TraceFlags.SAMPLED))

    parent = context_of()
    for name, attributes, above in (("turn", whole, None), ("retrieve", documents, parent), ("answer", answer, parent)):
        yield ReadableSpan(
            name=name, context=parent if above is None else context_of(), parent=above, attributes=attributes,
            start_time=now - 900_000_000, end_time=now,
        )  # fmt: skip
