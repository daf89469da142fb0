"""Scrubbed turns into a file: as many as there are, in constant memory."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError

from assistants.errors import ApiError
from assistants.models import Assistant
from capture.export_guard import ExportBlocked
from capture.exporting import FORMATS, MAX_TURNS, Export, Format, pieces_of
from capture.models import Turn
from capture.parquet import ParquetMissing
from capture.turn_filters import FEEDBACK, read_filters

_REPORT_SECONDS = 5.0


class Command(BaseCommand):
    help = "Writes scrubbed turns to a file, as JSON lines or Parquet, with the filters of the API."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="where to; - is standard output")
        parser.add_argument("--assistant", required=True, help="its short name")
        parser.add_argument(
            "--format", choices=FORMATS, help="jsonl, or parquet where the file's name ends in .parquet"
        )
        parser.add_argument("--limit", type=int, help="at most so many, the newest")
        for name in ("adapter", "conversation", "model", "q", "since", "until"):
            parser.add_argument(f"--{name}", help="as the parameter of the API")
        parser.add_argument("--declined", choices=("true", "false"))
        parser.add_argument("--feedback", choices=FEEDBACK)
        parser.add_argument("--tag", action="append", help="may be given several times: all of them")
        parser.add_argument("--force", action="store_true", help="replace a file that is there")

    def handle(self, *args: Any, **options: Any) -> None:
        export = self._export(options)
        if options["file"] == "-":
            self._write_out(pieces_of(export))
            return
        target = Path(options["file"])
        if target.exists() and not options["force"]:
            raise CommandError(f"{target} is there already; --force replaces it.")
        if target.is_dir():
            raise CommandError(f"{target} is a folder. Name a file.")
        if not target.parent.is_dir():
            raise CommandError(f"There is no folder {target.parent}.")
        # Beside the target, so that the rename is one step; readable by its owner alone, as mkstemp makes it.
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                written = self._write(pieces_of(export), file)
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)
        self.stderr.write(f"{target}: {written / 1e6:.1f} MB")

    def _export(self, options: dict[str, Any]) -> Export:
        assistant = Assistant.objects.filter(slug=options["assistant"]).first()
        if assistant is None:
            raise CommandError("There is no such assistant.")
        if options["limit"] is not None and not 1 <= options["limit"] <= MAX_TURNS:
            raise CommandError(f"--limit must be from 1 to {MAX_TURNS}.")
        names = ("adapter", "conversation", "declined", "feedback", "model", "q", "since", "until")
        query = {name: [options[name]] for name in names if options[name] is not None}
        if options["tag"]:
            query["tag"] = options["tag"]
        try:
            filters = read_filters(query)
        except ApiError as error:
            raise CommandError(str(error.detail)) from error
        named: Format = "parquet" if options["file"].endswith(".parquet") else "jsonl"
        return Export(
            turns=filters.apply(Turn.objects.of(assistant)),
            format=cast("Format", options["format"] or named),
            told={**filters.for_audit(), "command": "export_turns"},
            limit=options["limit"],
        )

    def _write_out(self, pieces: Iterator[bytes]) -> None:
        try:
            self._write(pieces, cast("IO[bytes]", getattr(sys.stdout, "buffer", sys.stdout)))
        except BrokenPipeError:
            # `… | head` has seen enough. What Python still holds for the pipe would fail once more as it ends.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            raise CommandError("Whoever read the export has gone: it is not whole.") from None

    def _write(self, pieces: Iterator[bytes], file: IO[bytes]) -> int:
        written, told = 0, time.monotonic()
        try:
            for piece in pieces:
                file.write(piece)
                written += len(piece)
                if time.monotonic() - told > _REPORT_SECONDS:
                    told = time.monotonic()
                    self.stderr.write(f"{written / 1e6:.0f} MB …")
            file.flush()
        except ExportBlocked as blocked:
            raise CommandError(f"The export is blocked: {blocked}") from blocked
        except ParquetMissing as missing:
            raise CommandError("Parquet needs pyarrow: pip install 'ratchet[parquet]'.") from missing
        return written
