"""What the platform adds to an answer, part by part, in processor time: a busy machine does not stretch that."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from _serve_servers import cpu_seconds

T = TypeVar("T")


class Clock:
    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}

    def __call__(self, name: str, part: Callable[[], T]) -> T:
        began = time.thread_time()
        found = part()
        self.taken.setdefault(name, []).append(1000 * (time.thread_time() - began))
        return found

    def medians(self) -> dict[str, float]:
        return {name: round(median(times), 2) for name, times in self.taken.items()}


def parts(assistant: Any, secret: str, questions: Sequence[str], engine: int) -> dict[str, Any]:
    """Median milliseconds of this process for each part of a chat, as the web process does them one after the other;
    and what PostgreSQL and the engine (for the vectors) used for all of them, per chat."""
    from django.conf import settings as django_settings

    from assistants import limits
    from assistants.auth import authenticate_key
    from generation.engines import GenerationResult
    from knowledge.configuration import settings_of
    from knowledge.query import prepare
    from knowledge.retrieval import retrieve
    from serving import chat, wire
    from serving.experiments.assignment import Unit

    clock = Clock()
    django_settings.PROCESS = "web"  # vectors come from the engine

    def one(question: str) -> None:
        body = json.dumps({"model": assistant.slug, "messages": [{"role": "user", "content": question}]}).encode()
        key = clock("key", lambda: authenticate_key(f"Bearer {secret}"))
        clock("limit", lambda: limits.take(key))
        wanted = clock("request", lambda: wire.read_request(body))
        arm = clock("arm", lambda: chat.resolve_model(key.assistant, wanted.model, Unit("", "")))
        settings = settings_of(key.assistant)
        (query,) = clock(
            "vectors",
            lambda: prepare([(question, [])], glossary=key.assistant.glossary, history=settings.history),
        )
        found = clock("search", lambda: retrieve(assistant=key.assistant, question=question, query=query))
        prompt = clock("prompt", lambda: chat.prompt_of(key.assistant, question, [], found))
        asked = chat.Asked(f"parts-{time.monotonic_ns()}", key.assistant, arm, question, [], found, prompt)
        written = prompt.messages[-1]["content"].split("\n")[2][:120]
        result = GenerationResult(
            text=written, prompt_tokens=300, completion_tokens=18, finish_reason="stop", seconds=0.1
        )

        def answered() -> bytes:
            answer = chat.read_answer(asked, result.text)
            message = {"role": "assistant", "content": answer.marked, "context": chat.message_context(asked, answer)}
            return json.dumps(wire.completion(asked.id, wanted.model, message, "stop", {})).encode()

        clock("answer", answered)
        item = clock(
            "turn",
            lambda: chat.turn_item(
                asked, completion=result.text, conversation="", latency_ms=1.0, prompt_tokens=300, completion_tokens=18,
                user={},
            ),
        )  # fmt: skip
        clock("capture", lambda: chat.capture(asked, key, item))

    for question in questions[:20]:
        one(question)
    clock.taken.clear()
    database = _database()
    before = cpu_seconds(engine), sum(map(cpu_seconds, database))
    for question in questions:
        one(question)
    found: dict[str, Any] = clock.medians()
    found["sum"] = round(sum(found.values()), 2)
    found["engine_for_vectors"] = round(1000 * (cpu_seconds(engine) - before[0]) / len(questions), 2)
    found["postgresql"] = round(1000 * (sum(map(cpu_seconds, database)) - before[1]) / len(questions), 2)
    return found


def _database() -> list[int]:
    """The server process of this process's connection."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = int(cursor.fetchone()[0])
    return [pid] if Path(f"/proc/{pid}/stat").exists() else []
