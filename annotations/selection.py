"""Which turns go into a queue: a filter that an admin fills in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from django import forms
from django.db.models import Exists, OuterRef, Q
from unfold.widgets import (
    UnfoldAdminDateWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from annotations import groundedness, novelty, sampling
from annotations.languages import LANGUAGES
from annotations.models import Queue, QueueItem, Resolution
from capture.models import Turn, TurnQuerySet

MAX_TURNS = 10_000
_EITHER = [("", "Either"), ("yes", "Yes"), ("no", "No")]


class TurnFilterForm(forms.Form):
    """Turns of the queue's assistant that are not in the queue yet: which, in which order, how many."""

    words = forms.CharField(
        required=False, max_length=200, label="Words", widget=UnfoldAdminTextInputWidget,
        help_text="In the question or the answer.",
    )  # fmt: skip
    since = forms.DateField(required=False, label="Asked from", widget=UnfoldAdminDateWidget)
    until = forms.DateField(required=False, label="Asked to", widget=UnfoldAdminDateWidget)
    feedback = forms.ChoiceField(
        required=False, label="Feedback", widget=UnfoldAdminSelectWidget,
        choices=[
            ("", "Any or none"), ("down", "Thumb down or low rating"), ("up", "Thumb up or high rating"),
            ("any", "Any feedback"), ("none", "None"),
        ],
    )  # fmt: skip
    declined = forms.ChoiceField(required=False, label="Declined", choices=_EITHER, widget=UnfoldAdminSelectWidget)
    model = forms.CharField(required=False, max_length=200, label="Model or adapter", widget=UnfoldAdminTextInputWidget)
    tag = forms.CharField(required=False, max_length=60, label="Tag", widget=UnfoldAdminTextInputWidget)
    groundedness = forms.ChoiceField(
        required=False, label="Groundedness (hint)", widget=UnfoldAdminSelectWidget,
        choices=[("", "Any"), *groundedness.CHOICES], help_text="By the words of answer and passages, not a judgement.",
    )  # fmt: skip
    language = forms.ChoiceField(
        required=False, label="Language", widget=UnfoldAdminSelectWidget, choices=[("", "Any"), *LANGUAGES],
        help_text="As its metadata say, else guessed from question and answer.",
    )  # fmt: skip
    near = forms.CharField(
        required=False, max_length=500, label="Near this example", widget=UnfoldAdminTextInputWidget,
        help_text=f"A question in your words, or the id of a turn. The {1000:,} nearest are looked at.",
    )  # fmt: skip
    near_least = forms.FloatField(
        required=False, min_value=0.0, max_value=1.0, initial=0.5, label="At least this similar",
        widget=UnfoldAdminTextInputWidget, help_text="To the example; from 0 to 1.",
    )  # fmt: skip
    far_from = forms.ChoiceField(
        required=False, label="New topic", widget=UnfoldAdminSelectWidget, choices=[("", "Any"), *novelty.CHOICES]
    )
    far_most = forms.FloatField(
        required=False, min_value=0.0, max_value=1.0, initial=0.4, label="At most this similar",
        widget=UnfoldAdminTextInputWidget, help_text="To the nearest document or trained question.",
    )  # fmt: skip
    unlabelled = forms.BooleanField(
        required=False, initial=True, label="Only turns without a resolution", widget=UnfoldBooleanSwitchWidget
    )
    order = forms.ChoiceField(
        label="Take", widget=UnfoldAdminSelectWidget, choices=sampling.ORDERS, initial=sampling.NEWEST,
        help_text="Uncertain: feedback both ways, then a best passage about as similar as where this assistant changes "
        "from answering to declining.",
    )  # fmt: skip
    limit = forms.IntegerField(
        min_value=1, max_value=MAX_TURNS, initial=100, label="How many", widget=UnfoldAdminIntegerFieldWidget
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        since, until = data.get("since"), data.get("until")
        if since and until and until < since:
            self.add_error("until", "This is before the first day.")
        if data.get("order") == sampling.NEAREST and not data.get("near"):
            self.add_error("order", "Most similar to what? Name an example.")
        if data.get("far_from") and data.get("far_most") is None:
            self.add_error("far_most", "Say how similar a turn may be and still be a new topic, such as 0.4.")
        for name in ("words", "model", "tag", "near"):
            if "\x00" in str(data.get(name) or ""):
                self.add_error(name, "This holds a character that cannot be searched for.")
        return data


def remembered(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Cleaned data as the queue keeps them, so that it can be filled again in the same way."""
    kept = {name: value for name, value in wanted.items() if value not in (None, "")}
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in kept.items()}


def matching_turns(queue: Queue, wanted: Mapping[str, Any]) -> TurnQuerySet:
    """All turns that fit what the database can decide of the cleaned data of `TurnFilterForm` and are not in the queue
    yet, unordered. `annotations.choosing` does the rest."""
    inside = QueueItem.objects.filter(queue=queue, turn=OuterRef("pk"))
    turns = Turn.objects.of(queue.assistant).filter(~Exists(inside)).order_by()
    if wanted.get("words"):
        turns = turns.matching(wanted["words"])
    if wanted.get("since"):
        turns = turns.filter(asked_at__date__gte=wanted["since"])
    if wanted.get("until"):
        turns = turns.filter(asked_at__date__lte=wanted["until"])
    if wanted.get("declined"):
        turns = turns.filter(declined=wanted["declined"] == "yes")
    if wanted.get("model"):
        turns = turns.filter(Q(model=wanted["model"]) | Q(adapter=wanted["model"]))
    if wanted.get("tag"):
        turns = turns.tagged([wanted["tag"]])
    if wanted.get("unlabelled"):
        turns = turns.filter(~Exists(Resolution.objects.filter(turn=OuterRef("pk"))))
    if wanted.get("groundedness"):
        turns = turns.filter(declined=False)  # what declines stands in no passage, and should not
    if wanted.get("groundedness") == groundedness.UNCITED:
        turns = groundedness.citing_nothing(turns)
    return turns.with_feedback(wanted["feedback"]) if wanted.get("feedback") else turns
