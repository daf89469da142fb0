"""What is copied stands in the table as it was given, whatever it is; what cannot stand there leaves nothing at all."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from django.db import transaction
from psycopg import DataError

from assistants.models import Assistant
from knowledge.chunking import ChunkText
from knowledge.copying import BLOCK
from knowledge.models import Chunk, Document
from knowledge.storing import Vectors, copy_chunks
from tests.factories import make_assistant

DIMENSION = 384


@pytest.fixture
def document(db: None) -> Document:
    assistant: Assistant = make_assistant("bot")
    return Document.objects.create(
        assistant=assistant, source_key="0" * 64, path="a.md", title="A", text="", digest="", media_type="text/plain"
    )


def vectors(seed: int, sentences: int = 2) -> Vectors:
    rng = np.random.default_rng(seed)
    whole = rng.normal(size=DIMENSION).astype(np.float32)
    return Vectors(whole / np.linalg.norm(whole), rng.normal(size=(sentences, DIMENSION)).astype(np.float16).tobytes())


def test_rows_come_back_as_they_were_given(document: Document) -> None:
    given: list[tuple[int, ChunkText, Vectors]] = [
        (7, ChunkText(("Fees", "Früh gehen"), "Es kostet 35 €. \N{GRINNING FACE}\n\t\\N, {}", 12), vectors(1)),
        (0, ChunkText((), "no heading", 2), vectors(2, sentences=0)),
        (1_999_999_999, ChunkText(("",), "", 0), vectors(3, sentences=40)),
        (3, ChunkText(("Fees", 'a "quoted", {braced} part', "h" * 300), "x" * 20_000, 256), vectors(4)),
        (4, ChunkText(("Fees",), "a list as vector", 4), Vectors([0.5] * 4 + [0.0] * 380, b"")),
    ]
    copy_chunks(document, given)
    found = {chunk.position: chunk for chunk in Chunk.objects.all()}
    assert sorted(found) == sorted(position for position, _, _ in given)
    for position, chunk, made in given:
        row = found[position]
        assert (row.assistant_id, row.document_id) == (document.assistant_id, document.pk)
        assert (tuple(row.headings), row.text, row.tokens) == (chunk.headings, chunk.text, chunk.tokens)
        assert row.digest == hashlib.sha256(chunk.text.encode()).hexdigest()
        assert np.array_equal(np.asarray(row.embedding, np.float16), np.asarray(made.whole, np.float16))
        assert bytes(row.sentence_embeddings) == made.packed
        assert f"'@{document.assistant_id}'" in str(row.words)


@pytest.mark.parametrize("many", [BLOCK - 1, BLOCK, 2 * BLOCK + 1])
def test_blocks_join_without_a_seam(document: Document, many: int) -> None:
    made = vectors(5)
    copy_chunks(document, [(n, ChunkText(("T",), f"text {n}", n), made) for n in range(many)])
    rows = Chunk.objects.order_by("position").values_list("position", "text", "tokens")
    assert list(rows) == [(n, f"text {n}", n) for n in range(many)]


def test_no_rows_are_no_statement(document: Document) -> None:
    copy_chunks(document, [])
    assert Chunk.objects.count() == 0


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ((9, ChunkText(("T",), "half \x00 way", 1), vectors(6)), DataError),
        ((9, ChunkText(("h" * 301,), "text", 1), vectors(6)), DataError),
        ((9, ChunkText(("T",), "text", 1), Vectors([1.0, 0.0], b"")), ValueError),
        ((9, ChunkText(("T",), "text", 1), Vectors([float("nan")] * DIMENSION, b"")), DataError),
        ((2**31, ChunkText(("T",), "text", 1), vectors(6)), OverflowError),
        ((9, ChunkText(("T",), "half a pair \ud800", 1), vectors(6)), UnicodeEncodeError),
    ],
    ids=["nul", "long heading", "two lengths", "no number", "position", "surrogate"],
)
def test_a_row_that_cannot_stand_there_takes_all_with_it(
    document: Document, bad: tuple[int, ChunkText, Vectors], error: type[Exception]
) -> None:
    rows = [(n, ChunkText(("T",), f"text {n}", 1), vectors(n)) for n in range(3)]
    with pytest.raises(error), transaction.atomic():
        copy_chunks(document, [*rows, bad])
    assert Chunk.objects.count() == 0
    copy_chunks(document, rows)  # the connection is as good as before
    assert Chunk.objects.count() == 3
