"""Pages of syntheses: plan one, watch its funnel, read what each filter dropped and why, go on with one that failed."""

from __future__ import annotations

from typing import Any

from django import forms
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
    AssistantForm,
    one_of,
    page_of,
    readable,
    render_page,
    require_admin_somewhere,
    words_of,
)
from training.services import MAX_SYNTHETIC, NotPossible, go_on_with_synthesis, start_synthesis
from training.synthesis.filters import EXPLAINED
from training.synthesis.plan import CHECKS, FORMS, STYLES, WRITERS, Plan, PlanError

PER_PAGE = 25
KEPT = "kept"
CHECKERS = (Role.ADMIN.value, Role.REVIEWER.value, Role.ANNOTATOR.value)
FORM_HELP = {
    "single": "One sentence answers it.",
    "several": "Sentences of two passages answer it together.",
    "follow_up": "It is only understood after the question before it.",
    "comparison": "It sets two things against each other; both sentences answer it.",
    "near_miss": "The right thing, and a detail that no document gives: to be declined.",
    "out_of_scope": "Something else altogether: to be declined.",
    "counterfactual": "A value in the passage is changed, and in the answer alike: the passage counts.",
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


_BUDGETS: dict[str, tuple[str, str, int, int]] = {
    "max_items": ("Write at most", "Questions, kept or not; 0: five for each one to keep.", 0, 200_000),
    "max_tokens": ("Tokens at most", "Read and written by the model; 0: no limit.", 0, 10**9),
    "max_minutes": ("Minutes at most", "Of work; 0: no limit.", 0, 10_080),
    "max_attempts": ("Tries for one question", "A second try tells the teacher why the first was dropped.", 1, 5),
    "request_seconds": ("Seconds for one reply", "Of the teacher.", 1, 600),
}


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
