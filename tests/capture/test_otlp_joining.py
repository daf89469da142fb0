"""Spans of a trace as a turn: which one asks, which one answers, what lies between; and traces that are closed."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_q.models import OrmQ, Schedule
from hypothesis import given
from hypothesis import strategies as st

from assistants.models import ApiKey, Assistant, AuditEvent
from assistants.services import issue_key
from capture import jobs
from capture.imports.traces import MAX_PIECES
from capture.imports.units import Refused
from capture.models import Quarantine, Receipt, WaitingSpans
from capture.otlp import closing
from capture.otlp.closing import close_traces
from capture.otlp.decoding import Decoded, decode
from capture.otlp.genai import NO_TEXT
from capture.otlp.joining import NOTHING, converted
from capture.otlp.receiving import forget_loads, receive_spans
from capture.otlp.wire import Encoding
from capture.payloads import TurnItem
from tests.capture.conftest import Cast
from tests.capture.otlp_samples import ANSWERED, ASKED, FEE, KIND, Bot, body_of
from tests.factories import make_assistant

TRACE = "a" * 32


def turn(*spans: dict[str, Any]) -> TurnItem:
    return TurnItem.model_validate(converted(TRACE, spans).turns[0])


def step(span_id: str, parent: str = "", /, at: int = 0, events: Sequence[Any] = (), **attributes: Any) -> Any:
    """A span; ``__`` in the names of attributes stands for a dot."""
    given = {name.replace("__", "."): value for name, value in attributes.items()}
    return {"trace": TRACE, "id": span_id, "parent": parent, "start": f"2026-03-01T10:00:{at:02d}+00:00",
            "end": f"2026-03-01T10:00:{at + 2:02d}+00:00", "attributes": given, "events": list(events)}  # fmt: skip


# --- Joining -------------------------------------------------------------------------------------


def test_without_an_outermost_step_the_first_asks_and_the_last_answers() -> None:
    rewrite = {KIND: "LLM", "input.value": "Leaving cost?", "output.value": "cost of leaving early"}
    answer = {KIND: "LLM", "input.value": f"Passages: {FEE}", "output.value": ANSWERED, "llm.model_name": "m"}
    spans = [step("web", at=0), step("c", "web", at=5, **answer), step("b", "web", at=1, **rewrite)]
    for sent in (spans, spans[1:]):  # with a root that says nothing; with none
        made = turn(*sent)
        assert (made.question, made.response, made.model) == ("Leaving cost?", ANSWERED, "m")
    assert turn(*spans).latency_ms == 2000  # of the root


def test_the_last_reranker_decides_and_equal_texts_count_once() -> None:
    def documents(prefix: str, *texts: str) -> dict[str, Any]:
        return {f"{prefix}.{n}.document.content": text for n, text in enumerate(texts)}

    made = turn(
        step("a", **{KIND: "CHAIN", "input.value": ASKED, "output.value": ANSWERED}),
        step("b", "a", at=1, **{KIND: "RETRIEVER", **documents("retrieval.documents", "one", "two", "three")}),
        step("c", "a", at=2, **{KIND: "RERANKER", **documents("reranker.output_documents", "three", "one", "three")}),
    )
    assert [context.text for context in made.contexts] == ["three", "one"]
    many = documents("retrieval.documents", *map(str, range(60)))
    made = turn(step("a", **{KIND: "CHAIN", "input.value": "q", "output.value": "a"}),
                step("b", "a", **{KIND: "RETRIEVER", **many}))  # fmt: skip
    assert [context.text for context in made.contexts] == list(map(str, range(50)))


def test_facts_of_a_span_that_says_nothing_are_kept() -> None:
    made = turn(
        step("root", **{KIND: "AGENT", "session.id": "s-1", "user.id": "u"}),
        step("b", "root", at=1, **{KIND: "LLM", "input.value": ASKED, "output.value": ANSWERED,
                                   "llm.response.model_name": "m"}),
    )  # fmt: skip
    assert (made.conversation, made.metadata, made.model) == ("s-1", {"user": "u"}, "m")


@pytest.mark.parametrize(
    "given",
    [
        {"attributes": {"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": ASKED,
                        "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": ANSWERED}},
        {"attributes": {"gen_ai.operation.name": "chat"}, "events": [
            {"name": "gen_ai.content.prompt",
             "attributes": {"gen_ai.prompt": json.dumps([{"role": "user", "content": ASKED}])}},
            {"name": "gen_ai.content.completion",
             "attributes": {"gen_ai.completion": json.dumps([{"role": "assistant", "content": ANSWERED}])}}]},
        {"attributes": {"gen_ai.system": "openai"}, "events": [
            {"name": "gen_ai.system.message", "attributes": {"content": "Be kind."}},
            {"name": "gen_ai.user.message", "attributes": {"content": ASKED}},
            {"name": "gen_ai.choice", "attributes": {"index": 0, "message": json.dumps({"content": ANSWERED})}}]},
        {"attributes": {"gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": ASKED}]}],
                        "gen_ai.output.messages": [
                            {"role": "assistant", "parts": [{"type": "tool_call", "name": "f", "arguments": {}}]},
                            {"role": "assistant", "parts": [{"type": "text", "content": ANSWERED}]}]}},
        {"attributes": {KIND: "LLM", "gen_ai.system": "x", "input.value": ASKED, "output.value": ANSWERED}},
    ],
)  # fmt: skip
def test_messages_wherever_an_instrumentation_puts_them(given: dict[str, Any]) -> None:
    made = turn({**step("a"), **given})
    assert (made.question, made.response) == (ASKED, ANSWERED)


def test_a_long_chain_of_silent_spans_and_a_circle_are_passed() -> None:
    says = {KIND: "LLM", "input.value": "q", "output.value": "a"}
    chain = [step(f"s{n}", f"s{n - 1}" if n else "top") for n in range(4000)]
    made = turn(step("top", **{KIND: "CHAIN", "input.value": ASKED}), *chain, step("end", "s3999", at=1, **says))
    assert (made.question, made.response) == (ASKED, "a")
    made = turn(step("a", "b"), step("b", "c", **says), step("c", "a"))
    assert (made.question, made.response) == ("q", "a")


def test_documents_without_text_are_left_out_with_a_note() -> None:
    found = {"gen_ai.operation.name": "retrieval", "gen_ai.retrieval.documents": [{"id": "d0", "score": 0.5}]}
    made = converted(TRACE, [step("a", **{"input.value": "q", "output.value": "a"}), step("b", "a", **found)])
    assert made.notes == [NO_TEXT]
    assert "contexts" not in made.turns[0]


def test_a_judge_models_evaluation_is_no_feedback() -> None:
    judged = {"gen_ai.evaluation.name": "correctness", "gen_ai.evaluation.score.label": "correct"}
    made = converted(TRACE, [step("a", events=[{"name": "gen_ai.evaluation.result", "attributes": judged}],
                                  **{"input.value": "q", "output.value": "a"})])  # fmt: skip
    assert (len(made.turns), made.feedback) == (1, [])


def test_traces_that_are_no_conversation() -> None:
    with pytest.raises(Refused, match=NOTHING):
        converted(TRACE, [step("a"), step("b", "a")])
    with pytest.raises(Refused, match="no answer"):
        converted(TRACE, [step("a", **{KIND: "CHAIN", "input.value": "q"})])
    with pytest.raises(Refused, match="no question"):
        converted(TRACE, [step("a", **{KIND: "CHAIN", "output.value": "a"})])


_NAMES = st.sampled_from(
    [KIND, "input.value", "output.value", "metadata", "session.id", "user.id", "tag.tags", "llm.input_messages",
     "llm.input_messages.0.message.role", "llm.input_messages.0.message.content", "llm.token_count.prompt",
     "retrieval.documents", "retrieval.documents.0.document", "retrieval.documents.0.document.score", "gen_ai.prompt",
     "retrieval.documents.0.document.content", "annotations.0.annotation.name", "annotations.0.annotation.label",
     "gen_ai.operation.name", "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.retrieval.documents",
     "gen_ai.evaluation.name", "gen_ai.completion.0.content", "gen_ai.usage.input_tokens", "message", "content"]
)  # fmt: skip
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["CHAIN", "RETRIEVER", "LLM", "chat", '[{"role": "user", "parts": [1]}]', "[[[["]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["role", "parts", "type", "content", "message", "id", "score"]), inner),
    max_leaves=8,
)  # fmt: skip
_SPAN = st.fixed_dictionaries(
    {
        "trace": st.just(TRACE),
        "id": st.sampled_from("abcd"),
        "parent": st.sampled_from("abcdx"),
        "attributes": st.dictionaries(_NAMES, _VALUES, max_size=6),
        "events": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["gen_ai.choice", "gen_ai.user.message", "gen_ai.evaluation.result"]),
                    "attributes": st.dictionaries(_NAMES, _VALUES, max_size=3),
                }
            ),
            max_size=2,
        ),
    }
)


@given(st.lists(_SPAN, min_size=1, max_size=5))
def test_any_spans_are_joined_or_refused(spans: list[dict[str, Any]]) -> None:
    try:
        made = converted(TRACE, spans)
    except Refused:
        return
    assert made.turns or made.feedback or made.notes
    assert made == converted(TRACE, [*spans, *spans])  # repeats count once
    for payload in made.turns:
        assert payload["question"].strip()
        assert payload["response"].strip()


# --- Closing -------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _at_once(settings: Any) -> None:
    settings.RATCHET_TRACE_SETTLE_SECONDS = 0
    forget_loads()


def receive(assistant: Assistant, key: ApiKey | None, spans: Sequence[Any]) -> None:
    decoded = decode(body_of(spans), Encoding.PROTOBUF)
    assert receive_spans(assistant=assistant, api_key=key, decoded=decoded).rejected == 0


def test_what_cannot_be_opened_is_held_until_a_person_decides(cast: Cast, client: Client, settings: Any) -> None:
    from cryptography.fernet import Fernet

    receive(cast.bot, cast.key, Bot().openinference())
    old, settings.RATCHET_DATA_KEY = settings.RATCHET_DATA_KEY, Fernet.generate_key().decode()
    receive(cast.bot, cast.key, Bot().openinference())
    assert close_traces().sentence == "1 turns, 0 feedback, 0 refused, 1 held, 0 without a conversation"
    assert close_traces().closed == 0
    row = WaitingSpans.objects.get()
    assert row.error == closing.UNREADABLE
    settings.RATCHET_DATA_KEY += f",{old}"

    page = reverse("admin:capture_waitingspans_changelist")
    body = {"action": "retry", "_selected_action": [row.pk], "reason": "key is back"}
    for stranger in (cast.bob, cast.alice):
        client.force_login(stranger)
        assert client.get(page).status_code == 403
    client.force_login(cast.carol)
    assert row.trace not in client.get(page).content.decode()
    client.post(page, body)
    assert WaitingSpans.objects.get().error
    client.force_login(cast.dana)
    shown = client.get(page, {"q": row.trace[:8]}).content.decode()
    assert row.trace in shown
    assert "No key opens" in shown
    assert client.get(reverse("admin:capture_waitingspans_change", args=[row.pk])).status_code == 404
    client.post(page, body)
    assert AuditEvent.objects.get(action="spans.retried").reason == "key is back"
    assert close_traces().turns == 1
    receive(cast.bot, cast.key, Bot().openinference())
    client.post(page, {"action": "destroy", "_selected_action": [WaitingSpans.objects.get().pk]})
    assert not WaitingSpans.objects.exists()


def test_an_error_holds_one_trace_and_a_refused_one_is_gone(cast: Cast, monkeypatch: Any, caplog: Any) -> None:
    bot = Bot()
    receive(cast.bot, cast.key, bot.openinference(answered="Zebulon"))
    broken = WaitingSpans.objects.get().trace
    receive(cast.bot, cast.key, bot.openinference())
    receive(cast.bot, cast.key, bot.openinference(asked="x" * 20_001))
    join = closing.converted

    def fails_once(trace: str, spans: Any) -> Any:
        if trace == broken:
            raise KeyError("Zebulon")
        return join(trace, spans)

    monkeypatch.setattr(closing, "converted", fails_once)
    assert close_traces().sentence == "1 turns, 0 feedback, 1 refused, 1 held, 0 without a conversation"
    assert WaitingSpans.objects.get().error == "The spans cannot be joined (KeyError)."
    assert "was refused: question: " in caplog.text
    assert "Zebulon" not in caplog.text


def test_spans_of_a_web_framework_alone_leave_nothing(cast: Cast) -> None:
    bot = Bot()
    with bot.tracer.start_as_current_span("GET /health", attributes={"http.target": "/health"}):
        pass
    receive(cast.bot, cast.key, bot.spans())
    assert close_traces().silent == 1
    assert not WaitingSpans.objects.exists()
    assert not Receipt.objects.exists()


def test_a_trace_that_never_rests_is_closed_after_an_hour(cast: Cast) -> None:
    spans = Bot().openinference()
    for span in spans[:-1]:
        receive(cast.bot, cast.key, [span])
    assert close_traces().closed == 0
    first = WaitingSpans.objects.order_by("pk")[0]
    WaitingSpans.objects.filter(pk=first.pk).update(received_at=timezone.now() - timedelta(hours=1))
    assert close_traces().turns == 1


def test_assistants_and_keys_stay_apart(cast: Cast) -> None:
    spans = Bot().openinference()
    second, _ = issue_key(assistant=cast.bot, name="second", scopes=["log"])
    receive(cast.bot, cast.key, spans)
    receive(cast.bot, second, Bot().openinference())
    receive(cast.bot, None, Bot().openinference())
    receive(cast.other, None, spans)
    assert close_traces().turns == 4
    assert Quarantine.objects.filter(assistant=cast.bot).count() == 3
    assert Quarantine.objects.filter(assistant=cast.other).count() == 1


def test_the_job_is_scheduled_queued_when_something_is_due_and_goes_on(cast: Cast, monkeypatch: Any) -> None:
    receive(cast.bot, cast.key, Bot().openinference())
    assert Schedule.objects.filter(func="capture.jobs.close_traces").count() == 1
    assert OrmQ.objects.count() == 1  # it is due at once here
    receive(cast.bot, cast.key, Bot().openinference())
    assert OrmQ.objects.count() == 1
    monkeypatch.setattr(jobs, "SECONDS", -1)
    monkeypatch.setattr(closing, "BATCH", 1)
    assert jobs.close_traces().endswith("more waiting")
    assert jobs.close_traces().startswith("1 turns")


def test_more_spans_than_are_looked_at_never_wait(cast: Cast) -> None:
    (whole,) = decode(body_of(Bot().openinference()[:1]), Encoding.PROTOBUF).spans
    many = Decoded(spans=[{**whole, "id": f"{n:016x}"} for n in range(1, MAX_PIECES + 2)])
    assert receive_spans(assistant=cast.bot, api_key=None, decoded=many).rejected == MAX_PIECES + 1


@pytest.mark.django_db(transaction=True)
def test_two_workers_make_one_turn_of_a_trace() -> None:
    assistant = make_assistant("bot")
    bot = Bot()
    for _ in range(20):
        receive(assistant, None, bot.openinference())
    counts: list[int] = []

    def work() -> None:
        counts.append(close_traces().turns)
        connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    close_traces()
    assert connection.is_usable()
    assert Quarantine.objects.count() == Receipt.objects.count() == 20
    assert not WaitingSpans.objects.exists()
    assert sum(counts) <= 20
