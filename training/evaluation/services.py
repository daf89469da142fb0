"""Starting what belongs to an evaluation, and going on with one that stopped."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from assistants.background import BackgroundWork, launch
from assistants.services import audit
from training.models import Evaluation, Judging, KnowledgeScore

MAX_SCORED = 100
MAX_JUDGED = 500


class NotPossible(ValueError):
    """What was asked for cannot be started; the message says why and what to do."""


def resume_evaluation(*, evaluation: Evaluation, actor: User | None) -> Evaluation:
    """Goes on with an evaluation that failed or was cancelled: what was answered is kept.

    Raises:
        NotPossible: it is finished, or still at it.
    """
    with transaction.atomic():
        stopped = Evaluation.objects.select_for_update().filter(
            pk=evaluation.pk, state__in=[BackgroundWork.State.FAILED, BackgroundWork.State.CANCELLED]
        )
        changed = stopped.update(
            state=BackgroundWork.State.QUEUED, attempt=0, error="", cancel_requested_at=None, finished_at=None,
            token=None,
        )  # fmt: skip
        if not changed:
            state = evaluation.get_state_display().lower()
            raise NotPossible(f"{evaluation} is {state}: there is nothing to go on with.")
        evaluation.refresh_from_db()
        begin(evaluation, actor, {"resumed": True})
    return evaluation


def start_knowledge_score(
    *, evaluation: Evaluation, questions: int = 20, created_by: User | None = None
) -> KnowledgeScore:
    """Measures the parametric knowledge score of base and adapter on answers of a finished evaluation.

    Raises:
        NotPossible: the evaluation is not finished, too many questions, or the base model is not in our hands.
    """
    if evaluation.state != BackgroundWork.State.SUCCEEDED:
        raise NotPossible(f"{evaluation} is not finished: its answers are what is looked at.")
    if not 1 <= questions <= MAX_SCORED:
        raise NotPossible(f"Between 1 and {MAX_SCORED} questions can be looked at, not {questions}.")
    if settings.RATCHET_OPENAI_BASE_URL:
        raise NotPossible("The model runs on another server; its layers cannot be looked into from here.")
    with transaction.atomic():
        score = KnowledgeScore.objects.create(
            assistant=evaluation.assistant, evaluation=evaluation, questions=questions, created_by=created_by
        )
        begin(score, created_by, {"evaluation": evaluation.pk, "questions": questions})
    return score


def start_judging(*, evaluation: Evaluation, pairs: int = 50, created_by: User | None = None) -> Judging:
    """Lets the judge of the settings compare candidate and today.

    Raises:
        NotPossible: no judge is set, the evaluation is not finished, or too many pairs.
    """
    if not settings.RATCHET_JUDGE_BASE_URL or not settings.RATCHET_JUDGE_MODEL:
        raise NotPossible(
            "No judge is set. Name an OpenAI-compatible server and a model in RATCHET_JUDGE_BASE_URL and "
            "RATCHET_JUDGE_MODEL; best one of another family than the model that is judged."
        )
    if evaluation.state != BackgroundWork.State.SUCCEEDED:
        raise NotPossible(f"{evaluation} is not finished: its answers are what is judged.")
    if not 1 <= pairs <= MAX_JUDGED:
        raise NotPossible(f"Between 1 and {MAX_JUDGED} pairs can be judged, not {pairs}.")
    with transaction.atomic():
        judging = Judging.objects.create(
            assistant=evaluation.assistant, evaluation=evaluation, pairs=pairs, created_by=created_by,
            model=settings.RATCHET_JUDGE_MODEL,
        )  # fmt: skip
        begin(judging, created_by, {"evaluation": evaluation.pk, "pairs": pairs, "model": judging.model})
    return judging


def begin(work: Any, actor: User | None, details: dict[str, Any]) -> None:
    """Audits the start and launches the work when the transaction is through."""
    name = f"{work._meta.model_name}.started"
    audit(assistant=work.assistant, actor=actor, action=name, target=str(work), details=details)
    transaction.on_commit(lambda: launch(work))
