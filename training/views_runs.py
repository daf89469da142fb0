"""Pages of runs: start one, watch it, stop it. Reached through the admin (`training.admin.RunAdmin`)."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from assistants.access import assistants_of, has_role, require_role
from assistants.models import Role
from assistants.performing import log_path
from generation.engines import EngineError
from training.finetune.config import ConfigError, FinetuneConfig
from training.finetune.process import log_tail
from training.models import DatasetVersion, Run
from training.services import NotPossible, cancel, start_run

READERS = (Role.ADMIN.value, Role.REVIEWER.value)
MAX_POINTS = 2000
LOG_BYTES = 8_000
FORM_FIELDS = ("epochs", "learning_rate", "rank", "batch", "keep")
"""Settings that are offered in the form; the rest keeps its defaults (`training.services.start_run` takes all)."""


class StartForm(forms.Form):
    """What people choose when they start a run; an empty field is chosen from the data, and the run says why."""

    dataset = forms.ModelChoiceField(DatasetVersion.objects.none(), empty_label=None)
    seed = forms.IntegerField(min_value=0, max_value=2**31 - 1, initial=1, help_text="Same seed, same weights.")
    epochs = forms.FloatField(required=False, help_text="Empty: chosen from the number of rows.")
    learning_rate = forms.FloatField(required=False, help_text="Empty: chosen from the size of the base.")
    rank = forms.IntegerField(required=False, initial=16, help_text="Of the LoRA matrices.")
    batch = forms.IntegerField(required=False, help_text="Rows per step. Empty: chosen from the number of rows.")
    keep = forms.ChoiceField(
        choices=[("last", "The last weights"), ("best", "The epoch with the lowest validation loss")], required=False
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["dataset"]
        field.queryset = DatasetVersion.objects.filter(
            assistant__in=assistants_of(user, Role.ADMIN.value), state=DatasetVersion.State.SUCCEEDED, rows__gt=0
        ).select_related("assistant")
        field.label_from_instance = lambda dataset: f"{dataset.assistant}: {dataset} ({dataset.rows} rows)"

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        chosen = {name: cleaned[name] for name in FORM_FIELDS if cleaned.get(name) not in (None, "")}
        try:
            cleaned["settings"] = FinetuneConfig.from_dict(chosen)
        except ConfigError as error:
            raise forms.ValidationError(str(error)) from error
        return cleaned


def start_page(request: HttpRequest) -> HttpResponse:
    """The form, filled for the dataset of ``?dataset=``."""
    user: Any = request.user
    if not assistants_of(user, Role.ADMIN.value).exists():
        raise PermissionDenied("Only admins of an assistant start runs.")
    form = StartForm(request.POST or None, user=user, initial={"dataset": request.GET.get("dataset")})
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        dataset: DatasetVersion = values["dataset"]
        try:
            run = start_run(
                assistant=dataset.assistant,
                dataset=dataset,
                settings=values["settings"],
                seed=values["seed"],
                created_by=user,
            )
        except (NotPossible, EngineError) as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"{run} waits for the worker.")
            return HttpResponseRedirect(reverse("admin:training_run_change", args=[run.pk]))
    return _page(request, "training/run_start.html", {"title": "Start a run", "form": form})


@require_safe
def run_page(request: HttpRequest, pk: int) -> HttpResponse:
    run = _readable(request, pk)
    settings = {**run.settings, **run.progress.get("start", {}).get("settings", {})}
    adapter = getattr(run, "adapter", None)
    context = {
        "title": str(run),
        "run": run,
        "live": live_state(run, after=0),
        "settings": sorted(settings.items()),
        "why": run.progress.get("start", {}).get("why", []),
        "start": run.progress.get("start", {}),
        "adapter": adapter,
        "log": log_tail(log_path(run._meta.label, run.pk), LOG_BYTES),
        "may_cancel": has_role(request.user, run.assistant, Role.ADMIN.value),
        "live_url": reverse("admin:training_run_live", args=[run.pk]),
    }
    return _page(request, "training/run.html", context)


@require_safe
def run_live(request: HttpRequest, pk: int) -> HttpResponse:
    """What has changed since step ``?after=``: asked every second or two by the page."""
    run = _readable(request, pk)
    after = request.GET.get("after", "0")
    if not after.isdecimal() or len(after) > 9:
        return HttpResponseBadRequest("after must be a step.")
    return JsonResponse(live_state(run, after=int(after)))


@require_POST
def run_cancel(request: HttpRequest, pk: int) -> HttpResponse:
    run = _readable(request, pk)
    require_role(request.user, run.assistant, Role.ADMIN.value)
    actor: Any = request.user
    if cancel(work=run, actor=actor):
        messages.success(request, f"{run} stops." if run.is_active else f"{run} was taken out of the queue.")
    else:
        messages.warning(request, f"{run} had ended already.")
    return HttpResponseRedirect(reverse("admin:training_run_change", args=[pk]))


def live_state(run: Run, *, after: int) -> dict[str, Any]:
    """State, progress, and the points of the curve from step ``after`` on (that one again: its validation loss may
    have come later)."""
    points = run.metrics.filter(step__gte=after).values_list(
        "step", "loss", "learning_rate", "validation_loss", "tokens_per_second"
    )[:MAX_POINTS]
    progress = run.progress
    return {
        "state": run.state,
        "label": run.get_state_display(),
        "active": run.is_active,
        "cancelling": run.is_active and run.cancel_requested_at is not None,
        "stage": progress.get("stage", ""),
        "done": progress.get("done", 0),
        "total": progress.get("total", 0),
        "epoch": progress.get("epoch"),
        "loss": progress.get("loss"),
        "validation_loss": progress.get("validation_loss"),
        "tokens_per_second": progress.get("tokens_per_second"),
        "eta_seconds": progress.get("eta_seconds"),
        "seconds": run.seconds,
        "error": run.error,
        "points": [list(point) for point in points],
        "samples": progress.get("samples", []),
    }


def _readable(request: HttpRequest, pk: int) -> Run:
    run = get_object_or_404(Run.objects.select_related("assistant", "dataset", "created_by"), pk=pk)
    require_role(request.user, run.assistant, *READERS)
    return run


def _page(request: HttpRequest, template: str, context: dict[str, Any]) -> TemplateResponse:
    return TemplateResponse(request, template, {**admin.site.each_context(request), **context})
