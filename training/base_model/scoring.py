"""Scores of answers on generated questions, and of the baselines that need no language model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from generation.prompts import is_decline
from training.base_model.sessions import Example

_POINTER = re.compile(r"\[(\d{1,3})\]")
_WITH_DIGIT = re.compile(r"\S*\d\S*")


@dataclass(frozen=True)
class Scores:
    """Shares. The first four over answerable questions, ``declined`` over unanswerable ones."""

    answerable: int
    unanswerable: int
    right_sentence: float
    all_sentences: float
    """Every needed pointer, in order, and no other."""
    contains: float
    false_decline: float
    exact: float
    """The whole completion as expected, to the character."""
    declined: float
    numbers_copied: float
    """Over answers that name numbers: all of them stand in the sentence that is cited."""


def pointers(text: str) -> list[int]:
    return [int(n) for n in _POINTER.findall(text)]


def score(examples: Sequence[Example], outputs: Sequence[str]) -> Scores:
    """``outputs[i]`` answers the first branch of ``examples[i]``."""
    pairs = list(zip(examples, outputs, strict=True))
    asked = [(e, o) for e, o in pairs if e.branches[0].gold]
    others = [(e, o) for e, o in pairs if not e.branches[0].gold]
    copied = [_numbers_stand_in_source(e, o) for e, o in asked if not is_decline(o, e.decline)]
    judged = [c for c in copied if c is not None]
    return Scores(
        answerable=len(asked),
        unanswerable=len(others),
        right_sentence=_share([bool(set(pointers(o)[:1]) & set(e.branches[0].gold)) for e, o in asked]),
        all_sentences=_share([pointers(o) == list(e.branches[0].gold) for e, o in asked]),
        contains=_share([_folded(e.branches[0].key) in _folded(o) for e, o in asked]),
        false_decline=_share([is_decline(o, e.decline) for e, o in asked]),
        exact=_share([o.strip() == e.branches[0].completion for e, o in asked]),
        declined=_share([is_decline(o, e.decline) for e, o in others]),
        numbers_copied=_share(judged),
    )


def first_sentence(examples: Sequence[Example]) -> list[str]:
    """Baseline: print the sentence that is most similar to the question (also the constant pointer ``[1]``)."""
    return [f"[1] {e.evidence[0]}" if e.evidence else "" for e in examples]


def thresholded(examples: Sequence[Example], threshold: float) -> list[str]:
    """Baseline: as above, but decline below a similarity."""
    printed = first_sentence(examples)
    return [o if e.similarity >= threshold else e.decline for e, o in zip(examples, printed, strict=True)]


def best_threshold(examples: Sequence[Example]) -> float:
    """The similarity that separates answerable from unanswerable best (balanced), on examples kept for choosing it."""

    def balance(threshold: float) -> float:
        scores = score(examples, thresholded(examples, threshold))
        return scores.declined - scores.false_decline

    return max((t / 100 for t in range(10, 90, 2)), key=balance)


def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+|[^\w\s]", _POINTER.sub(" ", text).casefold().rstrip(". ")))


def _numbers_stand_in_source(example: Example, output: str) -> bool | None:
    """None when the answer names no number or cites nothing on offer."""
    cited = [n for n in pointers(output) if 1 <= n <= len(example.evidence)]
    said = {n.strip(".,;:()|") for n in _WITH_DIGIT.findall(_POINTER.sub(" ", output))}
    if not cited or not said:
        return None
    source = " ".join(example.evidence[n - 1] for n in cited)
    return all(n in source for n in said)


def _share(values: Sequence[bool]) -> float:
    return round(sum(values) / len(values), 3) if values else 0.0
