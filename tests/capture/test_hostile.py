"""Hostile payloads: a clear error, or stored inert; never a 500, never a script that runs."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import reverse
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from capture.models import Conversation, Feedback, Quarantine, Turn
from capture.payloads import TurnItem
from capture.services import scrub_waiting
from tests.capture.conftest import Call, Cast, turn_item

ATTACKS = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(2)>",
    "</textarea></title></style></script><svg/onload=alert(3)>",
    "javascript:alert(4)",
    "{{ 7*7 }}{% debug %}${7*7}",
    "<a href='javascript:alert(5)'>x</a>",
    "<!--<img src='--><img src=x onerror=alert(6)//'>",
)
ATTACK = " ".join(ATTACKS)


def problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.content[:300]
    assert answer.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    return body


# --- Bodies that are no turns ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["turns", "turns/batch", "feedback"])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"[" * 100_000, b"", b"\x00",
        b"\xff\xfe",
        b"nul", b'"', b"[]", b"null", b"1e999", b"-0", b"NaN", b"Infinity", b"1" * 10_000, b'{"id": 1e400}',
        b'\xef\xbb\xbf{}', b'{"id": "a", "id": "b"}',
    ],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_what_is_no_turn_gets_a_422(api: Call, path: str, body: bytes) -> None:
    assert problem(api("post", path, body), 422)["detail"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"question": "x" * 1_000_000}, "question"), ({"question": ""}, "question"),
        ({"question": "\u2003\n"}, "question"),
        ({"question": None}, "question"), ({"question": 7}, "question"), ({"question": ["x"]}, "question"),
        ({"time": "1970-01-01T00:00:00Z"}, "time"), ({"time": "2100-01-01T00:00:00Z"}, "time"), ({"time": -1}, "time"),
        ({"time": 10**30}, "time"), ({"time": "9999-12-31T23:59:59-23:59"}, "time"),
        ({"time": "0001-01-01T00:00:00+23:59"}, "time"),
        ({"latency_ms": -1}, "latency_ms"), ({"latency_ms": 10**400}, "latency_ms"),
        ({"prompt_tokens": 2**31}, "prompt_tokens"), ({"prompt_tokens": 1.5}, "prompt_tokens"),
        ({"id": "x" * 201}, "id"), ({"id": ""}, "id"), ({"id": "a\nb"}, "id"), ({"id": "a\x00b"}, "id"),
        ({"id": 4}, "id"),
        ({"conversation": "x" * 10_000}, "conversation"), ({"tags": ["x"] * 21}, "tags"), ({"tags": "web"}, "tags"),
        ({"contexts": {}}, "contexts"), ({"contexts": [{"text": "a"}] * 51}, "contexts"),
        ({"contexts": [{"text": "a", "rank": -1}]}, "contexts.0.rank"),
        ({"contexts": [{"text": "a", "rank": 0}]}, "contexts.0.rank"),
        ({"contexts": [{"text": "a", "rank": 2}, {"text": "b", "rank": 2}]}, "contexts"),
        ({"contexts": [{"text": "a", "rank": 1}, {"text": "b"}]}, "contexts"),
        ({"contexts": [{"text": "a", "score": "NaN"}]}, "contexts.0.score"),
        ({"history": [{"role": "tool", "content": "x"}]}, "history.0.role"), ({"metadata": {"a b": 1}}, "metadata"),
        ({"metadata": {"n": 2**64}}, "metadata"), ({"metadata": []}, "metadata"), ({"model": "<script>"}, "model"),
        ({"adapter": "x" * 121}, "adapter"), ({"citations": [[-1, 0]]}, "citations.0.0"),
        ({"__proto__": {}}, "__proto__"),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_a_bad_field_is_named_and_not_repeated(api: Call, change: dict[str, Any], field: str) -> None:
    answer = api("post", "turns", turn_item(**change))
    errors = problem(answer, 422)["errors"]
    assert errors[0]["field"].startswith(field)
    assert len(answer.content) < 2_000
    assert not Quarantine.objects.exists()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none(api: Call, number: str) -> None:
    body = json.dumps(turn_item(latency_ms=1)).replace('"latency_ms": 1', f'"latency_ms": {number}')
    assert number in body
    problem(api("post", "turns", body.encode()), 422)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = sorted(TurnItem.model_fields)


@pytest.mark.django_db
@settings(max_examples=120, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    changes=st.dictionaries(st.sampled_from(_FIELDS), JSON, min_size=1, max_size=4),
    path=st.sampled_from(["turns", "turns/batch"]),
)
@example(changes={"question": "\ud800"}, path="turns")
@example(changes={"id": "\udfff"}, path="turns")
@example(changes={"tags": ["\ud800\udc00"]}, path="turns/batch")
def test_wrong_types_everywhere(api: Call, cast: Cast, changes: dict[str, Any], path: str) -> None:
    item = {**turn_item(id=str(uuid4())), **changes}
    body = json.dumps(item if path == "turns" else [item])  # with NaN, Infinity and halves of surrogate pairs
    answer = api("post", path, body.encode())
    assert answer.status_code in ((201, 200, 409, 422) if path == "turns" else (207, 422))
    answer.content.decode()


# --- What is stored, is stored inert -----------------------------------------------------------------------


class _Scripts(HTMLParser):
    """Finds what an attack would have become, had it become markup."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            handler = name.startswith("on") and "alert" in (value or "")
            if handler or (
                name in ("href", "src", "action")
                and "alert" in (value or "").lower()
                and "javascript:" in (value or "")
            ):
                self.found.append(f"{tag} {name}")
        if tag in ("img", "svg") and dict(attrs).get("src") == "x":
            self.found.append(tag)

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and "alert(" in data:
            self.found.append("script")


def scripts(html: str) -> list[str]:
    reader = _Scripts()
    reader.feed(html)
    return reader.found


def test_the_finder_finds() -> None:
    assert all(scripts(attack) for attack in ATTACKS if "<" in attack)
    assert scripts("&lt;script&gt;alert(1)&lt;/script&gt; {{ x }}") == []


@pytest.fixture
def attacked(api: Call, cast: Cast) -> Turn:
    item = turn_item(
        id="x-1' onmouseover=alert(9)<b>", conversation="c-<script>alert(1)</script>", question=ATTACK,
        response=f"{ATTACK} [1]",
        history=[{"role": "user", "content": ATTACK}], tags=["<script>alert(1)</script>"],
        contexts=[{"text": ATTACK, "title": ATTACK[:300], "source": ATTACK[:300], "metadata": {"note": ATTACK}}],
        metadata={"note": ATTACK},
    )  # fmt: skip
    assert api("post", "turns", item).status_code == 201
    for kind, value in (("comment", None), ("correction", None), ("thumb", -1)):
        feedback = {"turn": item["id"], "kind": kind, "value": value, "text": ATTACK, "id": f"f-{kind}"}
        assert api("post", "feedback", {k: v for k, v in feedback.items() if v is not None}).status_code == 201
    assert scrub_waiting().held == 0
    return Turn.objects.get()


def test_markup_is_stored_as_it_came(api: Call, attacked: Turn) -> None:
    body = api("get", f"turns/{attacked.pk}").json()
    assert body["question"] == ATTACK
    assert body["contexts"][0]["text"] == ATTACK


def test_every_page_shows_hostile_text_as_text(client: Client, cast: Cast, attacked: Turn) -> None:
    from tests.factories import make_queue

    queue = make_queue(cast.bot, turns=[attacked], name=ATTACK[:100])
    client.force_login(cast.alice)
    addresses = [
        reverse("admin:capture_turn_changelist"),
        reverse("admin:capture_turn_changelist") + "?like=%3Cscript%3Ealert(1)%3C/script%3E",
        reverse("admin:capture_turn_changelist") + "?q=%22%27%3E%3Cimg%20src%3Dx%20onerror%3Dalert(2)%3E",
        reverse("admin:capture_turn_change", args=[attacked.pk]),
        reverse("admin:capture_conversation_changelist"),
        reverse("admin:capture_conversation_change", args=[Conversation.objects.get().pk]),
        reverse("admin:capture_feedback_changelist"),
        *(reverse("admin:capture_feedback_change", args=[given.pk]) for given in Feedback.objects.all()),
        reverse("admin:annotations_queue_changelist"),
        reverse("admin:annotations_queue_change", args=[queue.pk]),
        "/api/docs?lang=%3Cscript%3Ealert(1)%3C/script%3E",
    ]
    shown = 0
    for address in addresses:
        answer = client.get(address, follow=True)
        text = answer.content.decode()
        assert answer.status_code == 200, address
        assert scripts(text) == [], address
        shown += "&lt;script&gt;alert(1)" in text
    assert shown >= 5


# --- Names that look alike, ids in another form --------------------------------------------------------------


def test_ids_are_compared_character_by_character(api: Call, cast: Cast) -> None:
    """Two Unicode forms of one letter, and letters of other alphabets that look the same, are different ids."""
    names = [
        "caf\u00e9",
        "cafe\u0301",
        "admin",
        "\u0430dmin",
        "ａdmin",
        "ADMIN",
        "x" * 200,
        "%2e%2e",
        "..",
        "a/b",
        "a?b#c",
    ]
    for number, name in enumerate(names):
        assert api("post", "turns", turn_item(id=name, question=f"Question {number}?")).status_code == 201, name
    assert scrub_waiting().held == 0
    for number, name in enumerate(names):
        if "/" in name or name == "..":
            continue  # no address of a path; found in the list all the same
        from urllib.parse import quote

        assert api("get", f"turns/{quote(name, safe='')}").json()["question"] == f"Question {number}?"
    listed = {turn["client_id"] for turn in api("get", "turns", {"limit": 50}).json()["turns"]}
    assert listed == set(names)


@pytest.mark.parametrize(
    "name", ["%00", "%ff", "%ED%A0%80", "x" * 201, "x" * 5000, "%F0%9F%99%82", "..%2f..%2fetc", "%20", "0" * 36]
)
def test_strange_addresses_are_no_turns(api: Call, cast: Cast, name: str) -> None:
    problem(api("get", f"turns/{name}"), 404)


def test_a_million_characters_of_feedback_and_ids_that_never_were(api: Call, cast: Cast) -> None:
    problem(api("post", "feedback", {"turn": "t", "kind": "comment", "text": "x" * 1_000_000}), 422)
    problem(api("post", "feedback", {"turn": "nobody", "kind": "thumb", "value": 1}), 404)
    for value in (0, 2, 10**300, "1", True, None, [1]):
        answer = api("post", "feedback", {"turn": "nobody", "kind": "thumb", "value": value})
        assert answer.status_code in (404, 422)
