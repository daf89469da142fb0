"""Pages of learned retrieval: start, and what came out."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from assistants.access import assistants_of
from assistants.models import Assistant
from training.models import Benchmark
from training.pages import ADMINS, render_page, require_admin_somewhere
from training.retrieval.models import RetrieverTuning
from training.retrieval.tuning import FEWEST, sentence, start_tuning
from training.services import NotPossible


class TuningForm(forms.Form):
    assistant = forms.ModelChoiceField(Assistant.objects.none(), empty_label=None)
    benchmark = forms.ModelChoiceField(
        Benchmark.objects.none(), required=False, empty_label="None", label="Compare on",
        help_text="The new version and the active one are compared on its questions. None of them is learned from.",
    )  # fmt: skip

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = assistants_of(user, *ADMINS)
        assistant: Any = self.fields["assistant"]
        assistant.queryset = own
        benchmark: Any = self.fields["benchmark"]
        benchmark.queryset = Benchmark.objects.filter(assistant__in=own).select_related("assistant")
        benchmark.label_from_instance = lambda row: f"{row.assistant}: {row}"


def start_page(request: HttpRequest) -> HttpResponse:
    require_admin_somewhere(request)
    user: Any = request.user
    form = TuningForm(request.POST or None, user=user)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            started = start_tuning(assistant=values["assistant"], benchmark=values["benchmark"], actor=user)
        except NotPossible as refused:
            form.add_error(None, str(refused))
        else:
            return HttpResponseRedirect(reverse("admin:training_retrievertuning_change", args=[started.pk]))
    context = {"title": "Learn from labels", "form": form, "fewest": FEWEST}
    return render_page(request, "training/tuning_start.html", context)


def tuning_page(request: HttpRequest, tuning: RetrieverTuning, panel: dict[str, Any]) -> HttpResponse:
    """A tuning that the admin found readable."""
    result = tuning.result
    lines = [
        {"name": name, "before": result["before"][name], "after": result["after"][name], **test}
        for name, test in result.get("tests", {}).items()
    ]
    context = {"title": str(tuning), "tuning": tuning, "panel": panel, "result": result, "sentence": sentence(tuning),
               "lines": lines}  # fmt: skip
    return render_page(request, "training/tuning.html", context)
