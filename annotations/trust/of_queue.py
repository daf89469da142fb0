"""Agreement in one queue, for the pages about it."""

from __future__ import annotations

from annotations.agreement import MAX_PEOPLE, Agreement, Estimate
from annotations.models import Queue
from annotations.trust.columns import read_columns
from annotations.trust.measures import agreement_on
from annotations.trust.questions import RELEVANCE, VERDICT
from annotations.trust.rows import Scope
from annotations.trust.tables import answers_on, estimates


def agreement_of(queue: Queue) -> tuple[Agreement, ...]:
    """Agreement on the verdict and on the relevance of passages, of the newest `MAX_LABELS` labels."""
    columns = read_columns(Scope(queue.assistant, queue=queue))
    return (
        agreement_on("Verdict", VERDICT, columns, MAX_PEOPLE),
        agreement_on("Relevance of passages", RELEVANCE, columns, MAX_PEOPLE),
    )


def alpha_on_verdicts(queue: Queue) -> Estimate:
    """Krippendorff's α of the same labels."""
    columns = read_columns(Scope(queue.assistant, queue=queue), with_marks=False)
    return estimates(answers_on(VERDICT, columns))[1]
