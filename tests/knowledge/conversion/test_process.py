"""The reading process: what it may take, and that nothing that happens to it happens to us."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from knowledge.conversion import formats
from knowledge.conversion.process import Reader
from knowledge.conversion.shapes import ConversionLimits, Converted
from knowledge.sections import UnreadableDocument
from tests.knowledge.files import make_docx, make_zip

LIMITS = ConversionLimits()
SLOW = b"<ul>" + b"<li>x<div>" * 400_000
"""Quadratic for the reader of HTML."""


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


def page(reader: Reader, data: bytes = b"<p>fine", limits: ConversionLimits = LIMITS, **more: object) -> Converted:
    return reader.convert(data, media_type=formats.HTML, title="T", limits=limits, **more)  # type: ignore[arg-type]


def pid_of(reader: Reader) -> int:
    assert reader._process is not None
    return reader._process.pid


def test_one_process_reads_one_file_after_the_other_and_says_what_is_wrong(reader: Reader) -> None:
    assert page(reader).sections[0].blocks == [["fine"]]
    first = pid_of(reader)
    with pytest.raises(UnreadableDocument, match="damaged"):
        reader.convert(b"no", media_type=formats.WORD, title="T", limits=LIMITS)
    with pytest.raises(UnreadableDocument, match="application/x-unknown cannot be read"):
        reader.convert(b"no", media_type="application/x-unknown", title="T", limits=LIMITS)
    assert reader.convert(make_docx(), media_type=formats.WORD, title="T", limits=LIMITS).sections
    assert [m.data for m in reader.unpack(make_zip({"a.md": "x", "b.md": "y"}), limits=LIMITS)] == [b"x", b"y"]
    assert pid_of(reader) == first


def test_it_knows_nothing_of_ours(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_CANARY", "1")
    page(reader)
    folder = Path(f"/proc/{pid_of(reader)}")
    if not folder.exists():
        pytest.skip("no /proc here")
    names = {line.split(b"=")[0] for line in (folder / "environ").read_bytes().split(b"\0") if line}
    assert names == {b"LC_ALL", b"OMP_NUM_THREADS"}
    kinds = {os.readlink(one) for one in (folder / "fd").iterdir()}
    assert not any("socket" in kind for kind in kinds)


def test_what_takes_too_long_is_ended_and_the_next_file_is_read(reader: Reader) -> None:
    page(reader)
    before = pid_of(reader)
    started = time.monotonic()
    with pytest.raises(UnreadableDocument, match="longer than 1 seconds"):
        page(reader, SLOW, ConversionLimits(seconds=1))
    assert time.monotonic() - started < 10
    assert page(reader).sections
    assert pid_of(reader) != before


def test_what_takes_too_much_memory_is_a_sentence(reader: Reader) -> None:
    with pytest.raises(UnreadableDocument, match="memory"):
        page(reader, b"<p>x</p>" * 3_000_000, ConversionLimits(memory_bytes=200 * 1024 * 1024))
    assert page(reader).sections


def test_a_process_that_dies_in_the_middle_is_a_sentence_too(reader: Reader) -> None:
    page(reader)
    asked: list[int] = []

    def kill() -> None:
        asked.append(1)
        os.kill(pid_of(reader), signal.SIGKILL)

    with pytest.raises(UnreadableDocument, match="broke down"):
        page(reader, SLOW, tick=kill)
    assert asked == [1]
    assert page(reader).sections


def test_a_cancel_ends_the_reading(reader: Reader) -> None:
    page(reader)
    pid = pid_of(reader)

    def cancel() -> None:
        raise KeyboardInterrupt("cancelled")

    with pytest.raises(KeyboardInterrupt, match="cancelled"):
        page(reader, SLOW, tick=cancel)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_only_what_a_converted_document_looks_like_is_believed() -> None:
    good = Converted("t", [])
    assert Converted.from_json(good.to_json()) == good
    for bad in (b"", b"[]", b"null", b'{"sections": [{}], "notes": [], "pages": 1, "text": ""}',
                b'{"sections": [{"headings": [], "blocks": []}], "notes": [], "pages": null, "text": ""}'):  # fmt: skip
        with pytest.raises(ValueError):
            Converted.from_json(bad)
