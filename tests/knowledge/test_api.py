"""Documents over HTTP: loaded, replaced, listed, looked at, deleted; what is refused, and for whom."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from assistants import limits
from assistants.models import Assistant, AuditEvent
from assistants.services import issue_key
from knowledge.models import Chunk, Document, Upload
from knowledge.services import load_document
from tests.factories import make_assistant
from tests.knowledge.files import make_pdf, make_zip

Call = Callable[..., Any]
FEES = b"# Fees\n\n## Leaving\n\nIt costs 35 pounds.\n"


@pytest.fixture
def assistant(db: None) -> Assistant:
    limits.reset()
    return make_assistant("bot")


def caller(assistant: Assistant, *scopes: str) -> Call:
    _, secret = issue_key(assistant=assistant, name="sync", scopes=list(scopes))

    def call(method: str, path: str, **more: Any) -> Any:
        return getattr(Client(), method)(f"/api/v1/{path}", headers={"Authorization": f"Bearer {secret}"}, **more)

    return call


@pytest.fixture
def api(assistant: Assistant) -> Call:
    return caller(assistant, "documents")


def put(api: Call, path: str, data: bytes) -> Any:
    return api("put", f"documents/at/{path}", data=data, content_type="application/octet-stream")


def perform(answer: Any) -> Any:
    """Does what was accepted as a worker does, and asks what became of it."""
    assert answer.status_code == 202, answer.content
    upload = Upload.objects.get(pk=answer.json()["id"])
    assert upload.claim()
    upload.perform()
    upload.finish(Upload.State.SUCCEEDED)
    return upload


def test_files_are_loaded_and_their_outcomes_told(api: Call, assistant: Assistant) -> None:
    files = [
        SimpleUploadedFile("fees.md", FEES), SimpleUploadedFile("book.pdf", make_pdf([[("A sentence.", 10)]])),
        SimpleUploadedFile("all.zip", make_zip({"a.md": "# A\n\nOne."})), SimpleUploadedFile("no.png", b"x"),
    ]  # fmt: skip
    answer = api("post", "documents", data={"file": files, "folder": "tariffs"})
    assert answer.json()["state"] == "queued"
    assert answer.json()["counts"] == {"waiting": 3, "failed": 1}
    upload = perform(answer)
    told = api("get", f"uploads/{upload.pk}").json()
    assert (told["state"], told["done"], told["total"]) == ("succeeded", 5, 5)
    assert {file["path"]: file["outcome"] for file in told["files"]} == {
        "tariffs/fees.md": "loaded", "tariffs/book.pdf": "loaded", "tariffs/all.zip": "unpacked",
        "tariffs/a.md": "loaded", "tariffs/no.png": "failed",
    }  # fmt: skip
    failed = api("get", f"uploads/{upload.pk}?outcome=failed&limit=1").json()
    assert [file["sentence"][:28] for file in failed["files"]] == ["Files of this kind are not r"]
    assert Document.objects.get(path="tariffs/fees.md").via == "key sync"


def test_a_document_is_created_replaced_and_deleted_at_its_path(api: Call, assistant: Assistant) -> None:
    perform(put(api, "tariffs/fees.md", FEES))
    first = api("get", "documents/at/tariffs/fees.md").json()
    assert (first["title"], first["version"], first["chunks"], first["state"]) == ("Fees", 1, 1, "ready")
    perform(put(api, "tariffs/fees.md", FEES.replace(b"35", b"40")))
    second = api("get", "documents/at/tariffs/fees.md?text=true").json()
    assert (second["id"], second["version"], "40 pounds" in second["text"]) == (first["id"], 2, True)
    assert [(version["number"], version["via"]) for version in second["versions"]] == [(2, "key sync"), (1, "key sync")]
    assert api("delete", "documents/at/tariffs/fees.md").json() == {"deleted": first["id"]}
    assert api("get", "documents/at/tariffs/fees.md").status_code == 404
    assert not Chunk.objects.exists()
    event = AuditEvent.objects.get(action="document.deleted")
    assert (event.actor, event.details) == (None, {"via": "key sync"})


def test_the_list_is_filtered_and_paged(api: Call, assistant: Assistant) -> None:
    for n in range(5):
        load_document(
            assistant=assistant, path=f"{'a' if n < 3 else 'b'}/{n}.md", data=f"# Tale {n}\n\nOne {n}.".encode()
        )
    load_document(assistant=assistant, path="bad.md", data=b"\x00")
    load_document(assistant=make_assistant("other"), path="a/9.md", data=b"# Tale 9\n\nOne.")

    def paths(query: str = "") -> list[str]:
        return [document["path"] for document in api("get", f"documents?{query}").json()["documents"]]

    assert len(paths()) == 6
    assert paths("folder=b") == ["b/3.md", "b/4.md"]
    assert paths("state=failed") == ["bad.md"]
    assert paths("q=tale+2") == ["a/2.md"]
    assert paths("path=a/1.md") == ["a/1.md"]
    first = api("get", "documents?limit=4").json()
    rest = api("get", f"documents?limit=4&after={first['next']}").json()
    assert [len(first["documents"]), len(rest["documents"]), rest["next"]] == [4, 2, None]
    for query in ("limit=0", "limit=x", "state=odd", "nope=1", "q=a&q=b", "q=%00", "after=-1", f"after={10**30}"):
        refused = api("get", f"documents?{query}")
        assert (refused.status_code, refused.headers["Content-Type"]) == (422, "application/problem+json"), query


def test_a_preview_is_taken_or_discarded_and_an_upload_cancelled(api: Call, assistant: Assistant) -> None:
    files = [SimpleUploadedFile(f"{n}.txt", f"Sentence {n}.".encode()) for n in range(3)]
    upload = perform(api("post", "documents", data={"file": files, "preview": "true"}))
    assert not Document.objects.exists()
    told = api("get", f"uploads/{upload.pk}").json()
    assert told["counts"] == {"ready": 3}
    keys = [file["id"] for file in told["files"]]

    def decide(act: str, body: Any = None) -> Any:
        return api("post", f"uploads/{upload.pk}/{act}", data=body, content_type="application/json")

    assert decide("discard", {"files": keys[:1]}).json() == {"files": 1}
    assert decide("discard", {"files": keys[:1]}).status_code == 409
    assert decide("take", {"files": ["x"]}).status_code == 422
    assert decide("take", {"all": True}).status_code == 422
    assert decide("take", {}).json() == {"files": 2}
    assert decide("take", {}).status_code == 409
    assert api("delete", f"uploads/{upload.pk}").json()["state"] == "cancelled"
    assert api("delete", f"uploads/{upload.pk}").status_code == 409


def test_what_is_not_right_is_said(api: Call, assistant: Assistant, settings: Any) -> None:
    assert api("post", "documents", data=json.dumps({}), content_type="application/json").status_code == 415
    assert api("post", "documents", data={"folder": "x"}).status_code == 422
    file = SimpleUploadedFile("a.md", FEES)
    assert api("post", "documents", data={"file": [file], "path": ["a.md", "b.md"]}).status_code == 422
    for path in ("../a.md", "a//b.md", "/a.md", "x" * 301 + ".md", "a\x07.md", "a.md/", ""):
        file.seek(0)
        assert api("post", "documents", data={"file": [file], "path": [path]}).status_code == 422, path
    assert put(api, "a/../../b.md", FEES).status_code in (404, 422)
    assert api("get", "documents/at/" + "x" * 400).status_code == 422
    assert api("get", "documents/99999999999999").status_code == 404
    assert api("get", "uploads/99999999999999").status_code == 404
    settings.RATCHET_DOCUMENT_MAX_BYTES = 1_000
    assert put(api, "a.md", b"x" * 1_001).status_code == 413
    settings.RATCHET_UPLOAD_MAX_BYTES = 1_000
    many = [SimpleUploadedFile("a.md", b"x" * 900), SimpleUploadedFile("b.md", b"x" * 900)]
    assert api("post", "documents", data={"file": many}).status_code == 422
    assert not Upload.objects.exists()


def test_other_scopes_and_other_assistants_keys_reach_nothing(api: Call, assistant: Assistant) -> None:
    document = load_document(assistant=assistant, path="fees.md", data=FEES)
    upload = perform(put(api, "new.md", FEES))
    reader = caller(assistant, "log", "chat", "read", "annotate")
    stranger = caller(make_assistant("other"), "documents")
    for method, path in (
        ("get", "documents"), ("get", f"documents/{document.pk}"), ("delete", f"documents/{document.pk}"),
        ("get", "documents/at/fees.md"), ("delete", "documents/at/fees.md"), ("get", f"uploads/{upload.pk}"),
        ("delete", f"uploads/{upload.pk}"), ("post", f"uploads/{upload.pk}/take"), ("post", "documents"),
    ):  # fmt: skip
        assert getattr(Client(), method)(f"/api/v1/{path}").status_code == 401, path
        assert reader(method, path).status_code == 403, path
        if path != "documents":
            assert stranger(method, path).status_code == 404, path
    assert stranger("get", "documents").json() == {"documents": [], "next": None}
    assert Document.objects.filter(pk=document.pk).exists()


def test_the_list_costs_the_same_for_any_number(
    api: Call, assistant: Assistant, django_assert_max_num_queries: Any
) -> None:
    for n in range(8):
        load_document(assistant=assistant, path=f"{n}.md", data=f"# Tale {n}\n\nOne {n}.".encode())
    api("get", "documents")
    for limit in (1, 8):
        with django_assert_max_num_queries(2):
            assert len(api("get", f"documents?limit={limit}").json()["documents"]) == limit
