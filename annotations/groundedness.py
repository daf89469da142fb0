"""Whether an answer stands in its passages, from the words alone: a hint for choosing work, not a judgement."""

from __future__ import annotations

import re
from collections.abc import Sequence

from capture.models import TurnQuerySet
from generation.alignment import align_sentences, split_cited
from generation.overlap import content_words
from generation.prompts import PromptPassage

UNCITED = "uncited"
SUPPORTED = "supported"
UNSUPPORTED = "unsupported"
CHOICES = (
    (SUPPORTED, "Every sentence stands in a passage it cites"),
    (UNSUPPORTED, "A sentence does not"),
    (UNCITED, "Cites nothing"),
)
_MARK = r"\[\d{1,3}\]"


def citing_nothing(turns: TurnQuerySet) -> TurnQuerySet:
    """Answers without any citation; what declines need not cite."""
    return turns.filter(declined=False, citations=[]).exclude(response__regex=_MARK)


def is_supported(response: str, passages: Sequence[tuple[int, str]]) -> bool:
    """Whether each sentence that says something has most of its words, and all its numbers, in one sentence of a
    passage: of one that it cites, or of any where it cites none. The same measure decides what training may use.

    Args:
        passages: (rank, text).
    """
    prompt = [PromptPassage(rank=rank, title="", text=text) for rank, text in passages]
    cited = [ranks for _, ranks in split_cited(response)]
    for place, sentence in enumerate(align_sentences(response, prompt)):
        if not content_words(re.sub(_MARK, " ", sentence["text"])):
            continue
        found = {rank for rank, _ in sentence["refs"]}
        named = set(cited[place]) if place < len(cited) else set()
        if not found or (named and not found & named):
            return False
    return True
