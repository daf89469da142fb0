"""What a label must look like before it is stored."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from django.core.exceptions import ValidationError

from annotations.models import MAX_CORRECTION, MAX_NOTE, ContextMark, Reason, Verdict

SKIP_REASONS = ("Not my subject", "I cannot tell", "The text cannot be read", "Another language")
"""Offered by the page; free words are as good."""
MAX_SECONDS = 24 * 60 * 60.0
_CITATION = re.compile(r"\[(\d{1,6})\]")
_CITATION_LIST = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})+)\]")
# PostgreSQL refuses NUL, UTF-8 refuses lone surrogates, and no other control character means anything in an answer.
_UNSTORABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class CleanLabel:
    """A label that may be stored: known words only, texts trimmed, reasons in the order of `Reason`."""

    verdict: Verdict
    reasons: tuple[str, ...]
    correction: str
    marks: tuple[tuple[int, str], ...]
    note: str
    missed: tuple[str, ...] = ()
    """Digests of passages that retrieval should have found."""


def clean_label(
    *,
    ranks: Collection[int],
    logged: str,
    verdict: str,
    reasons: Sequence[str] = (),
    correction: str = "",
    marks: Mapping[int, str] | None = None,
    note: str = "",
) -> CleanLabel:
    """Checks one label against the turn that it is about.

    Args:
        ranks: ranks of the passages that the turn has.
        logged: the response as logged; a correction that repeats it is no correction.

    Raises:
        ValidationError: with every problem by field.
    """
    errors: dict[str, list[str]] = {}
    correction, note = clean_text(correction), clean_text(note)
    if correction == clean_text(logged):
        correction = ""
    if verdict not in Verdict.values:
        errors["verdict"] = ["Choose good or bad."]
    _check_reasons(errors, verdict, list(reasons))
    _check_correction(errors, verdict, correction, ranks)
    _check_marks(errors, marks or {}, ranks)
    if len(note) > MAX_NOTE:
        errors["note"] = [f"The note has {len(note):,} characters; at most {MAX_NOTE:,} are kept."]
    if errors:
        raise ValidationError(errors)
    return CleanLabel(
        verdict=Verdict(verdict),
        reasons=tuple(reason for reason in Reason.values if reason in reasons),
        correction=correction,
        marks=tuple(sorted((marks or {}).items())),
        note=note,
    )


def clean_text(text: str) -> str:
    """Trimmed, with plain line ends and without characters that cannot be stored; ``[1, 2]`` becomes ``[1][2]``."""
    text = _UNSTORABLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    return _CITATION_LIST.sub(lambda m: "".join(f"[{n}]" for n in re.findall(r"\d+", m[1])), text)


def cited_ranks(text: str) -> list[int]:
    """Passage numbers that a text cites, each once, in order of appearance."""
    return list(dict.fromkeys(int(number) for number in _CITATION.findall(text)))


def clean_seconds(seconds: float | None) -> float | None:
    """Time on the page as far as it is believable."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return None
    return min(float(seconds), MAX_SECONDS)


def _check_reasons(errors: dict[str, list[str]], verdict: str, reasons: list[str]) -> None:
    unknown = [reason for reason in reasons if reason not in Reason.values]
    if unknown:
        errors["reasons"] = [f"“{unknown[0]}” is not a reason."]
    elif verdict == Verdict.BAD and not reasons:
        errors["reasons"] = ["Say why it is bad: choose at least one reason."]
    elif verdict == Verdict.GOOD and reasons:
        errors["reasons"] = ["Reasons go with bad answers: a good one is learnt as it stands."]
    elif {Reason.SHOULD_HAVE_DECLINED, Reason.SHOULD_HAVE_ANSWERED} <= set(reasons):
        errors["reasons"] = ["It cannot both have to decline and have to answer: keep one of the two."]


def _check_correction(errors: dict[str, list[str]], verdict: str, correction: str, ranks: Collection[int]) -> None:
    if not correction:
        return
    if len(correction) > MAX_CORRECTION:
        errors["correction"] = [
            f"The correction has {len(correction):,} characters; at most {MAX_CORRECTION:,} are kept."
        ]
        return
    if verdict == Verdict.GOOD:
        errors["correction"] = ["A good answer is learnt as it stands. To correct it, call it bad and say why."]
        return
    missing = [rank for rank in cited_ranks(correction) if rank not in ranks]
    if missing:
        there = f"there are {len(ranks)} (1 to {max(ranks)})" if ranks else "this turn has none"
        errors["correction"] = [f"[{missing[0]}] is not among the passages: {there}."]


def _check_marks(errors: dict[str, list[str]], marks: Mapping[int, str], ranks: Collection[int]) -> None:
    for rank, relevance in marks.items():
        if rank not in ranks:
            errors["marks"] = [f"There is no passage {rank} to mark."]
        elif relevance not in ContextMark.Relevance.values:
            errors["marks"] = [f"“{relevance}” is not a mark: use relevant, not_relevant or unsure."]
