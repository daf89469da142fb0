"""Asking a model that a provider trained: where it was trained is where it answers."""

from __future__ import annotations

from generation.engines import EngineUnavailable
from generation.openai_compatible import OpenAIEngine
from training.models import Adapter


def engine_for(adapter: Adapter) -> OpenAIEngine:
    """The engine that answers with a remote adapter; requests name no adapter, the model is the adapter.

    Raises:
        generation.engines.EngineUnavailable: the adapter has weights here, or its provider is gone.
    """
    provider = adapter.run.provider if adapter.run is not None else None
    if adapter.source != Adapter.Source.REMOTE or provider is None:
        raise EngineUnavailable(f"{adapter} answers from this platform's engine.", "Ask that one.")
    return OpenAIEngine(provider.base_url, provider.api_key, adapter.remote_model)
