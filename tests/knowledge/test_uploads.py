"""Uploads: what becomes of each file, archives, previews and decisions; who may, and what they must not cost."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import docx
import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from assistants.background import WorkCancelled
from assistants.models import Assistant, AuditEvent
from assistants.policies import change_policy, rules_of
from capture.canaries import check
from capture.leaks import canaries_of
from knowledge import uploads
from knowledge.deciding import NothingToDecide, discard, forget_undecided, take
from knowledge.models import Chunk, Document, Upload, UploadedFile
from knowledge.services import load_document
from knowledge.uploads import IncomingFile, UploadRefused, clean_path, start_upload
from tests.factories import add_member, make_assistant, make_user
from tests.knowledge.files import make_docx, make_pdf, make_zip

ADD = "admin:knowledge_document_add"
FEES = "# Fees\n\n## Leaving\n\nA fixed plan has an exit fee of £35.\n\n## Late\n\nA late payment costs £6.\n"


@pytest.fixture
def ada(db: None) -> User:
    return make_user("ada")


@pytest.fixture
def assistant(ada: User) -> Assistant:
    return make_assistant("bot", members={"admin": [ada], "reviewer": [make_user("rob")]})


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    works: list[Any] = []
    monkeypatch.setattr("knowledge.uploads.launch", works.append)
    monkeypatch.setattr("knowledge.deciding.launch", works.append)
    return works


def enter(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client


def shown(response: Any) -> str:
    assert response.status_code == 200
    return str(response.content.decode())


def incoming(files: dict[str, str | bytes]) -> list[IncomingFile]:
    data = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    return [IncomingFile(path, len(content), content) for path, content in data.items()]


def perform(upload: Upload) -> dict[str, str]:
    """As a worker does. Outcomes by path."""
    upload.refresh_from_db()
    assert upload.claim()
    upload.perform()
    assert upload.finish(Upload.State.SUCCEEDED)
    return dict(upload.files.values_list("path", "outcome"))


def upload(assistant: Assistant, files: dict[str, str | bytes], **more: Any) -> Upload:
    work = start_upload(assistant=assistant, files=incoming(files), **more)
    perform(work)
    return work


# --- What becomes of each file ----------------------------------------------------------------------------------------


def test_an_upload_says_of_each_file_what_became_of_it(
    assistant: Assistant, launched: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    load_document(assistant=assistant, path="tariffs/fees.md", data=FEES.encode())
    files = [
        SimpleUploadedFile("fees.md", FEES.encode()),
        SimpleUploadedFile("moving.md", b"# Moving\n\nTell us 10 days before.\n"),
        SimpleUploadedFile("book.pdf", make_pdf([[("Book", 20), ("A sentence of a book.", 10)]])),
        SimpleUploadedFile("book.docx", make_docx()),
        SimpleUploadedFile("rates.csv", b"Tariff,Rate\nEvening,30 p\n"),
        SimpleUploadedFile("broken.pdf", b"%PDF-1.7 and no more"),
        SimpleUploadedFile("bad.txt", b"\x00\x01"),
        SimpleUploadedFile("old.doc", b"\xd0\xcf"),
        SimpleUploadedFile("empty.md", b""),
    ]
    client = enter("ada")
    with django_capture_on_commit_callbacks(execute=True):
        response = client.post(reverse(ADD), {"assistant": assistant.pk, "documents": files, "folder": "tariffs"})
    upload = Upload.objects.get()
    assert launched == [upload]
    assert response.url == reverse("admin:knowledge_upload_change", args=[upload.pk])
    waiting = shown(client.get(response.url))
    assert "8 waiting" in waiting
    assert "Save it as .docx" in waiting
    assert perform(upload) == {
        "tariffs/fees.md": "unchanged", "tariffs/moving.md": "loaded", "tariffs/book.pdf": "loaded",
        "tariffs/book.docx": "loaded", "tariffs/rates.csv": "loaded", "tariffs/broken.pdf": "failed",
        "tariffs/bad.txt": "failed", "tariffs/old.doc": "failed", "tariffs/empty.md": "failed",
    }  # fmt: skip
    assert not any(bytes(data) for data in upload.files.values_list("data", flat=True))
    done = shown(client.get(response.url))
    assert "New: “Moving”, 1 chunk." in done
    assert "NUL bytes" in done
    assert "Cancel" not in done
    failed = shown(client.get(response.url, {"outcome": "failed"}))
    assert "tariffs/broken.pdf" in failed
    assert "tariffs/moving.md" not in failed
    book = Document.objects.get(path="tariffs/book.pdf")
    assert (book.title, book.pages, book.via, book.loaded_by) == ("Book", 1, "page", User.objects.get(username="ada"))


def test_an_upload_that_was_killed_goes_on_where_it_stopped(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = start_upload(assistant=assistant, files=incoming({f"{n}.txt": f"Sentence {n}." for n in range(3)}))
    work.claim()
    uploads.take_in(work.files.all()[0])
    work.take_back()
    taken: list[str] = []
    take_in = uploads.take_in
    monkeypatch.setattr(uploads, "take_in", lambda file, tick: (taken.append(file.path), take_in(file, tick)))
    perform(work)
    assert taken == ["1.txt", "2.txt"]
    assert Document.objects.ready().count() == 3


def test_a_cancelled_upload_keeps_what_was_loaded_and_can_go_on_or_be_discarded(assistant: Assistant) -> None:
    files: dict[str, str | bytes] = {f"{n}.txt": f"Sentence {n}." for n in range(3)}
    work = start_upload(assistant=assistant, files=incoming(files))
    work.claim()
    uploads.take_in(work.files.all()[0])
    work.request_cancel()
    with pytest.raises(WorkCancelled):
        work.perform()
    with pytest.raises(NothingToDecide, match="being worked on"):
        take(upload=work)
    work.finish(Upload.State.CANCELLED)
    page = shown(enter("ada").get(reverse("admin:knowledge_upload_change", args=[work.pk])))
    assert "The upload ended before these files were taken in" in page
    first, second = work.files.open()
    assert discard(upload=work, files=[first.pk]) == 1
    assert take(upload=work) == 1
    perform(work)
    assert list(work.files.values_list("outcome", flat=True)) == ["loaded", "discarded", "loaded"]
    assert second.path in Document.objects.values_list("path", flat=True)
    with pytest.raises(NothingToDecide, match="None of these"):
        take(upload=work)


def test_of_two_files_of_one_path_the_one_that_came_later_counts(assistant: Assistant) -> None:
    """Uploads run beside each other: a small file is through while a large one is still read."""
    other = FEES.replace("£35", "£50")
    first = start_upload(assistant=assistant, files=incoming({"fees.md": FEES, "more.md": "# More\n\nText.\n"}))
    same = start_upload(assistant=assistant, files=incoming({"fees.md": other}))
    last = start_upload(assistant=assistant, files=incoming({"fees.md": other}))
    assert perform(last) == {"fees.md": "loaded"}
    assert perform(same) == {"fees.md": "discarded"}
    assert perform(first) == {"fees.md": "discarded", "more.md": "loaded"}
    row = first.files.get(path="fees.md")
    assert f"A newer file came meanwhile with upload {last.pk}" in row.sentence
    assert not bytes(row.data)
    document = Document.objects.get(path="fees.md")
    assert (document.text.strip(), document.version) == (other.strip(), 1)
    again = upload(assistant, {"fees.md": FEES})
    assert again.files.get().outcome == "loaded"


def test_an_older_file_that_cannot_be_read_leaves_the_newer_one_alone(assistant: Assistant) -> None:
    """The other way round the older one is stored: of the newer there is nothing that could count."""
    broken = start_upload(assistant=assistant, files=incoming({"fees.md": b"\x00\x01"}))
    upload(assistant, {"fees.md": FEES})
    assert perform(broken) == {"fees.md": "discarded"}
    assert Document.objects.get().state == Document.State.READY
    older = start_upload(assistant=assistant, files=incoming({"fees.md": FEES.replace("£35", "£50")}))
    assert upload(assistant, {"fees.md": b"\x00\x01"}).files.get().outcome == "failed"
    assert perform(older) == {"fees.md": "loaded"}


def test_a_newer_file_counts_from_when_it_is_stored(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    """What became of it is written a moment later, and its process may be killed before that."""
    older = start_upload(assistant=assistant, files=incoming({"fees.md": FEES.replace("£35", "£50")}))
    newer = start_upload(assistant=assistant, files=incoming({"fees.md": FEES}))
    assert newer.claim()
    with monkeypatch.context() as patched:
        patched.setattr(uploads, "_note", raising)
        with pytest.raises(KeyboardInterrupt):
            newer.perform()
    assert perform(older) == {"fees.md": "discarded"}
    newer.perform()
    assert newer.files.get().outcome == "unchanged"


def raising(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_preview_that_is_taken_after_a_newer_file_came_is_not(assistant: Assistant) -> None:
    load_document(assistant=assistant, path="fees.md", data=b"# Fees\n\nAn old text.\n")
    looked = upload(assistant, {"fees.md": FEES}, preview=True)
    older = start_upload(assistant=assistant, files=incoming({"fees.md": FEES.replace("£35", "£40")}))
    assert perform(older) == {"fees.md": "loaded"}  # a preview alone is nobody's successor
    take(upload=looked)
    assert perform(looked) == {"fees.md": "discarded"}


def test_a_folder_keeps_its_paths(assistant: Assistant) -> None:
    files = [SimpleUploadedFile("a.md", b"# A\n\nOne."), SimpleUploadedFile("a.md", b"# B\n\nTwo.")]
    sent = {"assistant": assistant.pk, "tree": files, "tree_path": ["x/a.md", "y/../../a.md"], "folder": ""}
    enter("ada").post(reverse(ADD), sent)
    assert set(Upload.objects.get().files.values_list("path", flat=True)) == {"x/a.md", "y/a.md"}


def test_uploads_have_limits(assistant: Assistant, settings: Any) -> None:
    page = reverse(ADD)
    assert "Choose at least one file" in shown(enter("ada").post(page, {"assistant": assistant.pk}))
    assert enter("rob").get(page).status_code == 403
    other = make_assistant()
    sent = {"assistant": other.pk, "documents": SimpleUploadedFile("a.md", b"# A\n\nOne.")}
    assert "valid choice" in shown(enter("ada").post(page, sent))
    by_script = enter("ada").post(page, sent, headers={"Accept": "application/json"})
    assert (by_script.status_code, "valid choice" in by_script.json()["problem"]) == (422, True)
    assert not Upload.objects.exists()
    settings.RATCHET_UPLOAD_MAX_FILES, settings.RATCHET_UPLOAD_MAX_BYTES = 100, 50_000_000
    with pytest.raises(UploadRefused, match="At most 100 files"):
        start_upload(assistant=assistant, files=[IncomingFile("a.md", 1, b"a")] * 101)
    with pytest.raises(UploadRefused, match="larger than 50 MB"):
        start_upload(assistant=assistant, files=[IncomingFile("a.md", 60_000_000, b"")])
    settings.RATCHET_DOCUMENT_MAX_BYTES = 1_000

    def never() -> bytes:
        raise AssertionError("what is too large is not read")

    work = start_upload(assistant=assistant, files=[IncomingFile("long.md", 2_000, never)])
    assert work.files.get().sentence.startswith("The file is larger than 1 kB.")


def test_many_names_under_the_strict_choice_are_read_by_the_worker(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = replace(rules_of(assistant), documents="everything")
    change_policy(assistant=assistant, rules=rules, actor=None, reason="It holds letters.")
    monkeypatch.setattr(uploads, "MAX_NAMES_READ", 1)
    work = start_upload(assistant=assistant, files=incoming({f"tale-{n}.txt": f"Sentence {n}." for n in range(2)}))
    assert all(path.startswith("document-") for path in work.files.values_list("path", flat=True))
    assert perform(work) == {"tale-0.txt": "loaded", "tale-1.txt": "loaded"}


def test_paths_are_relative_and_plain() -> None:
    assert clean_path("../../etc/passwd.txt") == "etc/passwd.txt"
    assert clean_path("C:\\docs\\a.md", "/t/") == "t/C:/docs/a.md"
    assert clean_path("a\x00\nb.md") == "ab.md"
    assert clean_path("///") == "unnamed.txt"
    assert len(clean_path("x" * 1000 + ".md")) <= 300


def test_an_upload_is_cancelled_by_admins(assistant: Assistant) -> None:
    work = start_upload(assistant=assistant, files=incoming({"a.txt": "A."}))
    cancel = reverse("admin:knowledge_upload_cancel", args=[work.pk])
    assert enter("rob").post(cancel).status_code == 403
    assert enter("ada").get(cancel).status_code == 405
    assert enter("ada").post(cancel).status_code == 302
    work.refresh_from_db()
    assert work.state == Upload.State.CANCELLED
    live = enter("rob").get(reverse("admin:knowledge_upload_live", args=[work.pk])).json()
    assert (live["active"], live["label"]) == (False, "Cancelled")


# --- Archives ---------------------------------------------------------------------------------------------------------


def test_an_archive_becomes_its_files_beside_it_and_tricks_are_named(assistant: Assistant) -> None:
    archive = make_zip({"a/fees.md": FEES, "../out.md": "x", "picture.png": "y", "book.docx": make_docx()})
    work = upload(assistant, {"tariffs/all.zip": archive})
    rows = {file.path: file for file in work.files.all()}
    assert {path: row.outcome for path, row in rows.items()} == {
        "tariffs/all.zip": "unpacked", "tariffs/a/fees.md": "loaded", "tariffs/out.md": "failed",
        "tariffs/picture.png": "failed", "tariffs/book.docx": "loaded",
    }  # fmt: skip
    assert rows["tariffs/all.zip"].sentence == "4 files in it."
    assert "leads out of the archive" in rows["tariffs/out.md"].sentence
    assert rows["tariffs/a/fees.md"].archive == "tariffs/all.zip"
    assert not any(bytes(row.data) for row in rows.values())


def test_a_bomb_fills_no_more_than_the_bound(assistant: Assistant, settings: Any) -> None:
    settings.RATCHET_DOCUMENT_MAX_BYTES, settings.RATCHET_UPLOAD_MAX_EXPANDED_BYTES = 2_000_000, 3_000_000
    text = ("All is well here. " * 100).encode()
    bomb = make_zip({"fine.txt": text, "b.txt": b"b" * 1_990_000, "c.txt": b"c" * 1_990_000, "late.txt": text + b"!"})
    work = start_upload(assistant=assistant, files=incoming({"bomb.zip": bomb}))
    work.claim()
    uploads.take_in(work.files.get())
    rows = {file.path: file.outcome for file in work.files.all()}
    assert rows == {"bomb.zip": "unpacked", "fine.txt": "waiting", "b.txt": "waiting", "c.txt": "failed",
                    "late.txt": "waiting"}  # fmt: skip
    again = start_upload(assistant=assistant, files=incoming({"no.zip": b"PK nonsense", "ok.txt": "Fine it is."}))
    assert perform(again) == {"no.zip": "failed", "ok.txt": "loaded"}


def test_an_archive_with_too_many_files_is_refused_whole(assistant: Assistant, settings: Any) -> None:
    settings.RATCHET_UPLOAD_MAX_FILES = 5
    work = upload(assistant, {"many.zip": make_zip({f"{n}.md": "x" for n in range(9)}), "a.txt": "Fine it is."})
    assert dict(work.files.values_list("path", "outcome")) == {"many.zip": "failed", "a.txt": "loaded"}
    assert "It holds 9 files; at most 4" in work.files.get(path="many.zip").sentence


# --- Previews ---------------------------------------------------------------------------------------------------------


def test_a_preview_shows_the_chunks_and_stores_nothing(assistant: Assistant) -> None:
    known = load_document(assistant=assistant, path="fees.md", data=FEES.encode())
    before = list(Chunk.objects.values_list("pk", flat=True))
    files: dict[str, str | bytes] = {
        "fees.md": FEES.replace("£6", "£8"), "new.md": "# New\n\nTen <b>days</b> before.",
        "same.zip": make_zip({"x.md": FEES}), "bad.pdf": b"no",
    }  # fmt: skip
    work = upload(assistant, files, preview=True)
    outcomes = {file.path: file.outcome for file in work.files.all()}
    assert outcomes == {"fees.md": "ready", "new.md": "ready", "same.zip": "unpacked", "x.md": "ready",
                        "bad.pdf": "failed"}  # fmt: skip
    assert list(Document.objects.all()) == [known]  # not even a row for what failed
    assert list(Chunk.objects.values_list("pk", flat=True)) == before
    fees = work.files.get(path="fees.md")
    assert fees.sentence == "Version 2: “Fees”, 2 chunks: 1 new, 1 stay, 1 go."
    page = shown(enter("rob").get(reverse("admin:knowledge_upload_file", args=[work.pk, fees.pk])))
    assert "A late payment costs £8." in page
    assert page.count("+ new") == page.count("= as before") == 1
    assert "Take it" not in page  # a reviewer looks
    assert "Take it" in shown(enter("ada").get(reverse("admin:knowledge_upload_file", args=[work.pk, fees.pk])))
    x = work.files.get(path="x.md")
    assert x.preview is not None
    assert x.preview["to_embed"] == 0  # the same chunks are known from fees.md
    # "# New" with hostile markup is shown as text.
    new = work.files.get(path="new.md")
    assert "<b>days" not in shown(enter("ada").get(reverse("admin:knowledge_upload_file", args=[work.pk, new.pk])))


def test_what_is_previewed_is_taken_or_discarded_file_by_file(
    assistant: Assistant, launched: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    files: dict[str, str | bytes] = {f"{n}.txt": f"Sentence number {n}." for n in range(3)}
    work = upload(assistant, files, preview=True)
    one, two, three = work.files.all()
    decide = reverse("admin:knowledge_upload_decide", args=[work.pk])
    client = enter("ada")
    assert enter("rob").post(decide, {"act": "take-all"}).status_code == 403
    assert client.get(decide).status_code == 405
    client.post(decide, {"act": "take"})  # none chosen
    client.post(decide, {"act": "discard", "file": [three.pk, "x", "9" * 40]})
    with django_capture_on_commit_callbacks(execute=True):
        client.post(decide, {"act": "take", "file": [one.pk]})
    assert launched == [work]
    assert perform(work) == {"0.txt": "loaded", "1.txt": "ready", "2.txt": "discarded"}
    assert not UploadedFile.objects.get(pk=three.pk).data
    client.post(decide, {"act": "take-all"})
    assert perform(work) == {"0.txt": "loaded", "1.txt": "loaded", "2.txt": "discarded"}
    two.refresh_from_db()
    assert (two.preview, bytes(two.data)) == (None, b"")
    actions = AuditEvent.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["documents.uploaded", "documents.discarded", "documents.taken", "documents.taken"]


def test_strangers_neither_see_nor_decide(assistant: Assistant) -> None:
    make_assistant("other", members={"admin": [make_user("sam")]})
    make_user("nobody")
    add_member(assistant, make_user("ann"), "annotator")
    work = upload(assistant, {"a.txt": "Sentence one."}, preview=True)
    file = work.files.get()
    for name, status in (("sam", 404), ("nobody", 403), ("ann", 403)):
        client = enter(name)
        assert client.get(reverse("admin:knowledge_upload_file", args=[work.pk, file.pk])).status_code == status
        assert (
            client.post(reverse("admin:knowledge_upload_decide", args=[work.pk]), {"act": "take-all"}).status_code
            == status
        )
        assert client.get(reverse("admin:knowledge_upload_change", args=[work.pk])).status_code == status
    # A file of another upload is not reached through one's own.
    mine = upload(Assistant.objects.get(slug="other"), {"b.txt": "Sentence two."}, preview=True)
    assert enter("sam").get(reverse("admin:knowledge_upload_file", args=[mine.pk, file.pk])).status_code == 404
    enter("sam").post(reverse("admin:knowledge_upload_decide", args=[mine.pk]), {"act": "discard", "file": [file.pk]})
    file.refresh_from_db()
    assert file.outcome == "ready"


def test_what_nobody_decides_about_is_forgotten(assistant: Assistant, settings: Any) -> None:
    work = upload(assistant, {"a.txt": "Sentence one."}, preview=True)
    assert forget_undecided(assistant) == 0
    Upload.objects.update(finished_at=timezone.now() - timedelta(days=settings.RATCHET_UPLOAD_DAYS + 1))
    assert forget_undecided(assistant) == 1
    file = work.files.get()
    assert (file.outcome, bytes(file.data), file.preview) == ("discarded", b"", None)


def test_a_preview_holds_nothing_that_is_masked(assistant: Assistant) -> None:
    card = "4111 1111 1111 1111"
    work = upload(assistant, {"till.md": f"# Till\n\nThe card of the till is {card}.\n"}, preview=True)
    file = work.files.get()
    assert file.preview is not None
    assert card not in json.dumps(file.preview)
    assert file.preview["masked"] == {"CREDIT_CARD": 1}


def test_pages_of_uploads_cost_the_same_for_any_number_of_files(
    assistant: Assistant, django_assert_max_num_queries: Any
) -> None:
    small = upload(assistant, {"a.txt": "Sentence one."}, preview=True)
    large = upload(assistant, {f"{n}.txt": f"Sentence {n}." for n in range(130)} | {"x.pdf": b"no"}, preview=True)
    client = enter("ada")
    client.get(reverse("admin:knowledge_upload_change", args=[small.pk]))
    counted = []
    for work in (small, large):
        with django_assert_max_num_queries(16) as queries:
            page = shown(client.get(reverse("admin:knowledge_upload_change", args=[work.pk])))
        counted.append(len(queries))
    assert counted[0] == counted[1]
    assert "1 of 2" in page


def test_no_canary_survives_archives_conversions_previews_and_versions(
    assistant: Assistant, settings: Any, tmp_path: Any
) -> None:
    settings.VAR_DIR = settings.LOG_DIR = tmp_path
    rules = replace(rules_of(assistant), documents="everything")
    change_policy(assistant=assistant, rules=rules, actor=None, reason="It holds letters.")
    (person,) = canaries_of(assistant, 1)
    p = person
    said = f"My name is {p.name}. Mail {p.mail}, phone {p.phone}, card {p.card}, IBAN {p.iban}."
    word = docx.Document()
    word.add_heading(f"Letter of {p.name}", 1)
    word.add_paragraph(said)
    word.save(packed := io.BytesIO())
    archive = make_zip(
        {
            f"{p.mail}.pdf": make_pdf([[(said, 10), ("It was answered.", 10)]]), "letter.docx": packed.getvalue(),
            "letters.csv": f"who,said\n{p.name},\"{said}\"\n", "letter.html": f"<h1>{p.name}</h1><p>{said}",
            f"{p.mail}.exe": "x",
        }
    )  # fmt: skip
    looked = upload(assistant, {f"{p.mail}.zip": archive}, preview=True)
    assert looked.files.filter(outcome="ready").count() == 4
    assert check([person], folders=[tmp_path]).places == {}
    take(upload=looked)
    perform(looked)
    upload(assistant, {"letter.html": f"<h1>New</h1><p>{said}<p>And more of it."})
    document = Document.objects.get(path="letter.html")
    assert (document.version, bool(document.versions.get(number=1).text)) == (2, True)
    assert check([person], folders=[tmp_path]).places == {}
