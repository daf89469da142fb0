"""Retraining by rule: one page per assistant, with what the rule sees now and what it has proposed."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.views.decorators.http import require_POST
from unfold.decorators import display

from assistants.access import assistants_of, has_role, require_role
from assistants.models import Assistant
from assistants.scoped_admin import ScopedAdmin
from assistants.work_admin import ADMINS, READERS
from training.pages import render_page
from training.rules.firing import accept, check, dismiss, resting_until, since_last, standing
from training.rules.models import RetrainingProposal, RetrainingRule
from training.rules.services import FIELDS, rule_of, save_rule

PAGE = "admin:training_retrainingrule_of"
SHOWN = 20


class RuleForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = RetrainingRule
        fields = FIELDS
        labels = {
            "enabled": "The rule is on",
            "action": "When it fires",
            "min_labels": "New labels",
            "min_documents": "Changed documents",
            "every_days": "Every so many days",
            "on_drift": "On a drift alarm",
            "rest_days": "Days of rest",
        }


@admin.register(RetrainingRule)
class RetrainingRuleAdmin(ScopedAdmin):
    view_roles = READERS
    list_display = ("assistant", "is_on", "action", "min_labels", "min_documents", "every_days", "on_drift")
    list_filter = ("enabled", "assistant")
    list_select_related = ("assistant",)
    list_before_template = "training/rule_list_top.html"
    show_full_result_count = False

    @display(description="State", ordering="enabled", label={"on": "success", "off": "info"})
    def is_on(self, rule: RetrainingRule) -> tuple[str, str]:
        return ("on", "✓ on") if rule.enabled else ("off", "◌ off")

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        own = [
            path("of/<int:pk>/", staff(rule_page), name="training_retrainingrule_of"),
            path("of/<int:pk>/check/", staff(check_now), name="training_retrainingrule_check"),
            path("proposal/<int:pk>/<str:act>/", staff(decide), name="training_retrainingrule_decide"),
        ]
        return [*own, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = assistants_of(request.user, *READERS)
        without = own.filter(retraining_rule=None).order_by("name")[:50]
        return super().changelist_view(request, {"without": without, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        rule = self.get_object(request, object_id)
        if not isinstance(rule, RetrainingRule):
            raise Http404("There is no such page.")
        return HttpResponseRedirect(reverse(PAGE, args=[rule.assistant_id]))


def rule_page(request: HttpRequest, pk: int) -> HttpResponse:
    """The rule, when it would fire, and its history."""
    assistant = _assistant(request, pk)
    rule = rule_of(assistant)
    may_change = has_role(request.user, assistant, *ADMINS)
    form = RuleForm(request.POST or None, instance=rule_of(assistant))
    if request.method == "POST":
        require_role(request.user, assistant, *ADMINS)
        user: Any = request.user
        if form.is_valid():
            try:
                save_rule(assistant=assistant, values=form.cleaned_data, actor=user)
            except ValidationError as error:
                form.add_error(None, error)
            else:
                messages.success(request, "The rule is saved.")
                return HttpResponseRedirect(reverse(PAGE, args=[pk]))
    since = since_last(assistant)
    conditions = standing(rule, since)
    until = resting_until(rule, since)
    proposals = list(
        RetrainingProposal.objects.filter(assistant=assistant).select_related("dataset", "run", "decided_by")[:SHOWN]
    )
    context = {
        "title": f"Retraining of {assistant}",
        "assistant": assistant,
        "rule": rule,
        "form": form,
        "conditions": conditions,
        "fires": any(condition.fires for condition in conditions),
        "resting": until if until is not None and until > timezone.now() else None,
        "proposals": proposals,
        "active": next((proposal for proposal in proposals if proposal.is_active), None),
        "may_change": may_change,
    }
    return render_page(request, "training/rule.html", context)


@require_POST
def check_now(request: HttpRequest, pk: int) -> HttpResponse:
    assistant = _assistant(request, pk)
    require_role(request.user, assistant, *ADMINS)
    proposal = check(rule_of(assistant))
    if proposal is not None:
        messages.success(request, f"The rule fired: {proposal}.")
    else:
        messages.info(request, "The rule does not fire now; the list says what it waits for.")
    return HttpResponseRedirect(reverse(PAGE, args=[pk]))


@require_POST
def decide(request: HttpRequest, pk: int, act: str) -> HttpResponse:
    proposal = get_object_or_404(
        RetrainingProposal.objects.select_related("assistant").filter(
            Q(assistant__in=assistants_of(request.user, *ADMINS))
        ),
        pk=pk,
    )
    if act not in ("accept", "dismiss"):
        raise Http404("There is no such page.")
    user: Any = request.user
    done = (
        accept(proposal=proposal, actor=user)
        if act == "accept"
        else dismiss(proposal=proposal, actor=user, reason=request.POST.get("reason", ""))
    )
    if not done:
        messages.warning(request, f"{proposal} was decided already.")
    elif act == "accept":
        messages.success(request, "The dataset is built; the run starts when it is frozen.")
    else:
        messages.success(request, f"{proposal} is dismissed.")
    return HttpResponseRedirect(reverse(PAGE, args=[proposal.assistant_id]))


def _assistant(request: HttpRequest, pk: int) -> Assistant:
    """Raises Http404 for an assistant of others: nobody learns that it is there."""
    return get_object_or_404(assistants_of(request.user, *READERS), pk=pk)
