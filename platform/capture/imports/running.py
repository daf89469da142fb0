"""The run: records become units, units go to capture in batches, and what is done is noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from assistants.models import Assistant
from assistants.services import audit
from capture import counting
from capture.imports.formats import Flat, Format, Grouped
from capture.imports.grouping import Spool, parts_for
from capture.imports.outcome import Report, Tally
from capture.imports.posting import Outcome, Poster
from capture.imports.progress import Display
from capture.imports.sources import Source
from capture.imports.state import Progress, StateFile
from capture.imports.units import Converted, ImportProblem, Payload, Refused, Row, Unit
from capture.vault import stored_id

BATCH_BYTES = 8 * 1024 * 1024
_ZIPPED = 8
"""How many times larger than its gzip a log is, roughly."""


@dataclass
class Run:
    """One import. ``state`` is None for a dry run, which writes nothing.

    Args:
        poster: where batches go.
        batch: turns in one.
        folder: for the rows of traces while they wait for each other.
    """

    assistant: Assistant
    sources: Sequence[Source]
    format: Format
    poster: Poster
    report: Report
    display: Display
    batch: int
    folder: Path
    state: StateFile | None
    progress: Progress

    def __post_init__(self) -> None:
        self.tally = Tally(self.progress)
        self._pending: list[Unit] = []
        self._size = 0
        self._turns = 0

    def run(self) -> Tally:
        """To the end. Interrupted anywhere, the state says how far everything is durable.

        Raises:
            ImportProblem: a file is damaged, or there is no room for the rows of traces.
        """
        try:
            for unit in self._units():
                self._pending.append(unit)
                self._size += unit.size
                self._turns += max(1, len(unit.converted.turns), len(unit.converted.feedback))
                if self._turns >= self.batch or self._size >= BATCH_BYTES:
                    self._flush()
        except ImportProblem as error:
            self._flush()
            dry = self.state is None
            before = "" if dry or isinstance(self.format, Grouped) else " What came before was taken."
            raise ImportProblem(f"{error}{before} Export it again.") from None
        self._flush()
        counting.flush()
        if self.state is not None:
            counts = {**self.tally.counts, "refused": self.tally.refused}
            names = ", ".join(source.path.name for source in self.sources)
            audit(assistant=self.assistant, actor=None, action="turns.imported", target=names[:200],
                  details={"format": self.format.name, **counts})  # fmt: skip
            self.state.remove()
        return self.tally

    # --- Records to units ---------------------------------------------------------------------------------------------

    def _units(self) -> Iterator[Unit]:
        if isinstance(self.format, Grouped):
            yield from self._traces(self.format)
        else:
            yield from self._records(self.format)

    def _records(self, flat: Flat) -> Iterator[Unit]:
        for row in self._rows(skip=self.progress.units):
            if row.problem:
                yield _nothing(row, row.problem)
                continue
            try:
                converted = flat.convert(row.data)
            except Refused as error:
                yield _nothing(row, error.reason)
            else:
                yield Unit(row.file, row.line, row.size, 1, converted)

    def _rows(self, skip: int = 0) -> Iterator[Row]:
        """Of all files, one after the other. Files that are skipped whole are still passed through: their number of
        records is not known beforehand."""
        self.display.begin()
        sizes = [source.size for source in self.sources]
        done = passed = 0
        for source in self.sources:
            for row in source.rows(max(0, skip - passed)):
                done += 1
                if done % 50 == 0:
                    before = sum(sizes[: source.number])
                    share = (before + source.share() * source.size) / max(sum(sizes), 1)
                    self.display.show("records read", done, share)
                yield row
            passed += source.records

    def _traces(self, grouped: Grouped) -> Iterator[Unit]:
        """Rows that cannot be read first, then the traces; the same order each time, so that a number says how far."""
        size = sum(source.size * (_ZIPPED if source.zipped else 1) for source in self.sources)
        skip = self.progress.units
        with Spool(self.folder, parts_for(size)) as spool:
            for row in self._rows():
                reason = row.problem or _spooled(grouped, row, spool)
                if reason:
                    if skip:
                        skip -= 1
                        continue
                    yield _nothing(row, reason)
            self.display.begin()
            done, total = 0, max(spool.size, 1)
            for trace, (file, line), bytes_of, rows, pieces in spool.traces():
                done += bytes_of
                if skip:
                    skip -= 1
                    continue
                self.display.show("records grouped", self.tally.counts["records"], done / total)
                try:
                    converted = grouped.assemble(trace, pieces)
                except Refused as error:
                    yield Unit(file, line, bytes_of, rows, Converted(), [(file, line, error.reason)])
                else:
                    yield Unit(file, line, bytes_of, rows, converted)

    # --- Units to capture ---------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Posts what is pending: turns, then their feedback. When it returns, all of it is durable and noted."""
        units, self._pending, self._size, self._turns = self._pending, [], 0, 0
        if not units:
            return
        turns = [(unit, turn) for unit in units for turn in unit.converted.turns]
        taken = self._post(self.poster.turns, turns, "turns")
        refused = {str(turn.get("id")) for (_, turn), ok in zip(turns, taken, strict=True) if not ok}
        given = [(unit, payload) for unit in units for payload in unit.converted.feedback]
        feedback = [(unit, payload) for unit, payload in given if str(payload["turn"]) not in refused]
        self._post(self.poster.feedback, feedback, "feedback")
        for unit in units:
            for file, line, reason in unit.problems:
                self._refuse(file, line, reason)
            self.tally.note(unit.converted.notes)
            self.tally.counts["records"] += unit.rows
        stored = [turn["id"] for (_, turn), ok in zip(turns, taken, strict=True) if ok]
        last = stored_id(stored[-1]) if stored else ""
        self._note(len(units), sum(unit.rows for unit in units), last)

    def _post(
        self,
        post: Callable[[list[Payload]], list[Outcome]],
        items: list[tuple[Unit, Payload]],
        what: str,
    ) -> list[bool]:
        """Whether each is stored, now or before; a turn that is there with other content still takes feedback."""
        taken: list[bool] = []
        for start in range(0, len(items), self.batch):
            part = items[start : start + self.batch]
            for (unit, _), outcome in zip(part, post([payload for _, payload in part]), strict=True):
                taken.append(outcome.stored)
                if outcome.status == "refused":
                    self._refuse(unit.file, unit.line, outcome.reason, outcome.client_id)
                else:
                    self.tally.counts[f"{what}_{outcome.status}"] += 1
        return taken

    def _refuse(self, file: int, line: int, reason: str, client_id: str = "") -> None:
        name = self.sources[file].path.name
        where = f"line {line}" if len(self.sources) == 1 else f"{name}, line {line}"
        self.report.add(file, line, self.tally.refuse(reason, where), client_id)

    def _note(self, units: int, rows: int, last: str) -> None:
        progress = self.progress
        progress.units += units
        progress.rows += rows
        progress.last_id = last or progress.last_id
        progress.report = self.report.flush()
        progress.counts = dict(self.tally.counts)
        progress.reasons, progress.notes = dict(self.tally.reasons), dict(self.tally.notes)
        if self.state is not None:
            self.state.save(progress)
        counting.flush_due()


def _nothing(row: Row, reason: str) -> Unit:
    return Unit(row.file, row.line, row.size, 1, Converted(), [(row.file, row.line, reason)])


def _spooled(grouped: Grouped, row: Row, spool: Spool) -> str:
    """Why the row was refused; empty when its pieces wait in the spool."""
    try:
        for trace, piece in grouped.pieces(row.data):
            spool.add(trace, (row.file, row.line), piece)
    except Refused as error:
        return error.reason
    return ""
