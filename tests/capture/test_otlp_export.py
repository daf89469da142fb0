"""The real exporter of OpenTelemetry sends the spans of a chatbot to a real server, over HTTP on loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import NonRecordingSpan, set_span_in_context

from assistants.models import Assistant
from assistants.services import issue_key
from capture.models import Feedback, Quarantine, Retrieval, Turn, WaitingSpans
from capture.otlp.closing import CloseReport, close_traces
from capture.otlp.receiving import forget_loads
from capture.sealing import content_of
from capture.services import scrub_waiting
from tests import servers
from tests.capture.otlp_samples import ANSWERED, ASKED, FEE, MOVING, Bot, trace_id
from tests.factories import make_assistant

Send = Callable[..., SpanExportResult]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    from config.asgi import application

    os.environ.pop("RATCHET_PROCESS", None)  # its mark for a process of its own, which this one is not
    with servers.serving(application) as address:
        yield address


@pytest.fixture
def assistant(transactional_db: None, settings: Any) -> Iterator[Assistant]:
    settings.RATCHET_TRACE_SETTLE_SECONDS = 0
    age, connection.settings_dict["CONN_MAX_AGE"] = connection.settings_dict["CONN_MAX_AGE"], 0
    forget_loads()
    yield make_assistant("bot")
    connection.settings_dict["CONN_MAX_AGE"] = age


@pytest.fixture
def send(assistant: Assistant, url: str) -> Send:
    """Exports spans in one request, with the key as a header, as people configure it."""
    secret = issue_key(assistant=assistant, name="traces", scopes=["log"])[1]

    def export(
        spans: Sequence[ReadableSpan], *, compression: Compression = Compression.Gzip, secret: str = secret
    ) -> SpanExportResult:
        exporter = OTLPSpanExporter(
            endpoint=f"{url}/v1/traces", headers={"Authorization": f"Bearer {secret}"}, compression=compression,
            timeout=5,
        )  # fmt: skip
        try:
            return exporter.export(spans)
        finally:
            exporter.shutdown()

    return export


def closed(after: float = 0) -> CloseReport:
    """Closes what is due ``after`` seconds from now."""
    moved = timedelta(seconds=after)
    for row in WaitingSpans.objects.all():
        WaitingSpans.objects.filter(pk=row.pk).update(received_at=row.received_at - moved)
    return close_traces()


def the_turn(spans: Sequence[ReadableSpan]) -> Turn:
    scrub_waiting()
    return Turn.objects.get(client_id=trace_id(spans))


def contexts(turn: Turn) -> list[tuple[int, str, float | None]]:
    rows = Retrieval.objects.filter(turn=turn).select_related("passage").order_by("rank")
    return [(row.rank, row.passage.text, row.score) for row in rows]


WHOLE = [(1, FEE, 0.8), (2, MOVING, 0.4)]


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_one_batch_becomes_one_turn(send: Send, compression: Compression) -> None:
    spans = Bot().openinference()
    assert send(spans, compression=compression) is SpanExportResult.SUCCESS
    row = WaitingSpans.objects.get()
    assert FEE.encode() not in bytes(row.payload)
    assert FEE.encode() in content_of(row.payload)
    assert len(row.payload) < row.size == len(content_of(row.payload))
    assert not Quarantine.objects.exists()
    assert closed().sentence == "1 turns, 0 feedback, 0 refused, 0 held, 0 without a conversation"
    assert not WaitingSpans.objects.exists()
    turn = the_turn(spans)
    assert (turn.question, turn.response, turn.conversation.external_id) == (ASKED, ANSWERED, "s-1")
    assert contexts(turn) == WHOLE
    assert [row.passage.source for row in turn.retrievals.order_by("rank")] == ["leaving.md", "moving.md"]
    assert (turn.model, turn.prompt_tokens, turn.completion_tokens, turn.tags) == ("small-1", 210, 12, ["beta"])
    assert turn.metadata["channel"] == "web"
    assert (turn.metadata["service"], turn.metadata["service_version"]) == ("helpdesk-bot", "2.1")
    assert "u-17" not in str(turn.metadata)
    assert turn.citations == [[1, 0]]
    assert abs(turn.asked_at - timezone.now()) < timedelta(minutes=5)
    assert turn.api_key is not None


def test_a_trace_split_over_two_batches_is_joined(send: Send) -> None:
    spans = Bot().openinference(web=True)
    for part in (spans[:1], spans[1:]):
        assert send(part) is SpanExportResult.SUCCESS
    assert WaitingSpans.objects.count() == 2
    assert closed().turns == 1
    assert contexts(the_turn(spans)) == WHOLE
    assert the_turn(spans).question == ASKED


def test_children_after_their_root_are_waited_for(send: Send, settings: Any) -> None:
    settings.RATCHET_TRACE_SETTLE_SECONDS = 10
    spans = Bot().openinference()
    send(spans[-1:])
    assert closed(after=6).closed == 0  # the root is there, and others may still come
    send(spans[:-1])
    assert closed(after=6).closed == 0  # 12 seconds after the root, 6 after the last
    assert closed(after=6).turns == 1
    assert contexts(the_turn(spans)) == WHOLE


def test_without_its_root_a_trace_is_closed_when_it_has_waited_long_enough(send: Send) -> None:
    spans = Bot().openinference()
    send(spans[:-1])
    assert closed(after=250).closed == 0
    assert closed(after=60).turns == 1
    turn = the_turn(spans)
    assert turn.response == ANSWERED
    assert contexts(turn) == WHOLE


def test_two_sessions_interleaved_stay_apart(send: Send) -> None:
    bot = Bot()
    one = bot.openinference(session="s-1", asked="First?", answered="One.")
    two = bot.openinference(session="s-2", asked="Second?", answered="Two.")
    three = bot.openinference(session="s-1", asked="Third?", answered="Three.")
    mixed = [span for group in zip(one, two, three, strict=True) for span in group]
    for start in range(0, len(mixed), 4):
        send(mixed[start : start + 4])
    assert closed().turns == 3
    scrub_waiting()
    found = Turn.objects.values_list("conversation__external_id", "question", "response")
    assert sorted(found) == [("s-1", "First?", "One."), ("s-1", "Third?", "Three."), ("s-2", "Second?", "Two.")]


def test_the_same_export_again_changes_nothing(send: Send) -> None:
    spans = Bot().openinference()
    send(spans)
    send(spans)  # while it waits
    assert WaitingSpans.objects.count() == 1
    send(spans[:2])  # cut in another way
    assert closed().turns == 1
    send(spans)  # while it is in quarantine
    assert not WaitingSpans.objects.exists()
    the_turn(spans)
    assert send(spans) is SpanExportResult.SUCCESS  # when it is a turn
    assert closed().closed == 0
    scrub_waiting()
    assert Turn.objects.count() == 1


@pytest.mark.parametrize("as_event", [False, True])
def test_genai_spans_become_a_turn_with_the_users_feedback(send: Send, as_event: bool) -> None:
    spans = Bot().genai(as_event=as_event)
    assert send(spans) is SpanExportResult.SUCCESS
    assert closed().sentence == "1 turns, 2 feedback, 0 refused, 0 held, 0 without a conversation"
    turn = the_turn(spans)
    assert (turn.question, turn.response, turn.conversation.external_id) == (ASKED, ANSWERED, "s-9")
    assert [message["content"] for message in turn.history] == ["Hi", "Hello."]
    assert contexts(turn) == [(1, FEE, 0.8), (2, MOVING, None)]
    assert (turn.model, turn.prompt_tokens, turn.completion_tokens) == ("small-1", 210, 12)
    given = Feedback.objects.filter(turn=turn).values_list("kind", "value", "text")
    assert sorted(given) == [("comment", None, "Too short."), ("thumb", -1.0, "")]


def test_annotations_become_feedback_also_when_they_come_later(send: Send) -> None:
    bot = Bot()
    liked = {"annotations.0.annotation.name": "user feedback", "annotations.0.annotation.label": "thumbs_up",
             "annotations.0.annotation.annotator_kind": "HUMAN", "annotations.0.annotation.identifier": "u-1",
             "evaluations.0.evaluation.name": "correctness", "evaluations.0.evaluation.score": 1.0}  # fmt: skip
    first, second = bot.openinference(**liked), bot.openinference(session="s-2", **liked)
    send([*first, *second])
    assert (closed().feedback, scrub_waiting().scrubbed) == (2, 4)  # one identifier, two turns
    context = first[-1].get_span_context()
    assert context is not None
    said = {"annotations.0.annotation.name": "comment", "annotations.0.annotation.label": "Call zoe@example.org",
            "annotations.0.annotation.annotator_kind": "HUMAN", "input.value": "not kept"}  # fmt: skip
    bot.tracer.start_span("feedback", set_span_in_context(NonRecordingSpan(context)), attributes=said).end()
    late = bot.spans()
    for _ in range(2):
        assert send(late) is SpanExportResult.SUCCESS
    assert b"not kept" not in content_of(WaitingSpans.objects.get().payload)
    assert closed().feedback == 1
    scrub_waiting()
    given = Feedback.objects.filter(turn__client_id=trace_id(first)).values_list("kind", "text")
    assert sorted(kind for kind, _ in given) == ["comment", "thumb"]
    assert "zoe@" not in str(list(given))


def test_a_wrong_key_is_refused(send: Send) -> None:
    assert send(Bot().openinference(), secret="rk_wrong") is SpanExportResult.FAILURE
    assert not WaitingSpans.objects.exists()


def test_the_example_of_the_documentation_runs(assistant: Assistant, url: str) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/api.md").read_text(encoding="utf-8")
    section = page.partition("## Send traces")[2].partition("\n## ")[0]
    settings, code = (re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL) for kind in ("sh", "python"))
    assert settings is not None
    assert code is not None
    secret = issue_key(assistant=assistant, name="docs", scopes=["log"])[1]
    script = settings[1].replace("http://127.0.0.1:8000", url) + f'exec "{sys.executable}" -c "$CODE"'
    done = subprocess.run(
        ["sh", "-c", script], env={**os.environ, "KEY": secret, "CODE": code[1]}, text=True, capture_output=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert closed().turns == 1
    scrub_waiting()
    turn = Turn.objects.get(client_id=done.stdout.split()[-1])
    assert (turn.question, turn.conversation.external_id) == ("What does leaving early cost?", "chat-82")
    assert [row.passage.source for row in turn.retrievals.order_by("rank")] == ["leaving.md", "moving.md"]
    assert (turn.model, turn.citations) == ("our-bot-3", [[1, 0]])
