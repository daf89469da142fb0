"""Pages of syntheses: plan one, watch its funnel, read what each filter dropped and why, go on with one that failed."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from assistants.access import has_role
from assistants.models import Role
from assistants.presenting import json_lines_response
from assistants.services import audit
from training.models import DatasetVersion, Synthesis, SyntheticItem
from training.pages import (
    ADMINS,
    one_of,
    page_of,
    readable,
    render_page,
    require_admin_somewhere,
    words_of,
)
from training.services import NotPossible, go_on_with_synthesis, start_synthesis
from training.synthesis.filters import EXPLAINED
from training.synthesis.plan import STYLES, WRITERS, Plan, PlanError
from training.synthesis_form import StartForm

PER_PAGE = 25
KEPT = "kept"
CHECKERS = (Role.ADMIN.value, Role.REVIEWER.value, Role.ANNOTATOR.value)


def start_page(request: HttpRequest) -> HttpResponse:
    require_admin_somewhere(request)
    user: Any = request.user
    form = StartForm(request.POST or None, user=user)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            synthesis = start_synthesis(
                assistant=values["assistant"], wanted=values["wanted"], seed=values["seed"], created_by=user,
                plan=values["plan"],
            )  # fmt: skip
        except NotPossible as error:
            form.add_error(None, str(error))
        else:
            return HttpResponseRedirect(reverse("admin:training_synthesis_change", args=[synthesis.pk]))
    context = {"title": "Write questions", "form": form, "filters": EXPLAINED.items()}
    return render_page(request, "training/synthesis_start.html", context)


def synthesis_page(request: HttpRequest, synthesis: Synthesis, panel: dict[str, Any]) -> HttpResponse:
    """``?show=`` kept, or the name of a filter; ``?form=`` one form only; ``?q=`` words of the question."""
    from training.synthesis.generate import funnel
    from training.synthesis.spot_checks import SAMPLE, precision_of

    counted = funnel(synthesis) if synthesis.is_active or not synthesis.funnel else synthesis.funnel
    steps = funnel_steps(counted)
    shown = one_of(request, "show", [KEPT, *(step["name"] for step in steps)]) or KEPT
    form, query = one_of(request, "form", SyntheticItem.Form.values), words_of(request)
    items = synthesis.items.filter(dropped_by="" if shown == KEPT else shown).select_related("chunk", "spot_check")
    items = items.defer("contexts", "chunk__embedding", "chunk__sentence_embeddings", "chunk__words", "chunk__text")
    if query:
        items = items.filter(question__icontains=query)
    if form:
        items = items.filter(form=form)
    plan = Plan.from_dict(synthesis.plan) if _is_plan(synthesis.plan) else None
    context = {
        "title": str(synthesis),
        "synthesis": synthesis,
        "panel": panel,
        "written": counted.get("written", 0),
        "kept": counted.get("kept", 0),
        "steps": steps,
        "forms": form_rows(counted, plan, synthesis.wanted),
        "all_forms": SyntheticItem.Form.choices,
        "plan": plan,
        "writer": WRITERS.get(plan.writer, "") if plan else "",
        "style": STYLES.get(plan.style, "") if plan else "",
        "choices": sorted((plan or Plan()).as_dict().items()),
        "covered": counted.get("covered", {}),
        "tokens": counted.get("tokens", 0),
        "shown": shown,
        "form": form,
        "explained": EXPLAINED.get(shown, ""),
        "query": query,
        "page": page_of(request, items, PER_PAGE),
        "datasets": list(DatasetVersion.objects.filter(synthesis=synthesis).only("number", "rows")),
        "may_manage": has_role(request.user, synthesis.assistant, *ADMINS),
        "may_go_on": synthesis.state in (Synthesis.State.FAILED, Synthesis.State.CANCELLED),
        "precision": precision_of(synthesis),
        "sample": min(SAMPLE, counted.get("kept", 0)),
    }
    return render_page(request, "training/synthesis.html", context)


def _is_plan(values: dict[str, Any]) -> bool:
    try:
        Plan.from_dict(values)
    except PlanError:
        return False
    return True


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


def form_rows(funnel: dict[str, Any], plan: Plan | None, wanted: int) -> list[dict[str, Any]]:
    """Each form that was planned or written: what was wanted, written and kept."""
    counted: dict[str, dict[str, int]] = funnel.get("forms", {})
    rows = []
    for form, label in SyntheticItem.Form.choices:
        aim = 0
        if plan is not None:
            share = plan.missing_share if form == "missing" else plan.share(form)
            aim = round(share * wanted)
        n = counted.get(form, {})
        if aim or n:
            rows.append(
                {"form": form, "label": label, "aim": aim, "written": n.get("written", 0), "kept": n.get("kept", 0)}
            )
    return rows


@require_safe
def synthesis_export(request: HttpRequest, pk: int) -> HttpResponse:
    """Every written question with its lineage; ``?show=kept`` or ``dropped`` for one side only."""
    found = Synthesis.objects.select_related("assistant").filter(pk=pk).first()
    synthesis = readable(request, found, *ADMINS)
    actor: Any = request.user
    side = one_of(request, "show", ("kept", "dropped"))
    audit(
        assistant=synthesis.assistant, actor=actor, action="synthesis.exported", target=str(synthesis),
        details={"show": side or "all"},
    )  # fmt: skip
    columns = (
        "form", "history", "question", "response", "answer", "source", "sentence", "kind", "dropped_by", "note",
        "lineage", "attempt", "contexts",
    )  # fmt: skip
    rows = synthesis.items.order_by("pk")
    if side:
        rows = rows.filter(dropped_by="") if side == "kept" else rows.exclude(dropped_by="")
    name = f"synthesis-{synthesis.pk}{f'-{side}' if side else ''}.jsonl"
    streamed: Any = json_lines_response(rows.values(*columns).iterator(chunk_size=500), name)
    return streamed


@require_POST
def synthesis_go_on(request: HttpRequest, pk: int) -> HttpResponse:
    """Queues one that failed or was cancelled again."""
    found = Synthesis.objects.select_related("assistant").filter(pk=pk).first()
    synthesis = readable(request, found, *ADMINS)
    actor: Any = request.user
    try:
        go_on_with_synthesis(synthesis=synthesis, actor=actor)
    except (NotPossible, PlanError) as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"{synthesis} goes on where it stopped.")
    return HttpResponseRedirect(reverse("admin:training_synthesis_change", args=[pk]))
