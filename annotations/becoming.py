"""What a settled turn becomes in a dataset. The dataset build and the labelling page both ask here, so that annotators
are told what will really happen. Pure: no database."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from annotations.resolving import Wording
from generation.alignment import AlignedSentence, align_sentences
from generation.prompts import PromptPassage, PromptStyle, is_decline

NO_CORRECTION = "bad without a correction"
NOT_SUPPORTED = "answer not supported by its passages"
NOT_OFFERED = "the sentence that answers was not offered"
NOT_ASKED = "declined by the threshold; no model is asked"
_MARK = re.compile(r"\[\d{1,3}\]")

Kind = Literal["answer", "decline", "handoff"]


@dataclass(frozen=True)
class Shown:
    """What the model has to answer from. ``evidence``: [[rank, sentence, …], …] as offered in a prompt of sentences."""

    passages: Sequence[PromptPassage]
    evidence: Sequence[Sequence[float]]
    style: str = PromptStyle.SENTENCES
    withheld: bool = False
    """All of it lies below the threshold: there is no prompt that could be learnt from."""


@dataclass(frozen=True)
class Row:
    """The training row: what is learnt, with its sources."""

    kind: Kind
    sentences: list[AlignedSentence]


@dataclass(frozen=True)
class NoRow:
    """Nothing can be learnt from it; ``why`` is what the funnel of a dataset counts it under."""

    why: str
    sentences: Sequence[AlignedSentence] = ()
    """The answer as far as it could be aligned."""


def row_of(*, response: str, wording: Wording, shown: Shown) -> Row | NoRow:
    """The row of an answer to learn (`annotations.resolving.response_to_learn`, or a resolution's response)."""
    if shown.withheld:
        return NoRow(NOT_ASKED)
    if not response.strip():
        return NoRow(NO_CORRECTION)
    kind = kind_of(response, wording)
    if kind != "answer":
        return Row(kind, [{"text": without_marks(response), "refs": []}])
    sentences = align_sentences(response, shown.passages)
    if not sentences or not all(sentence["refs"] for sentence in sentences):
        return NoRow(NOT_SUPPORTED, sentences)
    # Serving would not show what answers, and then declining is right: such a row would teach to guess.
    if shown.style == PromptStyle.SENTENCES and not all(is_offered(sentence, shown.evidence) for sentence in sentences):
        return NoRow(NOT_OFFERED, sentences)
    return Row(kind, sentences)


def is_offered(sentence: AlignedSentence, evidence: Sequence[Sequence[float]]) -> bool:
    """Whether everything that the sentence cites is on offer."""
    pairs = [list(row[:2]) for row in evidence]
    return all(list(ref) in pairs for ref in sentence["refs"])


def kind_of(response: str, wording: Wording) -> Kind:
    """Whether this answers, declines, or hands over to a person."""
    text = without_marks(response)
    if is_decline(text, wording.decline):
        return "decline"
    return "handoff" if wording.handoff and is_decline(text, wording.handoff) else "answer"


def without_marks(text: str) -> str:
    return " ".join(_MARK.sub(" ", text).split())
