"""The form that starts an evaluation; its result is the before/after page."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from assistants.access import assistants_of
from assistants.models import Assistant
from training.evaluation.declaring import rules_of
from training.evaluation.gate import GUARDRAILS, MAX_TIMED, PRIMARIES, GateRule
from training.evaluation.plan import ALWAYS, MIN_TIMED, STANDARD_ARMS, STANDARD_CONDITIONS, Plan, PlanError
from training.evaluation.services import resume_evaluation, start_judging, start_knowledge_score
from training.evaluation.sharing import memory_of_one
from training.models import Adapter, Arm, Benchmark, Condition, Evaluation
from training.pages import ADMINS, readable, render_page, require_admin_somewhere
from training.services import NotPossible, start_evaluation

MOST_GATES = 20
CHOSEN_ARMS = [(value, label) for value, label in Arm.choices if value not in (*ALWAYS, Arm.RIVAL_RAG.value)]
CHOSEN_CONDITIONS = [(value, label) for value, label in Condition.choices if value != Condition.CLEAN]


class EvaluateForm(forms.Form):
    """Which adapter on which held-out questions, and what is asked besides."""

    adapter = forms.ModelChoiceField(Adapter.objects.none(), empty_label=None)
    benchmark = forms.ModelChoiceField(Benchmark.objects.none(), empty_label=None)
    rival = forms.ModelChoiceField(
        Adapter.objects.none(),
        required=False,
        empty_label="None",
        label="Another adapter beside",
        help_text="Such as the one that is live: it answers the same questions with retrieval.",
    )
    arms = forms.MultipleChoiceField(
        choices=CHOSEN_ARMS,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        label="Arms besides today, the candidate and the most similar sentence",
        help_text="“Examples” puts worked examples of the adapter's dataset before the question: many gains are gains "
        "of form. What the adapter knows by heart is told where base and adapter are asked without retrieval, both.",
    )
    conditions = forms.MultipleChoiceField(
        choices=CHOSEN_CONDITIONS,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        label="Conditions besides clean",
        help_text="Each asks every arm with retrieval once more.",
    )
    timed = forms.IntegerField(
        min_value=0,
        max_value=MAX_TIMED,
        required=False,
        label="Questions to be timed",
        help_text=f"Asked one by one, candidate and today in turn; 0, or at least {MIN_TIMED}.",
    )

    threshold = forms.FloatField(
        min_value=0,
        max_value=1,
        required=False,
        label="Threshold",
        help_text="Below this similarity every arm with retrieval declines. Empty: the assistant's own, as it serves. "
        "0: ask always; then the page Threshold can tell what any threshold would change.",
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = assistants_of(user, *ADMINS)
        adapters = Adapter.objects.filter(assistant__in=own).select_related("assistant", "run__dataset")
        for name in ("adapter", "rival"):
            field: Any = self.fields[name]
            field.queryset = adapters
            field.label_from_instance = lambda a: f"{a.assistant}: {a}" + (f" from {a.run.dataset}" if a.run else "")
        benchmark: Any = self.fields["benchmark"]
        benchmark.queryset = Benchmark.objects.filter(assistant__in=own, sanity=False).select_related("assistant")
        benchmark.label_from_instance = lambda b: f"{b.assistant}: {b.name}"

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        adapter, benchmark = cleaned.get("adapter"), cleaned.get("benchmark")
        if adapter and benchmark and adapter.assistant_id != benchmark.assistant_id:
            raise forms.ValidationError(f"{adapter} and “{benchmark}” belong to different assistants.")
        return cleaned

    def plan(self) -> Plan:
        """Raises PlanError: a number out of its limits."""
        values = self.cleaned_data
        return Plan.from_dict(
            {
                "arms": [*ALWAYS, *values["arms"]],
                "conditions": [Condition.CLEAN.value, *values["conditions"]],
                "timed": values["timed"] or 0,
            }
        )


def start_page(request: HttpRequest) -> HttpResponse:
    """The form, filled for the adapter of ``?adapter=`` and the benchmark of ``?benchmark=``."""
    require_admin_somewhere(request)
    user: Any = request.user
    initial = {"arms": STANDARD_ARMS, "conditions": STANDARD_CONDITIONS, "timed": 0, **request.GET.dict()}
    form = EvaluateForm(request.POST or None, user=user, initial=initial)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            evaluation = start_evaluation(
                assistant=values["adapter"].assistant,
                adapter=values["adapter"],
                benchmark=values["benchmark"],
                rival=values["rival"],
                plan=form.plan(),
                threshold=values["threshold"],
                created_by=user,
            )
        except (NotPossible, PlanError) as error:
            form.add_error(None, str(error))
        else:
            return HttpResponseRedirect(reverse("dashboards:before-after", args=[evaluation.pk]))
    fields: Any = form.fields
    context = {
        "title": "Evaluate an adapter",
        "form": form,
        "gates": gates_of(list(assistants_of(user, *ADMINS).order_by("name")[:MOST_GATES])),
        "processes": settings.RATCHET_EVALUATION_WORKERS,
        "memory": memory_of_one() if settings.RATCHET_EVALUATION_WORKERS > 1 else None,
        "missing": [name for name in ("adapter", "benchmark") if not fields[name].queryset.exists()],
    }
    return render_page(request, "training/evaluation_start.html", context)


def gates_of(assistants: list[Assistant]) -> list[dict[str, Any]]:
    """The gates that count now, as tables: one query."""
    return [
        {"assistant": assistant, "version": version, "rule": rule, **gate_table(rule)}
        for assistant, rule, version in rules_of(assistants)
    ]


def gate_table(rule: GateRule) -> dict[str, Any]:
    return {
        "primary": PRIMARIES[rule.primary],
        "lines": [
            {"label": GUARDRAILS[name].label, "margin": margin * 100, "condition": GUARDRAILS[name].condition}
            for name, margin in sorted(rule.margins.items(), key=lambda entry: list(GUARDRAILS).index(entry[0]))
        ],
    }


@require_POST
def resume_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Goes on with an evaluation that stopped."""
    evaluation = _own(request, pk)
    user: Any = request.user
    try:
        resume_evaluation(evaluation=evaluation, actor=user)
        messages.success(request, f"{evaluation} goes on where it stopped.")
    except NotPossible as error:
        messages.error(request, str(error))
    return HttpResponseRedirect(reverse("dashboards:before-after", args=[pk]))


@require_POST
def score_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Starts the parametric knowledge score."""
    evaluation = _own(request, pk)
    user: Any = request.user
    try:
        score = start_knowledge_score(evaluation=evaluation, created_by=user)
    except NotPossible as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(reverse("dashboards:before-after", args=[pk]))
    return HttpResponseRedirect(reverse("admin:training_knowledgescore_change", args=[score.pk]))


@require_POST
def judge_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Starts the judge of the settings."""
    evaluation = _own(request, pk)
    user: Any = request.user
    try:
        judging = start_judging(evaluation=evaluation, created_by=user)
    except NotPossible as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(reverse("dashboards:before-after", args=[pk]))
    return HttpResponseRedirect(reverse("admin:training_judging_change", args=[judging.pk]))


def _own(request: HttpRequest, pk: int) -> Evaluation:
    """Raises Http404: there is none, or the person is no admin of its assistant."""
    found = Evaluation.objects.select_related("assistant", "adapter").filter(pk=pk).first()
    return readable(request, found, *ADMINS)
