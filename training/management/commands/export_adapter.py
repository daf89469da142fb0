"""`manage.py export_adapter helpdesk 7 ./out`: an adapter as a folder, or as a zip where the path ends with .zip."""

from __future__ import annotations

import contextlib
import shutil
import zipfile
from pathlib import Path
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from training.models import Adapter
from training.registry.exporting import ExportRefused, export_zip


class Command(BaseCommand):
    help = "Writes an adapter to a new folder or zip, after its digests were checked."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("assistant", help="slug of the assistant")
        parser.add_argument("number", type=int, help="of the adapter")
        parser.add_argument("path", type=Path, help="a folder that is not there yet, or a file ending with .zip")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = Adapter.objects.select_related("assistant", "run__dataset", "parent__run__dataset")
        adapter = rows.filter(assistant__slug=options["assistant"], number=options["number"]).first()
        if adapter is None:
            raise CommandError(f"{options['assistant']!r} has no adapter {options['number']}.")
        path: Path = options["path"]
        if path.exists():
            raise CommandError(f"{path} is there already. Name another place.")
        if path.parent.exists() and not path.parent.is_dir():
            raise CommandError(f"{path.parent} is not a folder. Name another place.")
        try:
            file = export_zip(adapter=adapter, actor=None)
        except ExportRefused as error:
            raise CommandError(str(error)) from None
        try:
            with file:
                _write(file, path)
        except FileExistsError:
            raise CommandError(f"{path} is there already. Name another place.") from None  # somebody else's, since now
        except OSError as error:
            _remove(path)
            raise CommandError(f"{path} cannot be written: {error.strerror}.") from None
        self.stdout.write(f"{adapter} is in {path}.")


def _write(file: IO[bytes], path: Path) -> None:
    if path.suffix == ".zip":
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as out:
            shutil.copyfileobj(file, out)
        return
    path.mkdir(parents=True)
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():  # of our own making: names in one folder
            (path / Path(member.filename).name).write_bytes(archive.read(member))


def _remove(path: Path) -> None:
    """Half an adapter would be refused later, and would be in the way of the next try."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
