"""When a rule fires, and what happens then: a proposal, or dataset and run. Promoting is never part of it.

A sweep every quarter of an hour looks at each rule that is on. The database holds at most one retraining of an
assistant at a time (`RetrainingProposal.Meta.constraints`), so that two workers and a person cannot start two.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from annotations.models import Resolution
from assistants.models import Assistant
from assistants.schedules import ensure_schedule
from assistants.services import audit
from generation.engines import EngineError
from knowledge.models import Document
from training.data.recipe import Recipe
from training.models import DatasetVersion, Run
from training.rules.models import RetrainingProposal, RetrainingRule
from training.services import NotPossible, build_dataset, start_run

logger = logging.getLogger(__name__)
State = RetrainingProposal.State


@dataclass(frozen=True)
class Standing:
    """How far one condition is. ``left``: what is missing until it fires, in words."""

    kind: str
    sentence: str
    fires: bool
    left: str = ""


@dataclass(frozen=True)
class Since:
    """What has changed since the last dataset."""

    dataset: DatasetVersion | None
    run: Run | None
    labels: int
    documents: int
    at: datetime | None


def since_last(assistant: Assistant) -> Since:
    """Five queries, whatever there is."""
    datasets = DatasetVersion.objects.filter(assistant=assistant, state=DatasetVersion.State.SUCCEEDED, rows__gt=0)
    dataset = datasets.order_by("-number").first()
    run = Run.objects.filter(assistant=assistant, state=Run.State.SUCCEEDED).order_by("-finished_at").first()
    at = dataset.created_at if dataset else None
    labels = Resolution.objects.filter(turn__assistant=assistant)
    documents = Document.objects.filter(assistant=assistant)
    if at is not None:
        labels, documents = labels.filter(resolved_at__gt=at), documents.filter(updated_at__gt=at)
    return Since(dataset, run, labels.count(), documents.count(), at)


def standing(rule: RetrainingRule, since: Since, *, drift: str = "", now: datetime | None = None) -> list[Standing]:
    """Each condition that is set, and whether it fires. Pure."""
    now = now or timezone.now()
    found = []
    when = f"since {since.dataset}" if since.dataset else "so far"
    if rule.min_labels is not None:
        left = rule.min_labels - since.labels
        found.append(
            Standing(
                "labels",
                f"{since.labels} resolved labels are new {when}.",
                left <= 0,
                f"{left} more labels" * (left > 0),
            )
        )
    if rule.min_documents is not None:
        left = rule.min_documents - since.documents
        found.append(
            Standing(
                "documents",
                f"{since.documents} documents came or changed {when}.",
                left <= 0,
                f"{left} more documents" * (left > 0),
            )
        )
    if rule.every_days is not None:
        last = since.run.finished_at if since.run else None
        anything = bool(since.labels or since.documents)
        if last is None:
            found.append(Standing("schedule", "No run has ended yet.", anything, "" if anything else "any new label"))
        else:
            due = last + timedelta(days=rule.every_days)
            days = max(0, (now - last).days)
            left_days = max(1, -(-(due - now).total_seconds() // 86_400)) if due > now else 0
            wait = f"{left_days:.0f} more days" if due > now else "" if anything else "any new label or document"
            found.append(Standing("schedule", f"The last run ended {days} days ago.", due <= now and anything, wait))
    if rule.on_drift:
        found.append(
            Standing(
                "drift", drift or "The drift report has raised no alarm.", bool(drift), "" if drift else "a drift alarm"
            )
        )
    return found


def resting_until(rule: RetrainingRule, since: Since) -> datetime | None:
    """Before this the rule does nothing: it fired, or somebody trained, only just."""
    last = RetrainingProposal.objects.filter(assistant=rule.assistant).order_by("-created_at").first()
    moments = [moment for moment in (last and last.created_at, since.run and since.run.finished_at) if moment]
    until = max(moments, default=None)
    return until + timedelta(days=rule.rest_days) if until is not None else None


def check(rule: RetrainingRule, *, drift: str = "", now: datetime | None = None) -> RetrainingProposal | None:
    """Fires the rule if it is due. None: it is off, rests, waits for something, or one is under way."""
    now = now or timezone.now()
    if not rule.enabled:
        return None
    active = RetrainingProposal.objects.filter(assistant=rule.assistant, state__in=RetrainingProposal.ACTIVE)
    if active.exists():
        return None
    since = since_last(rule.assistant)
    until = resting_until(rule, since)
    if until is not None and now < until:
        return None
    reasons = [{"kind": s.kind, "sentence": s.sentence} for s in standing(rule, since, drift=drift, now=now) if s.fires]
    if not reasons:
        return None
    try:
        with transaction.atomic():
            proposal = RetrainingProposal.objects.create(assistant=rule.assistant, reasons=reasons)
            audit(
                assistant=rule.assistant,
                actor=None,
                action="retraining.proposed",
                target=str(proposal),
                details={"because": [reason["kind"] for reason in reasons]},
            )
    except IntegrityError:
        return None  # another worker was quicker
    if rule.action == RetrainingRule.Action.START:
        accept(proposal=proposal, actor=None)
    return proposal


def report_drift(assistant: Assistant, sentence: str) -> RetrainingProposal | None:
    """For the drift report: its alarm, in one sentence, may fire the assistant's rule. None when it does not.

    The sentence is kept with the proposal: figures and dates, no words of users (an erasure does not look there).
    """
    rule = RetrainingRule.objects.filter(assistant=assistant, enabled=True, on_drift=True).first()
    return check(rule, drift=sentence[:500]) if rule is not None else None


def accept(*, proposal: RetrainingProposal, actor: User | None) -> bool:
    """Begins an open proposal: builds the next dataset by the recipe of the last one; `advance` goes on from there.
    False when somebody decided it already. What cannot be built fails the proposal with its sentence."""
    now = timezone.now()
    with transaction.atomic():
        taken = RetrainingProposal.objects.filter(pk=proposal.pk, state=State.OPEN).update(
            state=State.BUILDING, decided_by=actor, decided_at=now
        )
        if not taken:
            return False
        audit(assistant=proposal.assistant, actor=actor, action="retraining.accepted", target=str(proposal))
    proposal.refresh_from_db()
    since = since_last(proposal.assistant)
    try:
        dataset = _build(proposal.assistant, since.dataset, actor)
    except (NotPossible, ValueError) as error:
        _fail(proposal, str(error))
        return True
    RetrainingProposal.objects.filter(pk=proposal.pk).update(dataset=dataset)
    return True


def dismiss(*, proposal: RetrainingProposal, actor: User | None, reason: str = "") -> bool:
    """Closes an open proposal. False when somebody decided it already."""
    with transaction.atomic():
        closed = RetrainingProposal.objects.filter(pk=proposal.pk, state=State.OPEN).update(
            state=State.DISMISSED, decided_by=actor, decided_at=timezone.now()
        )
        if closed:
            audit(
                assistant=proposal.assistant,
                actor=actor,
                action="retraining.dismissed",
                target=str(proposal),
                reason=reason[:500],
            )
    return bool(closed)


def advance(proposal: RetrainingProposal) -> None:
    """One step from dataset to run to done, when what it waits for has ended."""
    if proposal.state == State.BUILDING:
        dataset = proposal.dataset
        if dataset is None:
            # Between the two writes of `accept`; if that process died there, nothing was built.
            if proposal.decided_at and timezone.now() - proposal.decided_at > timedelta(minutes=10):
                _fail(proposal, "No dataset was built. Accept the next proposal, or build one by hand.")
        elif dataset.state == DatasetVersion.State.SUCCEEDED:
            _train(proposal, dataset)
        elif not dataset.is_active:
            _fail(proposal, f"{dataset} was not built: {dataset.error or dataset.get_state_display()}")
    elif proposal.state == State.TRAINING and proposal.run is not None and not proposal.run.is_active:
        if proposal.run.state == Run.State.SUCCEEDED:
            RetrainingProposal.objects.filter(pk=proposal.pk, state=State.TRAINING).update(state=State.DONE)
        else:
            _fail(proposal, f"{proposal.run} made no adapter: {proposal.run.error or 'it was cancelled.'}")


def check_all() -> None:
    """The sweep: goes on with what is under way, then asks every rule. One assistant's trouble is not another's."""
    under_way = RetrainingProposal.objects.filter(state__in=[State.BUILDING, State.TRAINING])
    for proposal in under_way.select_related("assistant", "dataset__leak_report", "run"):
        try:
            advance(proposal)
        except Exception:
            logger.exception("%s did not go on", proposal)
    for rule in RetrainingRule.objects.filter(enabled=True).select_related("assistant"):
        try:
            check(rule)
        except Exception:
            logger.exception("%s could not be checked", rule)


def ensure_checking() -> None:
    """Schedules the sweep; called when a rule is turned on."""
    ensure_schedule("Check retraining rules", "training.jobs.check_rules", 15)


def _build(assistant: Assistant, last: DatasetVersion | None, actor: User | None) -> DatasetVersion:
    if last is None:
        return build_dataset(assistant=assistant, benchmark=None, synthesis=None, created_by=actor)
    return build_dataset(
        assistant=assistant,
        benchmark=last.benchmark,
        synthesis=last.synthesis,
        recipe=Recipe.from_dict(last.recipe),
        created_by=actor,
    )


def _train(proposal: RetrainingProposal, dataset: DatasetVersion) -> None:
    last = since_last(proposal.assistant).run
    settings: dict[str, Any] = dict(last.settings) if last is not None else {}
    try:
        with transaction.atomic():
            locked = RetrainingProposal.objects.select_for_update().get(pk=proposal.pk)
            if locked.state != State.BUILDING:
                return
            run = start_run(
                assistant=proposal.assistant,
                dataset=dataset,
                settings=settings,
                method="auto",
                created_by=locked.decided_by,
            )
            locked.state, locked.run = State.TRAINING, run
            locked.save(update_fields=["state", "run"])
    except (NotPossible, EngineError) as error:
        _fail(proposal, str(error))


def _fail(proposal: RetrainingProposal, sentence: str) -> None:
    RetrainingProposal.objects.filter(pk=proposal.pk).update(state=State.FAILED, error=sentence[:1000])
