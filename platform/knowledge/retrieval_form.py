"""The form of retrieval settings, made from `RetrievalSettings` so that both know the same bounds."""

from __future__ import annotations

from typing import Any

from annotated_types import Ge, Le
from django import forms

from assistants.access import assistants_of
from assistants.models import Assistant
from assistants.work_admin import ADMINS
from knowledge.configuration import RetrievalSettings, SettingsRefused, checked

CHOICES = {
    "fusion": [("scores", "Scores"), ("ranks", "Ranks")],
    "history": [
        ("conversation", "The conversation"),
        ("previous", "The user's previous question"),
        ("none", "Nothing: the question alone"),
    ],
}


class ConfigurationForm(forms.Form):
    """A new version. Its assistant is one of those that the person is an admin of."""

    assistant = forms.ModelChoiceField(Assistant.objects.none(), empty_label=None)
    name = forms.CharField(max_length=120, help_text="What people call it: “With superseded tariffs left out”.")
    note = forms.CharField(required=False, max_length=2000, label="Why", widget=forms.Textarea(attrs={"rows": 2}))

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assistant: Any = self.fields["assistant"]
        assistant.queryset = assistants_of(user, *ADMINS)
        for name in RetrievalSettings.model_fields:
            self.fields[name] = _field(name)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if not self.errors:
            values = {name: cleaned[name] for name in RetrievalSettings.model_fields}
            values["folders"] = [line.strip() for line in values["folders"].splitlines() if line.strip()]
            try:
                cleaned["settings"] = checked(values)
            except SettingsRefused as refused:
                raise forms.ValidationError(str(refused)) from None
        return cleaned


def initial_of(settings: RetrievalSettings) -> dict[str, Any]:
    return {**settings.model_dump(mode="json"), "folders": "\n".join(settings.folders)}


def shown(values: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(title, value, what it does) of stored settings, for a table; settings of other releases are left out."""
    rows = []
    for name, field in RetrievalSettings.model_fields.items():
        if name in values:
            value = values[name]
            words = dict(CHOICES.get(name, [])).get(value) if isinstance(value, str) else None
            if isinstance(value, bool):
                words = "yes" if value else "no"
            elif isinstance(value, list):
                words = ", ".join(map(str, value)) or "all"
            rows.append((str(field.title), str(value) if words is None else words, field.description or ""))
    return rows


def _field(name: str) -> forms.Field:
    info = RetrievalSettings.model_fields[name]
    common: dict[str, Any] = {"label": info.title, "help_text": info.description or "", "initial": info.default}
    bounds: dict[str, Any] = {}
    for rule in info.metadata:
        if isinstance(rule, Ge):
            bounds["min_value"] = rule.ge
        if isinstance(rule, Le):
            bounds["max_value"] = rule.le
    if name in CHOICES:
        return forms.ChoiceField(choices=CHOICES[name], **common)
    if name == "folders":
        common |= {"initial": "", "help_text": "Beginnings of paths, one a line; empty: all documents."}
        return forms.CharField(required=False, max_length=5000, widget=forms.Textarea(attrs={"rows": 2}), **common)
    if info.annotation is bool:
        return forms.BooleanField(required=False, **common)
    if info.annotation is int:
        return forms.IntegerField(**common, **bounds)
    return forms.FloatField(widget=forms.NumberInput(attrs={"step": "0.01"}), **common, **bounds)
