"""The page of an assistant's gate: what counts now, its versions, and the form that declares the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from assistants.access import assistants_of, has_role
from assistants.models import Assistant
from training.evaluation.declaring import MAX_REASON, GateConflict, changes, declare_gate, rule_of
from training.evaluation.gate import GUARDRAILS, LEAST_PAIRS, PRIMARIES, GateRule, GateRuleError
from training.models import Benchmark, GateDeclaration
from training.pages import ADMINS, READERS, page_of, render_page
from training.views_evaluation import gate_table

VERSIONS = 20
MOST_BENCHMARKS = 200
_PLAIN = ("primary", "alpha", "strict", "judge_agreement", "judge_pairs", "least_questions", "benchmark")


class GateForm(forms.Form):
    """The rule; each guardrail has a switch and a margin in points."""

    primary = forms.ChoiceField(choices=list(PRIMARIES.items()), label="Must be better")
    minimum_gain = forms.FloatField(
        min_value=0,
        max_value=50,
        label="Gain that must be proved, in points",
        help_text="The whole 95 % interval of the difference must lie above it. 0: better at all.",
    )
    alpha = forms.FloatField(min_value=0.001, max_value=0.2, label="McNemar's p must be below")
    strict = forms.BooleanField(
        required=False,
        label="Hold guardrails against the worse end of their interval",
        help_text="Instead of the point estimate: harder to pass, and needs more questions.",
    )
    judge_agreement = forms.FloatField(
        min_value=0.4,
        max_value=1,
        label="Agreement of a judge with people (κ) from which it may count",
    )
    least_questions = forms.IntegerField(
        min_value=1,
        max_value=1000,
        label="Questions that a guardrail must rest on",
        help_text="On fewer it is not shown, and what is not shown does not pass.",
    )
    judge_pairs = forms.IntegerField(
        min_value=LEAST_PAIRS,
        max_value=500,
        label="Pairs judged by people from which a judge's agreement counts",
        help_text="Below, it is not even told.",
    )
    benchmark = forms.ChoiceField(
        required=False,
        label="Benchmark on which it is to be passed",
        help_text="What is measured on others then informs, and is no attempt. On any: each evaluation counts, "
        "and each further one of the same adapter or data is held to a stricter level.",
    )
    reason = forms.CharField(max_length=MAX_REASON, label="Why is it changed?")
    version = forms.IntegerField(min_value=0, widget=forms.HiddenInput)

    def __init__(self, data: Any, *, rule: GateRule, version: int, benchmarks: Sequence[tuple[str, str]]) -> None:
        values = rule.as_dict()
        initial: dict[str, Any] = {
            **{name: values[name] for name in _PLAIN},
            "minimum_gain": rule.minimum_gain * 100,
            **{f"on_{name}": name in rule.margins for name in GUARDRAILS},
            **{f"margin_{name}": rule.margins.get(name, rail.margin) * 100 for name, rail in GUARDRAILS.items()},
            "version": version,
        }
        super().__init__(data, initial=initial)
        chosen: Any = self.fields["benchmark"]
        chosen.choices = [("", "Any"), *benchmarks]
        if rule.benchmark and rule.benchmark not in dict(benchmarks):
            chosen.choices.append((rule.benchmark, f"One that is not here any more ({rule.benchmark[:12]})"))
        for name, rail in GUARDRAILS.items():
            self.fields[f"on_{name}"] = forms.BooleanField(required=False, label=rail.label)
            label = f"Points allowed: {rail.label}"
            number = forms.NumberInput(attrs={"aria-label": label, "step": "any"})
            self.fields[f"margin_{name}"] = forms.FloatField(min_value=0, max_value=100, label=label, widget=number)

    def rule_fields(self) -> list[Any]:
        """What stands above the guardrails."""
        names = ("primary", "minimum_gain", "alpha", "benchmark", "judge_agreement", "judge_pairs", "least_questions")
        return [self[name] for name in (*names, "strict")]

    def guardrails(self) -> list[dict[str, Any]]:
        """The rows of the form's table."""
        return [
            {
                "on": self[f"on_{name}"],
                "margin": self[f"margin_{name}"],
                "label": rail.label,
                "condition": rail.condition,
                "kind": rail.kind,
            }
            for name, rail in GUARDRAILS.items()
        ]

    def rule(self) -> GateRule:
        """Raises GateRuleError: it cannot be meant."""
        values = self.cleaned_data
        return GateRule.from_dict(
            {
                "primary": values["primary"],
                "minimum_gain": values["minimum_gain"] / 100,
                "alpha": values["alpha"],
                "strict": values["strict"],
                "judge_agreement": values["judge_agreement"],
                "least_questions": values["least_questions"],
                "judge_pairs": values["judge_pairs"],
                "benchmark": values["benchmark"],
                "margins": {name: values[f"margin_{name}"] / 100 for name in GUARDRAILS if values[f"on_{name}"]},
            }
        )


@require_http_methods(["GET", "POST"])
def gate_page(request: HttpRequest, slug: str = "") -> HttpResponse:
    """Readers read it; admins declare the next version."""
    user: Any = request.user
    own = assistants_of(user, *READERS).order_by("name")
    if not slug:
        first = own.first()
        if first is None:
            raise PermissionDenied("This needs the role of an admin or a reviewer.")
        return HttpResponseRedirect(reverse("admin:training_gate", args=[first.slug]))
    assistant = get_object_or_404(own, slug=slug)
    may_declare = has_role(user, assistant, *ADMINS)
    rule, version = rule_of(assistant)
    benchmarks = list(
        Benchmark.objects.filter(assistant=assistant, sanity=False)
        .order_by("-created_at")
        .values_list("content_hash", "name")[:MOST_BENCHMARKS]
    )
    form = GateForm(request.POST or None, rule=rule, version=version or 0, benchmarks=benchmarks)
    if request.method == "POST":
        if not may_declare:
            raise PermissionDenied("Only admins declare the gate.")
        if form.is_valid() and _declare(request, assistant, form):
            return HttpResponseRedirect(reverse("admin:training_gate", args=[assistant.slug]))
    versions = page_of(
        request, GateDeclaration.objects.filter(assistant=assistant).select_related("created_by"), VERSIONS
    )
    context = {
        "title": f"The gate of {assistant}",
        "assistant": assistant,
        "assistants": list(own[:50]),
        "version": version,
        "rule": rule,
        **gate_table(rule),
        "on_benchmark": dict(benchmarks).get(rule.benchmark, rule.benchmark[:12]),
        "form": form if may_declare else None,
        "page": versions,
        "versions": _told(list(versions)),
    }
    return render_page(request, "training/gate.html", context)


def _declare(request: HttpRequest, assistant: Assistant, form: GateForm) -> bool:
    user: Any = request.user
    values = form.cleaned_data
    try:
        declared = declare_gate(
            assistant=assistant, rule=form.rule(), reason=values["reason"], actor=user, read_version=values["version"]
        )
    except (GateRuleError, GateConflict, ValueError) as error:
        form.add_error(None, str(error))
        return False
    messages.success(
        request, f"Version {declared.version} is declared. Evaluations started from now on are held to it."
    )
    return True


def _told(versions: list[GateDeclaration]) -> list[dict[str, Any]]:
    """Each version with what it changed; of the oldest on the page only its words."""
    out = []
    for place, one in enumerate(versions):
        before = versions[place + 1] if place + 1 < len(versions) else None
        if one.version == 1:
            told = changes(GateRule(), GateRule.from_dict(one.rule))
        else:
            told = changes(GateRule.from_dict(before.rule), GateRule.from_dict(one.rule)) if before else {}
        out.append({"declared": one, "changes": sorted(told.items())})
    return out
