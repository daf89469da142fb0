"""Finding an evaluation for somebody who may read it."""

from __future__ import annotations

from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from assistants.access import require_role
from assistants.models import Role
from training.models import Evaluation

READERS = (Role.ADMIN, Role.REVIEWER)


def read_evaluation(request: HttpRequest, pk: int, *roles: str) -> Evaluation:
    """Raises Http404 or PermissionDenied: there is none, or the person holds none of ``roles`` on its assistant."""
    evaluation = get_object_or_404(
        Evaluation.objects.select_related("assistant", "adapter", "benchmark", "rival", "adapter__run__dataset"), pk=pk
    )
    require_role(request.user, evaluation.assistant, *roles)
    return evaluation
