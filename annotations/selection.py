"""Which turns go into a queue: a filter that an admin fills in."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.postgres.search import SearchQuery
from django.db.models import Exists, OuterRef, QuerySet
from unfold.widgets import (
    UnfoldAdminDateWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from annotations.models import Queue, QueueItem, Resolution
from capture.models import Feedback, Turn

MAX_TURNS = 10_000
_EITHER = [("", "Either"), ("yes", "Yes"), ("no", "No")]


class TurnFilterForm(forms.Form):
    """Newest or random turns of the queue's assistant that are not in the queue yet."""

    words = forms.CharField(
        required=False, max_length=200, label="Words", widget=UnfoldAdminTextInputWidget,
        help_text="In the question or the answer.",
    )  # fmt: skip
    since = forms.DateField(required=False, label="Asked from", widget=UnfoldAdminDateWidget)
    until = forms.DateField(required=False, label="Asked to", widget=UnfoldAdminDateWidget)
    feedback = forms.ChoiceField(
        required=False, label="Feedback", widget=UnfoldAdminSelectWidget,
        choices=[("", "Any or none"), ("down", "Thumb down or low rating"), ("any", "Any feedback"), ("none", "None")],
    )  # fmt: skip
    declined = forms.ChoiceField(required=False, label="Declined", choices=_EITHER, widget=UnfoldAdminSelectWidget)
    model = forms.CharField(required=False, max_length=200, label="Model or adapter", widget=UnfoldAdminTextInputWidget)
    tag = forms.CharField(required=False, max_length=60, label="Tag", widget=UnfoldAdminTextInputWidget)
    unlabelled = forms.BooleanField(
        required=False, initial=True, label="Only turns without a resolution", widget=UnfoldBooleanSwitchWidget
    )
    order = forms.ChoiceField(
        label="Take", widget=UnfoldAdminSelectWidget, choices=[("newest", "The newest"), ("random", "A random sample")]
    )
    limit = forms.IntegerField(
        min_value=1, max_value=MAX_TURNS, initial=100, label="How many", widget=UnfoldAdminIntegerFieldWidget
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        since, until = data.get("since"), data.get("until")
        if since and until and until < since:
            self.add_error("until", "This is before the first day.")
        return data


def matching_turns(queue: Queue, wanted: dict[str, Any]) -> QuerySet[Turn]:
    """All turns that fit the cleaned data of `TurnFilterForm` and are not in the queue yet, unordered."""
    inside = QueueItem.objects.filter(queue=queue, turn=OuterRef("pk"))
    turns = Turn.objects.of(queue.assistant).filter(~Exists(inside)).order_by()
    if wanted.get("words"):
        turns = turns.filter(words=SearchQuery(wanted["words"], search_type="websearch", config="english"))
    if wanted.get("since"):
        turns = turns.filter(asked_at__date__gte=wanted["since"])
    if wanted.get("until"):
        turns = turns.filter(asked_at__date__lte=wanted["until"])
    if wanted.get("declined"):
        turns = turns.filter(declined=wanted["declined"] == "yes")
    if wanted.get("model"):
        turns = turns.filter(model=wanted["model"]) | turns.filter(adapter=wanted["model"])
    if wanted.get("tag"):
        turns = turns.filter(tags__contains=[wanted["tag"]])
    if wanted.get("unlabelled"):
        turns = turns.filter(~Exists(Resolution.objects.filter(turn=OuterRef("pk"))))
    return _by_feedback(turns, wanted.get("feedback", ""))


def pick(turns: QuerySet[Turn], *, order: str, limit: int) -> QuerySet[Turn]:
    """The ``limit`` newest ones, or as many at random."""
    return turns.order_by("?" if order == "random" else "-asked_at").defer("embedding")[:limit]


def _by_feedback(turns: QuerySet[Turn], wanted: str) -> QuerySet[Turn]:
    given = Feedback.objects.filter(turn=OuterRef("pk")).exclude(kind=Feedback.Kind.METRIC)
    if wanted == "down":
        down = given.filter(kind=Feedback.Kind.THUMB, value__lt=0) | given.filter(
            kind=Feedback.Kind.RATING, value__lte=2
        )
        return turns.filter(Exists(down))
    if wanted == "any":
        return turns.filter(Exists(given))
    return turns.filter(~Exists(given)) if wanted == "none" else turns
