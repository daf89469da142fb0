"""Search by meaning: through the API and on the list of turns."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from pgvector import HalfVector

from capture import likeness
from capture.likeness import Likeness, nearest
from capture.models import Turn
from knowledge.query import question_vectors
from tests.capture.conftest import Call, Cast
from tests.factories import make_assistant, make_conversation, make_feedback, make_turn

QUESTIONS = {
    "leave": "What does it cost to leave a fixed plan early?",
    "cancel": "Is there a fee when I cancel my contract before it ends?",
    "meter": "How do I read my electricity meter?",
    "boiler": "My boiler makes a strange noise, whom do I call?",
}


@pytest.fixture
def asked(cast: Cast) -> dict[str, Turn]:
    vectors = question_vectors([(question, ()) for question in QUESTIONS.values()])
    return {
        name: make_turn(cast.bot, client_id=name, question=question, embedding=HalfVector(vector))
        for (name, question), vector in zip(QUESTIONS.items(), vectors, strict=True)
    }


def found(api: Call, **query: Any) -> list[str]:
    answer = api("get", "turns", query)
    assert answer.status_code == 200, answer.content
    return [turn["client_id"] for turn in answer.json()["turns"]]


def test_what_means_the_same_is_found_without_sharing_words(api: Call, asked: dict[str, Turn]) -> None:
    answer = api("get", "turns", {"like": "penalty for quitting early", "limit": 2}).json()
    assert {turn["client_id"] for turn in answer["turns"]} == {"leave", "cancel"}
    similarities = [turn["similarity"] for turn in answer["turns"]]
    assert similarities == sorted(similarities, reverse=True)
    assert 0 < similarities[1] < 1
    assert answer["next"] is None
    assert found(api, q="penalty quitting") == []


def test_like_a_turn_by_either_id_and_without_itself(api: Call, asked: dict[str, Turn]) -> None:
    assert found(api, like=str(asked["leave"].pk))[0] == "cancel"
    assert found(api, like="turn:leave") == found(api, like=str(asked["leave"].pk))
    assert "leave" not in found(api, like="turn:leave")


def test_it_stays_within_the_assistant_and_the_filters(api: Call, cast: Cast, asked: dict[str, Turn]) -> None:
    make_turn(cast.other, client_id="theirs", embedding=asked["leave"].embedding)
    make_turn(cast.bot, client_id="without vector")
    make_feedback(asked["meter"], value=-1)
    assert set(found(api, like="leaving early")) == set(QUESTIONS)
    assert found(api, like="leaving early", feedback="down") == ["meter"]
    assert found(api, like="leaving early", q="boiler") == ["boiler"]
    theirs = api("get", "turns", {"like": "turn:leave"}, secret=cast.other_secret)
    assert theirs.status_code == 422  # somebody else's turn is no turn


@pytest.mark.parametrize(
    ("query", "field"),
    [({"like": " "}, "like"), ({"like": "x" * 1001}, "like"), ({"like": "a\x00"}, "like"),
     ({"like": "turn:nobody"}, "like"), ({"like": str(uuid.uuid4())}, "like"), ({"like": ["a", "b"]}, "like"),
     ({"like": "fee", "cursor": "abc"}, "cursor"), ({"like": "fee", "limit": "201"}, "limit")],
)  # fmt: skip
def test_bad_searches_are_named(api: Call, asked: dict[str, Turn], query: Any, field: str) -> None:
    answer = api("get", "turns", query)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


def test_without_the_engine_words_still_work(api: Call, asked: dict[str, Turn], settings: Any, tmp_path: Path) -> None:
    settings.PROCESS, settings.RATCHET_ENGINE_URL = "web", f"unix:{tmp_path / 'nobody.sock'}"
    answer = api("get", "turns", {"like": "leaving early"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "q=" in answer.json()["detail"]
    assert found(api, q="boiler") == ["boiler"]
    assert found(api, like="turn:leave", limit=1) == ["cancel"]  # a turn brings its vector along


def test_the_index_finds_what_the_distances_say(cast: Cast) -> None:
    """Two assistants, one with a fiftieth of the turns: the walk goes on until it has enough of the small one's."""
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(1000, 384)).astype(np.float32)
    small = make_assistant("small")
    talks = {cast.bot: make_conversation(cast.bot), small: make_conversation(small)}
    owners = [small if n % 50 == 0 else cast.bot for n in range(1000)]
    Turn.objects.bulk_create(
        Turn(assistant=owner, conversation=talks[owner], client_id=str(n), question="?", response="!",
             policy_digest="t", asked_at="2026-01-01T00:00:00Z", declined=n % 3 == 0, embedding=HalfVector(vectors[n]))
        for n, owner in enumerate(owners)
    )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE capture_turn")
    for turns in (Turn.objects.of(small), Turn.objects.of(cast.bot), Turn.objects.of(cast.bot).filter(declined=True)):
        for row in range(3):
            like = Likeness(vectors[row])
            exact = nearest(turns, like, limit=20, exact=True)
            walked = nearest(turns, like, limit=20, exact=False)
            assert len(walked) == 20
            assert len({near.turn for near in exact} & {near.turn for near in walked}) >= 19
            assert [near.similarity for near in walked] == sorted((n.similarity for n in walked), reverse=True)


def test_the_walk_uses_the_index_and_few_rows_do_not(cast: Cast, django_assert_max_num_queries: Any) -> None:
    turns = Turn.objects.of(cast.bot)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")  # there is not one row
    like = Likeness(np.ones(384, dtype=np.float32))
    with django_assert_max_num_queries(8) as done:
        nearest(turns, like, limit=5, exact=False)
    walk = next(query["sql"] for query in done.captured_queries if "<=>" in query["sql"])
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {walk}")
        assert "turn_embedding_hnsw" in str(cursor.fetchall())
    with django_assert_max_num_queries(2) as done:
        nearest(turns, like, limit=5)
    exact = next(
        query["sql"] for query in done.captured_queries if "<=>" in query["sql"] and "EXPLAIN" not in query["sql"]
    )
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {exact}")
        assert "turn_embedding_hnsw" not in str(cursor.fetchall())


def test_searching_costs_the_same_however_many_are_found(
    api: Call, asked: dict[str, Turn], django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(10) as few:
        assert len(found(api, like="turn:leave", limit=1)) == 1
    with django_assert_max_num_queries(len(few)):
        assert len(found(api, like="turn:leave", limit=3)) == 3


# --- The list of turns -----------------------------------------------------------------------------------


def test_the_list_is_searched_by_meaning(client: Client, cast: Cast, asked: dict[str, Turn]) -> None:
    make_turn(cast.other, question="Theirs?", embedding=asked["leave"].embedding)
    client.force_login(cast.alice)
    text = client.get(reverse("admin:capture_turn_changelist"), {"like": "penalty for quitting early"}).content.decode()
    places = [text.index(QUESTIONS[name][:30]) for name in ("leave", "cancel", "meter")]
    assert max(places[:2]) < places[2]
    assert "Theirs?" not in text
    assert 'value="penalty for quitting early"' in text
    assert "Similarity" in text
    both = client.get(reverse("admin:capture_turn_changelist"), {"like": "penalty", "q": "boiler"}).content.decode()
    assert QUESTIONS["boiler"][:30] in both
    assert QUESTIONS["meter"][:30] not in both


def test_the_list_says_when_the_engine_is_away(
    client: Client, cast: Cast, asked: dict[str, Turn], settings: Any, tmp_path: Path
) -> None:
    settings.PROCESS, settings.RATCHET_ENGINE_URL = "web", f"unix:{tmp_path / 'nobody.sock'}"
    client.force_login(cast.alice)
    answer = client.get(reverse("admin:capture_turn_changelist"), {"like": "penalty"})
    assert answer.status_code == 200
    assert "needs the engine" in answer.content.decode()
    assert likeness.EMBED_SECONDS <= 10
