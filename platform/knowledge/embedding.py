"""Texts to vectors: in the engine process for web requests, in this process for workers.

The web process never imports torch: it asks the engine. Workers embed in bulk, where a request per batch would only
copy vectors about.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from django.conf import settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from generation.embedder import Embedder


@lru_cache(maxsize=1)
def _embedder() -> Embedder:
    from generation.embedder import load_embedder

    return load_embedder(settings.RATCHET_EMBEDDER)


def embed(texts: Sequence[str], *, seconds: float | None = None) -> NDArray[np.float32]:
    """Unit vectors, shape (n, 384). Each distinct text is embedded once.

    Args:
        seconds: how long a web process waits for the engine; the client's own limit when not given.

    Raises:
        generation.engines.EngineUnavailable: the engine process does not answer (web processes only).
    """
    if not texts:
        return np.zeros((0, 384), dtype=np.float32)
    distinct = list(dict.fromkeys(texts))
    if settings.PROCESS == "web":
        from generation.client import default_client

        client = default_client(settings.RATCHET_ENGINE_URL, settings.RATCHET_ENGINE_KEY)
        vectors = client.embed(distinct) if seconds is None else client.embed(distinct, seconds=seconds)
    else:
        vectors = _embedder().embed(distinct)
    place = {text: i for i, text in enumerate(distinct)}
    return np.asarray(vectors, dtype=np.float32)[[place[text] for text in texts]]


def count_tokens(text: str) -> int:
    """Word pieces of ``text`` as the embedder counts them, without its two special tokens."""
    return _embedder().count_tokens(text)


def embedder_digest() -> str:
    """Names the embedder's weights: part of the retrieval configuration."""
    from generation.embedder import weights_digest

    return weights_digest(settings.RATCHET_EMBEDDER)
