"""Users who ask, wait for the end of the answer, and ask again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
from _serve_servers import cpu_seconds

ROOT = Path(__file__).resolve().parent.parent
Messages = Sequence[Any]


@dataclass
class Measured:
    """``tokens`` of answers; times in seconds, one of each per answer."""

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tokens: int = 0
    failed: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    """Processor seconds of the server."""
    texts: dict[int, str] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        p95 = quantiles(self.whole, n=20)[-1] if len(self.whole) > 1 else sum(self.whole)
        return {
            "tokens_s": round(self.tokens / self.seconds, 1),
            "answers_s": round(len(self.whole) / self.seconds, 2),
            "tokens_cpu_s": round(self.tokens / self.cpu, 1) if self.cpu else 0.0,
            "ttft_ms": round(1000 * median(self.first)) if self.first else 0,
            "p95_ms": round(1000 * p95),
            "failed": self.failed,
        }


Answer = Callable[[int], Awaitable[AsyncIterator[tuple[str, int]]]]
"""From the number of a question to its pieces, each with the tokens known so far (the last counts)."""


async def load(
    answer: Answer, *, users: int, questions: int, seconds: float, rounds: int = 0, pid: int | None = None
) -> Measured:
    """Until the time is over, each answer to its end; with ``rounds`` so many answers, whatever they take. ``pid``: of
    the server, whose processor time is taken."""
    measured = Measured()
    cpu = cpu_seconds(pid) if pid else 0.0
    began = time.perf_counter()
    drawn = iter(range(rounds or 1_000_000))

    async def user() -> None:
        for number in drawn:
            if not rounds and time.perf_counter() - began > seconds:
                return
            asked = time.perf_counter()
            text, tokens, first = "", 0, 0.0
            try:
                async for piece, known in await answer(number % questions):
                    first = first or time.perf_counter() - asked
                    text, tokens = text + piece, known
            except Exception as error:  # whatever it is, a user got no answer
                measured.failed += 1
                print(f"  failed: {type(error).__name__}: {str(error)[:200]}", flush=True)
                continue
            measured.first.append(first)
            measured.whole.append(time.perf_counter() - asked)
            measured.tokens += tokens
            measured.texts[number % questions] = text.strip()

    await asyncio.gather(*(user() for _ in range(users)))
    measured.seconds = time.perf_counter() - began
    measured.cpu = cpu_seconds(pid) - cpu if pid else 0.0
    return measured


def engine_answer(client: Any, prompts: Sequence[Messages], adapters: Sequence[str | None], tokens: int) -> Answer:
    """Questions of our engine, adapters in turn."""
    from generation.engines import GenerationRequest, GenerationResult

    async def answer(number: int) -> AsyncIterator[tuple[str, int]]:
        request = GenerationRequest(
            messages=prompts[number], adapter=adapters[number % len(adapters)], max_new_tokens=tokens
        )

        async def pieces() -> AsyncIterator[tuple[str, int]]:
            async for piece in client.astream(request):
                if isinstance(piece, GenerationResult):
                    yield "", piece.completion_tokens
                else:
                    yield piece, 0

        return pieces()

    return answer


def openai_answer(
    http: httpx.AsyncClient, model: str, prompts: Sequence[Messages], tokens: int, counter: Any
) -> Answer:
    """The same of a server with the OpenAI wire format; ``counter`` counts the tokens of a text."""

    async def answer(number: int) -> AsyncIterator[tuple[str, int]]:
        body = {
            "model": model, "messages": list(prompts[number]), "stream": True, "max_tokens": tokens, "temperature": 0,
        }  # fmt: skip

        async def pieces() -> AsyncIterator[tuple[str, int]]:
            text, shown = "", 0
            async with http.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    raise RuntimeError((await response.aread())[:200])
                async for line in response.aiter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        event = json.loads(line[6:])
                        for choice in event.get("choices") or []:
                            if piece := (choice.get("delta") or {}).get("content"):
                                text += piece
                                if new := _answered(text)[shown:]:
                                    shown += len(new)
                                    yield new, 0
            yield "", counter(_answered(text))

        return pieces()

    return answer


def _answered(text: str) -> str:
    """`transformers serve` streams this model's prompt before the answer: nothing of that counts."""
    if "<|system|>".startswith(text[:10]) or text.startswith("<|system|>"):
        text = text.partition("<|assistant|>")[2]
    return text.partition("<|end|>")[0]


def demo_prompts(count: int) -> tuple[list[Messages], str]:
    """Prompts as serving builds them, of the demo's documents and questions, without a database; and their digest."""
    import numpy as np

    from generation.embedder import load_embedder
    from generation.folders import BUNDLED_EMBEDDER
    from generation.prompts import House, PromptPassage, SentenceRef, build_prompt, prompt_digest, split_sentences

    passages: list[tuple[str, str]] = []
    for path in sorted((ROOT / "serving/demo/documents").rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        head = text.splitlines()[0].lstrip("# ")
        for section in text.split("\n## ")[1:]:
            title, _, body = section.partition("\n")
            if body.strip():
                passages.append((f"{head} › {title}", body.strip()))
    sentences = [(i, j, s) for i, (_, body) in enumerate(passages) for j, s in enumerate(split_sentences(body))]
    lines = (ROOT / "serving/demo/benchmark.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines][:count]
    embedder, house = load_embedder(BUNDLED_EMBEDDER), House(decline="I can't find that in the documents.")
    vectors = embedder.embed([f"{passages[i][0].rpartition(' › ')[2]}: {s}" for i, _, s in sentences])
    prompts: list[Messages] = []
    for question, vector in zip(questions, embedder.embed(questions), strict=True):
        similarity = vectors @ vector
        best = [int(k) for k in np.argsort(-similarity, kind="stable")[:8]]
        ranks = list(dict.fromkeys(sentences[k][0] for k in best))
        prompt = build_prompt(
            house=house,
            question=question,
            passages=[PromptPassage(rank, *passages[i]) for rank, i in enumerate(ranks, start=1)],
            evidence=[SentenceRef(ranks.index(sentences[k][0]) + 1, sentences[k][1]) for k in best],
            similarity=[float(similarity[k]) for k in best],
        )
        prompts.append(prompt.messages)
    return prompts, prompt_digest(house)
