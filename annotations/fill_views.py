"""The page that fills a queue: count and look first, then add."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.db import OperationalError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from annotations.choosing import COUNTED, SECONDS, Choice, bounded_count, choose, turns_in_order
from annotations.filling import add_turns
from annotations.models import Queue
from annotations.selection import TurnFilterForm, matching_turns, remembered
from assistants.errors import ApiError
from assistants.services import audit
from capture.models import Turn

PREVIEWED = 5
GROUPS = (
    ("What was said", ("words", "near", "near_least", "language")),
    ("When and by whom", ("since", "until", "model", "tag")),
    ("How it went", ("feedback", "declined", "groundedness")),
    ("What is new", ("far_from", "far_most", "unlabelled")),
    ("Which of them", ("order", "limit")),
)
_WORDED = ("words", "near")
"""Somebody may search for a name: the queue does not keep these, and the audit trail only that they were given."""


def fill_page(request: HttpRequest, queue: Queue, context: Mapping[str, Any]) -> HttpResponse:
    """The caller has checked that this person may fill the queue."""
    sent = request.POST if request.method == "POST" else None
    form = TurnFilterForm(sent, initial={**_initial(), **queue.selection})
    choice = _choice(queue, form) if sent is not None and form.is_valid() else None
    if choice is not None and sent is not None and "add" in sent:
        assert isinstance(request.user, User)
        added = _add(queue, form.cleaned_data, choice, request.user)
        messages.success(request, f"{added:,} turn{'' if added == 1 else 's'} added.")
        return HttpResponseRedirect(reverse("admin:annotations_queue_change", args=[queue.pk]))
    shown = Turn.objects.only("question", "declined").in_bulk(list(choice.turns[:PREVIEWED])) if choice else {}
    page = {
        **context,
        "queue": queue,
        "form": form,
        "groups": [(title, [form[name] for name in names]) for title, names in GROUPS],
        "choice": choice,
        "found": choice.found if choice else None,
        "would_add": len(choice.turns) if choice else 0,
        "preview": [shown[key] for key in choice.turns[:PREVIEWED] if key in shown] if choice else [],
        "total": bounded_count(matching_turns(queue, {})),
        "counted": COUNTED,
    }
    status = 422 if form.errors else 200
    return TemplateResponse(request, "annotations/add_turns.html", page, status=status)


def _initial() -> dict[str, Any]:
    return {name: field.initial for name, field in TurnFilterForm.base_fields.items() if field.initial is not None}


def _choice(queue: Queue, form: TurnFilterForm) -> Choice | None:
    """None, with the reason at the form, when the turns could not be found."""
    try:
        return choose(queue, form.cleaned_data)
    except ApiError as error:
        said = str(error.detail)
        form.add_error("near", said.removeprefix("like: ").capitalize() if said.startswith("like: ") else said)
    except OperationalError:
        form.add_error(None, f"Finding them took more than {SECONDS} seconds, so nothing was added. Narrow the dates.")
    return None


@transaction.atomic
def _add(queue: Queue, wanted: Mapping[str, Any], choice: Choice, actor: User) -> int:
    added = add_turns(queue=queue, turns=turns_in_order(choice.turns))
    kept = remembered(wanted)
    again = {name: value for name, value in kept.items() if name not in _WORDED}
    Queue.objects.filter(pk=queue.pk).update(selection=again)
    told = {name: "given" if name in _WORDED else value for name, value in kept.items()}
    audit(
        assistant=queue.assistant, actor=actor, action="queue.filled", target=str(queue),
        details={"added": added, "filter": told},
    )  # fmt: skip
    return added
