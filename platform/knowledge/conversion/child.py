"""The process that reads files which may be hostile: no database, no secrets, little memory, killed when it takes long.

It answers one request after the other over its standard input and output until its owner lets go. A message is the
length of its head (4 bytes), the head (JSON), and as many bytes as the head's ``size`` says.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from collections.abc import Callable
from typing import IO, Any

from knowledge.conversion import formats
from knowledge.conversion.shapes import ConversionLimits, Converted
from knowledge.sections import UnreadableDocument

LENGTH = struct.Struct(">I")
MAX_HEAD = 100_000


def write_message(stream: IO[bytes], head: dict[str, Any], body: bytes = b"") -> None:
    packed = json.dumps({**head, "size": len(body)}).encode()
    stream.write(LENGTH.pack(len(packed)) + packed)
    stream.write(body)
    stream.flush()


def main() -> None:
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not print into the answers
    while (request := _read(sys.stdin.buffer)) is not None:
        head, body = request
        limits = ConversionLimits(**head["limits"])
        _bound(limits)
        try:
            _answer(output, head, body, limits)
        except UnreadableDocument as error:
            write_message(output, {"kind": "unreadable", "sentence": str(error)})
        except MemoryError:
            write_message(output, {"kind": "unreadable", "sentence": too_much_memory(limits)})
        except RecursionError:
            write_message(output, {"kind": "unreadable", "sentence": "It is nested too deeply to be read."})
        except ImportError as error:
            sentence = f"This server cannot read it: {error.name} is missing (pip install 'ratchet[documents]')."
            write_message(output, {"kind": "unreadable", "sentence": sentence})
        except Exception as error:  # whatever a library trips over; the type helps whoever reads the log
            write_message(output, {"kind": "failed", "type": type(error).__name__})


def too_much_memory(limits: ConversionLimits) -> str:
    return f"It takes more than {limits.memory_bytes // 1024**2:,} MB of memory to read. Split it."


def convert(data: bytes, *, media_type: str, title: str, limits: ConversionLimits) -> Converted:
    """Raises:
    UnreadableDocument: see the readers.
    """
    from knowledge.conversion.html import read_html
    from knowledge.conversion.pdf import read_pdf
    from knowledge.conversion.table import read_table
    from knowledge.conversion.word import read_word

    readers: dict[str, Callable[[], Converted]] = {
        formats.PDF: lambda: read_pdf(data, title=title, limits=limits),
        formats.WORD: lambda: read_word(data, title=title, limits=limits),
        formats.HTML: lambda: read_html(data, title=title),
        formats.CSV: lambda: read_table(data, title=title),
        formats.TSV: lambda: read_table(data, title=title, delimiter="\t"),
    }
    if media_type not in readers:
        raise UnreadableDocument(f"Files of type {media_type} cannot be read; use {formats.NAMES}.")
    return readers[media_type]()


def _answer(output: IO[bytes], head: dict[str, Any], body: bytes, limits: ConversionLimits) -> None:
    if head["op"] == "unpack":
        from knowledge.conversion.archive import read_archive

        for member in read_archive(body, limits=limits):
            told = {"kind": "member", "name": member.name, "told": member.size, "problem": member.problem}
            write_message(output, told, member.data)
        write_message(output, {"kind": "end"})
        return
    converted = convert(body, media_type=head["media_type"], title=head["title"], limits=limits)
    write_message(output, {"kind": "converted"}, converted.to_json())


def _read(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    length = stream.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return None
    head = json.loads(stream.read(LENGTH.unpack(length)[0]))
    return head, stream.read(head["size"])


def _bound(limits: ConversionLimits) -> None:
    """The owner kills what takes too long; the bound on processor time holds when the owner is gone."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(used.ru_utime + used.ru_stime) + limits.seconds + 10
    for what, value in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # not every system has every bound
            resource.setrlimit(what, (value, resource.getrlimit(what)[1]))
