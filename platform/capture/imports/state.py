"""How far an import came, on disk: a killed one goes on there. Holds counts and digests, nothing of the log.

It saves time and is never needed: ids are stable, so what is sent twice is stored once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from assistants.models import Assistant
from capture.imports.sources import Source
from capture.models import Receipt

_VERSION = 1
_SAMPLE = 1 << 20


@dataclass
class Progress:
    """What is done. ``units`` from the start are durable, ``rows`` records are in them.

    ``last_id``: of the last turn that was acknowledged, as it is kept; it must still be known, or the database is
    another one. ``report``: bytes of the report that belong to what is done.
    """

    units: int = 0
    rows: int = 0
    last_id: str = ""
    report: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)


class StateFile:
    """The state of one import: of these files, with these settings, into this assistant."""

    def __init__(
        self, folder: Path, *, assistant: Assistant, sources: Sequence[Source], settings: Sequence[str]
    ) -> None:
        self._assistant = assistant
        described = [str(assistant.pk), *settings, *(_fingerprint(source) for source in sources)]
        self.path = folder / f"{hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]}.json"

    def load(self) -> Progress | None:
        """None when there is none that can be trusted."""
        try:
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return None
        progress = _progress(found)
        if progress is None or not progress.units:
            return None
        known = Receipt.objects.filter(assistant=self._assistant, client_id=progress.last_id)
        return progress if known.exists() else None

    def save(self, progress: Progress) -> None:
        """Whole or not at all. A full disk costs the state, not the import."""
        draft = self.path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            content = {"version": _VERSION, "assistant": self._assistant.pk, **asdict(progress)}
            draft.write_text(json.dumps(content), encoding="utf-8")
            draft.chmod(0o600)
            draft.replace(self.path)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()


def forget_unknown(folder: Path, assistant: Assistant) -> int:
    """Deletes states of an assistant's imports whose last turn it no longer knows under its readable id (it was
    erased); how many. Another assistant may well have a turn of that id."""
    gone = 0
    known = Receipt.objects.filter(assistant=assistant)
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(path.read_bytes())
            progress = _progress(found)
            if progress is None or found.get("assistant", assistant.pk) != assistant.pk:
                continue
            if not known.filter(client_id=progress.last_id).exists():
                path.unlink()
                gone += 1
    return gone


def _progress(found: Any) -> Progress | None:
    if not isinstance(found, Mapping) or found.get("version") != _VERSION:
        return None
    try:
        return Progress(**{key: value for key, value in found.items() if key not in ("version", "assistant")})
    except TypeError:
        return None


def _fingerprint(source: Source) -> str:
    """Changes when the file does: its size, and its first and last megabyte."""
    digest = hashlib.sha256(str(source.size).encode())
    with source.path.open("rb") as raw:
        digest.update(raw.read(_SAMPLE))
        raw.seek(max(0, source.size - _SAMPLE))
        digest.update(raw.read(_SAMPLE))
    return digest.hexdigest()
