"""What became of the records: counts, the report of what was refused, and the summary."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from capture.imports.state import Progress
from capture.imports.units import ImportProblem
from capture.vault import stored_id

MAX_REASONS = 100
OTHER = "other reasons"
CONFLICT = "the id was used before with other content"


class Report:
    """Refusals as JSONL: {"file", "line", "id", "reason"}; nothing of the record but an id that says nothing.

    Args:
        path: where it goes; None for nowhere.
        keep: bytes of it that a resumed import goes on behind; 0 begins anew.

    Raises:
        ImportProblem: the file cannot be written.
    """

    def __init__(self, path: Path | None, names: Sequence[str], keep: int = 0) -> None:
        self._names = names
        self._file: IO[bytes] | None = None
        if path is None:
            return
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            self._file = os.fdopen(handle, "r+b")
            self._file.truncate(min(keep, path.stat().st_size))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise ImportProblem(f"The report {path} cannot be written: {error.strerror}.") from None

    def add(self, file: int, line: int, reason: str, client_id: str = "") -> None:
        if self._file is None:
            return
        row: dict[str, str | int] = {"file": self._names[file], "line": line, "reason": reason}
        if client_id and stored_id(client_id) == client_id:  # others are somebody's address or name
            row["id"] = client_id
        self._file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")

    def flush(self) -> int:
        """Bytes that are on disk now."""
        if self._file is None:
            return 0
        self._file.flush()
        return self._file.tell()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Tally:
    """Counts of one import, over all its attempts."""

    def __init__(self, progress: Progress) -> None:
        self.counts = Counter(progress.counts)
        self.reasons = Counter(progress.reasons)
        self.notes = Counter(progress.notes)
        self.examples: list[str] = []

    def refuse(self, reason: str, where: str) -> str:
        """Counts a refusal under its reason, or under `OTHER` when there are too many; gives the reason back."""
        known = reason if reason in self.reasons or len(self.reasons) < MAX_REASONS else OTHER
        self.reasons[known] += 1
        if len(self.examples) < 10:
            self.examples.append(f"{where}: {reason}")
        return reason

    def note(self, notes: Iterable[str]) -> None:
        self.notes.update(set(notes))

    @property
    def refused(self) -> int:
        return self.reasons.total()

    def sentence(self, *, dry: bool) -> str:
        c = self.counts
        new = "would be new" if dry else "new"
        turns = f"{_many(c['turns_new'], 'turn')} {new}, {c['turns_known']:,} known already"
        feedback = f"{_many(c['feedback_new'], 'piece')} of feedback {new}, {c['feedback_known']:,} known already"
        return f"{_many(c['records'], 'record')}: {turns}; {feedback}; {self.refused:,} refused."

    def lines(self, *, dry: bool) -> list[str]:
        """The summary: one sentence, then reasons and notes by how often they occurred."""
        found = [self.sentence(dry=dry)]
        if self.reasons:
            found.append("Refused:")
            found += [f"  {count:,}  {reason}" for reason, count in self.reasons.most_common()]
        if self.notes:
            found.append("Taken without:")
            found += [f"  {count:,}  {note}" for note, count in self.notes.most_common()]
        return found


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
