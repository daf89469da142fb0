"""Looks each minute: raises what is newly true, clears what is no longer, and notes who is to be told."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from assistants.models import Assistant
from assistants.services import audit
from serving.alerts.conditions import Condition, conditions
from serving.alerts.models import Alert, AlertChannel, AlertDelivery

ORDER = [Alert.Level.NEWS.value, Alert.Level.WARNING.value, Alert.Level.URGENT.value]
QUIET = timedelta(minutes=5)
"""How long something must have been over before it is called so: a value around its limit would be told each minute."""
EVENTS = frozenset({"work_failed", "experiment_ended", "gate_passed"})
"""What has happened is not over by itself; it only leaves the page."""
KEEP_DAYS = 180
"""How long cleared alerts stay on the page."""


def look() -> int:
    """Of all assistants; returns how many alerts are open."""
    assistants = list(Assistant.objects.all())
    found = conditions(assistants)
    for assistant in assistants:
        _settle(assistant, found[assistant.pk])
    old = timezone.now() - timedelta(days=KEEP_DAYS)
    Alert.objects.filter(cleared_at__lt=old).delete()
    return Alert.objects.open().count()


@transaction.atomic
def _settle(assistant: Assistant, true: Iterable[Condition]) -> None:
    # Two workers may look at once: the second waits, and then finds what the first has raised.
    Assistant.objects.select_for_update().get(pk=assistant.pk)
    wanted = {(condition.kind, condition.key): condition for condition in true}
    opened = {(alert.kind, alert.key): alert for alert in Alert.objects.open().filter(assistant=assistant)}
    now = timezone.now()
    for name, alert in opened.items():
        condition = wanted.pop(name, None)
        if condition is None:
            if now - alert.seen_at < QUIET and alert.kind not in EVENTS:
                continue
            alert.cleared_at = now
            alert.save(update_fields=["cleared_at"])
            _note(alert, cleared=True)
        else:
            Alert.objects.filter(pk=alert.pk).update(
                seen_at=now, sentence=condition.sentence, level=condition.level, link=condition.link
            )
    for condition in wanted.values():
        alert = Alert.objects.create(
            assistant=assistant, kind=condition.kind, key=condition.key, level=condition.level,
            sentence=condition.sentence, link=condition.link, raised_at=now, seen_at=now,
        )  # fmt: skip
        _note(alert, cleared=False)


def _note(alert: Alert, *, cleared: bool) -> None:
    """That it is over is told to whom it was told that it had begun."""
    channels = AlertChannel.objects.filter(assistant=alert.assistant_id, enabled=True)
    if cleared:
        channels = channels.filter(deliveries__alert=alert, deliveries__cleared=False).distinct()
        if alert.kind in EVENTS:
            return
    rank = ORDER.index(alert.level)
    AlertDelivery.objects.bulk_create(
        AlertDelivery(alert=alert, channel=channel, cleared=cleared)
        for channel in channels
        if ORDER.index(channel.level) <= rank
    )


@transaction.atomic
def acknowledge(*, alerts: Iterable[Alert], by: User) -> int:
    """Somebody has seen it: it leaves the home page, and stays open until it is over."""
    done = 0
    for alert in alerts:
        if alert.acknowledged_at is None:
            alert.acknowledged_at, alert.acknowledged_by = timezone.now(), by
            alert.save(update_fields=["acknowledged_at", "acknowledged_by"])
            audit(assistant=alert.assistant, actor=by, action="alert.acknowledged", target=f"{alert.kind} {alert.pk}")
            done += 1
    return done
