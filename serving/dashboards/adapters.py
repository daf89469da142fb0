"""What is live for an assistant, on the way there, and one step back: one click, one reason."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_POST

from assistants.access import has_role, require_role
from assistants.models import Assistant, Role
from serving.alerts.unserved import why_base_answers
from serving.dashboards.experiment_tables import step_rows
from serving.experiments.models import Experiment
from serving.models import Deployment, Promotion
from serving.services import PromotionRefused, roll_back
from training.models import Adapter, Evaluation
from training.pages import page_of

PER_PAGE = 20
TRAIL = 10


@require_POST
def roll_back_from_page(request: HttpRequest, slug: str) -> HttpResponse:
    assistant = get_object_or_404(Assistant, slug=slug)
    require_role(request.user, assistant, Role.ADMIN)
    try:
        promotion = roll_back(
            assistant=assistant, actor=cast("User", request.user), reason=request.POST.get("reason", "")[:2000],
            seen=request.POST.get("live"),
        )  # fmt: skip
        messages.success(request, f"Rolled back: {promotion.to_adapter or 'the base model'} is live.")
    except PromotionRefused as refused:
        messages.error(request, str(refused))
    return HttpResponseRedirect(reverse("admin:serving_deployment_changelist"))


def deployment_context(request: HttpRequest, deployment: Deployment) -> dict[str, Any]:
    """What the page of a deployment shows beside the row itself: a fixed number of queries."""
    assistant = deployment.assistant
    adapters = Adapter.objects.filter(assistant=assistant).select_related("run__dataset").order_by("-number")
    page = page_of(request, adapters, PER_PAGE)
    shown = [adapter.pk for adapter in page.object_list]
    newest: dict[int, Evaluation] = {}
    done = Evaluation.objects.filter(adapter__in=shown, state=Evaluation.State.SUCCEEDED).order_by("created_at")
    for evaluation in done.defer("results", "comparison", "gate"):
        newest[evaluation.adapter_id] = evaluation
    experiment = deployment.experiment
    trail = Promotion.objects.filter(assistant=assistant).select_related("actor", "from_adapter", "to_adapter")
    return {
        "unserved": why_base_answers(deployment),
        "experiment": experiment,
        "steps": _steps(experiment),
        "page": page,
        "adapters": [_row(adapter, deployment, newest.get(adapter.pk)) for adapter in page.object_list],
        "trail": trail[:TRAIL],
        "may": has_role(request.user, assistant, Role.ADMIN),
    }


def _steps(experiment: Experiment | None) -> list[dict[str, Any]]:
    if experiment is None:
        return []
    return step_rows(experiment, set(experiment.steps.order_by().values_list("action", flat=True)))


def _row(adapter: Adapter, deployment: Deployment, evaluation: Evaluation | None) -> dict[str, Any]:
    experiment = deployment.experiment
    where = ""
    if adapter.pk == deployment.adapter_id:
        where = "live"
    elif experiment is not None and adapter.pk == experiment.candidate_id:
        where = experiment.get_stage_display()
    elif deployment.has_previous and adapter.pk == deployment.previous_id:
        where = "one step back"
    return {
        "adapter": adapter,
        "where": where,
        "evaluation": evaluation,
        "fits": adapter.prompt_digest == deployment.assistant.prompt_digest,
        "dataset": adapter.run.dataset if adapter.run is not None else None,
    }
