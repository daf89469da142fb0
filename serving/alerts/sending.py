"""Takes due deliveries to their channels, eight times over two hours where they are not taken."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import timedelta
from smtplib import SMTPException
from typing import Any

from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from serving.alerts import webhooks
from serving.alerts.models import Alert, AlertChannel, AlertDelivery

AT_ONCE = 50
"""Deliveries of one look."""
SECONDS = 20.0
"""Of one look: a delivery may take ten seconds where nobody answers, and the worker has other jobs."""
FIRST_DELAY = timedelta(minutes=1)
LEASE = timedelta(minutes=5)


def send_due() -> int:
    """Returns how many arrived. A process that is killed after sending and before noting it sends once more: twice told
    is better than never."""
    sent, end = 0, time.monotonic() + SECONDS
    failing: set[int] = set()
    for _ in range(AT_ONCE):
        delivery = _claim(failing) if time.monotonic() < end else None
        if delivery is None:
            break
        error = deliver(delivery.alert, delivery.channel, cleared=delivery.cleared)
        if error:
            failing.add(delivery.channel_id)  # what else is for it waits for the next look, others do not wait for it
        else:
            sent += 1
        _note(delivery, error)
    return sent


@transaction.atomic
def _claim(failing: Collection[int]) -> AlertDelivery | None:
    """The next that is due, put off so that no other worker takes it meanwhile."""
    unsent = AlertDelivery.objects.filter(sent_at=None, attempts__lt=AlertDelivery.MOST_ATTEMPTS)
    due, failed = unsent.filter(due_at__lte=timezone.now(), channel__enabled=True), unsent.exclude(error="")
    found = (
        due.exclude(channel__in=failing)
        .select_related("alert__assistant", "channel")
        .select_for_update(of=("self",), skip_locked=True)
        # Behind all others what is for a channel that has failed: it may take the whole time of a look.
        .order_by(Exists(failed.filter(channel=OuterRef("channel"))), "due_at")
        .first()
    )
    if found is not None:
        found.attempts += 1
        found.due_at = timezone.now() + LEASE
        found.save(update_fields=["attempts", "due_at"])
    return found


def _note(delivery: AlertDelivery, error: str) -> None:
    if error:
        delivery.error = error[:300]
        delivery.due_at = timezone.now() + FIRST_DELAY * 2 ** (delivery.attempts - 1)
    else:
        delivery.error, delivery.sent_at = "", timezone.now()
    delivery.save(update_fields=["error", "due_at", "sent_at"])


def deliver(alert: Alert, channel: AlertChannel, *, cleared: bool) -> str:
    """Sends; returns what went wrong, or nothing."""
    if channel.kind == AlertChannel.Kind.WEBHOOK:
        return webhooks.post(channel.address, body_of(alert, cleared=cleared), key=webhooks.key_of(channel))
    if not settings.EMAIL_HOST:
        return "No mail server is set (EMAIL_HOST)."
    state = "over" if cleared else alert.get_level_display().lower()
    subject = " ".join(f"[{alert.assistant.slug}] {state}: {alert.sentence}".split())[:150]
    try:
        send_mail(subject, _text(alert, cleared=cleared), None, [channel.address])
    except (SMTPException, OSError) as error:
        return f"The mail server did not take it ({type(error).__name__})."
    return ""


def body_of(alert: Alert, *, cleared: bool) -> dict[str, Any]:
    """What a webhook gets."""
    return {
        "event": "alert.cleared" if cleared else "alert.raised",
        "id": alert.pk,
        "assistant": alert.assistant.slug,
        "kind": alert.kind,
        "level": alert.level,
        "text": alert.sentence,
        "link": f"{settings.RATCHET_PUBLIC_URL}{alert.link}" if alert.link else "",
        "raised_at": alert.raised_at.isoformat(),
        "cleared_at": alert.cleared_at.isoformat() if alert.cleared_at else None,
    }


def _text(alert: Alert, *, cleared: bool) -> str:
    lines = [alert.sentence, ""]
    if cleared:
        lines[:0] = ["This is over:"]
    lines += [f"Since {alert.raised_at:%Y-%m-%d %H:%M} UTC", f"{settings.RATCHET_PUBLIC_URL}{alert.link}"]
    return "\n".join(lines) + "\n"
