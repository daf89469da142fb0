"""Turns that could not be stored: written to disk, encrypted, and taken in when capture is back."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings

from assistants.models import ApiKey, Assistant
from assistants.vault import PayloadUnreadable, decrypt, encrypt, keyring
from capture.services import receive_turns

logger = logging.getLogger(__name__)

MAX_FILES = 10_000
"""About a day of a busy chatbot; beyond it turns are dropped with an error in the log, answers never are."""


def folder() -> Path:
    path = Path(settings.VAR_DIR) / "spool"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def keep(assistant: Assistant, api_key: ApiKey | None, item: dict[str, Any]) -> bool:
    """Writes one turn to disk; False when the spool is full or the disk is."""
    record = {"assistant": assistant.pk, "api_key": api_key.pk if api_key else None, "item": item}
    try:
        place = folder()
        if sum(1 for _ in place.glob("*.turn")) >= MAX_FILES:
            logger.error("The spool of unsaved turns is full (%s files): a turn is lost.", MAX_FILES)
            return False
        target = place / f"{item['id']}.turn"
        half = target.with_suffix(".half")
        half.write_bytes(encrypt(json.dumps(record).encode()))
        os.replace(half, target)  # a reader never sees half a file
    except OSError as error:
        logger.error("A turn could not be spooled and is lost: %s", error)
        return False
    return True


def reseal() -> int:
    """Closes spooled turns of another data key with the first; how many. What no key opens stays as it is."""
    done = 0
    header = keyring(settings.RATCHET_DATA_KEY).header
    for path in folder().glob("*.turn"):
        try:
            sealed = path.read_bytes()
            if sealed.startswith(header):
                continue
            content = decrypt(sealed)
        except (FileNotFoundError, PayloadUnreadable):
            continue  # taken in meanwhile, or set aside at the next drain
        half = path.with_suffix(".half")
        half.write_bytes(encrypt(content))
        if path.exists():  # else it has been taken in since, and would be once more
            os.replace(half, path)
            done += 1
        else:
            half.unlink()
    return done


def sealed_otherwise() -> int:
    """Spooled turns that another key than the first has closed."""
    header = keyring(settings.RATCHET_DATA_KEY).header
    return sum(1 for path in folder().glob("*.turn") if not path.read_bytes().startswith(header))


def has_waiting() -> bool:
    return next(folder().glob("*.turn"), None) is not None


def drain() -> int:
    """Takes in what waits and says how many turns that were. Each file goes when its turn is stored (twice is harmless:
    ids are idempotent); one that cannot be taken is set aside with an error in the log, and the rest go on."""
    taken = 0
    for path in sorted(folder().glob("*.turn")):
        try:
            record = json.loads(decrypt(path.read_bytes()))
        except FileNotFoundError:
            continue  # another process was faster
        except (PayloadUnreadable, ValueError):
            _set_aside(path, "it cannot be decrypted")
            continue
        assistant = Assistant.objects.filter(pk=record["assistant"]).first()
        key = ApiKey.objects.filter(pk=record["api_key"]).first()
        if assistant is not None:
            (result,) = receive_turns(assistant=assistant, api_key=key, items=[record["item"]])
            if result.status == "invalid":
                _set_aside(path, f"its fields are refused: {[error['field'] for error in result.errors]}")
                continue
            taken += 1
        path.unlink(missing_ok=True)
    return taken


@dataclass
class Spooled:
    """Files that are meant, with the ids of their turns, and how many cannot be opened."""

    meant: dict[Path, str] = field(default_factory=dict)
    unreadable: int = 0


def find(meant: Callable[[int, dict[str, Any]], bool]) -> Spooled:
    """Spooled turns, also those set aside, for which ``meant(assistant pk, item)`` holds."""
    found = Spooled()
    for path in sorted((*folder().glob("*.turn"), *folder().glob("*.half"), *folder().glob("*.refused"))):
        try:
            record = json.loads(decrypt(path.read_bytes()))
            if meant(record["assistant"], record["item"]):
                found.meant[path] = str(record["item"].get("id", ""))
        except FileNotFoundError:
            continue  # it was taken in meanwhile
        except (PayloadUnreadable, ValueError, KeyError, TypeError):
            found.unreadable += 1
    return found


def erase(found: Spooled) -> int:
    """Deletes them; how many were still there."""
    gone = 0
    for path in found.meant:
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        gone += 1
    return gone


def _set_aside(path: Path, why: str) -> None:
    logger.error("The spooled turn %s is set aside: %s.", path.name, why)
    path.replace(path.with_suffix(".refused"))
