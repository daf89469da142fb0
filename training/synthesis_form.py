"""The form that plans a synthesis: its fields are the plan's, with the plan's own defaults."""

from __future__ import annotations

from typing import Any

from django import forms

from training.models import SyntheticItem
from training.pages import AssistantForm
from training.services import MAX_SYNTHETIC
from training.synthesis.plan import CHECKS, FORMS, STYLES, WRITERS, Plan, PlanError

FORM_HELP = {
    "single": "One sentence answers it.",
    "several": "Sentences of two passages answer it together.",
    "follow_up": "It is only understood after the question before it.",
    "comparison": "It sets two things against each other; both sentences answer it.",
    "near_miss": "The right thing, and a detail that no document gives: to be declined.",
    "out_of_scope": "Something else altogether: to be declined.",
    "counterfactual": "A value in the passage is changed, and in the answer alike: the passage counts.",
}

_BUDGETS: dict[str, tuple[str, str, int, int]] = {
    "max_items": ("Write at most", "Questions, kept or not; 0: five for each one to keep.", 0, 200_000),
    "max_tokens": ("Tokens at most", "Read and written by the model; 0: no limit.", 0, 10**9),
    "max_minutes": ("Minutes at most", "Of work; 0: no limit.", 0, 10_080),
    "max_attempts": ("Tries for one question", "A second try tells the teacher why the first was dropped.", 1, 5),
    "request_seconds": ("Seconds for one reply", "Of the teacher.", 1, 600),
}


class StartForm(AssistantForm):
    """Whose documents, how many, by whom; the mix and the budgets are folded away, with the plan's own defaults."""

    wanted = forms.IntegerField(
        min_value=1,
        max_value=MAX_SYNTHETIC,
        initial=200,
        label="Questions to keep",
        help_text="It stops when so many have passed every filter, or when the documents have no more to say.",
    )
    seed = forms.IntegerField(
        min_value=0,
        max_value=2**31 - 1,
        initial=1,
        help_text="Decides which sentences come first. Another seed writes from other sentences.",
    )
    writer = forms.ChoiceField(
        choices=list(WRITERS.items()),
        initial="rules",
        label="Written",
        help_text="Rules take seconds and need English documents; a teacher takes its time and its price.",
    )
    style = forms.ChoiceField(choices=list(STYLES.items()), initial="logged", label="Sounds")

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, user=user, **kwargs)
        default = Plan()
        labels = dict(SyntheticItem.Form.choices)
        for form in FORMS:
            self.fields[f"mix_{form}"] = forms.IntegerField(
                min_value=0, max_value=100, initial=round(100 * default.mix[form]), required=False,
                label=f"{labels[form]}, %", help_text=FORM_HELP[form],
            )  # fmt: skip
        self.fields["missing_share"] = forms.IntegerField(
            min_value=0, max_value=50, initial=round(100 * default.missing_share), required=False,
            label="At most missing passage, %",
            help_text="Questions whose passage retrieval does not find: kept, to be declined.",
        )  # fmt: skip
        for name, (label, help_text, low, high) in _BUDGETS.items():
            self.fields[name] = forms.IntegerField(
                min_value=low, max_value=high, initial=getattr(default, name), required=False, label=label,
                help_text=help_text,
            )  # fmt: skip
        self.fields["answer_check"] = forms.ChoiceField(
            choices=list(CHECKS.items()), initial=default.answer_check, required=False,
            label="Answer each from its passage alone",
            help_text="What the model answers otherwise is dropped. The bundled model fails at many good ones.",
        )  # fmt: skip
        self.fields["teacher_model"] = forms.CharField(
            max_length=200, required=False, label="Teacher's model", help_text="Empty: the one of the settings."
        )

    @property
    def choices(self) -> list[Any]:
        return [self[name] for name in ("assistant", "wanted", "writer", "style")]

    @property
    def mix(self) -> list[Any]:
        return [*(self[f"mix_{form}"] for form in FORMS), self["missing_share"]]

    @property
    def budgets(self) -> list[Any]:
        return [self[name] for name in ("seed", *_BUDGETS, "answer_check", "teacher_model")]

    @property
    def details_are_wrong(self) -> bool:
        return any(field.errors for field in [*self.mix, *self.budgets])

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        if self.errors:
            return values
        chosen: dict[str, Any] = {name: values[name] for name in ("writer", "style", "teacher_model")}
        chosen |= {name: values[name] for name in (*_BUDGETS, "answer_check") if values[name] not in (None, "")}
        if any(values[f"mix_{form}"] is not None for form in FORMS):
            chosen["mix"] = {form: (values[f"mix_{form}"] or 0) / 100 for form in FORMS}
        if values["missing_share"] is not None:
            chosen["missing_share"] = values["missing_share"] / 100
        try:
            values["plan"] = Plan.from_dict(chosen)
        except PlanError as error:
            self.add_error(None, str(error))
        return values
