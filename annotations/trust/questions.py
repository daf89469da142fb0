"""What people can agree or disagree about on one turn, as questions that each label answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from annotations.models import Reason, Verdict
from annotations.trust.rows import LabelRow

YES, NO = "yes", "no"


@dataclass(frozen=True)
class Question:
    key: str
    title: str
    answer: Callable[[LabelRow], str] | None
    """What a label says; None for the question about passages, which marks answer."""

    @property
    def unit(self) -> str:
        """What is labelled twice. (Templates call what can be called, so they cannot look at ``answer``.)"""
        return "passage" if self.answer is None else "turn"


def declines(label: LabelRow) -> str:
    """Whether this label wants the turn declined. Where its reasons do not say, that stays as it was logged: who calls
    an answer wrong does not ask for no answer."""
    if Reason.SHOULD_HAVE_ANSWERED in label.reasons:
        return NO
    if Reason.SHOULD_HAVE_DECLINED in label.reasons or Reason.RETRIEVAL_MISSED in label.reasons:
        return YES
    return YES if label.declined else NO


def _names(reason: str) -> Callable[[LabelRow], str]:
    return lambda label: YES if reason in label.reasons else NO


VERDICT = Question("verdict", "Good or bad", lambda label: str(Verdict(label.verdict).value))
RELEVANCE = Question("relevance", "Relevance of passages", None)
QUESTIONS: tuple[Question, ...] = (
    VERDICT,
    Question("declining", "Should decline", declines),
    *(Question(f"reason-{reason.value}", str(reason.label), _names(reason.value)) for reason in Reason),
    RELEVANCE,
)
BY_KEY = {question.key: question for question in QUESTIONS}
