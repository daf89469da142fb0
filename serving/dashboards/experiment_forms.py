"""The form of an experiment: how it starts."""

from __future__ import annotations

from typing import Any

from django import forms

from assistants.models import Assistant
from serving.experiments.plan import OUTCOMES, Plan, PlanError
from serving.models import Deployment
from training.models import Adapter, Evaluation, GateVerdict

_DEFAULT = Plan()


class StartForm(forms.Form):
    """Shares are written in percent here. Guardrails: one number each; empty switches one off."""

    adapter = forms.ModelChoiceField(Adapter.objects.none(), label="Candidate", empty_label=None)
    reason = forms.CharField(
        required=False, max_length=2000, label="Why", help_text="For the audit trail and for who reads it next month."
    )
    by_rule = forms.BooleanField(
        required=False,
        label="Steps by rule",
        help_text="It goes on by itself when the conditions below hold. Guardrails act by themselves in any case.",
    )
    unit = forms.ChoiceField(
        choices=[("conversation", "Conversation"), ("user", "User")],
        label="Drawn by",
        help_text="Your chatbot names it with each question: metadata.conversation, or user.",
    )
    shadow_share = forms.FloatField(
        min_value=0, max_value=100, label="Shadow, % of questions", help_text="Each costs the engine one answer more."
    )
    shadow_pairs = forms.IntegerField(min_value=0, max_value=1000, label="Shadow, questions before going on by rule")
    canary_share = forms.FloatField(min_value=0.5, max_value=50, label="Canary, %")
    canary_units = forms.IntegerField(
        min_value=20, max_value=100_000, label="Canary, units of the candidate before going on by rule"
    )
    ab_share = forms.FloatField(min_value=20, max_value=80, label="A/B, %")
    pair_share = forms.FloatField(
        min_value=0, max_value=100, label="Answered by both for experts, %",
        help_text="Of the questions in canary and A/B; experts compare the two answers blind.",
    )  # fmt: skip
    days = forms.IntegerField(min_value=1, max_value=90, label="At most, days", help_text="Of the A/B.")
    primary = forms.ChoiceField(label="Decided by")
    goal = forms.ChoiceField(
        choices=[("better", "shown to be better"), ("not_worse", "shown not to be worse by the margin")],
        label="Goes live when",
    )
    margin = forms.FloatField(min_value=0.1, max_value=50, label="Margin, points")

    def __init__(self, data: Any = None, *, assistant: Assistant, initial: dict[str, Any] | None = None) -> None:
        own = {name: value for name, value in _DEFAULT.plain().items() if name in self.base_fields}
        for name in ("shadow_share", "canary_share", "ab_share", "pair_share", "margin"):
            own[name] = round(100 * own[name], 2)
        super().__init__(data, initial={**own, **(initial or {})})
        live = Deployment.objects.filter(assistant=assistant).values("adapter")
        adapters: Any = self.fields["adapter"]
        adapters.queryset = Adapter.objects.filter(assistant=assistant).exclude(pk__in=live.exclude(adapter=None))
        primary: Any = self.fields["primary"]
        primary.choices = [(name, OUTCOMES[name].label) for name in ("trouble", "down", "declined")]
        for name, outcome in OUTCOMES.items():
            if outcome.tolerance is not None:
                self.fields[f"guard_{name}"] = forms.FloatField(
                    required=False, min_value=0, max_value=50, initial=round(100 * outcome.tolerance, 2),
                    label=f"{outcome.label}, points", help_text=outcome.explained,
                )  # fmt: skip

    @property
    def first(self) -> list[Any]:
        return [self[name] for name in ("adapter", "reason", "unit", "by_rule")]

    @property
    def stages(self) -> list[Any]:
        names = (
            "shadow_share", "shadow_pairs", "canary_share", "canary_units", "ab_share", "pair_share", "days",
            "primary", "goal", "margin",
        )  # fmt: skip
        return [self[name] for name in names]

    @property
    def guards(self) -> list[Any]:
        return [self[name] for name in self.fields if name.startswith("guard_")]

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        if not self.errors:
            try:
                self.plan()
            except PlanError as error:
                self.add_error(None, str(error))
        return values

    def plan(self) -> Plan:
        """Raises PlanError: something does not fit together."""
        values = self.cleaned_data
        shares = {
            name: round(values[name] / 100, 6)
            for name in ("shadow_share", "canary_share", "ab_share", "pair_share", "margin")
        }
        guards = {
            name: round(value / 100, 6) for name in OUTCOMES if (value := values.get(f"guard_{name}")) is not None
        }  # fmt: skip
        plain = {
            name: values[name]
            for name in ("unit", "by_rule", "shadow_pairs", "canary_units", "days", "primary", "goal")
        }
        return Plan(**plain, **shares, guardrails=guards)

    def evaluation(self) -> Evaluation | None:
        """What speaks for the chosen adapter: its newest passed evaluation, else its newest finished one."""
        done = Evaluation.objects.filter(adapter=self.cleaned_data["adapter"], state=Evaluation.State.SUCCEEDED)
        return done.filter(verdict=GateVerdict.PASSED).first() or done.first()
