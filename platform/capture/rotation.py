"""A new data key: what waits, encrypted, is opened with the old one and closed with the new one, a few rows at a time.

What is still to be done is seen from the rows themselves, whose first bytes name their key. So it may be stopped at any
moment and begun again, and two at once only share the work.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Model

from assistants.vault import HEADER, PayloadUnreadable, decrypt, encrypt, keyring
from capture.models import Quarantine, WaitingSpans
from capture.review_models import KeptSpelling

BATCH = 200
BATCH_BYTES = 32_000_000
Column = tuple[type[Model], str]
OWN: tuple[Column, ...] = ((Quarantine, "payload"), (WaitingSpans, "payload"), (KeptSpelling, "forms"))
"""What this room keeps encrypted; other rooms name theirs beside it."""


@dataclass
class RotationReport:
    """``done`` were closed anew; no key of ours opens ``unreadable``, which stay as they are."""

    done: int = 0
    unreadable: list[str] = field(default_factory=list)


def rotate(columns: Sequence[Column] = OWN, *, batch: int = BATCH) -> Iterator[RotationReport]:
    """Closes every payload with the first key of RATCHET_DATA_KEY; yields after each batch, which is committed by then.

    Rows that are being scrubbed are waited for: they are gone afterwards, or given back.
    """
    report = RotationReport()
    for column in columns:
        after = 0
        while (last := _rotate_some(column, after, batch, report)) is not None:
            after = last
            yield report
    yield report


def remaining(columns: Sequence[Column] = OWN) -> int:
    """Payloads that another key than the first has closed."""
    header = keyring(settings.RATCHET_DATA_KEY).header
    with connection.cursor() as cursor:
        counts = []
        for model, name in columns:
            query = f"SELECT count(*) FROM {model._meta.db_table} WHERE {_OTHER.format(name)}"  # noqa: S608
            cursor.execute(query, {"header": header, "size": HEADER})
            counts.append(int(cursor.fetchone()[0]))
    return sum(counts)


def unopenable(columns: Sequence[Column] = OWN) -> int:
    """Payloads that none of our keys has closed."""
    headers = list(keyring(settings.RATCHET_DATA_KEY).keys)
    with connection.cursor() as cursor:
        counts = []
        for model, name in columns:
            foreign = f"octet_length({name}) > 0 AND substring({name} FROM 1 FOR %s) <> ALL(%s)"
            cursor.execute(f"SELECT count(*) FROM {model._meta.db_table} WHERE {foreign}", [HEADER, headers])  # noqa: S608
            counts.append(int(cursor.fetchone()[0]))
    return sum(counts)


# Stored outside of the row and not compressed, so only the piece that holds these bytes is read. What has been emptied
# is closed with no key.
_OTHER = "octet_length({0}) > 0 AND substring({0} FROM 1 FOR %(size)s) <> %(header)s"


@transaction.atomic
def _rotate_some(column: Column, after: int, batch: int, report: RotationReport) -> int | None:
    """The last row that was looked at; None when there is no other."""
    ring = keyring(settings.RATCHET_DATA_KEY)
    model, name = column
    table, other = model._meta.db_table, _OTHER.format(name)
    given: dict[str, Any] = {"after": after, "batch": batch, "header": ring.header, "size": HEADER}
    sizes = f"SELECT id, octet_length({name}) FROM {table} WHERE id > %(after)s AND {other} ORDER BY id"  # noqa: S608
    payloads = f"SELECT id, {name} FROM {table} WHERE id = ANY(%(keys)s) AND {other} ORDER BY id"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(f"{sizes} LIMIT %(batch)s", given)
        keys = _within(cursor.fetchall())
        cursor.execute(f"{payloads} FOR UPDATE", {**given, "keys": keys})
        for key, payload in cursor.fetchall():
            try:
                fresh = encrypt(decrypt(payload))
            except PayloadUnreadable:
                report.unreadable.append(f"{table} {key}")
                continue
            cursor.execute(f"UPDATE {table} SET {name} = %s WHERE id = %s", [fresh, key])  # noqa: S608
            report.done += 1
    return keys[-1] if keys else None


def _within(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """So many of the first rows as may be in memory together; one at least."""
    sums = accumulate(size for _, size in sizes)
    fitting = sum(total <= BATCH_BYTES for total in sums)
    return [key for key, _ in sizes[: max(1, fitting)]]


def add_key(path: Path) -> None:
    """Puts a new key in front of those in the file, which closes what comes from the next start on.

    Raises:
        OSError: the file cannot be read or written.
    """
    fresh = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    _write(path, [fresh, *_read(path)])


def drop_old_keys(path: Path) -> int:
    """Leaves only the first key in the file; how many went. Raises OSError as `add_key`."""
    keys = _read(path)
    _write(path, keys[:1])
    return len(keys) - 1


def _read(path: Path) -> list[str]:
    return [key.strip() for key in path.read_text(encoding="utf-8").split(",") if key.strip()]


def _write(path: Path, keys: list[str]) -> None:
    """The file is whole at every moment: without it nothing that waits could be opened."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(",".join(keys))
        handle.flush()
        os.fsync(handle.fileno())
    half.replace(path)
