"""Scores of answers on generated questions, and of the baselines that need no language model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from generation.prompts import is_decline
from training.base_model.sessions import Example

_POINTER = re.compile(r"\[(\d{1,3})\]")
_WITH_DIGIT = re.compile(r"\S*\d\S*")


@dataclass(frozen=True)
class Scores:
    """Shares from 0 to 1. Those up to ``false_decline`` over answerable questions; see `score`."""

    answerable: int
    unanswerable: int
    right_sentence: float
    right_document: float
    all_sentences: float
    """Every needed pointer, in order, and no other."""
    contains: float
    """The value asked for, else the whole sentence, stands in the answer."""
    token_f1: float
    """Of the answer with the expected one, pointers aside."""
    exact: float
    """The whole completion as expected, to the character."""
    verdict: float
    """Over questions to be answered by yes or no: the answer opens with the right word."""
    false_decline: float
    numbers_copied: float
    """Over answers that name numbers: all of them stand in the sentence that is cited."""
    declined: float
    """Recall: of the unanswerable questions, those declined."""
    decline_precision: float
    decline_f1: float


def pointers(text: str) -> list[int]:
    return [int(n) for n in _POINTER.findall(text)]


def score(examples: Sequence[Example], outputs: Sequence[str]) -> Scores:
    """``outputs[i]`` answers the first branch of ``examples[i]``."""
    pairs = list(zip(examples, outputs, strict=True))
    asked = [(e, o) for e, o in pairs if e.answerable]
    others = [(e, o) for e, o in pairs if not e.answerable]
    marked = [(e, o) for e, o in asked if e.branches[0].gold]
    copied = [_numbers_stand_in_source(e, o) for e, o in asked if not is_decline(o, e.decline)]
    wrongly = sum(is_decline(o, e.decline) for e, o in asked)
    rightly = sum(is_decline(o, e.decline) for e, o in others)
    return Scores(
        answerable=len(asked),
        unanswerable=len(others),
        right_sentence=_share([bool(set(pointers(o)[:1]) & set(e.branches[0].gold)) for e, o in marked]),
        right_document=_share([_in_right_document(e, o) for e, o in marked]),
        all_sentences=_share([pointers(o) == list(e.branches[0].gold) for e, o in marked]),
        contains=_share([_folded(e.branches[0].key) in _folded(o) for e, o in marked]),
        token_f1=_share([_token_f1(e.branches[0].completion, o) for e, o in marked]),
        exact=_share([o.strip() == e.branches[0].completion for e, o in marked]),
        verdict=_share([_opening(o) == _opening(e.branches[0].completion) for e, o in marked if _is_verdict(e)]),
        false_decline=_ratio(wrongly, len(asked)),
        numbers_copied=_share([c for c in copied if c is not None]),
        declined=_ratio(rightly, len(others)),
        decline_precision=_ratio(rightly, rightly + wrongly),
        decline_f1=_ratio(2 * rightly, rightly + wrongly + len(others)),
    )


def first_sentence(examples: Sequence[Example]) -> list[str]:
    """Baseline: print the sentence that is most similar to the question (also the constant pointer ``[1]``)."""
    return [f"[1] {e.evidence[0]}" if e.evidence else "" for e in examples]


def thresholded(examples: Sequence[Example], outputs: Sequence[str], threshold: float) -> list[str]:
    """The same answers, but declined where the best sentence is less similar to the question than ``threshold``."""
    return [o if e.similarity >= threshold else e.decline for e, o in zip(examples, outputs, strict=True)]


def best_threshold(examples: Sequence[Example], outputs: Sequence[str]) -> float:
    """The similarity that separates answerable from unanswerable best (balanced), on examples kept for choosing it."""

    def balance(threshold: float) -> float:
        scores = score(examples, thresholded(examples, outputs, threshold))
        return scores.declined - scores.false_decline

    return max((t / 100 for t in range(0, 90, 2)), key=balance)


def kind_of(example: Example) -> str:
    """What an answerable question needs, for tables by kind."""
    branch = example.branches[0]
    if len(branch.gold) > 1:
        return "joined"
    if _is_verdict(example):
        return "yes or no"
    return "follow-up" if len(branch.messages) > 2 else "plain"


def _is_verdict(example: Example) -> bool:
    return _opening(example.branches[0].completion) in ("yes", "no")


def _opening(text: str) -> str:
    """The first word before a comma, after the pointer."""
    return _POINTER.sub(" ", text).strip().partition(",")[0].casefold()


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


def _in_right_document(example: Example, output: str) -> bool:
    first = next(iter(pointers(output)), 0)
    return 1 <= first <= len(example.right) and example.right[first - 1]


def _token_f1(wanted: str, said: str) -> float:
    """Overlap of words as in SQuAD's evaluation (Rajpurkar et al. 2016), without its removal of articles."""
    gold, got = Counter(_folded(wanted).split()), Counter(_folded(said).split())
    common = sum((gold & got).values())
    return 2 * common / (sum(gold.values()) + sum(got.values())) if common else 0.0


def _share(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 3) if values else 0.0


def _ratio(count: int, total: int) -> float:
    return round(count / total, 3) if total else 0.0
