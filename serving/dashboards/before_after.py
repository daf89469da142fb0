"""The before/after page: one sentence, the gate, the arms, where the gain comes from, and every answer side by side."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from annotations.comparing.blindness import WITHHELD
from annotations.comparing.results import rounds_of
from assistants.access import has_role
from assistants.models import Role
from serving.dashboards.across import seeds, trend, trend_chart
from serving.dashboards.examples import (
    FILTERS,
    conditions_with_pairs,
    pairs_of,
    rows_of,
)
from serving.dashboards.reading import READERS, read_evaluation
from serving.dashboards.tables import chart, everything
from serving.models import Deployment
from serving.services import PromotionRefused, promote
from training.comparing import SOURCE
from training.evaluation.blind import HIDDEN, must_stay_blind
from training.models import Condition, Evaluation, GateVerdict, Kind

__all__ = ["before_after", "promote_from_page", "read_evaluation"]

PAGE = 20


@require_GET
def before_after(request: HttpRequest, pk: int) -> HttpResponse:
    """The page. ``?show=`` wins, losses, both, neither or all; ``?condition=``; ``?kind=``;
    ``?q=`` words of a question."""
    evaluation = read_evaluation(request, pk, *READERS)
    user = cast("User", request.user)
    page_of_work: Any = admin.site._registry[Evaluation]
    context = {
        **admin.site.each_context(request),
        "panel": page_of_work.panel(request, evaluation),
        "title": f"Before / after: {evaluation.adapter}",
        "evaluation": evaluation,
        "may_promote": has_role(user, evaluation.assistant, Role.ADMIN),
    }
    if evaluation.state == Evaluation.State.SUCCEEDED:
        live = Deployment.objects.filter(assistant=evaluation.assistant).values_list("adapter_id", flat=True).first()
        along = trend(evaluation)
        context |= {
            **everything(evaluation),
            **_examples(request, evaluation),
            "chart": chart(evaluation),
            "trend": along,
            "trend_chart": trend_chart(along),
            "seeds": seeds(evaluation),
            "reviews": rounds_of(SOURCE, evaluation.pk, viewer=user),
            "withheld": WITHHELD,
            "judgings": list(evaluation.judgings.all()[:5]),
            "scores": list(evaluation.knowledge_scores.all()[:3]),
            "is_live": live == evaluation.adapter_id,
            "passed": evaluation.verdict == GateVerdict.PASSED,
        }
    return TemplateResponse(request, "serving/before_after.html", context)


def _examples(request: HttpRequest, evaluation: Evaluation) -> dict[str, Any]:
    """Examples of the chosen filters; none for who still judges such answers blind."""
    if must_stay_blind(cast("User", request.user), evaluation):
        # A document or topic may have one question: its line would say which arm was right there.
        return {"hidden": HIDDEN, "breakdowns": []}
    conditions = conditions_with_pairs(evaluation)
    condition = _choice(request, "condition", [value for value, _ in conditions], Condition.CLEAN.value)
    show = _choice(request, "show", list(FILTERS), "wins")
    kind = _choice(request, "kind", ["", *Kind.values], "")
    query = request.GET.get("q", "").replace("\x00", " ").strip()[:200]
    pairs = pairs_of(evaluation, condition, kind=kind, query=query)
    counts = {name: sum(name in ("all", pair.outcome) for pair in pairs) for name in FILTERS}
    page = Paginator([pair for pair in pairs if show in ("all", pair.outcome)], PAGE).get_page(request.GET.get("page"))
    return {
        "page": page,
        "rows": rows_of(evaluation, list(page.object_list), condition),
        "filters": [(name, label, counts[name]) for name, label in FILTERS.items()],
        "show": show,
        "condition": condition,
        "conditions": conditions,
        "kind": kind,
        "kinds": Kind.choices,
        "query": query,
    }


@require_POST
def promote_from_page(request: HttpRequest, pk: int) -> HttpResponse:
    evaluation = read_evaluation(request, pk, Role.ADMIN)
    try:
        promote(
            assistant=evaluation.assistant,
            adapter=evaluation.adapter,
            evaluation=evaluation,
            actor=cast("User", request.user),
            reason=request.POST.get("reason", "").strip()[:2000],
            override=bool(request.POST.get("override")),
        )
        messages.success(request, f"{evaluation.adapter} is live now. One click on Adapters rolls it back.")
    except PromotionRefused as refused:
        messages.error(request, str(refused))
    return HttpResponseRedirect(reverse("dashboards:before-after", args=[pk]))


def _choice(request: HttpRequest, name: str, allowed: list[str], default: str) -> str:
    value = request.GET.get(name, default)
    return value if value in allowed else default
