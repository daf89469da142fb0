"""What the engine process counts, for Prometheus."""

from __future__ import annotations

from collections import deque

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from generation.engines import GenerationResult

STEP_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
WAIT_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)
REMEMBERED = 32


class EngineMetrics:
    """One registry of its own, so that several engines in one process (tests) do not clash."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.completions = Counter(
            "ratchet_engine_completions", "Completions by how they ended.", ["finish"], registry=registry
        )
        self.refused = Counter(
            "ratchet_engine_refused", "Requests refused or expired because too much waited.", registry=registry
        )
        self.broken = Counter("ratchet_engine_failures", "Steps in which the model failed.", registry=registry)
        self.looped = Counter(
            "ratchet_engine_looped", "Completions that ran into a loop and were cut.", registry=registry
        )
        self.prompt_tokens = Counter("ratchet_engine_prompt_tokens", "Tokens read.", registry=registry)
        self.completion_tokens = Counter("ratchet_engine_completion_tokens", "Tokens written.", registry=registry)
        self.embedded = Counter("ratchet_engine_embedded_texts", "Texts embedded.", registry=registry)
        self.first_token = Histogram(
            "ratchet_engine_first_token_seconds", "Acceptance to first token.", buckets=WAIT_BUCKETS, registry=registry
        )
        self.seconds = Histogram(
            "ratchet_engine_completion_seconds", "Acceptance to last token.", buckets=WAIT_BUCKETS, registry=registry
        )
        self.step_seconds = Histogram(
            "ratchet_engine_step_seconds", "One step of the batch.", buckets=STEP_BUCKETS, registry=registry
        )
        self.batch_rows = Histogram(
            "ratchet_engine_batch_rows", "Rows per step.", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        )
        self.running = Gauge("ratchet_engine_running", "Rows in the batch.", registry=registry)
        self.waiting = Gauge("ratchet_engine_waiting", "Completions in the queue.", registry=registry)
        self.adapters = Gauge("ratchet_engine_adapters", "Adapters in memory.", registry=registry)
        self.changed = Gauge(
            "ratchet_engine_adapters_changed", "Adapters whose files changed after loading.", registry=registry
        )
        self._recent: deque[float] = deque(maxlen=REMEMBERED)

    def step(self, seconds: float, *, rows: int) -> None:
        if rows:
            self.step_seconds.observe(seconds)
            self.batch_rows.observe(rows)

    def gauge(self, *, running: int, waiting: int) -> None:
        self.running.set(running)
        self.waiting.set(waiting)

    def finished(self, result: GenerationResult) -> None:
        self.completions.labels(result.finish_reason).inc()
        self.looped.inc(result.looped)
        self.prompt_tokens.inc(result.prompt_tokens)
        self.completion_tokens.inc(result.completion_tokens)
        self.seconds.observe(result.seconds)
        self._recent.append(result.seconds)

    def recent_seconds(self) -> float:
        """Mean duration of the last completions; 1 before there are any."""
        recent = list(self._recent)
        return sum(recent) / len(recent) if recent else 1.0

    def text(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)
