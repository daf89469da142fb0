"""An index for each large assistant: made, measured, used, made anew when worn, dropped when it is of no use."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from assistants.background import BackgroundWork
from assistants.models import Assistant, AuditEvent
from assistants.prepared import run_prepared
from config.doctor import examine
from knowledge import candidates, index_views, indexing, vector_indexes
from knowledge.models import Chunk, Document, VectorIndex
from knowledge.query import question_vectors
from knowledge.retrieval import search
from knowledge.selftest import sample_vectors, self_test
from knowledge.services import load_document
from tests.factories import make_assistant, make_user

QUESTION = "What does leaving a fixed plan early cost?"


@pytest.fixture
def assistant(db: None, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Assistant:
    """Twelve chunks, and bounds below which that is large."""
    settings.RATCHET_FOREGROUND = True
    monkeypatch.setattr(indexing, "EXACT_UP_TO", 8)
    monkeypatch.setattr(index_views, "EXACT_UP_TO", 8)
    monkeypatch.setattr(indexing, "DROP_BELOW", 5)
    members = {"admin": [make_user("ada")], "reviewer": [make_user("rob")], "annotator": [make_user("ann")]}
    assistant = make_assistant("bot", members=members)
    for number in range(12):
        load(assistant, number, f"Fixed plan {number} costs £{number} a month, and leaving it early £{30 + number}.")
    return assistant


def load(assistant: Assistant, number: int, text: str) -> None:
    load_document(assistant=assistant, path=f"plans/{number}.md", data=f"# Plan {number}\n\n{text}".encode())


def found(assistant: Assistant, **how: Any) -> list[int]:
    (vector,) = question_vectors([(QUESTION, ())])
    return [p.chunk_id for p in search(assistant=assistant, query=QUESTION, vector=vector, k=5, **how)]


def names() -> list[str]:
    return [index.name for index in vector_indexes.present()]


def uses(assistant: Assistant) -> str:
    """The plan of the statement that serves a question."""
    ef_search = candidates.size_and_words(assistant, ())[0].ef_search
    (vector,) = question_vectors([(QUESTION, ())])
    sql, params = candidates.statement(
        assistant=assistant, vector=vector, terms=candidates.Terms(), settings=candidates.RetrievalSettings(),
        average_length=1, ef_search=ef_search,
    )  # fmt: skip
    with connection.cursor() as cursor:
        # A dozen rows are cheaper to sort; the question is whether the index fits the statement at all.
        cursor.execute("SET LOCAL enable_sort = off")
    return str(run_prepared("EXPLAIN " + sql, params, plan_once=False))


def test_one_is_made_measured_and_used(assistant: Assistant) -> None:
    before = found(assistant)
    assert "hnsw" not in uses(assistant)
    assert indexing.tend() == "0 dropped, one begun"
    made = VectorIndex.objects.get()
    assert (made.state, made.chunks, made.recall) == (BackgroundWork.State.SUCCEEDED, 12, 1.0)
    assert made.ef_search == candidates.size_and_words(assistant, ())[0].ef_search == 100
    assert made.size > 0
    assert vector_indexes.name_of(assistant.pk) in uses(assistant)
    assert found(assistant) == before == found(assistant, exact=True)
    assert self_test(assistant=assistant, sample=5).path == "index"
    assert indexing.tend() == "0 dropped, nothing to make"


def test_what_is_asked_lies_as_far_from_chunks_as_questions_do(assistant: Assistant) -> None:
    asked = sample_vectors(assistant, 12, seed=1)
    assert np.allclose(np.linalg.norm(asked, axis=1), 1, atol=1e-3)
    assert np.array_equal(asked, sample_vectors(assistant, 12, seed=1))
    assert not np.array_equal(asked, sample_vectors(assistant, 12, seed=2))
    own = np.array(list(Chunk.objects.filter(assistant=assistant).values_list("embedding", flat=True)))
    nearest = (asked @ own.T).max(axis=1)
    assert ((nearest > 0.6) & (nearest < 0.97)).all()
    alone = make_assistant()
    load(alone, 1, "There is one chunk and no other to differ from.")
    (only,) = sample_vectors(alone, 12, seed=1)
    assert float(only @ np.array(Chunk.objects.get(assistant=alone).embedding)) == pytest.approx(1, abs=1e-3)
    assert sample_vectors(make_assistant(), 12, seed=1).shape == (0, 384)


def test_how_widely_is_set_for_the_statement_alone(assistant: Assistant) -> None:
    indexing.tend()
    VectorIndex.objects.update(ef_search=321)
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('hnsw.ef_search', '40', true)")
    (vector,) = question_vectors([(QUESTION, ())])
    sql, params = candidates.statement(
        assistant=assistant, vector=vector, terms=candidates.Terms(), settings=candidates.RetrievalSettings(),
        average_length=1, ef_search=321,
    )  # fmt: skip
    told = sql.replace("true AS near", "current_setting('hnsw.ef_search')")
    assert {row[3] for row in run_prepared(told, params)} == {"321"}


def test_it_holds_nothing_of_another_assistant(assistant: Assistant) -> None:
    indexing.tend()
    stranger = make_assistant()
    load(stranger, 1, "Leaving a fixed plan early costs nothing at all.")
    own = set(Chunk.objects.filter(assistant=assistant).values_list("pk", flat=True))
    assert set(found(assistant)) <= own
    assert len(found(stranger)) == 1
    assert names() == [vector_indexes.name_of(assistant.pk)]


def test_new_documents_are_found_at_once(assistant: Assistant) -> None:
    indexing.tend()
    load(assistant, 99, "What does leaving a fixed plan early cost? It costs £99.")
    (newest,) = Chunk.objects.filter(document__path="plans/99.md").values_list("pk", flat=True)
    assert newest == found(assistant)[0]


def test_folders_that_leave_little_are_searched_exactly_too(assistant: Assistant) -> None:
    """Vectors alone find all that there is in a folder, however far it is from the question."""
    indexing.tend()
    load_document(assistant=assistant, path="far/away.md", data=b"# Boilers\n\nPress reset for five seconds.")
    settings = candidates.RetrievalSettings(folders=("far/",), words=0)
    assert [Chunk.objects.get(pk=pk).document.path for pk in found(assistant, settings=settings)] == ["far/away.md"]


def test_a_worn_one_is_made_anew(assistant: Assistant) -> None:
    indexing.tend()
    for number in range(4):
        load(assistant, number, f"Another text about plan {number}, and what it takes to leave it.")
    assert indexing.tend() == "0 dropped, one begun"  # four gone, four new, of twelve
    assert VectorIndex.objects.count() == 2
    assert indexing.tend() == "0 dropped, nothing to make"
    assert found(assistant) == found(assistant, exact=True)


def test_it_goes_when_the_assistant_has_shrunk_or_is_gone(assistant: Assistant) -> None:
    indexing.tend()
    Document.objects.filter(assistant=assistant, path__gte="plans/3").delete()
    assert Chunk.objects.filter(assistant=assistant).count() == 5 + 1 - 1
    assert indexing.tend() == "0 dropped, nothing to make"
    Document.objects.filter(assistant=assistant, path="plans/2.md").delete()
    assert indexing.tend() == "1 dropped, nothing to make"
    assert names() == []
    assert found(assistant)


def test_what_an_interrupted_making_left_is_cleared_away(assistant: Assistant) -> None:
    left = vector_indexes.name_of(assistant.pk) + "_ccnew"
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(
            f"CREATE INDEX {left} ON knowledge_chunk USING hnsw (embedding halfvec_cosine_ops) "
            f"WHERE assistant_id = {assistant.pk}"
        )
    assert candidates.size_and_words(assistant, ())[0].ef_search is None
    assert indexing.tend() == "1 dropped, one begun"
    assert names() == [vector_indexes.name_of(assistant.pk)]


def test_after_a_failure_it_is_left_alone_for_a_day(assistant: Assistant) -> None:
    failed = VectorIndex.objects.create(
        assistant=assistant, state=BackgroundWork.State.FAILED, finished_at=timezone.now()
    )
    assert indexing.tend() == "0 dropped, nothing to make"
    VectorIndex.objects.filter(pk=failed.pk).update(finished_at=timezone.now() - indexing.PATIENCE)
    assert indexing.tend() == "0 dropped, one begun"


@pytest.mark.django_db(transaction=True)
def test_what_the_server_refuses_is_said_and_not_tried_again(assistant: Assistant) -> None:
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("LOCK TABLE knowledge_chunk IN SHARE MODE")  # reading goes on, making an index waits
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '200ms'")
        try:
            made = indexing.start_index(assistant=assistant)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("RESET lock_timeout")
    made.refresh_from_db()
    assert (made.state, made.attempt) == (BackgroundWork.State.FAILED, 1)
    assert "lock timeout" in made.error


def test_only_one_is_made_at_a_time(assistant: Assistant) -> None:
    waiting = VectorIndex.objects.create(assistant=assistant)
    assert indexing.tend() == "an index is being made"
    assert indexing.start_index(assistant=assistant) == waiting
    assert VectorIndex.objects.count() == 1


def test_an_assistant_has_one_at_work(assistant: Assistant) -> None:
    VectorIndex.objects.create(assistant=assistant, state=BackgroundWork.State.RUNNING)
    with pytest.raises(IntegrityError, match="vectorindex_one_at_work"), transaction.atomic():
        VectorIndex.objects.create(assistant=assistant)
    VectorIndex.objects.create(assistant=make_assistant())


@pytest.mark.django_db(transaction=True)
def test_what_is_being_made_is_not_dropped_meanwhile(assistant: Assistant) -> None:
    """Somebody's making has begun after a look had found none: its half index is no leftover."""
    half = vector_indexes.name_of(assistant.pk) + "_ccnew"
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE INDEX {half} ON knowledge_chunk USING hnsw (embedding halfvec_cosine_ops) "
            f"WHERE assistant_id = {assistant.pk}"
        )
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(hashtext('knowledge.indexing'), 1)")
        assert indexing.tend() == "an index is being made"
        assert names() == [half]
        later = threading.Timer(1, other.execute, ["SELECT pg_advisory_unlock_all()"])
        later.start()
        made = indexing.start_index(assistant=assistant)  # waits until it is alone
        later.join()
    made.refresh_from_db()
    assert made.state == BackgroundWork.State.SUCCEEDED
    assert names() == [vector_indexes.name_of(assistant.pk)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
        assert cursor.fetchone() == (0,)


def test_a_small_assistant_gets_none_even_when_asked(assistant: Assistant) -> None:
    small = make_assistant()
    load(small, 1, "A text.")
    work = indexing.start_index(assistant=small)
    work.refresh_from_db()
    assert (work.state, work.ef_search) == (BackgroundWork.State.SUCCEEDED, None)
    assert names() == []


def test_one_that_came_with_a_backup_serves_widely(assistant: Assistant) -> None:
    vector_indexes.make(assistant.pk, anew=False, memory=2**26, workers=0)
    assert candidates.size_and_words(assistant, ())[0].ef_search == vector_indexes.EF_SEARCH
    assert found(assistant) == found(assistant, exact=True)


def test_nothing_else_can_be_dropped(db: None) -> None:
    with pytest.raises(ValueError, match="not an index"):
        vector_indexes.drop("chunk_words_gin")


# --- Pages ------------------------------------------------------------------------------------------------------------

LIST, REBUILD = "admin:knowledge_vectorindex_changelist", "admin:knowledge_vectorindex_rebuild"


def enter(username: str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=username))
    return client


def test_an_admin_makes_it_anew(assistant: Assistant) -> None:
    indexing.tend()
    ada = enter("ada")
    assert "Make it anew" in ada.get(reverse(LIST)).content.decode()
    answer = ada.post(reverse(REBUILD), {"assistant": "bot"})
    newest = VectorIndex.objects.order_by("-pk")[0]
    assert answer["Location"] == reverse("admin:knowledge_vectorindex_change", args=[newest.pk])
    assert VectorIndex.objects.count() == 2
    shown = ada.get(answer["Location"]).content.decode()
    assert "finds 100 %" in shown
    assert "is searched through it" in shown
    first = VectorIndex.objects.order_by("pk")[0]
    page = reverse("admin:knowledge_vectorindex_change", args=[first.pk])
    assert "made anew since" in ada.get(page).content.decode()
    VectorIndex.objects.create(assistant=assistant, state=BackgroundWork.State.FAILED)
    assert "is searched through it" in ada.get(answer["Location"]).content.decode()
    assert AuditEvent.objects.filter(assistant=assistant, action="retrieval.index_rebuilt").count() == 1


def test_a_small_one_is_told_that_it_needs_none(assistant: Assistant) -> None:
    Document.objects.filter(assistant=assistant, path__gte="plans/3").delete()
    answer = enter("ada").post(reverse(REBUILD), {"assistant": "bot"}, follow=True)
    assert "is searched exactly, without one" in answer.content.decode()
    assert not VectorIndex.objects.exists()


def test_who_is_refused(assistant: Assistant) -> None:
    indexing.tend()
    make_assistant("other", members={"admin": [make_user("sam")]})
    page = reverse("admin:knowledge_vectorindex_change", args=[VectorIndex.objects.get().pk])
    for client, seen in ((enter("rob"), 200), (enter("sam"), 404), (enter("ann"), 403), (Client(), 302)):
        assert client.get(page).status_code == seen
        assert client.post(reverse(REBUILD), {"assistant": "bot"}).status_code == (302 if seen == 302 else 404)
    assert enter("ada").get(reverse(REBUILD)).status_code == 405
    assert enter("ann").get(reverse(LIST)).status_code == 403
    assert page not in enter("sam").get(reverse(LIST)).content.decode()
    assert VectorIndex.objects.count() == 1


def test_the_list_costs_the_same_however_many_there_are(
    assistant: Assistant, django_assert_max_num_queries: Any
) -> None:
    ada = enter("ada")
    with CaptureQueriesContext(connection) as one:
        empty = ada.get(reverse(LIST))
    assert empty.status_code == 200
    for _ in range(5):
        VectorIndex.objects.create(assistant=assistant, state=BackgroundWork.State.SUCCEEDED, ef_search=100, recall=1)
    with django_assert_max_num_queries(len(one) + 1):
        assert ada.get(reverse(LIST)).status_code == 200


def test_the_doctor_misses_it(assistant: Assistant) -> None:
    def said() -> list[str]:
        return [finding.text for finding in examine() if finding.about == "Search"]

    assert "bot has 12 chunks and no whole vector index" in said()[0]
    indexing.tend()
    assert said() == ["Every large assistant has its vector index."]
