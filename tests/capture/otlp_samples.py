"""Span trees of a RAG chatbot, made by the real SDK of OpenTelemetry, and ways to send them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

ASKED, ANSWERED = "What does leaving early cost?", "The exit fee is £35. [1]"
FEE, MOVING = "A fixed plan has an exit fee of £35.", "Tell us 10 days before you move."
KIND = "openinference.span.kind"
MESSAGES = [
    {"role": "system", "parts": [{"type": "text", "content": "Answer from the passages."}]},
    {"role": "user", "parts": [{"type": "text", "content": "Hi"}]},
    {"role": "assistant", "parts": [{"type": "text", "content": "Hello."}]},
    {"role": "user", "parts": [{"type": "text", "content": ASKED}]},
]
SPOKEN = [
    {
        "role": "assistant", "finish_reason": "stop",
        "parts": [{"type": "reasoning", "content": "Let me see."}, {"type": "text", "content": ANSWERED}],
    },
]  # fmt: skip


class Bot:
    """A chatbot with tracing. Its spans are kept, in the order in which they ended, children first."""

    def __init__(self) -> None:
        self.memory = InMemorySpanExporter()
        resource = Resource.create({"service.name": "helpdesk-bot", "service.version": "2.1"})
        self.provider = TracerProvider(resource=resource, span_limits=SpanLimits(max_span_attributes=10_000))
        self.provider.add_span_processor(SimpleSpanProcessor(self.memory))

    @property
    def tracer(self) -> Tracer:
        return self.provider.get_tracer("tests")

    def spans(self) -> list[ReadableSpan]:
        """What has ended since the last call."""
        found = list(self.memory.get_finished_spans())
        self.memory.clear()
        return found

    def openinference(
        self, *, session: str = "s-1", asked: str = ASKED, answered: str = ANSWERED, web: bool = False, **root: Any
    ) -> list[ReadableSpan]:
        """CHAIN over RETRIEVER and LLM; with ``web`` under the span of a web framework."""
        if web:
            with self.tracer.start_as_current_span("POST /ask", attributes={"http.target": "/ask?secret=1"}):
                self._chain(session, asked, answered, root)
        else:
            self._chain(session, asked, answered, root)
        return self.spans()

    def _chain(self, session: str, asked: str, answered: str, more: dict[str, Any]) -> None:
        root = {
            KIND: "CHAIN", "input.value": asked, "output.value": answered, "session.id": session, "user.id": "u-17",
            "metadata": json.dumps({"channel": "web"}), "tag.tags": ["beta"], **more,
        }  # fmt: skip
        with self.tracer.start_as_current_span("answer", attributes=root):
            found = {KIND: "RETRIEVER", "input.value": asked}
            for place, (text, score, source) in enumerate([(FEE, 0.8, "leaving.md"), (MOVING, 0.4, "moving.md")]):
                document = f"retrieval.documents.{place}.document"
                found |= {f"{document}.content": text, f"{document}.score": score, f"{document}.id": f"d{place}",
                          f"{document}.metadata": json.dumps({"source": source})}  # fmt: skip
            with self.tracer.start_as_current_span("search", attributes=found):
                pass
            prompt = "llm.input_messages"
            call = {
                KIND: "LLM", "llm.model_name": "small-1", "llm.token_count.prompt": 210,
                "llm.token_count.completion": 12, f"{prompt}.0.message.role": "user",
                f"{prompt}.0.message.content": f"Passages: {FEE}\nQuestion: {asked}",
                "llm.output_messages.0.message.role": "assistant",
                "llm.output_messages.0.message.content": answered,
            }  # fmt: skip
            with self.tracer.start_as_current_span("complete", attributes=call):
                pass

    def genai(self, *, as_event: bool = False) -> list[ReadableSpan]:
        """invoke_agent over retrieval and chat, as the GenAI conventions have it."""
        spoken = {"gen_ai.input.messages": json.dumps(MESSAGES), "gen_ai.output.messages": json.dumps(SPOKEN)}
        agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.conversation.id": "s-9"}
        with self.tracer.start_as_current_span("invoke_agent helpdesk", attributes=agent) as span:
            documents = [{"id": "d0", "score": 0.8, "content": FEE}, {"id": "d1", "score": None, "content": MOVING},
                         {"id": "d2", "score": 0.1}]  # fmt: skip
            found = {"gen_ai.operation.name": "retrieval", "gen_ai.retrieval.query.text": ASKED,
                     "gen_ai.retrieval.documents": json.dumps(documents)}  # fmt: skip
            with self.tracer.start_as_current_span("retrieval handbook", attributes=found):
                pass
            call: dict[str, Any] = {
                "gen_ai.operation.name": "chat", "gen_ai.request.model": "small", "gen_ai.response.model": "small-1",
                "gen_ai.usage.input_tokens": 210, "gen_ai.usage.output_tokens": 12,
                **({} if as_event else spoken),
            }  # fmt: skip
            with self.tracer.start_as_current_span("chat small", attributes=call) as inner:
                if as_event:
                    inner.add_event("gen_ai.client.inference.operation.details", spoken)
            judged = {"gen_ai.evaluation.name": "relevance", "gen_ai.evaluation.score.label": "good"}
            span.add_event("gen_ai.evaluation.result", judged)
            thumb = {"gen_ai.evaluation.name": "user_feedback", "gen_ai.evaluation.score.value": 0.0,
                     "gen_ai.evaluation.explanation": "Too short."}  # fmt: skip
            span.add_event("gen_ai.evaluation.result", thumb)
        return self.spans()


def trace_id(spans: Sequence[ReadableSpan]) -> str:
    return format(spans[0].context.trace_id, "032x")


def body_of(spans: Sequence[ReadableSpan]) -> bytes:
    """As the exporter writes it."""
    return encode_spans(spans).SerializeToString()


def json_of(spans: Sequence[ReadableSpan]) -> Any:
    """The same in OTLP's JSON, whose ids are hex."""
    from google.protobuf.json_format import MessageToDict

    message = MessageToDict(encode_spans(spans))
    originals = {format(span.context.span_id, "016x"): span for span in spans}
    remaining = iter(originals.items())
    for resource in message["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                span_id, original = next(remaining)
                span |= {"traceId": trace_id([original]), "spanId": span_id}
                if original.parent is not None:
                    span["parentSpanId"] = format(original.parent.span_id, "016x")
    return message
