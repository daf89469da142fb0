"""An answer that was judged bad, in the form in which the model would have written it. Pure: no database.

What a pair teaches must be what was said, not how it was marked. So a judged answer keeps the citations that it had,
also wrong ones; where a chatbot cites nothing at all, each sentence is given what supports it, as if it had.
"""

from __future__ import annotations

from collections.abc import Sequence

from generation.alignment import align_sentences, split_cited
from generation.overlap import coverage
from generation.prompts import (
    House,
    Prompt,
    PromptPassage,
    PromptStyle,
    SentenceRef,
    is_decline,
    render_completion,
    split_sentences,
)


def rejected_completion(*, house: House, prompt: Prompt, passages: Sequence[PromptPassage], text: str) -> str:
    """``text`` as a user saw it, with ``[n]`` behind what cites passage n; empty when it says nothing."""
    said = split_cited(text)
    if is_decline(text, house.decline):
        found = [(sentence, list[SentenceRef]()) for sentence, _ in said]
    elif not any(ranks for _, ranks in said):
        aligned = align_sentences(text, passages)
        found = [(one["text"], [SentenceRef(*ref) for ref in one["refs"]]) for one in aligned]
    elif prompt.style is PromptStyle.PASSAGES:
        found = [
            (sentence, [SentenceRef(rank, 0) for rank in ranks if rank in prompt.ranks]) for sentence, ranks in said
        ]
    else:
        texts = {passage.rank: split_sentences(passage.text) for passage in passages}
        found = [(sentence, _nearest(sentence, ranks, prompt, texts)) for sentence, ranks in said]
    return render_completion(house=house, prompt=prompt, sentences=found)


def _nearest(sentence: str, ranks: Sequence[int], prompt: Prompt, texts: dict[int, list[str]]) -> list[SentenceRef]:
    """Of what was offered from the cited passages the one that covers most; the first offered of equals."""
    offered = [ref for ref in prompt.pointers if ref.rank in ranks]
    return [max(offered, key=lambda ref: coverage(sentence, texts[ref.rank][ref.sentence]))] if offered else []
