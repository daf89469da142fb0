"""Pages of replays: start one, read old answers beside new ones, take them away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django import forms
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_safe

from assistants.presenting import json_lines_response
from assistants.services import audit
from training.evaluation.differences import differences
from training.models import Adapter, Replay, ReplayAnswer
from training.pages import (
    ADMINS,
    AssistantForm,
    one_of,
    page_of,
    readable,
    render_page,
    require_admin_somewhere,
    words_of,
)
from training.replay.services import MAX_TURNS, Chosen, start_replay
from training.services import NotPossible

PER_PAGE = 20
FILTERS = {
    "changed": "Changed",
    "newly_declined": "Newly declined",
    "newly_answered": "Newly answered",
    "same": "The same",
    "problem": "Not asked",
    "all": "All",
}
MEASURES = (
    ("groundedness", "Words that stand in the passages (a hint)"),
    ("citation_recall", "Supported by its citation"),
    ("resolved_f1", "Like the resolved answer (token F1)"),
)


class ReplayForm(AssistantForm):
    """Which logged questions, asked of whom, with which passages."""

    adapter = forms.ModelChoiceField(Adapter.objects.none(), required=False, empty_label="The base model")
    chosen = forms.ChoiceField(choices=Chosen.choices, label="Which turns")
    count = forms.IntegerField(min_value=1, max_value=MAX_TURNS, initial=50, label="How many, the newest first")
    modes = forms.MultipleChoiceField(
        choices=ReplayAnswer.Mode.choices,
        widget=forms.CheckboxSelectMultiple,
        label="With which passages",
        help_text="The stored ones show what the model alone changes; fresh ones show the system of today.",
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, user=user, **kwargs)
        field: Any = self.fields["adapter"]
        field.queryset = Adapter.objects.filter(assistant__in=self.own).select_related("assistant")
        field.label_from_instance = lambda a: f"{a.assistant}: {a}"


def start_page(request: HttpRequest) -> HttpResponse:
    """The form, filled for ``?adapter=``."""
    require_admin_somewhere(request)
    user: Any = request.user
    initial = {"modes": ReplayAnswer.Mode.values, **request.GET.dict()}
    form = ReplayForm(request.POST or None, user=user, initial=initial)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            replay = start_replay(
                assistant=values["assistant"], adapter=values["adapter"], chosen=values["chosen"],
                count=values["count"], modes=values["modes"], created_by=user,
            )  # fmt: skip
        except NotPossible as error:
            form.add_error(None, str(error))
        else:
            return HttpResponseRedirect(reverse("admin:training_replay_change", args=[replay.pk]))
    return render_page(request, "training/replay_start.html", {"title": "Ask logged questions again", "form": form})


def replay_page(request: HttpRequest, replay: Replay, panel: dict[str, Any]) -> HttpResponse:
    """Old beside new. ``?mode=``, ``?show=`` one of `FILTERS`, ``?q=`` words of a question."""
    modes = [(value, label) for value, label in ReplayAnswer.Mode.choices if value in replay.results]
    mode = one_of(request, "mode", dict(modes)) or (modes[0][0] if modes else ReplayAnswer.Mode.STORED.value)
    show = one_of(request, "show", FILTERS) or "changed"
    query = words_of(request)
    rows = _filtered(replay.answers.filter(mode=mode), show)
    if query:
        rows = rows.filter(turn__question__icontains=query)
    page = page_of(request, rows.select_related("turn", "turn__resolution", "turn__assistant").order_by("pk"), PER_PAGE)
    found = replay.results.get(mode, {})
    context = {
        "title": str(replay),
        "replay": replay,
        "chosen": Chosen(replay.chosen).label,
        "panel": panel,
        "modes": modes,
        "mode": mode,
        "found": found,
        "measures": [(label, found[name]) for name, label in MEASURES if name in found],
        "filters": list(FILTERS.items()),
        "show": show,
        "query": query,
        "page": page,
        "rows": [_shown(row) for row in page],
    }
    return render_page(request, "training/replay.html", context)


def _filtered(rows: QuerySet[ReplayAnswer], show: str) -> QuerySet[ReplayAnswer]:
    answered = rows.filter(problem="").exclude(answered_at=None)
    return {
        "changed": answered.filter(measures__same=0.0),
        "newly_declined": answered.filter(declined=True, turn__declined=False),
        "newly_answered": answered.filter(declined=False, turn__declined=True),
        "same": answered.filter(measures__same=1.0),
        "problem": rows.exclude(problem=""),
        "all": rows.filter(~Q(answered_at=None)),
    }[show]


def _shown(row: ReplayAnswer) -> dict[str, Any]:
    before, after = differences(row.turn.response, row.text)
    return {
        "answer": row,
        "turn": row.turn,
        "before": before,
        "after": after,
        "resolution": getattr(row.turn, "resolution", None),
    }


@require_safe
def replay_export(request: HttpRequest, pk: int) -> HttpResponse:
    """Every question with its old and new answers, as JSON lines: admins only, and written down."""
    replay = readable(request, Replay.objects.select_related("assistant", "adapter").filter(pk=pk).first(), *ADMINS)
    actor: Any = request.user
    audit(assistant=replay.assistant, actor=actor, action="replay.exported", target=str(replay))
    streamed: Any = json_lines_response(_lines(replay), f"replay-{replay.pk}.jsonl")
    return streamed


def _lines(replay: Replay) -> Iterator[dict[str, Any]]:
    rows = replay.answers.exclude(answered_at=None).annotate(
        asked=F("turn__question"), then=F("turn__response"), client_id=F("turn__client_id")
    )
    for row in rows.order_by("pk").iterator(chunk_size=500):
        named: Any = row
        yield {
            "turn": named.client_id, "mode": row.mode, "question": named.asked, "old": named.then, "new": row.text,
            "declined": row.declined, "sources": row.sources, "measures": row.measures, "problem": row.problem,
        }  # fmt: skip
