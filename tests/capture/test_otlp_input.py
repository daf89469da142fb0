"""What `POST /v1/traces` takes and refuses, in both encodings, and how it says so."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from assistants import limits
from assistants.errors import ApiError
from assistants.models import ApiKey
from assistants.services import issue_key, revoke_key
from capture.models import Turn, WaitingSpans
from capture.otlp import decoding
from capture.otlp.closing import close_traces
from capture.otlp.decoding import count_spans, decode
from capture.otlp.receiving import LATE, TOO_LARGE, forget_loads
from capture.otlp.spans import BAD_IDS, TOO_MANY_ATTRIBUTES
from capture.otlp.wire import MAX_UNPACKED, Encoding
from capture.sealing import content_of
from capture.services import receive_turns, scrub_waiting
from tests.capture.conftest import Cast, turn_item
from tests.capture.otlp_samples import ANSWERED, ASKED, Bot, body_of, json_of, trace_id

ROOT = Path(__file__).resolve().parents[2]
PROTOBUF, JSON = "application/x-protobuf", "application/json"


@pytest.fixture(autouse=True)
def _at_once(settings: Any) -> None:
    settings.RATCHET_TRACE_SETTLE_SECONDS = 0
    forget_loads()


@pytest.fixture
def post(cast: Cast, client: Client) -> Any:
    """``post(body)``: bytes as protobuf, anything else as JSON, unless ``kind`` says otherwise."""

    def call(body: Any, *, kind: str = "", secret: str = "", path: str = "/v1/traces", **headers: str) -> Any:
        kind = kind or (PROTOBUF if isinstance(body, bytes) else JSON)
        content = body if isinstance(body, bytes) else json.dumps(body)
        given = {"Authorization": f"Bearer {secret or cast.secret}", **headers}
        return client.post(path, content, content_type=kind, headers=given)

    return call


def refusal(response: Any, status: int, kind: str = PROTOBUF) -> str:
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == kind
    if kind == JSON:
        body = response.json()
        assert set(body) == {"code", "message"}
        return str(body["message"])
    found = Status.FromString(response.content)
    assert found.code
    return str(found.message)


def partial(response: Any) -> tuple[int, str]:
    assert response.status_code == 200, response.content
    if response.headers["Content-Type"] == JSON:
        found = response.json().get("partialSuccess", {})
        return int(found.get("rejectedSpans", 0)), found.get("errorMessage", "")
    success = ExportTraceServiceResponse.FromString(response.content).partial_success
    return success.rejected_spans, success.error_message


def span(**fields: Any) -> dict[str, Any]:
    """A request in JSON with one span, the root of its trace."""
    attributes = fields.pop("attributes", {"input.value": ASKED, "output.value": ANSWERED})
    listed = [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
    one = {"traceId": "a" * 32, "spanId": "b" * 16, "name": "x", "startTimeUnixNano": "1772359200000000000",
           "endTimeUnixNano": "1772359201000000000", "attributes": listed, **fields}  # fmt: skip
    return {"resourceSpans": [{"scopeSpans": [{"spans": [one]}]}]}


# --- Taking --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/traces", "/api/v1/traces"])
def test_both_encodings_say_the_same(post: Any, path: str) -> None:
    spans = Bot().openinference(web=True)
    sent = post(body_of(spans), path=path)
    assert (sent.status_code, sent.content, sent.headers["Content-Type"]) == (200, b"", PROTOBUF)
    kept = content_of(WaitingSpans.objects.get().payload)
    assert b"secret" not in kept  # what a web framework writes is none of ours
    again = post(json_of(spans), path=path)
    assert (again.status_code, again.json(), again.headers["Content-Type"]) == (200, {}, JSON)
    assert WaitingSpans.objects.count() == 1  # word for word
    assert decode(json.dumps(json_of(spans)).encode(), Encoding.JSON) == decode(body_of(spans), Encoding.PROTOBUF)


def test_gzip_of_several_members_and_an_empty_request(post: Any) -> None:
    body = body_of(Bot().openinference())
    packed = gzip.compress(body[:100]) + gzip.compress(body[100:])
    assert partial(post(packed, **{"Content-Encoding": "gzip"})) == (0, "")
    assert WaitingSpans.objects.get().spans == 3
    assert partial(post(b"\x0a\x00")) == (0, "")
    assert partial(post({})) == (0, "")


def test_spans_that_cannot_be_taken_are_counted_and_stop_nobody(post: Any, monkeypatch: Any) -> None:
    good = span()
    rows = good["resourceSpans"][0]["scopeSpans"][0]["spans"]
    changes: list[dict[str, Any]] = [{"traceId": "0" * 32}, {"spanId": 7}, {"traceId": "zz"}, {"spanId": ""}]
    bad = [{**rows[0], **change} for change in changes]
    many = {**rows[0], "spanId": "c" * 16, "attributes": [
        {"key": f"metadata.{n}", "value": {"stringValue": "x"}} for n in range(4001)]}  # fmt: skip
    rows += [*bad, many]
    rejected, message = partial(post(good))
    assert (rejected, message) == (5, f"1 spans {TOO_MANY_ATTRIBUTES}; 4 spans {BAD_IDS}")
    message_in_protobuf = ExportTraceServiceRequest()
    message_in_protobuf.resource_spans.add().scope_spans.add().spans.add(trace_id=b"short", span_id=b"x" * 8)
    assert partial(post(message_in_protobuf.SerializeToString())) == (1, f"1 spans {BAD_IDS}")
    assert WaitingSpans.objects.get().spans == 1


def test_a_trace_is_bounded_in_spans_and_bytes(post: Any, monkeypatch: Any) -> None:
    huge = span(attributes={"input.value": "x" * 5_000_000})
    assert partial(post(huge)) == (1, f"1 spans {TOO_LARGE}")
    monkeypatch.setattr("capture.otlp.receiving.MAX_PIECES", 4)
    spans = Bot().openinference()
    assert partial(post(body_of(spans))) == (0, "")
    assert partial(post(body_of(spans[:2]))) == (2, f"2 spans {TOO_LARGE}")
    assert WaitingSpans.objects.count() == 1


@pytest.mark.parametrize("setting", ["RATCHET_TRACE_MAX_SPANS", "RATCHET_TRACE_MAX_BYTES"])
def test_an_assistant_is_bounded_and_its_exporter_told_when_to_come_back(
    post: Any, cast: Cast, settings: Any, setting: str
) -> None:
    setattr(settings, setting, 3)
    assert partial(post(body_of(Bot().openinference()))) == (0, "")
    for _ in range(2):
        response = post(body_of(Bot().openinference()))
        refusal(response, 503)
        assert response.headers["Retry-After"] == "10"
        forget_loads()  # as another process sees it
    assert partial(post(span(), secret=cast.other_secret)) == (0, "")
    assert close_traces().turns == 2
    forget_loads()
    assert partial(post(body_of(Bot().openinference()))) == (0, "")


def test_a_turn_that_the_log_api_has_taken_is_not_taken_twice(post: Any, cast: Cast) -> None:
    spans = Bot().openinference()
    receive_turns(assistant=cast.bot, api_key=cast.key, items=[turn_item(id=trace_id(spans))])
    assert partial(post(body_of(spans))) == (0, f"3 spans {LATE}")
    assert not WaitingSpans.objects.exists()


# --- Refusing ------------------------------------------------------------------------------------


def test_without_a_right_key_nothing_is_read(post: Any, cast: Cast, client: Client, settings: Any) -> None:
    body = body_of(Bot().openinference())
    assert "not known" in refusal(post(body, secret="rk_wrong"), 401)
    assert post(body, secret="rk_wrong").headers["WWW-Authenticate"].startswith("Bearer")
    refusal(client.post("/v1/traces", body, content_type=PROTOBUF), 401)
    reader = issue_key(assistant=cast.bot, name="reader", scopes=["read"])[1]
    assert "scope 'log'" in refusal(post(body, secret=reader), 403)
    refusal(post(span(), secret=reader), 403, JSON)
    revoke_key(key=ApiKey.objects.get(pk=cast.key.pk), actor=cast.alice)
    assert "revoked" in refusal(post(body), 401)
    assert not WaitingSpans.objects.exists()


def test_too_many_requests(post: Any, settings: Any) -> None:
    settings.RATCHET_RATE_LIMIT = "1/hour"
    limits.reset()
    post(b"\x0a\x00")
    response = post(b"\x0a\x00")
    refusal(response, 429)
    assert int(response.headers["Retry-After"]) > 1000


def test_other_methods_and_content_types(post: Any, cast: Cast, client: Client) -> None:
    response = client.get("/v1/traces", headers={"Authorization": f"Bearer {cast.secret}"})
    refusal(response, 405, JSON)
    assert response.headers["Allow"] == "POST"
    for kind in ("text/plain", "application/grpc", "multipart/form-data; boundary=x"):
        refusal(post(b"x", kind=kind), 415, JSON)
    refusal(post(b"x", **{"Content-Encoding": "br"}), 415)


NESTED = b'{"resourceSpans":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"\xff" * 50, PROTOBUF),
        (b"\x0a\xff\xff\xff\xff\x0f", PROTOBUF),
        (b"{}", PROTOBUF),
        (b"\x0a\x06\x12\x04\x12\x02\x0a\x7f", PROTOBUF),
        (b"\x0a" * 100_000, PROTOBUF),
        (b"{", JSON),
        (b"[]", JSON),
        (b"\xff\xfe", JSON),
        (NESTED, JSON),
        (b'{"resourceSpans": {}}', JSON),
        (b'{"resourceSpans": [1]}', JSON),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": 5}]}]}]}', JSON),
        (b'{"a": ' + b"9" * 10_000 + b"}", JSON),
    ],
)
def test_what_is_no_export_is_a_bad_request(post: Any, body: bytes, kind: str) -> None:
    response = post(body, kind=kind)
    if b"attributes" in body:  # a span without ids: its attributes are not even looked at
        assert partial(response)[0] == 1
    else:
        refusal(response, 400, kind)
    assert not WaitingSpans.objects.exists()


def test_protobuf_nested_too_deeply_and_text_that_is_not_utf8(post: Any) -> None:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue

    def request(value: bytes) -> bytes:
        given = ExportTraceServiceRequest()
        made = given.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8)
        made.attributes.add(key="input.value").value.string_value = "MARK"
        mark = AnyValue(string_value="MARK").SerializeToString()
        whole = given.SerializeToString()
        assert mark in whole and len(value) == len(mark)  # noqa: PT018
        return whole.replace(mark, value)

    assert partial(post(request(b"\x0a\x04MARK")))[0] == 0
    refusal(post(request(b"\x0a\x04\xff\xfeRK")), 400)
    deep = AnyValue(string_value="end")
    for _ in range(60):
        outer = AnyValue()
        outer.array_value.values.add().CopyFrom(deep)
        deep = outer
    given = ExportTraceServiceRequest()
    made = given.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"d" * 8)
    made.attributes.add(key="metadata").value.CopyFrom(deep)
    assert post(given.SerializeToString()).status_code in (200, 400)


def test_bodies_that_are_too_large_packed_or_not(post: Any, monkeypatch: Any) -> None:
    large = b"\x0a" + b"x" * MAX_UNPACKED
    assert "8 MB" in refusal(post(large), 413)
    bomb = zlib.compress(b"x" * (MAX_UNPACKED + 1), wbits=31)
    assert len(bomb) < 20_000
    refusal(post(bomb, **{"Content-Encoding": "gzip"}), 413)
    for damaged in (b"no gzip", bomb[:-20], gzip.compress(b"{}")[:-4]):
        refusal(post(damaged, **{"Content-Encoding": "gzip"}), 400)
    monkeypatch.setattr(decoding, "MAX_SPANS", 5)
    many = body_of([one for _ in range(2) for one in Bot().openinference()])
    assert "5 spans" in refusal(post(many), 413)
    rows = span()
    rows["resourceSpans"][0]["scopeSpans"][0]["spans"] *= 6
    assert "5 spans" in refusal(post(rows), 413, JSON)
    rows["resourceSpans"][0]["scopeSpans"][0]["spans"] *= 3
    refusal(post(rows), 413, JSON)
    refusal(post(b"\x0a\x00" * 60), 413)


def test_bytes_that_cannot_be_stored_and_clocks_of_another_age_are_stored_inert(post: Any) -> None:
    hostile = "<script>alert(1)</script>\x00 \ud83d half"
    given = span(
        attributes={"input.value": hostile, "output.value": hostile, "session.id": "s\x00\ud83d", "user.id": "u\x00",
                    "metadata": '{"a\\u0000": "\\ud83d"}', "tag.tags": '["\\u0000"]', "llm.model_name": "\x00\ud83d",
                    "retrieval.documents.99999999.document.content": "x",
                    "retrieval.documents.-1.document.content": hostile, "input" + ".a" * 500: "x"},
        startTimeUnixNano="-5", endTimeUnixNano=2**63, name=["x"], kind="no",
    )  # fmt: skip
    assert partial(post(given)) == (0, "")
    assert close_traces().sentence.startswith("1 turns")
    assert scrub_waiting().scrubbed == 1
    turn = Turn.objects.get()
    assert "<script>" in turn.question
    assert "\x00" not in turn.question
    assert "\ufffd" in turn.question
    assert turn.asked_at.year >= 2026


_JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["resourceSpans", "scopeSpans", "spans", "attributes", "key", "value", "stringValue", "values",
                         "arrayValue", "kvlistValue", "intValue", "events", "traceId", "resource"]), inner, max_size=4),
    max_leaves=25,
)  # fmt: skip


@given(_JSON_VALUES)
def test_any_json_is_decoded_or_a_bad_request(value: Any) -> None:
    try:
        decode(json.dumps({"resourceSpans": [value]}).encode(), Encoding.JSON)
    except ApiError as error:
        assert error.status_code == 400  # noqa: PT017


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_a_bad_request(body: bytes) -> None:
    try:
        decode(body, Encoding.PROTOBUF)
    except ApiError as error:
        assert error.status_code == 400  # noqa: PT017


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=4))
def test_spans_are_counted_in_the_bytes(shape: list[list[int]]) -> None:
    request = ExportTraceServiceRequest()
    for scopes in shape:
        resource = request.resource_spans.add(schema_url="x")
        for spans in scopes:
            scope = resource.scope_spans.add(schema_url="y")
            for n in range(spans):
                scope.spans.add(name="z" * n, trace_id=b"t" * 16, start_time_unix_nano=n)
    assert count_spans(request.SerializeToString()) == sum(map(sum, shape))


def test_processes_without_traces_load_no_protobuf() -> None:
    code = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
import config.asgi, capture.otlp.urls, capture.jobs, capture.admin
print([name for name in sys.modules if name.startswith(("google.protobuf", "opentelemetry"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
