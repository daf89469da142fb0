"""The command that takes in a folder, and keeps it in step."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from assistants.models import Assistant, AuditEvent
from knowledge.models import Document
from tests.factories import make_assistant
from tests.knowledge.files import make_docx


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant("bot")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    below = tmp_path / "docs"
    (below / "a").mkdir(parents=True)
    (below / "a" / "fees.md").write_text("# Fees\n\nIt costs £35.")
    (below / "book.docx").write_bytes(make_docx())
    (below / "picture.png").write_bytes(b"x")
    (below / ".hidden.md").write_text("# Hidden\n\nNo.")
    (tmp_path / "secret.md").write_text("# Secret\n\nOut of the folder.")
    (below / "link.md").symlink_to(tmp_path / "secret.md")
    return below


def run(*arguments: str) -> tuple[str, str, int]:
    out, err, code = StringIO(), StringIO(), 0
    try:
        call_command("load_documents", "bot", *arguments, stdout=out, stderr=err)
    except SystemExit as stop:
        code = int(stop.code or 0)
    return out.getvalue(), err.getvalue(), code


def paths() -> list[str]:
    return list(Document.objects.ready().values_list("path", flat=True))


def test_a_folder_is_loaded_without_what_is_hidden_or_leads_out(assistant: Assistant, folder: Path) -> None:
    assert run(str(folder), "--into", "/house/")[0] == "2 loaded, 0 unchanged, 0 failed.\n"
    assert paths() == ["house/a/fees.md", "house/book.docx"]
    assert set(Document.objects.values_list("via", flat=True)) == {"command"}
    assert run(str(folder), "--into", "house")[0] == "0 loaded, 2 unchanged, 0 failed.\n"


def test_a_dry_run_says_what_would_become_of_each_file_and_stores_nothing(assistant: Assistant, folder: Path) -> None:
    (folder / "bad.pdf").write_bytes(b"no")
    out, _, code = run(str(folder), "--dry-run")
    assert code == 3
    assert "+ a/fees.md: New: “Fees”, 1 chunk.\n" in out
    assert "✗ bad.pdf: This is no PDF" in out
    assert out.endswith("2 to load, 0 unchanged, 1 refused.\n")
    assert not Document.objects.exists()


def test_a_file_that_cannot_be_taken_is_named_and_tells_the_caller(
    assistant: Assistant, folder: Path, settings: object
) -> None:
    (folder / "bad.md").write_bytes(b"\x00")
    out, err, code = run(str(folder))
    assert (out, code) == ("2 loaded, 0 unchanged, 1 failed.\n", 3)
    assert "✗ bad.md: This file is not text" in err


def test_pruning_deletes_what_is_gone_below_its_path_only(assistant: Assistant, folder: Path) -> None:
    run(str(folder), "--into", "house")
    run(str(folder), "--into", "household")
    (folder / "book.docx").unlink()
    with pytest.raises(CommandError, match="needs --into"):
        call_command("load_documents", "bot", str(folder), "--prune")
    assert "house/book.docx: would be deleted" in run(str(folder), "--into", "house", "--prune", "--dry-run")[0]
    assert len(paths()) == 4
    assert "− house/book.docx: deleted" in run(str(folder), "--into", "house", "--prune")[0]
    assert paths() == ["house/a/fees.md", "household/a/fees.md", "household/book.docx"]
    assert AuditEvent.objects.get(action="document.deleted").details == {"via": "command"}


def test_what_is_not_there_is_said(assistant: Assistant, tmp_path: Path) -> None:
    for arguments, message in ((("bot", str(tmp_path / "none")), "no folder"), (("nobody", "."), "no assistant")):
        with pytest.raises(CommandError, match=message):
            call_command("load_documents", *arguments)
