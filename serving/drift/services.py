"""Reports are started, and what they say is acted on in one click: a queue, or a retraining."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import IntegrityError, transaction
from django.utils import timezone

from annotations.filling import add_turns
from annotations.models import Queue
from assistants.background import launch
from assistants.models import Assistant
from assistants.services import audit
from capture.models import Turn
from serving.drift.models import DriftReport
from serving.models import Deployment
from training.models import Adapter
from training.rules.models import RetrainingProposal

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

WINDOW = timedelta(days=7)
MAX_DAYS = 90
MAX_QUEUE = 300


class DriftRefused(ValueError):
    """There is nothing to compare, or to act on; the message says why and what would help."""


def start_report(
    *, assistant: Assistant, actor: User | None, days: int = WINDOW.days, until: datetime | None = None
) -> DriftReport:
    """Compares the questions of the last ``days`` with those that the live adapter was trained on.

    Raises:
        DriftRefused: no adapter is live, it was not trained here, a report is being made, or no such window.
    """
    if not 1 <= days <= MAX_DAYS:
        raise DriftRefused(f"From 1 to {MAX_DAYS} days.")
    with transaction.atomic():
        # Locked first and read then: see `serving.services.locked_deployment`.
        locked = Deployment.objects.select_for_update().filter(assistant=assistant).first()
        trained = Adapter.objects.select_related("run__dataset")
        adapter = trained.filter(pk=locked.adapter_id).first() if locked is not None and locked.adapter_id else None
        if adapter is None:
            raise DriftRefused("The base model is live: there are no questions that it was trained on here.")
        if adapter.run is None:
            raise DriftRefused(f"{adapter} was not trained here, so its questions are not known.")
        if DriftReport.objects.active().filter(assistant=assistant).exists():
            raise DriftRefused("A report is being made already; wait for it.")
        end = until or timezone.now()
        report = DriftReport.objects.create(
            assistant=assistant, adapter=adapter, dataset=adapter.run.dataset, since=end - timedelta(days=days),
            until=end, created_by=actor,
        )  # fmt: skip
        audit(assistant=assistant, actor=actor, action="drift.started", target=str(report), details={"days": days})
    launch(report)
    return report


def report_all() -> int:
    """Last week, of every assistant whose adapter was trained here; how many. Run each week."""
    started = 0
    live = Deployment.objects.filter(adapter__run__isnull=False).select_related("assistant").order_by("pk")
    for deployment in live:
        try:
            start_report(assistant=deployment.assistant, actor=None)
            started += 1
        except DriftRefused as refused:
            logger.info("No drift report of %s: %s", deployment.assistant, refused)
    return started


@transaction.atomic
def open_queue(*, report: DriftReport, actor: User, size: int) -> Queue:
    """A queue of the questions that are surest to be new.

    Raises:
        DriftRefused: none of them is there any more, or no such size.
    """
    if not 1 <= size <= MAX_QUEUE:
        raise DriftRefused(f"From 1 to {MAX_QUEUE} turns.")
    keys = [key for key, _ in report.now[:size]]
    turns = list(Turn.objects.of(report.assistant).filter(pk__in=keys))
    if not turns:
        raise DriftRefused("None of these questions is there any more.")
    name = f"New questions of {report.until:%Y-%m-%d}"
    taken = set(Queue.objects.filter(assistant=report.assistant, name__startswith=name).values_list("name", flat=True))
    number = 1
    while (label := name if number == 1 else f"{name} ({number})") in taken:
        number += 1
    queue = Queue.objects.create(
        assistant=report.assistant,
        name=label,
        guideline="Users began to ask these after the adapter was trained. Mark what retrieval missed.",
    )
    order = {key: place for place, key in enumerate(keys)}
    add_turns(queue=queue, turns=sorted(turns, key=lambda turn: order[str(turn.pk)]))
    audit(
        assistant=report.assistant, actor=actor, action="drift.queue", target=str(queue),
        details={"report": report.pk, "turns": len(turns)},
    )  # fmt: skip
    return queue


def propose_retraining(*, report: DriftReport, actor: User | None) -> RetrainingProposal:
    """Puts a retraining before the admins, with the report's sentence as its reason.

    Raises:
        DriftRefused: the report shows no drift, or a retraining is on its way already.
    """
    if report.verdict != DriftReport.Verdict.DRIFT:
        raise DriftRefused("This report shows no drift, so it proposes nothing.")
    try:
        with transaction.atomic():
            proposal = RetrainingProposal.objects.create(
                assistant=report.assistant, reasons=[{"kind": "drift", "sentence": report.sentence}]
            )
            audit(
                assistant=report.assistant, actor=actor, action="drift.retraining", target=str(proposal),
                details={"report": report.pk},
            )  # fmt: skip
    except IntegrityError:
        raise DriftRefused("A retraining is proposed or on its way already.") from None
    return proposal
