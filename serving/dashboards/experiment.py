"""The page of an experiment: what it says now, how it came to say so, and the steps that somebody may take."""

from __future__ import annotations

from functools import partial
from typing import cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotations.comparing.blindness import WITHHELD, still_judging
from annotations.comparing.models import ComparisonRound
from annotations.comparing.results import rounds_of
from assistants.access import has_role, require_role
from assistants.models import Assistant, Role
from assistants.viewing import note_view
from serving.dashboards.comparing import Opening, opening_page
from serving.dashboards.experiment_forms import StartForm
from serving.dashboards.experiment_tables import answers_of, chart_of, guardrail_rows, outcome_rows, step_rows, table_of
from serving.experiments.looking import START_UNITS
from serving.experiments.models import Experiment, ExperimentLook
from serving.experiments.pairs import SOURCE, count_differing, start_live_comparison
from serving.experiments.plan import PlanError
from serving.experiments.services import set_share, start, step, take_back
from serving.services import PromotionRefused, gate_problem
from training.pages import page_of, render_page

READERS = (Role.ADMIN, Role.REVIEWER)
PER_PAGE = 10
RELATED = ("assistant", "candidate", "control", "evaluation", "created_by")


def read_experiment(request: HttpRequest, pk: int, *roles: str) -> Experiment:
    """Raises Http404 or PermissionDenied: there is none, or the person holds none of ``roles`` on its assistant."""
    experiment = get_object_or_404(Experiment.objects.select_related(*RELATED), pk=pk)
    require_role(request.user, experiment.assistant, *roles)
    return experiment


@require_safe
def experiment_page(request: HttpRequest, pk: int) -> HttpResponse:
    experiment = read_experiment(request, pk, *READERS)
    user = cast("User", request.user)
    looks = list(ExperimentLook.objects.filter(experiment=experiment).order_by("-at")[:1500])[::-1]
    newest = looks[-1].result if looks else {}
    rounds = list(ComparisonRound.objects.filter(source=SOURCE, source_id=experiment.pk).select_related("assistant"))
    # Whoever still judges pairs of this experiment must not learn here which answer is whose.
    blind = bool(still_judging(user, rounds))
    page = page_of(request, experiment.shadows.select_related("turn").filter(error=""), PER_PAGE)
    chart = chart_of(experiment, looks)
    trail = list(experiment.steps.select_related("actor", "evaluation").order_by("pk"))
    context = {
        "title": str(experiment),
        "experiment": experiment,
        "plan": experiment.rules,
        "now": newest,
        "looked_at": looks[-1].at if looks else None,
        "steps": step_rows(experiment, {one.action for one in trail}),
        "outcomes": outcome_rows(experiment, newest),
        "guardrails": guardrail_rows(newest),
        "chart": chart,
        "chart_table": table_of(chart),
        "shadow": newest.get("shadow") or {},
        "page": None if blind else page,
        "answers": [] if blind else answers_of(page.object_list),
        "withheld": WITHHELD if blind else "",
        "reviews": rounds_of(SOURCE, experiment.pk, viewer=user),
        "trail": trail,
        # One that has ended has no share any more: the last that a step gave it.
        "declared": experiment.share or next((one.share for one in reversed(trail) if one.share), 0.0),
        "may": has_role(user, experiment.assistant, Role.ADMIN),
        "gate_problem": _gate_problem(experiment),
        "start_units": START_UNITS,
    }
    note_view(assistant_id=experiment.assistant_id, actor=user, what="experiment", target=str(experiment.pk))
    return render_page(request, "serving/experiment.html", context)


def _gate_problem(experiment: Experiment) -> str:
    """Why its next step needs a reason that overrides the gate; empty where it does not. What was overridden before the
    canary stays overridden."""
    asked = experiment.stage in (Experiment.Stage.SHADOW, Experiment.Stage.AB) and not experiment.override_reason
    return gate_problem(adapter=experiment.candidate, evaluation=experiment.evaluation) if asked else ""


@require_safe
def experiment_json(request: HttpRequest, pk: int) -> JsonResponse:
    """Everything the page counts, with every look: for a report or another tool."""
    experiment = read_experiment(request, pk, *READERS)
    looks = ExperimentLook.objects.filter(experiment=experiment).order_by("at")
    body = {
        "experiment": experiment.pk,
        "assistant": experiment.assistant.slug,
        "candidate": str(experiment.candidate),
        "control": str(experiment.control or "base model"),
        "stage": experiment.stage,
        "ending": experiment.ending,
        "reason": experiment.reason,
        "plan": experiment.plan,
        "looks": [{"at": one.at.isoformat(), "stage": one.stage, "epoch": one.epoch, **one.result} for one in looks],
    }
    response = JsonResponse(body, json_dumps_params={"ensure_ascii": False, "indent": 1})
    response.headers["Content-Disposition"] = f'attachment; filename="experiment-{experiment.pk}.json"'
    return response


@require_http_methods(["GET", "HEAD", "POST"])
def start_page(request: HttpRequest, slug: str) -> HttpResponse:
    assistant = get_object_or_404(Assistant, slug=slug)
    require_role(request.user, assistant, Role.ADMIN)
    form = StartForm(request.POST or None, assistant=assistant, initial={"adapter": request.GET.get("adapter")})
    if request.method == "POST" and form.is_valid():
        try:
            experiment = start(
                assistant=assistant,
                adapter=form.cleaned_data["adapter"],
                plan=form.plan(),
                evaluation=form.evaluation(),
                actor=cast("User", request.user),
                reason=form.cleaned_data["reason"],
            )
        except (PromotionRefused, PlanError) as refused:
            form.add_error(None, str(refused))
        else:
            messages.success(request, f"{experiment.candidate} answers in shadow now. Nobody is shown it yet.")
            return HttpResponseRedirect(reverse("admin:serving_experiment_change", args=[experiment.pk]))
    context = {"title": "Start an experiment", "assistant": assistant, "form": form}
    response = render_page(request, "serving/experiment_start.html", context)
    response.status_code = 422 if request.method == "POST" else 200
    return response


@require_POST
def act(request: HttpRequest, pk: int, what: str) -> HttpResponse:
    """``what``: step, share or back."""
    experiment = read_experiment(request, pk, Role.ADMIN)
    actor, reason = cast("User", request.user), request.POST.get("reason", "")[:2000]
    try:
        if what == "step":
            _still_at(request, experiment)
            override = request.POST.get("override") == "1"
            now = step(experiment=experiment, actor=actor, reason=reason, override=override)
            messages.success(request, f"{now.candidate}: {now.get_ending_display() or now.get_stage_display()}.")
        elif what == "share":
            now = set_share(experiment=experiment, share=_share(request), actor=actor, reason=reason)
            messages.success(request, f"{now.share:.1%} of new {now.rules.unit}s meet {now.candidate} from now on.")
        elif what == "back":
            take_back(experiment=experiment, actor=actor, reason=reason)
            messages.success(request, f"{experiment.candidate} was taken back. {_live(experiment)} answers everybody.")
        else:
            raise Http404
    except PromotionRefused as refused:
        messages.error(request, str(refused))
    return HttpResponseRedirect(reverse("admin:serving_experiment_change", args=[pk]))


@require_http_methods(["GET", "HEAD", "POST"])
def compare_live(request: HttpRequest, pk: int) -> HttpResponse:
    """Opens a blind comparison on questions that both arms answered."""
    experiment = read_experiment(request, pk, Role.ADMIN)
    differing, questions = count_differing(experiment)
    opening = Opening(
        experiment, SOURCE, "Compare live answers blind", "serving/experiment_compare.html",
        partial(start_live_comparison, experiment=experiment), differing, questions,
    )  # fmt: skip
    return opening_page(request, opening)


def _still_at(request: HttpRequest, experiment: Experiment) -> None:
    """Raises PromotionRefused: the page was made at another stage (a button pressed twice, a page of yesterday)."""
    if request.POST.get("stage") != experiment.stage:
        raise PromotionRefused(
            f"{experiment} is at “{experiment.get_stage_display()}” now, so the step was not taken. Look at it again."
        )


def _share(request: HttpRequest) -> float:
    """Raises PromotionRefused: what was sent is no number."""
    try:
        return float(request.POST.get("percent", "").strip().replace(",", ".")) / 100
    except ValueError:
        raise PromotionRefused("The share is a number of percent.") from None


def _live(experiment: Experiment) -> str:
    return str(experiment.control or "The base model")
