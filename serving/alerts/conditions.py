"""What is worth an alert. Each condition looks at one assistant and tells what is true now; it keeps nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from assistants.background import BackgroundWork, work_models
from assistants.models import Assistant
from capture.intake_numbers import Intake, intake_of
from serving.alerts.models import Alert
from serving.alerts.unserved import why_unserved
from serving.models import Deployment, DriftReport, Experiment
from training.models import Evaluation, GateVerdict

OLDEST = timedelta(minutes=10)
"""Scrubbing is a matter of seconds: what waits this long says that no worker runs, or that it cannot keep up."""
FULL = 0.8
RECENT = timedelta(days=1)
"""How long something that has happened, and is not over by itself, stays open."""
MOST_FAILED = 500
"""Rows of one kind of work that a look reads; hardly anybody has as many in a day."""
NEWS, WARNING, URGENT = Alert.Level.NEWS, Alert.Level.WARNING, Alert.Level.URGENT


@dataclass(frozen=True)
class Condition:
    """``key`` tells several of a kind apart. The sentence holds no text of users."""

    kind: str
    level: str
    sentence: str
    link: str
    key: str = ""


def conditions(assistants: list[Assistant]) -> dict[int, list[Condition]]:
    """By assistant; the number of queries does not grow with them."""
    found: dict[int, list[Condition]] = {assistant.pk: [] for assistant in assistants}
    everyone = Assistant.objects.filter(pk__in=found)
    for intake in intake_of(everyone):
        found[intake.assistant.pk] += _capture(intake)
    for pk, condition in (*_failed(found), *_gates(found), *_live(found), *_experiments(found), *_drift(found)):
        found[pk].append(condition)
    return found


def _capture(intake: Intake) -> Iterator[Condition]:
    held = reverse("admin:capture_quarantine_changelist") + "?state__exact=held"
    page = reverse("admin:capture_intakecount_changelist")
    if intake.held:
        yield Condition("held", WARNING, f"{intake.held} captured items are held: they could not be scrubbed.", held)
    if intake.oldest is not None and timezone.now() - intake.oldest > OLDEST:
        yield Condition("scrubbing_late", URGENT, f"{intake.waiting} captured items wait to be scrubbed.", page)
    if intake.fullness >= FULL:
        yield Condition("quarantine_full", URGENT, f"The quarantine is {intake.percent} % full.", page)


def _failed(pks: Collection[int]) -> Iterator[tuple[int, Condition]]:
    since = timezone.now() - RECENT
    for model in work_models():
        if "assistant" not in {field.name for field in model._meta.get_fields()}:
            continue
        manager: Any = model._default_manager  # the base class has no assistant
        rows = manager.filter(assistant__in=pks, state=BackgroundWork.State.FAILED, finished_at__gte=since)
        name, label = str(model._meta.verbose_name).capitalize(), model._meta.label_lower
        link = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
        for assistant, pk in rows.values_list("assistant", "pk").order_by("-pk")[:MOST_FAILED]:
            text = f"{name} {pk} failed."
            yield assistant, Condition("work_failed", WARNING, text, _page(link), key=f"{label}:{pk}")


def _gates(pks: Collection[int]) -> Iterator[tuple[int, Condition]]:
    """A passed gate that nobody has acted on."""
    rows = Evaluation.objects.filter(
        assistant__in=pks, verdict=GateVerdict.PASSED, finished_at__gte=timezone.now() - 7 * RECENT
    )
    acted = Deployment.objects.filter(assistant__in=pks).values_list("assistant", "adapter", "previous")
    known = {(assistant, adapter) for assistant, *adapters in acted for adapter in adapters}
    for found in rows.select_related("adapter__run__dataset"):
        if (found.assistant_id, found.adapter_id) not in known:
            link = reverse("dashboards:before-after", args=[found.pk])
            yield found.assistant_id, Condition("gate_passed", NEWS, found.sentence, link, key=str(found.pk))


def _live(pks: Collection[int]) -> Iterator[tuple[int, Condition]]:
    link = _page("admin:training_adapter_changelist")
    live = Deployment.objects.filter(assistant__in=pks).exclude(adapter=None)
    for found in live.select_related("assistant", "adapter__run__dataset"):
        assert found.adapter is not None
        if why := why_unserved(found.adapter, prompt_digest=found.assistant.prompt_digest):
            text = (
                f"{found.adapter} is live and cannot be served: {why}. The base model answers. Roll back, or mend it."
            )
            yield found.assistant_id, Condition("live_unserved", URGENT, text, link, key=str(found.adapter_id))
        if found.adapter.erased_rows:
            text = f"{found.adapter} is live and was trained on rows that were erased since. Train another one."
            yield found.assistant_id, Condition("erased_live", WARNING, text, link, key=str(found.adapter_id))


def _experiments(pks: Collection[int]) -> Iterator[tuple[int, Condition]]:
    rows = Experiment.objects.filter(assistant__in=pks).filter(ended_at__gte=timezone.now() - RECENT)
    for found in rows.select_related("candidate__run__dataset"):
        level = URGENT if found.ending == Experiment.Ending.GUARDRAIL else NEWS
        text = f"{found} has ended: {found.get_ending_display().lower()}. {found.reason}".strip()
        link = _page("admin:serving_experiment_changelist")
        yield found.assistant_id, Condition("experiment_ended", level, text, link, key=str(found.pk))


def _drift(pks: Collection[int]) -> Iterator[tuple[int, Condition]]:
    """The newest report of each assistant."""
    rows = DriftReport.objects.filter(assistant__in=pks, state=DriftReport.State.SUCCEEDED)
    newest = rows.order_by("assistant_id", "-until", "-pk").distinct("assistant_id")
    for found in newest:
        if found.alarm:
            text = "Users ask something else than the live adapter was trained on, for two windows running."
            yield found.assistant_id, Condition("drift", WARNING, text, _page("admin:serving_driftreport_changelist"))


def _page(name: str) -> str:
    try:
        return reverse(name)
    except NoReverseMatch:  # a model without a page of its own
        return reverse("admin:index")
