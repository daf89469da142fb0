"""Who works in which queue. A queue with people is theirs alone; one without is everybody's who labels."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, Q, QuerySet

from annotations.models import Queue
from assistants.access import assistants_of
from assistants.models import Assistant, Membership, Role

WORKERS = (Role.ANNOTATOR, Role.REVIEWER, Role.ADMIN)
OVERSEERS = (Role.REVIEWER, Role.PRIVACY, Role.ADMIN)
"""They see every queue of their assistants; annotators see those that they work in."""


def with_share(queues: QuerySet[Queue], user: User) -> QuerySet[Queue]:
    """Adds ``for_them``: whether this person may get items, as far as the queue's people decide."""
    anybody = Queue.people.through.objects.filter(queue=OuterRef("pk"))
    return queues.annotate(for_them=Q(~Exists(anybody)) | Q(Exists(anybody.filter(user=user))))


def visible_to(queues: QuerySet[Queue], user: Any) -> QuerySet[Queue]:
    """Of ``queues`` those that this person may see."""
    if user.is_superuser:
        return queues
    return with_share(queues, user).filter(
        Q(assistant__in=assistants_of(user, *OVERSEERS))
        | Q(assistant__in=assistants_of(user, Role.ANNOTATOR), for_them=True)
    )


def workers_of(assistant: Assistant) -> QuerySet[User]:
    """Everybody who may label for the assistant, by name."""
    holders = Membership.objects.filter(assistant=assistant, role__in=WORKERS).values("user")
    return User.objects.filter(pk__in=holders, is_active=True).order_by("username")
