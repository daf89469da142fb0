"""The pages of documents: who sees them, what an upload becomes, what a search shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from assistants.models import Assistant, AuditEvent
from generation.engines import EngineUnavailable
from knowledge import views
from knowledge.models import Document, Upload
from knowledge.services import load_document
from tests.factories import make_assistant, make_user

LIST = "admin:knowledge_document_changelist"
FEES = """# Fees

## Leaving

A fixed plan has an exit fee of £35.

## Late

A late payment costs <b>£6</b>.
""".encode()


@pytest.fixture
def ada(db: None) -> User:
    return make_user("ada")


@pytest.fixture
def assistant(ada: User) -> Assistant:
    return make_assistant("bot", members={"admin": [ada], "reviewer": [make_user("rob")]})


@pytest.fixture
def stranger(db: None) -> User:
    """An admin, but of another assistant."""
    user = make_user("sam")
    make_assistant("other", members={"admin": [user]})
    return user


@pytest.fixture
def document(assistant: Assistant) -> Document:
    return load_document(assistant=assistant, path="tariffs/fees.md", data=FEES)


def enter(user: User | str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=user) if isinstance(user, str) else user)
    return client


def shown(response: Any) -> str:
    assert response.status_code == 200
    return str(response.content.decode())


# --- The list and a document ------------------------------------------------------------------------------------------


def test_the_list_shows_what_failed_and_why(assistant: Assistant, document: Document) -> None:
    load_document(assistant=assistant, path="broken.md", data=b"\x00")
    page = shown(enter("rob").get(reverse(LIST)))
    assert "Fees" in page
    assert "NUL bytes" in page
    assert "Upload documents" not in page  # a reviewer reads
    assert "Upload documents" in shown(enter("ada").get(reverse(LIST)))
    for query, fits in (({"state__exact": "failed"}, False), ({"folder": "tariffs"}, True), ({"q": "exit fee"}, True)):
        assert ("tariffs/fees.md</td>" in shown(enter("ada").get(reverse(LIST), query))) is fits, query


def test_the_list_shows_the_tree_level_by_level_and_finds_words(assistant: Assistant) -> None:
    for path in ("a/one.md", "a/b/two.md", "a/b/c/three.md", "four.md"):
        load_document(assistant=assistant, path=path, data=f"# Tale {path}\n\nReading meters of {path[0]}.".encode())
    load_document(assistant=assistant, path="a/b/bad.md", data=b"\x00")
    load_document(assistant=make_assistant("stranger"), path="z/five.md", data=b"# Five\n\nReading meters.")
    client = enter("ada")
    top = shown(client.get(reverse(LIST)))
    assert "a/ · 4 · ✗ 1" in top
    assert "z/" not in top
    inside = shown(client.get(reverse(LIST), {"folder": "a/b"}))
    assert "c/ · 1" in inside
    assert ("a/b/c/three.md</td>" in inside, "a/one.md</td>" in inside) == (True, False)
    said = shown(client.get(reverse(LIST), {"q": "meter reading", "folder": "a"}))  # words, not letters
    assert ("a/one.md</td>" in said, "four.md</td>" in said) == (True, False)
    for hostile in ("%", "a/%00", "'", "a" * 5000):
        assert client.get(reverse(LIST), {"folder": hostile, "q": hostile}).status_code == 200


def test_the_list_costs_the_same_for_any_number(assistant: Assistant, django_assert_max_num_queries: Any) -> None:
    client = enter("ada")
    counted = []
    for n in (2, 9):
        for i in range(n):
            load_document(assistant=assistant, path=f"{n}/{i}/x.md", data=f"# Tale {n} {i}\n\nWords.".encode())
        client.get(reverse(LIST))
        with django_assert_max_num_queries(16) as queries:
            shown(client.get(reverse(LIST)))
        counted.append(len(queries))
    assert counted[0] == counted[1]


def test_an_empty_list_says_what_fills_it(assistant: Assistant) -> None:
    assert "Nothing is known yet" in shown(enter("ada").get(reverse(LIST)))


def test_strangers_see_nothing(stranger: User, document: Document) -> None:
    client = enter(stranger)
    assert "tariffs/fees.md" not in shown(client.get(reverse(LIST)))
    chunk = document.chunks.get(position=0)
    upload = Upload.objects.create(assistant=document.assistant)
    for name, key in (
        ("document_change", document.pk),
        ("chunk_change", chunk.pk),
        ("upload_change", upload.pk),
        ("upload_live", upload.pk),
    ):
        assert client.get(reverse(f"admin:knowledge_{name}", args=[key])).status_code == 404, name
    nobody = enter(make_user("nobody"))
    for url in (reverse(LIST), reverse("admin:knowledge_document_add"), reverse("admin:knowledge_document_search")):
        assert nobody.get(url).status_code == 403, url


def test_a_document_is_shown_as_it_was_cut_and_escaped(document: Document) -> None:
    page = shown(enter("rob").get(reverse("admin:knowledge_document_change", args=[document.pk])))
    assert "Fees › Leaving" in page
    assert "exit fee of £35" in page
    assert "<b>£6</b>" not in page
    assert "Delete" not in page
    chunk = document.chunks.get(position=1)
    moved = enter("rob").get(reverse("admin:knowledge_chunk_change", args=[chunk.pk]))
    assert moved.url.endswith(f"/change/?page=1#chunk-{chunk.pk}")
    assert enter("rob").get(reverse("admin:knowledge_document_change", args=["x"])).status_code == 404


def test_superseding_and_deleting_are_for_admins_and_leave_a_trace(document: Document) -> None:
    supersede = reverse("admin:knowledge_document_supersede", args=[document.pk])
    assert enter("rob").post(supersede).status_code == 403
    assert enter("ada").post(supersede).status_code == 302
    document.refresh_from_db()
    assert document.superseded
    enter("ada").post(supersede, {"in_force": "1"})
    document.refresh_from_db()
    assert not document.superseded

    delete = reverse("admin:knowledge_document_delete", args=[document.pk])
    assert enter("rob").post(delete, {"post": "yes"}).status_code == 403
    assert "tariffs/fees.md" in shown(enter("ada").get(delete))  # asks first
    enter("ada").post(delete, {"post": "yes"})
    assert not Document.objects.exists()
    actions = list(AuditEvent.objects.order_by("pk").values_list("action", flat=True))
    assert actions == ["document.superseded", "document.in_force", "document.deleted"]


def test_documents_are_exported_by_admins_only(document: Document) -> None:
    sent = {"action": "export", "_selected_action": [document.pk]}
    refused = enter("rob").post(reverse(LIST), sent)
    assert refused.status_code == 302
    rows = [json.loads(line) for line in enter("ada").post(reverse(LIST), sent).getvalue().splitlines()]
    assert [(row["path"], row["state"]) for row in rows] == [("tariffs/fees.md", "ready")]
    assert AuditEvent.objects.filter(action="documents.exported").count() == 1


# --- Try a search -----------------------------------------------------------------------------------------------------


def test_a_search_shows_passages_and_marks_the_evidence(document: Document) -> None:
    url = reverse("admin:knowledge_document_search")
    page = shown(enter("rob").get(url, {"q": "What does it cost to leave early?"}))
    assert "Fees › Leaving" in page
    assert "exit fee of £35.<sup> 1</sup>" in page
    assert "retrieval configuration" in page
    hostile = shown(enter("rob").get(url, {"q": "<script>alert(1)</script>", "before": "\x00<b>"}))
    assert "<script>alert(1)" not in hostile


def test_a_search_without_the_engine_says_so(document: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**_: Any) -> None:
        raise EngineUnavailable("The engine does not answer.", "Start it.")

    monkeypatch.setattr(views, "retrieve", away)
    page = shown(enter("ada").get(reverse("admin:knowledge_document_search"), {"q": "fees"}))
    assert "No search now: The engine does not answer. Start it." in page


def test_a_search_in_nothing_says_what_to_do(assistant: Assistant) -> None:
    page, add = reverse("admin:knowledge_document_search"), reverse("admin:knowledge_document_add")
    assert "has no documents yet" in shown(enter("ada").get(page))
    assert f"{add}?assistant={assistant.pk}" in shown(enter("ada").get(page))
    assert "An admin of it uploads them" in shown(enter("rob").get(page))
    assert f"{add}?" not in shown(enter("rob").get(page)), "reviewers upload nothing"


def test_what_is_wrong_with_an_upload_names_its_field(assistant: Assistant) -> None:
    """The script says all of it in one place, away from the fields."""
    sent = {"assistant": assistant.pk, "folder": "f" * 201}
    answer = enter("ada").post(reverse("admin:knowledge_document_add"), sent, headers={"Accept": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["problem"].startswith("Put them into: Ensure this value has at most 200 characters")
    nothing = {"assistant": assistant.pk, "folder": ""}
    answer = enter("ada").post(reverse("admin:knowledge_document_add"), nothing, headers={"Accept": "application/json"})
    assert answer.status_code == 422
    assert not answer.json()["problem"].startswith(("None", ":", "All"))
