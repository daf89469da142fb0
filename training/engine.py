"""The engine for bulk work: the base model in this very process.

Evaluations and syntheses ask thousands of questions; sending them to the engine process would queue them before the
users' and batch them eight by eight. A worker's own copy costs the memory of one small model and batches by length.
An OpenAI-compatible server, when one is set, is asked instead: it has the GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings

if TYPE_CHECKING:
    from generation.engines import Engine


def bulk_engine(threads: int = 1) -> Engine:
    """Raises generation.engines.EngineUnavailable with a hint when the base model is missing or broken."""
    if settings.RATCHET_OPENAI_BASE_URL:
        from generation.openai_compatible import OpenAIEngine

        return OpenAIEngine(
            settings.RATCHET_OPENAI_BASE_URL, settings.RATCHET_OPENAI_API_KEY, settings.RATCHET_OPENAI_MODEL
        )
    from generation.local import TransformersEngine

    return TransformersEngine(settings.RATCHET_BASE_MODEL_PATH, dtype=settings.RATCHET_ENGINE_DTYPE, threads=threads)
