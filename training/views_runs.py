"""Pages of runs: start one, look at it, stop it, let it go on, clean up. Reached through `training.admin.RunAdmin`.

What changes while a run goes on: `training.views_run_live`; several runs side by side: `training.views_run_compare`.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from assistants.access import assistants_of, has_role, require_role
from assistants.models import Role
from assistants.performing import log_path
from assistants.services import audit
from generation.engines import EngineError
from training.finetune.cleaning import clean, has_checkpoints, kept_bytes
from training.finetune.config import ConfigError, FinetuneConfig
from training.finetune.methods import LABELS
from training.finetune.preflight import preflight
from training.finetune.process import log_tail
from training.models import Adapter, DatasetVersion, Run, TrainingProvider
from training.pages import render_page, require_admin_somewhere
from training.services import NotPossible, cancel, resume_run, start_run
from training.views_run_live import LOG_BYTES, live_state, readable_run, run_events, run_live

__all__ = ["run_cancel", "run_clean", "run_events", "run_live", "run_page", "run_resume", "start_page"]

FORM_FIELDS = ("epochs", "learning_rate", "rank", "batch", "keep", "beta", "rank_stabilised", "quantise")
"""Settings that are offered in the form; the rest keeps its defaults (`training.services.start_run` takes all)."""
EXPERT_FIELDS = ("seed", "epochs", "learning_rate", "rank", "rank_stabilised", "quantise", "batch", "keep", "beta")
CHANGE = "admin:training_run_change"


class StartForm(forms.Form):
    """What people choose when they start a run; an empty field is chosen from the data, and the run says why."""

    dataset = forms.ModelChoiceField(DatasetVersion.objects.none(), empty_label=None)
    method = forms.ChoiceField(
        choices=[("auto", "What suits the labels of the dataset"), *LABELS.items()], required=False, initial="auto"
    )
    parent = forms.ModelChoiceField(
        Adapter.objects.none(),
        required=False,
        empty_label="The base model",
        label="Begin with",
        help_text="An adapter is continued: its rank and layers stay, and preferences are measured from it.",
    )
    provider = forms.ModelChoiceField(
        TrainingProvider.objects.none(), required=False, empty_label="This platform", label="Where"
    )
    seed = forms.IntegerField(min_value=0, max_value=2**31 - 1, initial=1, help_text="Same seed, same weights.")
    epochs = forms.FloatField(required=False, help_text="Empty: chosen from the number of rows.")
    learning_rate = forms.FloatField(required=False, help_text="Empty: chosen from the size of the base.")
    rank = forms.IntegerField(required=False, initial=16, help_text="Of the LoRA matrices.")
    rank_stabilised = forms.BooleanField(required=False, label="rsLoRA", help_text="For ranks of 64 and more.")
    quantise = forms.BooleanField(required=False, label="QLoRA", help_text="Base in 4 bits; needs a CUDA device.")
    batch = forms.IntegerField(required=False, help_text="Rows per step. Empty: chosen from the number of rows.")
    keep = forms.ChoiceField(
        choices=[("last", "The last weights"), ("best", "The epoch with the lowest validation loss")], required=False
    )
    beta = forms.FloatField(required=False, initial=0.1, help_text="DPO and KTO: small lets the model move far.")

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = assistants_of(user, Role.ADMIN.value)
        dataset: Any = self.fields["dataset"]
        dataset.queryset = DatasetVersion.objects.filter(
            assistant__in=own, state=DatasetVersion.State.SUCCEEDED, rows__gt=0
        ).select_related("assistant", "leak_report")
        dataset.label_from_instance = lambda found: f"{found.assistant}: {found} ({found.rows} rows)"
        parent: Any = self.fields["parent"]
        parent.queryset = (
            Adapter.objects.filter(assistant__in=own)
            .exclude(source=Adapter.Source.REMOTE)
            .select_related("assistant", "run__dataset", "parent__run__dataset")
        )
        parent.label_from_instance = lambda found: f"{found.assistant}: {found}"
        provider: Any = self.fields["provider"]
        provider.queryset = TrainingProvider.objects.filter(assistant__in=own).select_related("assistant")
        provider.label_from_instance = lambda found: (
            f"{found.assistant}: {found} ({found.model or found.get_kind_display()})"
        )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        chosen = {name: cleaned[name] for name in FORM_FIELDS if cleaned.get(name) not in (None, "")}
        # The form has one pair of fields; a run whose only stage learns preferences takes them for that.
        if cleaned.get("method") in ("dpo", "kto"):
            for name in ("learning_rate", "epochs"):
                if name in chosen:
                    chosen[f"preference_{name}"] = chosen.pop(name)
        try:
            cleaned["settings"] = FinetuneConfig.from_dict(chosen)
        except ConfigError as error:
            raise forms.ValidationError(str(error)) from error
        return cleaned

    @property
    def plain(self) -> list[Any]:
        return [self[name] for name in ("dataset", "method", "parent", "provider")]

    @property
    def expert(self) -> list[Any]:
        return [self[name] for name in EXPERT_FIELDS]


def start_page(request: HttpRequest) -> HttpResponse:
    """The form, filled for ``?dataset=``, ``?parent=`` and ``?method=``. The button "Check" says what the run would do;
    nothing is started by it."""
    require_admin_somewhere(request)
    user: Any = request.user
    first = {name: request.GET.get(name) for name in ("dataset", "parent", "method") if request.GET.get(name)}
    form = StartForm(request.POST or None, user=user, initial={"method": "auto", **first})
    found = None
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        dataset: DatasetVersion = values["dataset"]
        method = values["method"] or "auto"
        if "check" in request.POST:
            found = preflight(
                dataset=dataset,
                settings=values["settings"],
                method=method,
                parent=values["parent"],
                provider=values["provider"],
            )
        else:
            try:
                run = start_run(
                    assistant=dataset.assistant,
                    dataset=dataset,
                    settings=values["settings"],
                    seed=values["seed"],
                    created_by=user,
                    method=method,
                    parent=values["parent"],
                    provider=values["provider"],
                )
            except (NotPossible, EngineError) as error:
                form.add_error(None, str(error))
            else:
                messages.success(request, f"{run} waits for the worker.")
                return HttpResponseRedirect(reverse(CHANGE, args=[run.pk]))
    context = {
        "title": "Start a run",
        "form": form,
        "found": found,
        "any_datasets": form.fields["dataset"].queryset.exists(),  # type: ignore[attr-defined]
    }
    return render_page(request, "training/run_start.html", context)


@require_safe
def run_page(request: HttpRequest, pk: int) -> HttpResponse:
    run = readable_run(request, pk)
    start = run.progress.get("start", {})
    admin = has_role(request.user, run.assistant, Role.ADMIN.value)
    kept = kept_bytes(run) if admin else 0
    stopped = run.state in (Run.State.FAILED, Run.State.CANCELLED)
    context = {
        "title": str(run),
        "run": run,
        "live": live_state(run, after=0),
        "settings": sorted({**run.settings, **start.get("settings", {})}.items()),
        "why": start.get("why", []),
        "start": start,
        "adapter": getattr(run, "adapter", None),
        "log": log_tail(log_path(run._meta.label, run.pk), LOG_BYTES),
        "may_cancel": admin,
        "kept": filesizeformat(kept) if kept else "",
        "may_resume": admin and stopped and (run.provider_id or has_checkpoints(run)) and not run.dataset.why_unusable,
        "live_url": reverse("admin:training_run_live", args=[pk]),
        # Empty where the server cannot stream: the page asks instead.
        "events_url": reverse("admin:training_run_events", args=[pk]) if isinstance(request, ASGIRequest) else "",
        "compare_url": f"{reverse('admin:training_run_compare')}?run={pk}",
    }
    return render_page(request, "training/run.html", context)


@require_POST
def run_cancel(request: HttpRequest, pk: int) -> HttpResponse:
    run = _own(request, pk)
    if cancel(work=run, actor=_actor(request)):
        messages.success(request, f"{run} stops." if run.is_active else f"{run} was taken out of the queue.")
    else:
        messages.warning(request, f"{run} had ended already.")
    return HttpResponseRedirect(reverse(CHANGE, args=[pk]))


@require_POST
def run_resume(request: HttpRequest, pk: int) -> HttpResponse:
    run = _own(request, pk)
    try:
        if resume_run(run=run, actor=_actor(request)):
            messages.success(request, f"{run} goes on from its last checkpoint.")
        else:
            messages.warning(request, f"{run} is at work, or done.")
    except NotPossible as error:
        messages.error(request, str(error))
    return HttpResponseRedirect(reverse(CHANGE, args=[pk]))


@require_POST
def run_clean(request: HttpRequest, pk: int) -> HttpResponse:
    run = _own(request, pk)
    freed = clean(run)
    if freed:
        audit(assistant=run.assistant, actor=_actor(request), action="run.cleaned", target=str(run))
        messages.success(request, f"{filesizeformat(freed)} of checkpoints and rows are gone.")
    else:
        messages.warning(request, "There was nothing to clean up, or the run is at work.")
    return HttpResponseRedirect(reverse(CHANGE, args=[pk]))


def _own(request: HttpRequest, pk: int) -> Run:
    run = readable_run(request, pk)
    require_role(request.user, run.assistant, Role.ADMIN.value)
    return run


def _actor(request: HttpRequest) -> Any:
    return request.user
