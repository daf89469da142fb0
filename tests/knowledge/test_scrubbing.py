"""Documents lose what the privacy policy says before anything of them is stored or embedded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from assistants.background import launch
from assistants.models import Assistant
from assistants.policies import change_policy, rules_of
from assistants.policy_model import DocumentMasking
from knowledge.models import Chunk, Document, UploadedFile
from knowledge.services import load_document, load_folder
from knowledge.uploads import IncomingFile, start_upload
from privacy.scrubber import Scrubber
from tests.factories import make_assistant, make_user

CARD = "4929 8431 7702 4463"
IBAN = "GB33 BUKB 2020 1555 5555 55"
MAIL = "wendeline.okafor@example.org"
OFFICE = f"""# Office

Refunds of old tickets went to the account {IBAN}.

## Card {CARD}

| Who | Card |
|---|---|
| Desk | {CARD} |

Write to {MAIL} or call the desk.
"""


@pytest.fixture
def ada(db: None) -> User:
    return make_user("ada")


@pytest.fixture
def assistant(ada: User) -> Assistant:
    return make_assistant("bot", members={"admin": [ada]})


def set_documents(assistant: Assistant, documents: str, **policy: object) -> None:
    rules = rules_of(assistant)
    rules = replace(rules, documents=documents, policy=replace(rules.policy, **policy))  # type: ignore[arg-type]
    change_policy(assistant=assistant, rules=rules, actor=None, reason="Because.")


def load(assistant: Assistant, text: str = OFFICE, path: str = "office.md") -> Document:
    document = load_document(assistant=assistant, path=path, data=text.encode())
    return Document.objects.get(pk=document.pk)


def stored(document: Document) -> str:
    chunks = Chunk.objects.filter(document=document)
    return "\n".join([document.title, document.text, *(f"{chunk.title}\n{chunk.text}" for chunk in chunks)])


def test_by_default_what_must_not_even_stand_in_own_documents_is_masked(assistant: Assistant) -> None:
    document = load(assistant)
    assert not any(value in stored(document) for value in (CARD, IBAN))
    assert MAIL in stored(document)  # a contact of the house is what people ask for
    assert document.masked == {"CREDIT_CARD": 2, "IBAN": 1}
    assert document.masking == "trusted"
    row = document.chunks.get(position=1)
    placeholder = row.headings[1].removeprefix("Card ")  # the same value, the same placeholder: in the table as well
    assert placeholder.startswith("[CREDIT_CARD_")
    assert f"Who: Desk; Card: {placeholder}" in row.text
    again = load(assistant)
    assert (again.version, again.updated_at) == (1, document.updated_at)


def test_everything_or_nothing_when_the_policy_says_so(assistant: Assistant) -> None:
    set_documents(assistant, DocumentMasking.NOTHING)
    document = load(assistant)
    assert (document.text, document.masked, document.version) == (OFFICE, {}, 1)
    set_documents(assistant, DocumentMasking.EVERYTHING)
    document = load(assistant)
    assert document.version == 2
    assert not any(value in stored(document) for value in (CARD, IBAN, MAIL))
    assert document.masked["EMAIL"] == 1


def test_always_and_never_masked_values_count_in_documents_too(assistant: Assistant) -> None:
    set_documents(assistant, "trusted", deny=("Project Heron",), allow=(IBAN,))
    document = load(assistant, f"# Plans\n\nProject Heron pays from {IBAN}.\n")
    assert "Heron" not in stored(document)
    assert IBAN in stored(document)


def test_a_value_that_markup_cuts_in_two_is_not_kept_in_the_markup_either(assistant: Assistant) -> None:
    html = f"<h1>Till</h1><p>Card {CARD[:9]}<b>{CARD[9:14]}</b>{CARD[14:]} is the till's.</p>"
    document = load(assistant, html, "till.html")
    assert CARD not in stored(document)
    assert "<b>8431" not in document.text
    assert CARD[10:14] not in stored(document)
    assert document.masked == {"CREDIT_CARD": 1}


def test_placeholders_of_documents_are_not_those_of_conversations(assistant: Assistant) -> None:
    first, second = load(assistant), load(assistant, path="copy.md")
    assert "[CREDIT_CARD_1]" not in first.text + second.text
    assert first.text != second.text


def test_what_cannot_be_scrubbed_is_not_stored(assistant: Assistant, tmp_path: Path) -> None:
    before = load(assistant, "# Office\n\nOpen from nine to five.\n")
    set_documents(assistant, "trusted", max_chars=100)
    (tmp_path / "office.md").write_text(OFFICE)
    (tmp_path / "new.md").write_text(OFFICE)
    (tmp_path / "small.md").write_text(f"# Small\n\nCard {CARD}.")
    report = load_folder(assistant=assistant, folder=tmp_path)
    assert report.loaded == ["small.md"]
    assert report.masked == {"small.md": "1 credit card"}
    assert report.sentence.endswith("something masked in 1")
    assert {path for path, _ in report.failed} == {"new.md", "office.md"}
    assert "more than 100 characters" in report.failed[0][1]
    assert Document.objects.get(path="new.md").text == ""
    kept = Document.objects.get(pk=before.pk)
    assert (kept.state, kept.text, kept.chunks.count()) == ("failed", before.text, 1)


def test_an_error_while_scrubbing_fails_the_document_and_quotes_nothing(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: Scrubber) -> None:
        raise RuntimeError(CARD)

    monkeypatch.setattr(Scrubber, "_analyzer", property(breaks))
    document = load(assistant)
    assert (document.state, document.text, document.chunks.count()) == ("failed", "", 0)
    assert "could not be scrubbed" in document.error
    assert CARD not in document.error


def test_pages_say_what_was_masked_by_type_and_when_another_policy_counts(assistant: Assistant, ada: User) -> None:
    upload = start_upload(assistant=assistant, files=[IncomingFile("office.md", len(OFFICE), OFFICE.encode())])
    waiting = bytes(UploadedFile.objects.get().data)
    assert len(waiting) > len(OFFICE)
    assert not any(value.encode() in waiting for value in (CARD, MAIL, "desk"))
    launch(upload, foreground=True)
    file = UploadedFile.objects.get()
    assert file.sentence.endswith("Masked: 2 credit card, 1 iban.")
    assert bytes(file.data) == b""
    client = Client()
    client.force_login(ada)
    url = reverse("admin:knowledge_document_change", args=[file.document_id])
    page = client.get(url).content.decode()
    assert "2 credit card, 1 iban" in page
    assert "Another privacy policy counts now" not in page
    assert "masked: 2 credit card" in client.get(reverse("admin:knowledge_document_changelist")).content.decode()
    set_documents(assistant, "everything")
    assert "Another privacy policy counts now" in client.get(url).content.decode()
    set_documents(assistant, "trusted", deny=("Project Heron",))
    load(assistant)  # masks the same, so it is the same version; but this policy has read it
    page = client.get(url).content.decode()
    assert "Another privacy policy counts now" not in page
    assert "version 1 " in page


# --- Names of files -----------------------------------------------------------------------------------------------


PERSONAL = f"letters/{MAIL} {CARD}.txt"


def test_a_name_that_is_masked_still_names_the_same_document(assistant: Assistant) -> None:
    set_documents(assistant, DocumentMasking.NOTHING)
    first = load(assistant, "Dear desk.", PERSONAL)
    assert (first.path, MAIL in first.title.lower()) == (PERSONAL, True)
    set_documents(assistant, DocumentMasking.TRUSTED)
    trusted = load(assistant, "Dear desk.", PERSONAL)
    assert trusted.pk == first.pk
    assert MAIL in trusted.path
    assert CARD not in trusted.path + stored(trusted)
    set_documents(assistant, DocumentMasking.EVERYTHING)
    masked = load(assistant, f"Dear desk, I am {MAIL}.", PERSONAL)
    assert masked.pk == first.pk
    assert masked.path.startswith("letters/[EMAIL_")
    assert not any(value in masked.path + stored(masked) for value in (MAIL, CARD))
    placeholder = masked.path.removeprefix("letters/").split("]")[0] + "]"
    assert placeholder in masked.text, "the same value, the same placeholder"
    again = load(assistant, f"Dear desk, I am {MAIL}.", PERSONAL)
    assert (again.pk, again.path, again.version) == (masked.pk, masked.path, masked.version)
    newer = load(assistant, "Dear desk, never mind.", PERSONAL)
    assert (newer.pk, newer.path, newer.version) == (masked.pk, masked.path, masked.version + 1)
    assert Document.objects.count() == 1


def test_names_that_differ_in_what_is_masked_are_two_documents(assistant: Assistant) -> None:
    set_documents(assistant, DocumentMasking.EVERYTHING)
    one = load(assistant, "Dear desk.", "letters/wendeline@example.org.txt")
    two = load(assistant, "Dear desk.", "letters/konrad@example.org.txt")
    assert one.pk != two.pk
    assert not any("example.org" in document.path for document in (one, two))


def test_a_name_that_cannot_be_scrubbed_is_not_kept(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(self: Scrubber) -> None:
        raise RuntimeError(CARD)

    monkeypatch.setattr(Scrubber, "_analyzer", property(breaks))
    document = load(assistant, "Dear desk.", PERSONAL)
    assert document.state == "failed"
    assert document.path.startswith("document-")
    assert document.path.endswith(".txt")
    assert not any(value in document.path + document.title for value in (MAIL, CARD))
    monkeypatch.undo()
    assert load(assistant, "Dear desk.", PERSONAL).pk == document.pk


def test_an_upload_keeps_the_name_of_a_file_sealed(assistant: Assistant, ada: User) -> None:
    set_documents(assistant, DocumentMasking.EVERYTHING)
    known = load(assistant, "Dear desk.", PERSONAL)
    files = [IncomingFile(PERSONAL, 11, b"Dear desk.."), IncomingFile(f"{MAIL}.png", 3, b"PNG")]
    upload = start_upload(assistant=assistant, files=files)
    for file in UploadedFile.objects.all():
        assert not any(value in file.path + str(bytes(file.data)) for value in (MAIL, CARD))
    launch(upload, foreground=True)
    file = UploadedFile.objects.get(outcome="loaded")
    assert file.document == known
    client = Client()
    client.force_login(ada)
    for page in (
        reverse("admin:knowledge_upload_change", args=[upload.pk]),
        reverse("admin:knowledge_document_changelist"),
        reverse("admin:knowledge_document_change", args=[known.pk]),
    ):
        shown = client.get(page).content.decode()
        assert "[EMAIL_" in shown
        assert not any(value in shown for value in (MAIL, CARD))
