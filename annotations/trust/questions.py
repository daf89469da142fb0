"""What people can agree or disagree about on one turn, as questions that each label answers with one of two words."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Q

from annotations.models import Reason, Verdict


@dataclass(frozen=True)
class Question:
    key: str
    title: str
    yes: Q | None
    """The labels that say yes (or good); None for the question about passages, which marks answer."""

    @property
    def unit(self) -> str:
        """What is labelled twice."""
        return "passage" if self.yes is None else "turn"


_DECLINE = Q(reasons__overlap=[Reason.SHOULD_HAVE_DECLINED.value, Reason.RETRIEVAL_MISSED.value])
_ANSWER = Q(reasons__contains=[Reason.SHOULD_HAVE_ANSWERED.value])
SILENT = ~_ANSWER & ~_DECLINE
"""Labels whose reasons do not say whether the turn should be declined: that stays as it was logged, since who calls an
answer wrong does not ask for no answer."""

VERDICT = Question("verdict", "Good or bad", Q(verdict=Verdict.GOOD))
DECLINING = Question("declining", "Should decline", ~_ANSWER & _DECLINE)
RELEVANCE = Question("relevance", "Relevance of passages", None)
ASKED: tuple[Question, ...] = (
    VERDICT,
    DECLINING,
    *(Question(f"reason-{reason.value}", str(reason.label), Q(reasons__contains=[reason.value])) for reason in Reason),
)
"""What each label answers."""
QUESTIONS: tuple[Question, ...] = (*ASKED, RELEVANCE)
BY_KEY = {question.key: question for question in QUESTIONS}
"""What can be asked for."""
