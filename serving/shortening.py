"""A question whose prompt does not fit the model is asked with less evidence rather than refused."""

from __future__ import annotations

from dataclasses import replace

from generation.prompts import PromptStyle, split_sentences
from knowledge.retrieval import RetrievalResult
from serving.chat import Asked, prompt_of


def shorten(asked: Asked, *, tokens: int, limit: int) -> Asked | None:
    """The same question with less evidence, the least similar left out first; None: nothing is left to leave out.

    ``tokens``: of the prompt as it is; ``limit``: how many it may have; 0: the engine did not say. History stays: it is
    bounded, and a turn must be rebuilt from what is stored of it. The turn then holds what was offered in fact.
    """
    sizes = _sizes(asked)
    if len(sizes) < 2:
        return None
    characters = sum(len(message["content"]) for message in asked.prompt.messages)
    excess = (tokens - limit) * characters / tokens if tokens > limit else sum(sizes) / 2
    kept = len(sizes) - 1
    while kept > 1 and sum(sizes[kept:]) < excess:
        kept -= 1
    shorter = _first(asked, kept)
    prompt = prompt_of(asked.assistant, asked.question, asked.history, shorter)
    return replace(asked, retrieval=shorter, prompt=prompt, dropped=asked.dropped + len(sizes) - kept)


def _sizes(asked: Asked) -> list[int]:
    """Characters of each thing that can be left out, most similar first."""
    found = asked.retrieval
    if asked.assistant.house.style is PromptStyle.PASSAGES:
        # Bare of evidence it would offer nothing at all, so only what comes behind the best sentence's passage can go.
        best = found.evidence[0].rank if found.evidence else 1
        return [sum(len(p.text) for p in found.passages[:best]), *(len(p.text) for p in found.passages[best:])]
    texts = {p.rank: split_sentences(p.text) for p in found.passages}
    return [len(texts[e.rank][e.sentence]) for e in found.evidence]


def _first(asked: Asked, kept: int) -> RetrievalResult:
    found = asked.retrieval
    if asked.assistant.house.style is PromptStyle.PASSAGES:
        best = found.evidence[0].rank if found.evidence else 1
        passages = found.passages[: best + kept - 1]
        return replace(found, passages=passages, evidence=[e for e in found.evidence if e.rank <= len(passages)])
    return replace(found, evidence=found.evidence[:kept])
