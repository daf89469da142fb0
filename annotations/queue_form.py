"""A queue as its admin writes it down."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.models import User
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from annotations.models import Queue
from annotations.people import WORKERS, workers_of
from assistants.access import assistants_of
from assistants.models import Membership, Role


class QueueForm(forms.ModelForm):  # type: ignore[type-arg]  # Django has no parameter here at run time
    """Only people who label for the queue's assistant can be chosen.

    ``admin`` is set by `form_for`: who is writing.
    """

    admin: User

    class Meta:
        model = Queue
        fields = (
            "assistant",
            "name",
            "guideline",
            "labels_needed",
            "overlap_share",
            "people",
            "daily_goal",
            "gold_share",
            "machines_count",
            "show_suggestions",
            "ask_live",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields.get("people")
        if isinstance(field, forms.ModelMultipleChoiceField):
            # A plain field and widget: the admin's own would offer everybody, and a link to add accounts.
            self.fields["people"] = forms.ModelMultipleChoiceField(
                queryset=self._candidates(), required=False, widget=UnfoldAdminCheckboxSelectMultipleWidget,
                label=field.label, help_text=Queue._meta.get_field("people").help_text,  # Django's speaks of a list box
            )  # fmt: skip

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        assistant = data.get("assistant") or (self.instance.assistant if self.instance.pk else None)
        if data.get("ask_live") and not data.get("show_suggestions"):
            self.add_error("ask_live", "Show suggestions too: else nobody would see what the live model answers.")
        chosen = data.get("people")
        if assistant is not None and chosen is not None:
            strangers = chosen.exclude(pk__in=workers_of(assistant).values("pk"))
            if strangers:
                names = ", ".join(sorted(person.get_username() for person in strangers))
                self.add_error("people", f"These do not label for {assistant}: {names}.")
        return data

    def _candidates(self) -> Any:
        if self.instance.pk:
            return workers_of(self.instance.assistant)
        own = Membership.objects.filter(assistant__in=assistants_of(self.admin, Role.ADMIN), role__in=WORKERS)
        return User.objects.filter(pk__in=own.values("user"), is_active=True).order_by("username")


def form_for(admin: User) -> type[QueueForm]:
    return type("QueueForm", (QueueForm,), {"admin": admin})
