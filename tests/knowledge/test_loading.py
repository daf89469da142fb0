"""Documents in: versions, what is unchanged, what cannot be read, and chunks stored by COPY."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from django.contrib.postgres.search import SearchQuery

from assistants.models import Assistant
from generation.prompts import split_sentences
from knowledge.chunking import MAX_TOKENS, embedded_text
from knowledge.embedding import count_tokens, embed
from knowledge.evidence import embed_wordings, unpack, wordings
from knowledge.models import Chunk, Document
from knowledge.services import MAX_PATH, delete_document, load_document, load_folder
from tests.factories import make_assistant

FEES = "# Fees\n\n## Leaving\n\nA fixed plan has an exit fee of £35.\n\n## Late payment\n\nA late payment costs £6.\n"
MOVING = "# Moving house\n\nTell us 10 days before you move. Your plan can move with you.\n"


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tariffs").mkdir()
    (tmp_path / "tariffs" / "fees.md").write_text(FEES)
    (tmp_path / "moving.md").write_text(MOVING)
    (tmp_path / "notes.txt").write_text("Read the meter on the first day.\n\nSend the figures before the dot.")
    (tmp_path / "page.html").write_text("<title>Boiler</title><h1>Boiler</h1><p>Press reset for five seconds.</p>")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    return tmp_path


def test_a_folder_is_loaded_with_its_paths_and_again_changes_nothing(assistant: Assistant, folder: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    report = load_folder(
        assistant=assistant, folder=folder, progress=lambda done, total, path: seen.append((done, total, path))
    )
    assert (sorted(report.loaded), report.unchanged, report.failed) == (
        ["moving.md", "notes.txt", "page.html", "tariffs/fees.md"], [], [],
    )  # fmt: skip
    assert [done for done, *_ in seen] == [1, 2, 3, 4]
    assert {total for _, total, _ in seen} == {4}
    before = list(Chunk.objects.order_by("pk").values_list("pk", flat=True))
    again = load_folder(assistant=assistant, folder=folder)
    assert (again.loaded, len(again.unchanged), again.failed) == ([], 4, [])
    assert again.sentence == "0 loaded, 4 unchanged, 0 failed"
    assert list(Chunk.objects.order_by("pk").values_list("pk", flat=True)) == before
    assert set(Document.objects.values_list("version", flat=True)) == {1}


def test_other_content_is_the_next_version_and_the_old_chunks_go(assistant: Assistant) -> None:
    first = load_document(assistant=assistant, path="fees.md", data=FEES.encode())
    second = load_document(assistant=assistant, path="fees.md", data=FEES.replace("£35", "£40").encode())
    assert (second.pk, second.version) == (first.pk, 2)
    texts = " ".join(Chunk.objects.values_list("text", flat=True))
    assert "£40" in texts
    assert "£35" not in texts


def test_what_cannot_be_read_is_said_on_its_row_and_the_rest_loads(assistant: Assistant, folder: Path) -> None:
    load_folder(assistant=assistant, folder=folder)
    (folder / "moving.md").write_bytes(b"\x00\x01binary")
    (folder / "empty.md").write_text("   \n")
    (folder / "big.txt").write_bytes(b"a " * 2_600_000)
    (folder / "new.md").write_text("# New\n\nThis one is fine and loads.")
    report = load_folder(assistant=assistant, folder=folder)
    assert report.loaded == ["new.md"]
    assert {path for path, _ in report.failed} == {"moving.md", "empty.md", "big.txt"}
    assert all(sentence.endswith(".") for _, sentence in report.failed)
    moving = Document.objects.get(path="moving.md")
    assert (moving.state, moving.chunks.count()) == ("failed", 1)  # what was loaded before stays searchable
    assert "NUL" in moving.error
    (folder / "moving.md").write_text(MOVING)
    assert load_folder(assistant=assistant, folder=folder).loaded == ["moving.md"]
    moving.refresh_from_db()
    assert (moving.state, moving.error) == ("ready", "")


def test_a_folder_that_is_not_there(assistant: Assistant, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_folder(assistant=assistant, folder=tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "superseded"),
    [
        ("# Fees 2023\n\nSuperseded by Fees 2024.\n\nThe fee is £30.", True),
        ("# Fees 2023\n\n**Status: superseded by** fees-2024.\n\nThe fee is £30.", False),
        ("# Fees 2023\n\n*Superseded by fees-2024.md on 1 March.*\n\nThe fee is £30.", True),
        ("# Fees 2024\n\nThese fees replace those of 2023.", False),
    ],
)
def test_a_document_that_says_so_near_its_top_is_superseded(assistant: Assistant, text: str, superseded: bool) -> None:
    document = load_document(assistant=assistant, path="fees.md", data=text.encode())
    assert document.superseded is superseded
    assert Document.objects.in_force().count() == int(not superseded)


def test_chunks_hold_text_vectors_and_words(assistant: Assistant) -> None:
    document = load_document(assistant=assistant, path="fees.md", data=FEES.encode())
    chunks = list(document.chunks.order_by("position"))
    assert [(c.position, c.headings) for c in chunks] == [(0, ["Fees", "Leaving"]), (1, ["Fees", "Late payment"])]
    for chunk in chunks:
        assert chunk.digest == hashlib.sha256(chunk.text.encode()).hexdigest()
        assert chunk.assistant_id == assistant.pk
        whole = embed([embedded_text(chunk.headings, chunk.text)])[0]
        assert float(np.asarray(chunk.embedding, dtype=np.float32) @ whole) > 0.999
        sentences = unpack(chunk.sentence_embeddings)
        assert sentences.shape == (len(split_sentences(chunk.text)), 384)
        own = embed_wordings(wordings(chunk.title, chunk.text))
        assert np.abs(sentences - own).max() < 1e-3
        assert chunk.tokens == count_tokens(chunk.text)
    assert Chunk.objects.filter(words=SearchQuery("late costs", config="english")).count() == 1


def test_hostile_documents_make_chunks_that_the_embedder_reads_whole(assistant: Assistant) -> None:
    text = "\n\n".join(
        [
            "# " + "very long heading " * 60,
            "A word without end " + "x" * 5000,
            "| a | b |\n|---|---|\n" + "| cell one | cell two |\n" * 400,
            "'; DROP TABLE knowledge_chunk; -- \\ \u202e \U0001f600 <script>alert(1)</script>",
        ]
    )
    document = load_document(assistant=assistant, path="hostile.md", data=text.encode())
    assert document.state == "ready"
    for chunk in document.chunks.all():
        assert count_tokens(embedded_text(chunk.headings, chunk.text)) <= MAX_TOKENS + 4
        assert all(len(heading) <= 300 for heading in chunk.headings)
    assert "DROP TABLE" in " ".join(document.chunks.values_list("text", flat=True))


def test_a_path_beyond_all_measure_is_a_failed_row_not_a_crash(assistant: Assistant) -> None:
    path = "x" * 900 + ".md"
    assert load_document(assistant=assistant, path=path, data=FEES.encode()).state == "failed"
    untitled = load_document(assistant=assistant, path="y" * (MAX_PATH - 4) + ".txt", data=b"Only one sentence here.")
    assert untitled.state == "ready"
    assert len(untitled.title) <= 300


def test_deleting_a_document_takes_its_chunks(assistant: Assistant) -> None:
    document = load_document(assistant=assistant, path="fees.md", data=FEES.encode())
    delete_document(document=document)
    assert Chunk.objects.count() == 0


def test_two_assistants_may_have_the_same_path(assistant: Assistant) -> None:
    other = make_assistant()
    load_document(assistant=assistant, path="fees.md", data=FEES.encode())
    load_document(assistant=other, path="fees.md", data=MOVING.encode())
    assert Chunk.objects.filter(assistant=assistant).count() == 2
    assert Chunk.objects.filter(assistant=other).count() == 1
