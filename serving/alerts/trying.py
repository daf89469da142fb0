"""Whether a channel works, before something goes wrong."""

from __future__ import annotations

from django.urls import reverse
from django.utils import timezone

from serving.alerts.models import Alert, AlertChannel
from serving.alerts.sending import deliver


def send_test(channel: AlertChannel) -> str:
    """Sends at once; returns what went wrong, or nothing."""
    alert = Alert(
        assistant=channel.assistant, kind="test", level=channel.level, raised_at=timezone.now(),
        sentence=f"This is a test: alerts of {channel.assistant.name} arrive here.", link=reverse("admin:index"),
    )  # fmt: skip
    return deliver(alert, channel, cleared=False)
