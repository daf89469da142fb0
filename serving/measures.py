"""What this web process counts of the chat, for Prometheus (`/metrics`)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

registry = CollectorRegistry()
ANSWERS = Counter(
    "ratchet_chat_answers",
    "Answers by how they ended: stop, length, declined, unfinished, refused, failed.",
    ["outcome"],
    registry=registry,
)
SECONDS = Histogram(
    "ratchet_chat_seconds",
    "Question to the last word of the answer.",
    buckets=(0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60),
    registry=registry,
)
OVERHEAD = Histogram(
    "ratchet_chat_overhead_seconds",
    "Of that, what the engine did not take: key, retrieval, prompt.",
    buckets=(0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1),
    registry=registry,
)
DROPPED = Counter(
    "ratchet_chat_shortened", "Prompts that lost evidence because they were too long for the model.", registry=registry
)


def answered(outcome: str, *, seconds: float, engine_seconds: float) -> None:
    ANSWERS.labels(outcome).inc()
    SECONDS.observe(seconds)
    OVERHEAD.observe(max(0.0, seconds - engine_seconds))
