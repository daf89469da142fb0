"""The form that opens a blind comparison, on an evaluation or on live traffic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from annotations.comparing.models import ComparisonRound
from annotations.comparing.services import JUDGES, MAX_PAIRS, MAX_PEOPLE
from assistants.models import Assistant, Role
from serving.dashboards.reading import read_evaluation
from training.comparing import SOURCE, differing_pairs, start_comparison
from training.pages import render_page

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

    def __init__(self, *args: Any, assistant: Assistant, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        people: Any = self.fields["people"]
        roles = {"memberships__assistant": assistant, "memberships__role__in": JUDGES}
        people.queryset = User.objects.filter(is_active=True, **roles).distinct().order_by("username")

    def clean_people(self) -> list[User]:
        people = list(self.cleaned_data["people"])
        if len(people) > MAX_PEOPLE:
            raise ValidationError(f"At most {MAX_PEOPLE} people.")
        return people


@dataclass(frozen=True)
class Opening:
    """What a comparison is opened on: ``of`` is an evaluation or an experiment, as ``source`` says; ``start`` draws."""

    of: Any
    source: str
    title: str
    template: str
    start: Callable[..., ComparisonRound]
    differing: int
    questions: int


@require_http_methods(["GET", "HEAD", "POST"])
def open_comparison(request: HttpRequest, pk: int) -> HttpResponse:
    evaluation = read_evaluation(request, pk, Role.ADMIN)
    found, questions = differing_pairs(evaluation)
    opening = Opening(
        evaluation, SOURCE, "Compare answers blind", "serving/comparison_open.html",
        partial(start_comparison, evaluation=evaluation), len(found), questions,
    )  # fmt: skip
    return opening_page(request, opening)


def opening_page(request: HttpRequest, opening: Opening) -> HttpResponse:
    """The form, and what it opens. The caller has checked that this person may."""
    kind, of = opening.source, opening.of
    number = ComparisonRound.objects.filter(source=kind, source_id=of.pk).count() + 1
    name = f"{kind.capitalize()} {of.pk}, round {number}"
    initial = {"name": name, "pairs": min(DEFAULT_PAIRS, opening.differing) or 1}
    form = ComparisonForm(request.POST or None, assistant=of.assistant, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            opened = opening.start(created_by=cast("User", request.user), **form.cleaned_data)
        except ValidationError as error:
            form.add_error(None, ValidationError(error.messages))
        else:
            messages.success(request, f"“{opened}” is open with {opened.pairs.count()} pairs.")
            return HttpResponseRedirect(reverse("admin:annotations_comparisonround_change", args=[opened.pk]))
    context = {
        "title": opening.title,
        kind: of,
        "form": form,
        "differing": opening.differing,
        "questions": opening.questions,
    }
    response = render_page(request, opening.template, context)
    response.status_code = 422 if request.method == "POST" else 200
    return response
