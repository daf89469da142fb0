"""`manage.py rotate_keys [--new | --drop-old | --accept-hash-key]`: another key for what waits encrypted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotations.models import SavedDraft
from assistants.key_check import accept_hash_key
from assistants.services import audit
from capture import rotation
from knowledge.models import UploadedFile
from serving import spool
from serving.erasure.record import Erasure
from training.models import BenchmarkUpload, CuratedSet, TrainingProvider

SEALED: tuple[rotation.Column, ...] = (
    *rotation.OWN,
    (UploadedFile, "data"),
    (SavedDraft, "sealed"),
    (Erasure, "sealed"),
    (BenchmarkUpload, "sealed"),
    (CuratedSet, "sealed"),
    (TrainingProvider, "sealed_key"),
)
RESTART = "Restart workers, then web processes, so that all of them know it; then run `manage.py rotate_keys`."


class Command(BaseCommand):
    help = "Closes what waits in quarantine with the first key of RATCHET_DATA_KEY. May be stopped and run again."

    def add_arguments(self, parser: CommandParser) -> None:
        step = parser.add_mutually_exclusive_group()
        step.add_argument("--new", action="store_true", help="first step: make a key and put it before the others")
        step.add_argument("--drop-old", action="store_true", help="last step: forget every key but the first")
        step.add_argument(
            "--accept-hash-key", action="store_true", help="RATCHET_HASH_KEY of now counts, since the old one is lost"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["new"]:
            path = _file()
            rotation.add_key(path)
            self._audit("key.added", {})
            self.stdout.write(f"A new key stands first in {path}. {RESTART}")
        elif options["drop_old"]:
            self._drop()
        elif options["accept_hash_key"]:
            fresh = accept_hash_key()
            self.stdout.write("The hash key of now counts." if fresh else "The hash key of now counts already.")
        else:
            self._rotate()

    def _rotate(self) -> None:
        done, lost = 0, []
        for report in rotation.rotate(SEALED):
            done, lost = report.done, report.unreadable
            self.stderr.write(f"{done} payloads closed anew")
        done += spool.reseal()
        self._audit("key.rotated", {"payloads": done, "unreadable": len(lost)})
        self.stdout.write(f"{done} payloads are closed with the first key now.")
        if lost:
            raise CommandError(
                f"No key opens {len(lost)} payloads ({', '.join(lost[:3])}). Put the old key back, and run this again."
            )

    def _drop(self) -> None:
        path = _file()
        left = rotation.remaining(SEALED) + spool.sealed_otherwise()
        if left:
            raise CommandError(f"{left} payloads are still closed with another key. Run `manage.py rotate_keys` first.")
        gone = rotation.drop_old_keys(path)
        self._audit("key.dropped", {"keys": gone})
        self.stdout.write(f"{gone} old keys are forgotten. Restart the platform to let go of them in memory too.")

    def _audit(self, action: str, details: dict[str, int]) -> None:
        audit(assistant=None, actor=None, action=action, target="RATCHET_DATA_KEY", details=details)


def _file() -> Path:
    """Where the keys are kept, when they are in a file of ours."""
    path = Path(settings.SECRETS_DIR) / "ratchet_data_key"
    held = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    if not held or held != settings.RATCHET_DATA_KEY:
        raise CommandError("RATCHET_DATA_KEY comes from the environment: change it there. docs/operations.md says how.")
    return path
