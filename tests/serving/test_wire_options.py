"""What a request may say besides its messages."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import openai
import pytest

from capture.models import Turn
from knowledge.configuration import config_digest
from serving.wire import WireError, read_request
from tests.serving.conftest import QUESTION, Shop, turn_of


def context_of(answer: Any) -> Any:
    return answer.choices[0].message.context


def test_retrieval_options_hold_for_one_question(shop: Shop) -> None:
    usual = shop.ask()
    one = shop.ask(extra_body={"retrieval": {"k": 1, "evidence_sentences": 1}})
    assert len(context_of(usual)["citations"]) == 3
    (citation,) = context_of(one)["citations"]
    assert citation["score"] > 0
    turn = turn_of(one.id)
    assert turn.retrievals.count() == 1
    assert sum(len(r.evidence) for r in turn.retrievals.all()) == 1
    assert turn.retrieval_config != config_digest(shop.assistant)
    assert Turn.objects.get(client_id=usual.id).retrieval_config == config_digest(shop.assistant)
    within = shop.ask(extra_body={"retrieval": {"folders": ["mov"]}})
    assert [c["filepath"] for c in context_of(within)["citations"]] == ["moving.md"]
    none = shop.ask(extra_body={"retrieval": {"k": 0}})
    assert context_of(none)["citations"] == []
    nothing = shop.ask(extra_body={"retrieval": {"evidence_threshold": 1.0}})
    # Nothing is near enough to be offered, so no model is asked; without passages it is.
    assert nothing.usage.prompt_tokens == nothing.usage.completion_tokens == 0 < none.usage.prompt_tokens
    assert nothing.choices[0].message.content == shop.assistant.decline_sentence
    assert context_of(nothing)["withheld"] is True
    held = turn_of(nothing.id)
    assert held.withheld
    assert held.declined
    assert any(r.evidence for r in held.retrievals.all())
    assert not turn.withheld
    chunks = list(shop.ask(stream=True, extra_body={"retrieval": {"evidence_threshold": 1.0}}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == shop.assistant.decline_sentence
    assert turn_of(chunks[0].id).withheld
    shop.assistant.refresh_from_db()
    assert (shop.assistant.retrieval_k, shop.assistant.evidence_threshold) == (6, 0.0)


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"retrieval": {"k": 21}}, "retrieval.k", None),
        ({"retrieval": {"k": -1}}, "retrieval.k", None),
        ({"retrieval": {"evidence_sentences": 41}}, "retrieval.evidence_sentences", None),
        ({"retrieval": {"evidence_threshold": 2}}, "retrieval.evidence_threshold", None),
        ({"retrieval": {"index": "x"}}, "retrieval.index", None),
        ({"retrieval": {"folders": ["a\x00b"]}}, "retrieval.folders.0", None),
        ({"stop": ""}, "stop", None),
        ({"stop": ["a"] * 5}, "stop", None),
        ({"stop": "x" * 101}, "stop", "string_above_max_length"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported"),
        ({"logprobs": True}, "logprobs", "unsupported"),
        ({"modalities": ["audio"]}, "modalities", "unsupported"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported"),
        ({"n": 3}, "n", "unsupported"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages.0.role", "unsupported"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages.0.role", "unsupported"),
        ({"messages": [{"role": "critic", "content": "x"}]}, "messages.0.role", None),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
            "messages.0.content.0.type",
            "unsupported",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]}]},
            "messages.0.content.0.type",
            "unsupported",
        ),
    ],
)
def test_what_is_not_possible_is_refused_by_name(shop: Shop, change: dict[str, Any], param: str, code: Any) -> None:
    body = {"model": shop.assistant.slug, "messages": [{"role": "user", "content": QUESTION}], **change}
    refused = shop.post(body)
    assert refused.status_code == 400, refused.text
    error = refused.json()["error"]
    assert (error["param"], error["code"]) == (param, code), error
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stop": ["a"] * 5}, "stop: List should have at most 4 items"),
        ({"stop": [""]}, "stop.0: String should have at least 1 character"),
        ({"stop": 5}, "stop: Input should be a valid string"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text: Field required"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content: Input should be a valid string"),
    ],
)
def test_of_a_list_it_is_said_what_is_wrong_in_the_list(change: dict[str, Any], said: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": QUESTION}], **change}
    with pytest.raises(WireError) as refused:
        read_request(json.dumps(body).encode())
    assert refused.value.message.startswith(said)
    assert said.startswith(f"{refused.value.param}: ")


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"n": ' + b"1" * 5000 + b"}", b"[" * 100_000])
def test_a_body_that_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(WireError) as refused:
        read_request(body)
    assert (refused.value.status, refused.value.message) == (400, "The body is not valid JSON.")


def test_what_clients_send_by_habit_is_taken(shop: Shop) -> None:
    answer = shop.ask(
        temperature=0.7, top_p=0.9, seed=1, stop=[], n=1, response_format={"type": "text"}, presence_penalty=0.1,
        logprobs=False, store=False, tools=[],
    )  # fmt: skip
    assert answer.choices[0].message.content == shop.ask().choices[0].message.content


def test_null_is_as_if_left_out(shop: Shop) -> None:
    """Clients of typed languages send every field that they know."""
    names = (
        "n", "stream", "stream_options", "metadata", "user", "temperature", "top_p", "stop", "max_completion_tokens",
        "tools", "functions", "response_format", "logprobs", "modalities", "retrieval",
    )  # fmt: skip
    body = {"model": shop.assistant.slug, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 3}
    said, plain = (shop.post(each) for each in ({**body, **dict.fromkeys(names)}, body))
    assert said.status_code == 200, said.text
    assert said.json()["choices"] == plain.json()["choices"]
    streamed = shop.post({**body, "stream": True, "stream_options": {"include_usage": None}})
    assert streamed.text.endswith("[DONE]\n\n")
    for needed in ("model", "messages"):
        refused = shop.post({**body, needed: None})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, needed)


def test_a_body_may_be_packed(shop: Shop) -> None:
    body = {"model": shop.assistant.slug, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 3}
    plain = json.dumps(body).encode()
    large = gzip.compress(json.dumps({**body, "pad": "x" * 2_000_000}).encode())
    for content, packing, status in (
        (gzip.compress(plain), "gzip", 200),
        (plain, "identity", 200),
        (plain, "gzip", 400),
        (large, "gzip", 413),
        (plain, "br", 415),
    ):
        header = {"Authorization": f"Bearer {shop.secret}", "Content-Encoding": packing}
        answer = shop.http.post("/v1/chat/completions", content=content, headers=header)
        assert answer.status_code == status, answer.text
        assert status != 413 or answer.json()["error"]["message"] == "The body is larger than 2 MB."


def test_an_assistant_message_without_content_is_left_out(shop: Shop) -> None:
    """As the client of OpenAI sends a message back that called a tool, and as one may write it by hand."""
    call = {"id": "call_1", "type": "function", "function": {"name": "fee", "arguments": "{}"}}
    silent: list[Any] = [
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "assistant", "content": None, "refusal": "I cannot help with that."},
    ]
    before = [
        {"role": "user", "content": "Can I take my plan with me?"},
        {"role": "assistant", "content": "It can move."},
    ]
    asked = {"role": "user", "content": QUESTION}
    one, other = (
        shop.openai.chat.completions.create(model=shop.assistant.slug, messages=[*told, asked], max_tokens=12)
        for told in (before, [*before, *silent])
    )
    assert one.choices[0].message.content == other.choices[0].message.content
    assert one.usage.prompt_tokens == other.usage.prompt_tokens
    assert [m["content"] for m in turn_of(other.id).history] == [m["content"] for m in before]
    back = one.choices[0].message.model_dump()  # as people append what they got
    assert (
        shop.post({"model": shop.assistant.slug, "messages": [asked, back, asked], "max_tokens": 3}).status_code == 200
    )


def test_what_a_tool_answered_is_refused_rather_than_left_out(shop: Shop) -> None:
    told = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "tool_call_id": "call_1", "content": "secret figures"},
    ]
    refused = shop.post({"model": shop.assistant.slug, "messages": told})
    assert refused.status_code == 400
    said = refused.json()["error"]["message"]
    assert said == "Tools are not supported here: leave out the messages that call them and what they answered."


def test_a_stop_text_ends_the_answer(shop: Shop) -> None:
    whole = shop.ask(max_tokens=40).choices[0].message.content
    stop = next(found[0] for found in re.finditer(r"[A-Za-z]{2,4}", whole) if found.start() > 4)
    for stops in (stop, [stop, "never said"]):
        cut = shop.ask(max_tokens=40, stop=stops)
        assert cut.choices[0].finish_reason == "stop"
        assert stop not in cut.choices[0].message.content
        chunks = list(shop.ask(max_tokens=40, stop=stops, stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == cut.choices[0].message.content


def test_usage_of_a_stream_comes_last_and_only_when_asked(shop: Shop) -> None:
    plain = list(shop.ask(stream=True))
    assert all(chunk.usage is None for chunk in plain)
    assert all(chunk.choices for chunk in plain)
    *parts, last = list(shop.ask(stream=True, stream_options={"include_usage": True}))
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in parts)
    assert last.choices == []
    assert last.usage.completion_tokens == 12


def test_one_model_by_name(shop: Shop) -> None:
    slug = shop.assistant.slug
    assert shop.openai.models.retrieve(f"{slug}:base").id == f"{slug}:base"
    with pytest.raises(openai.NotFoundError) as unknown:
        shop.openai.models.retrieve("gpt-4o")
    assert unknown.value.code == "model_not_found"


def test_how_long_what_took(shop: Shop) -> None:
    body = {"model": shop.assistant.slug, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 3}
    timing = shop.post(body).headers["server-timing"]
    parts = dict(part.strip().split(";dur=") for part in timing.split(","))
    assert float(parts["total"]) >= float(parts["engine"]) > 0
    assert float(parts["total"]) >= float(parts["retrieval"]) > 0


def test_what_prometheus_reads(shop: Shop, settings: Any) -> None:
    shop.ask()
    shop.ask(stream=True).close()
    assert shop.post({"model": "x"}).status_code == 400
    text = shop.http.get("/metrics").text
    for line in ('ratchet_chat_answers_total{outcome="length"}', 'ratchet_chat_answers_total{outcome="refused"}'):
        assert line in text
    assert "ratchet_chat_overhead_seconds_bucket" in text
    engine = shop.http.get("/metrics/engine")
    assert "ratchet_engine_completions_total" in engine.text
    settings.RATCHET_METRICS_TOKEN = "t" * 32
    assert shop.http.get("/metrics/engine").status_code == 403
    assert shop.http.get("/metrics/engine", headers={"Authorization": f"Bearer {'t' * 32}"}).status_code == 200
    settings.RATCHET_ENGINE_URL = "unix:/nonexistent/engine.sock"
    away = shop.http.get("/metrics/engine", headers={"Authorization": f"Bearer {'t' * 32}"})
    assert away.status_code == 503
