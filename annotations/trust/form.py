"""The filters of the agreement page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.db.models import QuerySet
from unfold.widgets import (
    UnfoldAdminDateWidget,
    UnfoldAdminSelectMultipleWidget,
    UnfoldAdminSelectWidget,
)

from annotations.models import Annotation, Queue
from annotations.trust.questions import QUESTIONS, VERDICT
from annotations.trust.rows import Scope
from assistants.models import Assistant


class AgreementForm(forms.Form):
    """``queue`` and ``people`` offer what the assistant has; everything may be left out."""

    question = forms.ChoiceField(
        required=False, label="Question", widget=UnfoldAdminSelectWidget,
        choices=[(question.key, question.title) for question in QUESTIONS],
    )  # fmt: skip
    queue = forms.ModelChoiceField(
        Queue.objects.none(), required=False, label="Queue", empty_label="All queues", widget=UnfoldAdminSelectWidget
    )
    since = forms.DateField(required=False, label="Labelled from", widget=UnfoldAdminDateWidget)
    until = forms.DateField(required=False, label="Labelled to", widget=UnfoldAdminDateWidget)
    people = forms.ModelMultipleChoiceField(
        User.objects.none(), required=False, label="People", widget=UnfoldAdminSelectMultipleWidget
    )

    def __init__(self, data: Mapping[str, Any] | None, *, assistant: Assistant) -> None:
        super().__init__(data)
        self.assistant = assistant
        queue, people = self.fields["queue"], self.fields["people"]
        assert isinstance(queue, forms.ModelChoiceField)
        assert isinstance(people, forms.ModelMultipleChoiceField)
        queue.queryset = Queue.objects.filter(assistant=assistant)
        people.queryset = labellers_of(assistant)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        since, until = data.get("since"), data.get("until")
        if since and until and until < since:
            self.add_error("until", "This is before the first day.")
        return data

    @property
    def scope(self) -> Scope:
        """What was asked for, as far as it is right: a wrong filter is told and left out."""
        data = self.cleaned_data
        return Scope(
            self.assistant,
            queue=data.get("queue"),
            since=data.get("since"),
            until=data.get("until"),
            people=tuple(person.pk for person in data.get("people") or ()),
        )

    @property
    def asked(self) -> str:
        return self.cleaned_data.get("question") or VERDICT.key


def labellers_of(assistant: Assistant) -> QuerySet[User]:
    """Everybody with a label on a turn of the assistant, through its queues."""
    labels = Annotation.objects.filter(queue__assistant=assistant).order_by().values("annotator")
    return User.objects.filter(pk__in=labels).order_by("username")
