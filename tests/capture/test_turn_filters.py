"""The filters of the list at their edges."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from assistants.errors import ApiError
from capture import reading
from capture.models import Feedback, Turn
from capture.turn_filters import FILTERS, read_filters
from tests.capture.conftest import Call, Cast
from tests.factories import make_conversation, make_feedback, make_turn

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def found(api: Call, query: Any) -> list[str]:
    answer = api("get", "turns", query)
    assert answer.status_code == 200, answer.content
    return [turn["client_id"] for turn in answer.json()["turns"]]


def refused(api: Call, query: Any) -> str:
    answer = api("get", "turns", query)
    assert answer.status_code == 422, answer.content
    return str(answer.json()["errors"][0]["field"])


def test_since_is_included_and_until_is_not(api: Call, cast: Cast) -> None:
    for name, hours in (("before", -1), ("at", 0), ("after", 1)):
        make_turn(cast.bot, client_id=name, asked_at=NOON + timedelta(hours=hours))
    moment = "2026-03-01T12:00:00Z"
    assert found(api, {"since": moment}) == ["after", "at"]
    assert found(api, {"until": moment}) == ["before"]
    assert found(api, {"since": moment, "until": moment}) == []
    assert found(api, {"since": "2026-03-01", "until": "2026-03-02"}) == ["after", "at", "before"]
    assert found(api, {"since": "2026-03-01T14:00:00+02:00"}) == ["after", "at"]  # the same moment elsewhere
    assert found(api, {"since": "2026-03-01 12:00"}) == ["after", "at"]  # without a zone it is ours


def test_tags_with_an_adapter_and_a_model(api: Call, cast: Cast) -> None:
    for name, tags, adapter, model in (
        ("both", ["a", "b"], "shop/1", "m-1"),
        ("other adapter", ["a"], "shop/2", "m-1"),
        ("base", ["a"], "", "m-1"),
        ("other model", ["a", "b"], "shop/1", "m-2"),
        ("no tag", [], "shop/1", "m-1"),
        ("tags that look like them", ["a", "\x1fshop/1", "\x1em-1"], "", ""),
    ):
        make_turn(cast.bot, client_id=name, tags=tags, adapter=adapter, model=model)
    assert set(found(api, {"tag": "a", "adapter": "shop/1"})) == {"both", "other model"}
    assert found(api, {"tag": ["a", "b"], "adapter": "shop/1", "model": "m-1"}) == ["both"]
    assert found(api, {"tag": "a", "adapter": "", "model": "m-1"}) == ["base"]
    assert set(found(api, {"adapter": "shop/1", "model": "m-1"})) == {"both", "no tag"}
    assert set(found(api, {"adapter": "shop/1"})) == {"both", "other model", "no tag"}
    assert len(found(api, {"tag": "a"})) == 5
    assert found(api, {"tag": "\x1fshop/1"}) == ["tags that look like them"]
    assert [turn.client_id for turn in Turn.objects.with_any_tag(["\x1fshop/1", "none"])] == [
        "tags that look like them"
    ]
    assert Turn.objects.with_any_tag(["b", "none"]).count() == 2


@pytest.mark.parametrize("more", [{}, {"adapter": "shop/1", "model": "m-1"}])
def test_tags_with_what_answered_are_found_through_one_index(cast: Cast, more: dict[str, str]) -> None:
    """The query says what the index says, to the letter."""
    turns = Turn.objects.tagged(["a"], **more).order_by()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; DROP INDEX turn_newest_of_adapter, turn_newest_of_model")
        plan = turns.explain()
        transaction.set_rollback(True)
    assert "Bitmap Index Scan on turn_traits_gin" in plan


def test_turns_of_one_moment_are_each_on_one_page(api: Call, cast: Cast) -> None:
    names = {make_turn(cast.bot, asked_at=NOON).client_id for _ in range(7)}
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        page = api("get", "turns", query).json()
        seen += [turn["client_id"] for turn in page["turns"]]
        if not page["next"]:
            break
        query["cursor"] = page["next"]
    assert sorted(seen) == sorted(names)


@pytest.mark.parametrize("near", [1, 4, 5_000])
def test_what_matches_seldom_is_found_in_order_however_far_back(
    api: Call, cast: Cast, monkeypatch: pytest.MonkeyPatch, near: int
) -> None:
    """As a plain list of all turns would give it, whether the last turns fill a page, some of it, or none of it."""
    monkeypatch.setattr(reading, "NEAR", near)
    tags = ["a", "b", "b", "a", "", "b", "", "", "a", "b", "a", "", "", "", ""]
    rows = [(f"t{n:02}", tag, ["x-1", ""][n % 2]) for n, tag in enumerate(tags)]
    for n, (name, tag, adapter) in enumerate(rows):
        make_turn(cast.bot, client_id=name, tags=[tag] if tag else [], adapter=adapter,
                  asked_at=NOON + timedelta(minutes=n // 2), question=f"Where is {tag or 'nothing'}berry?")  # fmt: skip
    order = list(Turn.objects.of(cast.bot).newest_first().values_list("client_id", flat=True))
    for query, wanted in (
        ({"tag": "a"}, {name for name, tag, _ in rows if tag == "a"}),
        ({"tag": "b", "adapter": "x-1"}, {name for name, tag, adapter in rows if (tag, adapter) == ("b", "x-1")}),
        ({"adapter": "x-1", "declined": "false"}, {name for name, _, adapter in rows if adapter}),
        ({"q": "bberry"}, {name for name, tag, _ in rows if tag == "b"}),
        ({"tag": "c"}, set()),
    ):
        seen: list[str] = []
        asked: dict[str, Any] = {**query, "limit": 2}
        while True:
            page = api("get", "turns", asked).json()
            seen += [turn["client_id"] for turn in page["turns"]]
            if not page["next"]:
                break
            asked["cursor"] = page["next"]
        assert seen == [name for name in order if name in wanted], query


def test_a_filtered_list_costs_the_same_however_long(api: Call, cast: Cast, django_assert_num_queries: Any) -> None:
    api("get", "turns")  # notes that the key was used
    for count in (2, 8):
        for _ in range(count):
            make_feedback(make_turn(cast.bot, tags=["a"]))
        with django_assert_num_queries(7):
            api("get", "turns", {"tag": "a"})


def test_a_full_last_page_has_no_next(api: Call, cast: Cast) -> None:
    for _ in range(2):
        make_turn(cast.bot)
    assert api("get", "turns", {"limit": 2}).json()["next"] is None
    assert api("get", "turns", {"limit": 200}).json()["next"] is None


def test_a_cursor_goes_on_within_the_filters_it_comes_with(api: Call, cast: Cast) -> None:
    for n in range(4):
        make_turn(cast.bot, client_id=f"t{n}", asked_at=NOON + timedelta(minutes=n), declined=n % 2 == 0)
    first = api("get", "turns", {"limit": 1, "declined": "true"}).json()
    assert [turn["client_id"] for turn in first["turns"]] == ["t2"]
    assert found(api, {"limit": 5, "declined": "true", "cursor": first["next"]}) == ["t0"]


def test_several_tags_must_all_be_there(api: Call, cast: Cast) -> None:
    make_turn(cast.bot, client_id="both", tags=["web", "beta"])
    make_turn(cast.bot, client_id="one", tags=["web"])
    assert found(api, {"tag": ["web", "beta"]}) == ["both"]
    assert set(found(api, {"tag": "web"})) == {"both", "one"}
    assert found(api, {"tag": "WEB"}) == []
    assert refused(api, {"tag": ["x"] * 21}) == "tag"


def test_the_base_model_is_the_empty_adapter(api: Call, cast: Cast) -> None:
    make_turn(cast.bot, client_id="base")
    make_turn(cast.bot, client_id="tuned", adapter="bot--1")
    assert found(api, {"adapter": ""}) == ["base"]
    assert found(api, {"adapter": "bot--1"}) == ["tuned"]
    assert found(api, {"adapter": "bot--"}) == []


def test_feedback_counts_thumbs_and_ratings_and_no_metrics(api: Call, cast: Cast) -> None:
    given = {
        "up": ("thumb", 1),
        "good": ("rating", 4),
        "middle": ("rating", 3),
        "poor": ("rating", 2),
        "down": ("thumb", -1),
    }
    for name, (kind, value) in given.items():
        make_feedback(make_turn(cast.bot, client_id=name), kind=kind, value=value)
    make_feedback(make_turn(cast.bot, client_id="said"), kind="comment", value=None, text="Hm.")
    measured = make_turn(cast.bot, client_id="measured")
    Feedback.objects.create(assistant=cast.bot, turn=measured, kind="metric", metric="resolved", value=1)
    make_turn(cast.bot, client_id="silent")
    assert set(found(api, {"feedback": "up"})) == {"up", "good"}
    assert set(found(api, {"feedback": "down"})) == {"down", "poor"}
    assert set(found(api, {"feedback": "any"})) == {*given, "said"}
    assert set(found(api, {"feedback": "none"})) == {"measured", "silent"}


def test_words_are_read_as_in_a_web_search(api: Call, cast: Cast) -> None:
    make_turn(cast.bot, client_id="fee", question="What is the exit fee?", response="It is £35.")
    make_turn(cast.bot, client_id="meter", question="Where is the meter?", response="No fee for that.")
    assert found(api, {"q": '"exit fee"'}) == ["fee"]
    assert found(api, {"q": "fee -meter"}) == ["fee"]
    assert set(found(api, {"q": "exit or meter"})) == {"fee", "meter"}
    assert set(found(api, {"q": ""})) == {"fee", "meter"}
    for strange in ("the", "'\"(&|!:*<->", "-", "\\", "%", "🙂", "a" * 500, "x " * 250):
        assert api("get", "turns", {"q": strange}).status_code == 200, strange


def test_conversations_are_found_by_the_clients_own_id(api: Call, cast: Cast) -> None:
    from capture.vault import stored_id

    spoken = "ada@example.org"
    make_turn(cast.bot, client_id="hers", conversation=make_conversation(cast.bot, stored_id(spoken)))
    make_turn(cast.other, conversation=make_conversation(cast.other, stored_id(spoken)))
    assert found(api, {"conversation": spoken}) == ["hers"]


def test_filters_hold_together(api: Call, cast: Cast) -> None:
    wanted = make_turn(cast.bot, client_id="wanted", adapter="a", declined=True, tags=["web"], asked_at=NOON)
    make_feedback(wanted, value=-1)
    make_turn(cast.bot, adapter="a", declined=True, tags=["web"], asked_at=NOON)
    query = {
        "adapter": "a", "declined": "true", "tag": "web", "since": "2026-01-01", "until": "2026-12-31", "q": "plan",
        "model": "base", "feedback": "down", "conversation": wanted.conversation.external_id,
    }  # fmt: skip
    assert found(api, query) == ["wanted"]
    assert found(api, {**query, "feedback": "up"}) == []
    assert set(query) == set(FILTERS)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "201"}, "limit"), ({"limit": "-1"}, "limit"), ({"limit": "１"}, "limit"),
        ({"limit": "1.0"}, "limit"),
        ({"limit": "9" * 5000}, "limit"), ({"limit": ""}, "limit"),
        ({"since": "2026-02-30"}, "since"), ({"until": "1e9"}, "until"), ({"since": "0000-01-01"}, "since"),
        ({"since": "2026-01-01T00:00:00+99:00"}, "since"), ({"since": ""}, "since"),
        ({"declined": "TRUE"}, "declined"), ({"feedback": ""}, "feedback"), ({"feedback": "metric"}, "feedback"),
        ({"model": "x" * 501}, "model"), ({"conversation": "a\x00b"}, "conversation"), ({"tag": "\x00"}, "tag"),
        ({"adapter": ["a", "b"]}, "adapter"), ({"limit": ["1", "2"]}, "limit"), ({"format": "jsonl"}, "format"),
        ({"cursor": base64.urlsafe_b64encode(b"2026-01-01|nothing").decode()}, "cursor"),
        ({"cursor": base64.urlsafe_b64encode(b"2026-01-01|00000000-0000-0000-0000-000000000000").decode()}, "cursor"),
        ({"cursor": "🙂"}, "cursor"), ({"cursor": "=" * 10_000}, "cursor"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named(api: Call, query: Any, field: str) -> None:
    assert refused(api, query) == field


def test_moments_at_the_ends_of_time(api: Call, cast: Cast) -> None:
    make_turn(cast.bot, client_id="one")
    assert found(api, {"since": "0001-01-01", "until": "9999-12-31T23:59:59-14:00"}) == ["one"]
    assert found(api, {"since": "0001-01-01T00:00:00+14:00"}) == ["one"]


@pytest.mark.django_db
@hypothesis_settings(max_examples=150, deadline=None, derandomize=True, database=None,
                     suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    st.dictionaries(
        st.sampled_from([*FILTERS, "cursor", "what"]), st.lists(st.text(max_size=40), max_size=3), max_size=4
    )
)
def test_any_text_gives_turns_or_a_refusal(query: dict[str, list[str]]) -> None:
    refusal: int | None = None
    try:
        turns = read_filters(query, also=("cursor",)).apply(Turn.objects.all())
    except ApiError as error:
        refusal = error.status_code
    else:
        assert list(turns) == []
    assert refusal in (None, 422)


def test_the_audit_trail_gets_no_search_words(cast: Cast) -> None:
    told = read_filters({"q": ["Ada Lovelace"], "conversation": ["ada@example.org"], "tag": ["web"]}).for_audit()
    assert told["tag"] == ("web",)
    assert "Ada" not in str(told)
    assert "example.org" not in str(told)
