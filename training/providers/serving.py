"""Asking a model that a provider trained: it answers where it was trained, or not at all.

The platform asks one engine. Where that is the provider itself (RATCHET_OPENAI_BASE_URL is its address), requests name
the provider's model and nothing has to be loaded; with any other engine such an adapter is refused like one of another
base, and the base model answers.
"""

from __future__ import annotations

from django.conf import settings

from generation.engines import AdapterRefused
from training.models import Adapter


def served_elsewhere(adapter: Adapter) -> bool:
    """Whether the engine knows this adapter without being given a folder. One query for a remote adapter.

    Raises:
        generation.engines.AdapterRefused: it was trained at a provider, and the engine is not that provider.
    """
    if adapter.source != Adapter.Source.REMOTE:
        return False
    provider = adapter.run.provider if adapter.run is not None else None
    ours = settings.RATCHET_OPENAI_BASE_URL.rstrip("/")
    if provider is None or not ours or provider.base_url.rstrip("/") != ours:
        raise AdapterRefused(
            f"{adapter} was trained at {provider or 'a provider that is gone'} and answers only there.",
            "Set RATCHET_OPENAI_BASE_URL (with key and model) to that provider, or promote one that was trained here.",
            reason="remote",
        )
    return True
