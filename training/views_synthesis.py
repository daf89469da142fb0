"""Pages of syntheses: start one, watch its funnel, read what each filter dropped."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_safe

from assistants.access import has_role
from assistants.presenting import json_lines_response
from assistants.services import audit
from training.models import DatasetVersion, Synthesis
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
from training.services import MAX_SYNTHETIC, NotPossible, start_synthesis
from training.synthesis.filters import EXPLAINED

PER_PAGE = 25
KEPT = "kept"


class StartForm(AssistantForm):
    """How many questions, from whose documents."""

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


def start_page(request: HttpRequest) -> HttpResponse:
    require_admin_somewhere(request)
    user: Any = request.user
    form = StartForm(request.POST or None, user=user)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            synthesis = start_synthesis(
                assistant=values["assistant"], wanted=values["wanted"], seed=values["seed"], created_by=user
            )
        except NotPossible as error:
            form.add_error(None, str(error))
        else:
            return HttpResponseRedirect(reverse("admin:training_synthesis_change", args=[synthesis.pk]))
    context = {"title": "Write questions", "form": form, "filters": EXPLAINED.items()}
    return render_page(request, "training/synthesis_start.html", context)


def synthesis_page(request: HttpRequest, synthesis: Synthesis, panel: dict[str, Any]) -> HttpResponse:
    """``?show=`` kept, or the name of a filter; ``?q=`` words of the question."""
    from training.synthesis.generate import MAX_TRIES_PER_WANTED, funnel

    counted = synthesis.funnel or funnel(synthesis)
    steps = funnel_steps(counted)
    shown = one_of(request, "show", [KEPT, *(step["name"] for step in steps)]) or KEPT
    query = words_of(request)
    items = synthesis.items.filter(dropped_by="" if shown == KEPT else shown).select_related("chunk")
    items = items.defer("contexts", "chunk__embedding", "chunk__sentence_embeddings", "chunk__words")
    if query:
        items = items.filter(question__icontains=query)
    context = {
        "title": str(synthesis),
        "synthesis": synthesis,
        "panel": panel,
        "written": counted.get("written", 0),
        "kept": counted.get("kept", 0),
        "tries": MAX_TRIES_PER_WANTED,
        "steps": steps,
        "shown": shown,
        "explained": EXPLAINED.get(shown, ""),
        "query": query,
        "page": page_of(request, items, PER_PAGE),
        "datasets": list(DatasetVersion.objects.filter(synthesis=synthesis).only("number", "rows")),
        "may_manage": has_role(request.user, synthesis.assistant, *ADMINS),
    }
    return render_page(request, "training/synthesis.html", context)


def funnel_steps(funnel: dict[str, Any]) -> list[dict[str, Any]]:
    """Each filter with what it means, what it dropped and what was left; shares are of all that was written."""
    written = funnel.get("written", 0)
    dropped: dict[str, int] = dict(funnel.get("dropped", {}))
    names = [*EXPLAINED, *sorted(set(dropped) - set(EXPLAINED))]
    steps, left = [], written
    for name in names:
        n = dropped.get(name, 0)
        left -= n
        steps.append(
            {
                "name": name,
                "explained": EXPLAINED.get(name, ""),
                "dropped": n,
                "left": left,
                "percent": round(100 * left / written, 1) if written else 0,
            }
        )
    return steps


@require_safe
def synthesis_export(request: HttpRequest, pk: int) -> HttpResponse:
    """Every written question, the dropped ones with the filter's name."""
    found = Synthesis.objects.select_related("assistant").filter(pk=pk).first()
    synthesis = readable(request, found, *ADMINS)
    actor: Any = request.user
    audit(assistant=synthesis.assistant, actor=actor, action="synthesis.exported", target=str(synthesis))
    columns = ("question", "response", "source", "sentence", "kind", "dropped_by", "contexts")
    rows = synthesis.items.order_by("pk").values(*columns).iterator(chunk_size=500)
    streamed: Any = json_lines_response(rows, f"synthesis-{synthesis.pk}.jsonl")
    return streamed
