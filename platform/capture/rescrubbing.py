"""Starting and cancelling a re-scrub."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction

from assistants.background import launch
from assistants.models import Assistant
from assistants.policies import newest
from assistants.services import audit
from capture.models import Rescrub


class AlreadyRunning(Exception):
    """One of this assistant has not ended yet; it is ``work``."""

    def __init__(self, work: Rescrub) -> None:
        super().__init__(f"{work} has not ended yet. Wait for it, or cancel it.")
        self.work = work


@transaction.atomic
def start_rescrub(*, assistant: Assistant, dry_run: bool, actor: User | None) -> Rescrub:
    """Scrubs what another policy has scrubbed, under the newest; a dry run only counts.

    Raises:
        AlreadyRunning: two at once would wait for each other at every conversation.
    """
    Assistant.objects.select_for_update().get(pk=assistant.pk)
    if active := Rescrub.objects.active().filter(assistant=assistant).first():
        raise AlreadyRunning(active)
    work = Rescrub.objects.create(assistant=assistant, policy=newest(assistant), dry_run=dry_run, created_by=actor)
    audit(
        assistant=assistant, actor=actor, action="rescrub.started", target=str(work),
        details={"policy": work.policy.number if work.policy else 0, "dry_run": dry_run},
    )  # fmt: skip
    transaction.on_commit(lambda: launch(work))
    return work


@transaction.atomic
def cancel_rescrub(*, work: Rescrub, actor: User | None) -> bool:
    """Asks it to stop; what is done stays done. False when it had ended already."""
    asked = work.request_cancel()
    if asked:
        audit(assistant=work.assistant, actor=actor, action="rescrub.cancelled", target=str(work))
    return asked
