"""Files that come back piece by piece in the log of a job. No Django."""

from __future__ import annotations

import base64
import binascii
import hashlib
import shutil
from pathlib import Path
from typing import Any

from generation.adapters import ALLOWED_FILES


class Returning:
    """Takes ``file``, ``file_end`` and ``delivered`` events into ``folder``, which is emptied first. A log is somebody
    else's text: only the four files of an adapter are written, only whole, and at most ``most`` bytes of them."""

    def __init__(self, folder: Path, *, most: int) -> None:
        self.folder = folder
        self.most = most
        self._bytes = 0
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        self._pieces: dict[str, int] = {}
        self._whole: set[str] = set()
        self._told: list[str] | None = None
        self._broken = ""

    def take(self, event: dict[str, Any]) -> bool:
        """Whether the event was one of ours."""
        kind, name = event["event"], event.get("name")
        if kind == "delivered":
            self._told = [str(found) for found in event.get("files", [])]
            return True
        if kind not in ("file", "file_end"):
            return False
        if name not in ALLOWED_FILES:
            self._broken = self._broken or f"{str(name)[:60]!r} is no file of an adapter."
            return True
        try:
            self._piece(name, event) if kind == "file" else self._end(name, event)
        except (KeyError, TypeError, binascii.Error, ValueError, OSError):
            self._broken = self._broken or f"{name} holds a piece that cannot be read."
        return True

    def _piece(self, name: str, event: dict[str, Any]) -> None:
        if event["piece"] != self._pieces.get(name, 0):
            raise ValueError("out of order")
        if self._broken:
            return  # whatever comes now, the adapter is none: the disk is not filled with it
        data = base64.b64decode(event["data"], validate=True)
        if self._bytes + len(data) > self.most:
            self._broken = f"it has more than {self.most:,} bytes, and no more are taken (RATCHET_MAX_ADAPTER_BYTES)."
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        self._bytes += len(data)
        with (self.folder / name).open("ab") as file:
            file.write(data)
        self._pieces[name] = event["piece"] + 1

    def _end(self, name: str, event: dict[str, Any]) -> None:
        with (self.folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if self._pieces.get(name) != event["pieces"] or found != event["sha256"]:
            raise ValueError("pieces are missing")
        self._whole.add(name)

    def finish(self) -> str:
        """Why what came is not everything, in one sentence; empty when it is."""
        if self._broken:
            return self._broken
        if not self._told or set(self._told) != self._whole:
            return "some of its files are missing."
        return ""
