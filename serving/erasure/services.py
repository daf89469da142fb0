"""Asking for an erasure, confirming it, finishing one that stopped. Who may, is decided by pages and commands."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from assistants.background import launch
from assistants.models import Assistant
from assistants.policies import policy_of
from assistants.services import audit
from privacy.findings import ScrubError
from privacy.scrubber import Scrubber
from serving.erasure.record import Erasure
from serving.erasure.scope import Scope, seal

MAX_REASON = 2_000


class ErasureRefused(ValueError):
    """It cannot be done as asked; the message says why and what to do."""


def look(*, assistant: Assistant, scope: Scope, actor: User | None) -> Erasure:
    """Starts a dry run: nothing is touched.

    Raises:
        serving.erasure.scope.ScopeError: the scope is none.
    """
    scope.check()
    digest = scope.digest(assistant)
    with transaction.atomic():
        erasure = Erasure.objects.create(
            assistant=assistant, kind=scope.kind, scope_digest=digest, sealed=seal(scope), created_by=actor
        )
        audit(
            assistant=assistant, actor=actor, action="erasure.looked", target=str(erasure),
            details={"kind": scope.kind, "scope": digest},
        )  # fmt: skip
        transaction.on_commit(lambda: launch(erasure))
    return erasure


def confirm(*, erasure: Erasure, actor: User | None, reason: str, name: str = "") -> Erasure:
    """Turns a dry run into the act. Two officers pressing at once start it once.

    Args:
        name: of who confirms, where there is no account (the command line).

    Raises:
        ErasureRefused: no reason, no dry run that has ended, or one that is too old.
    """
    text = _masked(erasure.assistant, reason)
    with transaction.atomic():
        locked = Erasure.objects.select_for_update(of=("self",)).select_related("assistant").get(pk=erasure.pk)
        if not locked.is_dry:
            raise ErasureRefused(f"{locked} was confirmed already.")
        if not locked.can_confirm:
            raise ErasureRefused("This dry run has not ended, or is older than a day. Look again.")
        locked.confirmed_at, locked.confirmed_by = timezone.now(), actor
        locked.confirmed_name = actor.get_username()[:150] if actor else name[:150] or "system"
        locked.reason = text
        _queue(locked)
        audit(
            assistant=locked.assistant, actor=actor, action="erasure.confirmed", target=str(locked), reason=text,
            details={"kind": locked.kind, "scope": locked.scope_digest, "turns": locked.plan.get("turns", 0)},
        )  # fmt: skip
        transaction.on_commit(lambda: launch(locked))
    return locked


def go_on(*, erasure: Erasure, actor: User | None) -> Erasure:
    """Queues an act that has stopped before its end.

    Raises:
        ErasureRefused: it runs, or is done.
    """
    with transaction.atomic():
        locked = Erasure.objects.select_for_update(of=("self",)).select_related("assistant").get(pk=erasure.pk)
        if not locked.can_go_on:
            raise ErasureRefused(f"{locked} is not one that has stopped.")
        _queue(locked)
        audit(assistant=locked.assistant, actor=actor, action="erasure.resumed", target=str(locked))
        transaction.on_commit(lambda: launch(locked))
    return locked


def withdraw(*, erasure: Erasure, actor: User | None) -> bool:
    """Stops or forgets a dry run. False for an act: half an erasure helps nobody."""
    with transaction.atomic():
        locked = Erasure.objects.select_for_update(of=("self",)).select_related("assistant").get(pk=erasure.pk)
        if not locked.is_dry:
            return False
        locked.request_cancel()
        Erasure.objects.filter(pk=locked.pk).update(sealed=None)
        audit(assistant=locked.assistant, actor=actor, action="erasure.withdrawn", target=str(locked))
    return True


def _queue(erasure: Erasure) -> None:
    erasure.state, erasure.attempt, erasure.token = Erasure.State.QUEUED, 0, None
    erasure.error, erasure.progress = "", {}
    erasure.started_at = erasure.finished_at = erasure.cancel_requested_at = None
    erasure.save()


def _masked(assistant: Assistant, reason: str) -> str:
    """The reason stays for ever, on the receipt and in the audit trail: it must not name whom it erases."""
    text = reason.strip()[:MAX_REASON]
    if not text:
        raise ErasureRefused("Say why it is erased: the receipt carries it.")
    try:
        return Scrubber(policy_of(assistant)).scrub_text(text).text
    except ScrubError:
        raise ErasureRefused("The reason cannot be checked for personal data. Say it more simply.") from None
