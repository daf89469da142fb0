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


# Whether a label wants the turn declined. Where its reasons do not say, that stays as it was logged: who calls an
# answer wrong does not ask for no answer.
_DECLINE = [Reason.SHOULD_HAVE_DECLINED.value, Reason.RETRIEVAL_MISSED.value]
_DECLINES = ~Q(reasons__contains=[Reason.SHOULD_HAVE_ANSWERED.value]) & (
    Q(reasons__overlap=_DECLINE) | Q(turn__declined=True)
)

VERDICT = Question("verdict", "Good or bad", Q(verdict=Verdict.GOOD))
RELEVANCE = Question("relevance", "Relevance of passages", None)
ASKED: tuple[Question, ...] = (
    VERDICT,
    Question("declining", "Should decline", _DECLINES),
    *(Question(f"reason-{reason.value}", str(reason.label), Q(reasons__contains=[reason.value])) for reason in Reason),
)
"""What each label answers."""
QUESTIONS: tuple[Question, ...] = (*ASKED, RELEVANCE)
BY_KEY = {question.key: question for question in QUESTIONS}
"""What can be asked for."""
