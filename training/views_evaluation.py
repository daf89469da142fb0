"""The form that starts an evaluation; its result is the before/after page."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from assistants.access import assistants_of
from training.evaluation.gate import GUARDRAILS, GateRule
from training.models import Adapter, Benchmark
from training.pages import ADMINS, render_page, require_admin_somewhere
from training.services import NotPossible, start_evaluation


class EvaluateForm(forms.Form):
    """Which adapter on which held-out questions, and what it must gain."""

    adapter = forms.ModelChoiceField(Adapter.objects.none(), empty_label=None)
    benchmark = forms.ModelChoiceField(Benchmark.objects.none(), empty_label=None)
    minimum_gain = forms.FloatField(
        min_value=0,
        max_value=50,
        initial=0,
        label="Gain that must be proved, in points",
        help_text="The whole 95 % interval of the difference must lie above it. 0: better at all.",
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = assistants_of(user, *ADMINS)
        adapter: Any = self.fields["adapter"]
        adapter.queryset = Adapter.objects.filter(assistant__in=own).select_related("assistant", "run__dataset")
        adapter.label_from_instance = lambda a: f"{a.assistant}: {a}" + (f" from {a.run.dataset}" if a.run else "")
        benchmark: Any = self.fields["benchmark"]
        benchmark.queryset = Benchmark.objects.filter(assistant__in=own).select_related("assistant")
        benchmark.label_from_instance = lambda b: f"{b.assistant}: {b.name}"

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        adapter, benchmark = cleaned.get("adapter"), cleaned.get("benchmark")
        if adapter and benchmark and adapter.assistant_id != benchmark.assistant_id:
            raise forms.ValidationError(f"{adapter} and “{benchmark}” belong to different assistants.")
        return cleaned


def start_page(request: HttpRequest) -> HttpResponse:
    """The form, filled for the adapter of ``?adapter=`` and the benchmark of ``?benchmark=``."""
    require_admin_somewhere(request)
    user: Any = request.user
    form = EvaluateForm(request.POST or None, user=user, initial=request.GET.dict())
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            evaluation = start_evaluation(
                assistant=values["adapter"].assistant,
                adapter=values["adapter"],
                benchmark=values["benchmark"],
                rule=GateRule(minimum_gain=values["minimum_gain"] / 100),
                created_by=user,
            )
        except NotPossible as error:
            form.add_error(None, str(error))
        else:
            return HttpResponseRedirect(reverse("dashboards:before-after", args=[evaluation.pk]))
    fields: Any = form.fields
    context = {
        "title": "Evaluate an adapter",
        "form": form,
        "guardrails": [(label, margin * 100) for _, margin, label in GUARDRAILS.values()],
        "missing": [name for name in ("adapter", "benchmark") if not fields[name].queryset.exists()],
    }
    return render_page(request, "training/evaluation_start.html", context)
