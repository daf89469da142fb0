"""Texts to vectors: in the engine process for web requests, in this process for workers.

The web process never imports torch: it asks the engine. Workers embed in bulk, where a request per batch would only
copy vectors about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from django.conf import settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from generation.client import EngineClient
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
        vectors = _engine().embed(distinct) if seconds is None else _engine().embed(distinct, seconds=seconds)
    else:
        vectors = _embedder().embed(distinct)
    return _for_each(texts, distinct, vectors)


def begin_embedding(texts: Sequence[str]) -> Callable[[], NDArray[np.float32]]:
    """In a web process: has the engine embed these few texts; what is returned waits for it. Only that raises."""
    distinct = list(dict.fromkeys(texts))
    ready = _engine().begin_embed(distinct)
    return lambda: _for_each(texts, distinct, ready())


def _for_each(texts: Sequence[str], distinct: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    place = {text: i for i, text in enumerate(distinct)}
    return np.asarray(vectors, dtype=np.float32)[[place[text] for text in texts]]


def _engine() -> EngineClient:
    from generation.client import default_client

    return default_client(settings.RATCHET_ENGINE_URL, settings.RATCHET_ENGINE_KEY)


def count_tokens(text: str) -> int:
    """Word pieces of ``text`` as the embedder counts them, without its two special tokens."""
    return _embedder().count_tokens(text)


def window() -> int:
    """Word pieces that the embedder reads of a text, its special tokens included; what is behind them is ignored."""
    return _embedder().max_tokens


def embedder_digest() -> str:
    """Names the embedder's weights: part of the retrieval configuration."""
    from generation.embedder import weights_digest

    return weights_digest(settings.RATCHET_EMBEDDER)


def reranker_name() -> str:
    """Names the cross-encoder's weights: part of the retrieval configuration where it is used. Empty: none is set."""
    from generation.reranker import weights_digest

    return weights_digest(settings.RATCHET_RERANKER) if settings.RATCHET_RERANKER else ""


def rerank(question: str, texts: Sequence[str]) -> list[float]:
    """How well each text answers the question, higher is better; only the order means something.

    Raises:
        generation.engines.EngineUnavailable: no cross-encoder is set, or the engine does not answer.
    """
    if settings.PROCESS == "web":
        return _engine().rerank(question, texts)
    from generation.reranker import load_reranker

    return load_reranker(settings.RATCHET_RERANKER).score(question, texts)
