"""An adapter into the engine that asks it, or a sentence that says why it cannot be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.finetune.bases import from_state
from training.models import Adapter
from training.providers.serving import served_elsewhere

if TYPE_CHECKING:
    from generation.engines import Engine


class AdapterGone(ValueError):
    """The adapter's files are not where they were; the message says what to do."""


def look_for(adapter: Adapter) -> bool:
    """Whether the adapter is served elsewhere and needs no folder.

    Raises:
        AdapterGone, generation.engines.AdapterRefused: as `load_into`.
    """
    if served_elsewhere(adapter):
        return True
    if not adapter.folder or not from_state(adapter.folder).is_dir():
        raise AdapterGone(
            f"The files of {adapter} are not there any more. Restore its folder from a backup, or train a new adapter."
        )
    return False


def load_into(engine: Engine, adapter: Adapter) -> None:
    """Makes the engine know the adapter under its ``engine_name``.

    Raises:
        AdapterGone: its folder is not there.
        generation.engines.AdapterRefused: other files, another base, or trained at a provider that is not the engine.
    """
    if look_for(adapter):
        return
    engine.load_adapter(
        adapter.engine_name,
        from_state(adapter.folder),
        base_digest=adapter.base_digest,
        prompt_digest=adapter.prompt_digest,
    )
