"""The owner of the reading process: starts it, hands it files, and ends it when a file takes too long or breaks it."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from knowledge.conversion.child import LENGTH, MAX_HEAD, too_much_memory, write_message
from knowledge.conversion.shapes import ConversionLimits, Converted, Member
from knowledge.sections import UnreadableDocument

_ROOT = Path(__file__).resolve().parents[2]
_START = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from knowledge.conversion.child import main; main()"
_TICK = 0.5
_MAX_CONVERTED = 200_000_000
_PIECE = 1 << 20
Tick = Callable[[], None]
"""Called every half second while a file is read; what it raises ends the reading."""


class _Broken(Exception):
    """The process ended, or said what it never says."""


class _TooLong(Exception):
    """It did not answer in time."""


class Reader:
    """One reading process, started with the first file and used for those that follow."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def convert(
        self, data: bytes, *, media_type: str, title: str, limits: ConversionLimits, tick: Tick | None = None
    ) -> Converted:
        """Raises:
        UnreadableDocument: it cannot be read, took too long or too much memory; a sentence for who loads it.
        """
        request = {"op": "convert", "media_type": media_type, "title": title, "limits": asdict(limits)}
        for _, body in self._asked(request, data, "converted", limits, tick):
            try:
                return Converted.from_json(body)
            except (ValueError, RecursionError):
                break
        raise UnreadableDocument("It could not be read.")

    def unpack(self, data: bytes, *, limits: ConversionLimits, tick: Tick | None = None) -> Iterator[Member]:
        """Files of an archive in order. Raises as `convert`, perhaps after some of them."""
        left = limits.expanded_bytes
        for head, body in self._asked({"op": "unpack", "limits": asdict(limits)}, data, "member", limits, tick):
            left -= len(body)
            if left < 0:
                raise UnreadableDocument("It could not be read.")
            yield Member(str(head["name"])[:1000], int(head["told"]), body, str(head["problem"])[:300])

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():  # a fork's copy belongs to whoever started it
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()

    def _asked(
        self, request: dict[str, Any], data: bytes, wanted: str, limits: ConversionLimits, tick: Tick | None
    ) -> Iterator[tuple[dict[str, Any], bytes]]:
        with self._lock:
            finished = False
            try:
                process = self._running()
                assert process.stdin is not None
                write_message(process.stdin, request, data)
                while True:
                    head, body = self._message(process, limits, tick)
                    finished = head["kind"] not in ("member",)
                    if head["kind"] != wanted:
                        break
                    yield head, body
                    if finished:
                        return
                if head["kind"] == "unreadable":
                    raise UnreadableDocument(str(head["sentence"])[:1000])
                if head["kind"] != "end":
                    raise UnreadableDocument("It could not be read: it is damaged, or of a kind that is not known.")
            except _TooLong:
                raise UnreadableDocument(f"It takes longer than {limits.seconds} seconds to read. Split it.") from None
            except (_Broken, BrokenPipeError, KeyError, TypeError, ValueError) as error:
                if isinstance(error, UnreadableDocument):
                    raise
                # Out of memory in the middle of a library ends a process in many ways.
                raise UnreadableDocument(
                    f"The process that read it broke down. The file is damaged, or: {too_much_memory(limits)}"
                ) from None
            finally:
                if not finished:
                    self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is None or self._owner != os.getpid() or process.poll() is not None:
            self.close()
            process = self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"},  # our own holds addresses and keys
            )
            self._owner = os.getpid()
        return process

    def _message(
        self, process: subprocess.Popen[bytes], limits: ConversionLimits, tick: Tick | None
    ) -> tuple[dict[str, Any], bytes]:
        until = time.monotonic() + limits.seconds
        length = LENGTH.unpack(self._bytes(process, LENGTH.size, until, tick))[0]
        if length > MAX_HEAD:
            raise _Broken
        head = json.loads(self._bytes(process, length, until, tick))
        if not 0 <= int(head["size"]) <= _MAX_CONVERTED:
            raise _Broken
        return head, self._bytes(process, int(head["size"]), until, tick)

    def _bytes(self, process: subprocess.Popen[bytes], count: int, until: float, tick: Tick | None) -> bytes:
        assert process.stdout is not None
        number = process.stdout.fileno()
        found = bytearray()
        while len(found) < count:
            readable, _, _ = select.select([number], [], [], _TICK)
            if readable:
                piece = os.read(number, min(_PIECE, count - len(found)))
                if not piece:
                    raise _Broken
                found += piece
            else:
                if time.monotonic() > until:
                    raise _TooLong
                if tick is not None:
                    tick()
        return bytes(found)


READER = Reader()
atexit.register(READER.close)
