"""`manage.py load_documents helpdesk folder/`: takes in a folder of documents, or keeps it in step."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from assistants.models import Assistant
from knowledge.limits import conversion_limits
from knowledge.loading import Brought, NotPrepared, prepare
from knowledge.models import Document
from knowledge.previews import preview_of
from knowledge.scrubbing import source_key
from knowledge.services import LoadReport, delete_document, files_below, load_one, path_of

SOME_REFUSED = 3
"""Exit code when it came to its end and a file could not be taken."""


def _read(file: Path) -> tuple[int, bytes]:
    """Size and content; what is too large to be taken is not read."""
    size = file.stat().st_size
    return size, file.read_bytes() if size <= conversion_limits().file_bytes else b""


class Command(BaseCommand):
    help = "Loads a folder of documents; run again it takes in only what changed. May be stopped at any moment."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("assistant", help="slug of the assistant")
        parser.add_argument("folder", type=Path)
        parser.add_argument("--into", default="", metavar="PATH", help="a folder that is put before the paths")
        parser.add_argument("--dry-run", action="store_true", help="say what would become of each file, store nothing")
        parser.add_argument(
            "--prune", action="store_true", help="delete documents below --into that are not in the folder any more"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        assistant = Assistant.objects.filter(slug=options["assistant"]).first()
        if assistant is None:
            raise CommandError(f"There is no assistant {options['assistant']}.")
        folder, into = options["folder"], options["into"].strip("/")
        if options["prune"] and not into:
            raise CommandError("--prune needs --into: it deletes what is below that path and not in the folder.")
        try:
            files = files_below(folder)
        except FileNotFoundError as error:
            raise CommandError(str(error)) from None
        paths = {path_of(file, folder, into): file for file in files}
        act = self._look if options["dry_run"] else self._load
        refused = act(assistant, paths)
        if options["prune"]:
            self._prune(assistant, into, paths, dry_run=options["dry_run"])
        if refused:
            sys.exit(SOME_REFUSED)

    def _load(self, assistant: Assistant, paths: dict[str, Path]) -> int:
        report, brought = LoadReport(), Brought(via="command")
        for done, (path, file) in enumerate(paths.items(), start=1):
            before = len(report.failed)
            try:
                size, data = _read(file)
            except OSError as error:
                report.failed.append((path, f"It cannot be read: {error.strerror}."))
            else:
                load_one(assistant=assistant, path=path, data=data, size=size, report=report, brought=brought)
            if len(report.failed) > before:
                self.stderr.write(f"✗ {path}: {report.failed[-1][1]}")
            elif done % 25 == 0 or done == len(paths):
                self.stderr.write(f"{done} of {len(paths)}")
        self.stdout.write(f"{report.sentence}.")
        return len(report.failed)

    def _look(self, assistant: Assistant, paths: dict[str, Path]) -> int:
        counts: Counter[str] = Counter()
        for path, file in paths.items():
            try:
                size, data = _read(file)
                prepared = prepare(assistant=assistant, path=path, data=data, size=size)
            except (NotPrepared, OSError) as refused:
                counts["refused"] += 1
                self.stdout.write(f"✗ {path}: {refused if isinstance(refused, NotPrepared) else refused.strerror}")
                continue
            if prepared.current():
                counts["unchanged"] += 1
                continue
            counts["to load"] += 1
            self.stdout.write(f"+ {path}: {preview_of(prepared, prepared.source.stored().first()).sentence}")
        self.stdout.write(", ".join(f"{counts[name]} {name}" for name in ("to load", "unchanged", "refused")) + ".")
        return counts["refused"]

    def _prune(self, assistant: Assistant, into: str, paths: dict[str, Path], *, dry_run: bool) -> None:
        keys = {source_key(assistant.pk, path) for path in paths}
        gone = Document.objects.filter(assistant=assistant, path__startswith=f"{into}/").exclude(source_key__in=keys)
        for document in gone.select_related("assistant").defer("text"):
            if not dry_run:
                delete_document(document=document, via="command")
            self.stdout.write(f"− {document.path}: {'would be ' if dry_run else ''}deleted")
