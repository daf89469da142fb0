"""An adapter as a zip: its four files, as they stand, after their digests were checked."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO

from django.contrib.auth.models import User

from assistants.services import audit
from generation.adapters import ALLOWED_FILES, check_adapter
from generation.engines import AdapterRefused
from training.finetune.bases import from_state
from training.models import Adapter

STAMP = (2000, 1, 1, 0, 0, 0)
"""Of every member: the same adapter gives the same zip."""
IN_MEMORY = 8 * 1024**2
PIECE = 256 * 1024


class ExportRefused(ValueError):
    """The adapter cannot leave; the message says why."""


def export_zip(*, adapter: Adapter, actor: User | None) -> IO[bytes]:
    """The zip, open at its beginning; the caller closes it. Weights are stored and not packed: they do not shrink.

    Raises:
        ExportRefused: it was trained elsewhere, holds erased data, or its folder was changed or damaged.
    """
    if adapter.source == Adapter.Source.REMOTE:
        raise ExportRefused(f"{adapter} was trained elsewhere; its weights are at the provider.")
    if adapter.erased_rows:
        raise ExportRefused(f"{adapter} holds erased data. Train a new adapter, and export that one.")
    folder = from_state(adapter.folder)
    try:
        check_adapter(folder, base_digest=adapter.base_digest, prompt_digest=adapter.prompt_digest)
    except AdapterRefused as error:
        raise ExportRefused(str(error)) from error
    out = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - the answer that streams it closes it
    with zipfile.ZipFile(out, "w") as archive:
        for name in sorted(ALLOWED_FILES):
            path = folder / name
            if not path.is_file():
                continue
            member = zipfile.ZipInfo(f"{adapter.engine_name}/{name}", STAMP)
            member.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(member, "w") as target:
                while piece := source.read(PIECE):
                    target.write(piece)
    audit(assistant=adapter.assistant, actor=actor, action="adapter.exported", target=str(adapter))
    out.seek(0)
    return out


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE):
            yield piece
