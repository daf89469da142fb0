"""The form that opens a blind comparison on an evaluation."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from annotations.comparing.models import ComparisonRound
from annotations.comparing.services import JUDGES, MAX_PAIRS, MAX_PEOPLE
from assistants.models import Role
from serving.dashboards.reading import read_evaluation
from training.comparing import SOURCE, differing_pairs, start_comparison
from training.models import Evaluation

DEFAULT_PAIRS = 30


class ComparisonForm(forms.Form):
    """How many pairs, and who judges them."""

    name = forms.CharField(max_length=120)
    pairs = forms.IntegerField(
        min_value=1,
        max_value=MAX_PAIRS,
        label="Pairs for each person",
        help_text="30 pairs tell a win rate of 68 % from one of 50 %, 100 pairs one of 60 %.",
    )
    people = forms.ModelMultipleChoiceField(
        User.objects.none(),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        label="Who judges",
        help_text="Nobody chosen: every reviewer and admin. Each person gets every pair, with sides drawn anew.",
    )

    def __init__(self, *args: Any, evaluation: Evaluation, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        people: Any = self.fields["people"]
        roles = {"memberships__assistant": evaluation.assistant, "memberships__role__in": JUDGES}
        people.queryset = User.objects.filter(is_active=True, **roles).distinct().order_by("username")

    def clean_people(self) -> list[User]:
        people = list(self.cleaned_data["people"])
        if len(people) > MAX_PEOPLE:
            raise ValidationError(f"At most {MAX_PEOPLE} people.")
        return people


@require_http_methods(["GET", "POST"])
def open_comparison(request: HttpRequest, pk: int) -> HttpResponse:
    evaluation = read_evaluation(request, pk, Role.ADMIN)
    found, questions = differing_pairs(evaluation)
    number = ComparisonRound.objects.filter(source=SOURCE, source_id=evaluation.pk).count() + 1
    initial = {"name": f"Evaluation {evaluation.pk}, round {number}", "pairs": min(DEFAULT_PAIRS, len(found)) or 1}
    form = ComparisonForm(request.POST or None, evaluation=evaluation, initial=initial)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            opened = start_comparison(
                evaluation=evaluation,
                name=values["name"],
                pairs=values["pairs"],
                people=values["people"],
                created_by=cast("User", request.user),
            )
        except ValidationError as error:
            form.add_error(None, ValidationError(error.messages))
        else:
            messages.success(request, f"“{opened}” is open with {opened.pairs.count()} pairs.")
            return HttpResponseRedirect(reverse("admin:annotations_comparisonround_change", args=[opened.pk]))
    context = {
        **admin.site.each_context(request),
        "title": "Compare answers blind",
        "evaluation": evaluation,
        "form": form,
        "differing": len(found),
        "questions": questions,
    }
    status = 422 if request.method == "POST" else 200
    return TemplateResponse(request, "serving/comparison_open.html", context, status=status)
