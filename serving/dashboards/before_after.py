"""The before/after page: one sentence, the gate, the arms, where the gain comes from, and every answer side by side."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from annotations.comparing.blindness import WITHHELD
from annotations.comparing.results import rounds_of
from assistants.access import has_role, require_role
from assistants.models import Role
from generation.prompts import split_sentences
from serving.dashboards.differences import differences
from serving.models import Deployment
from serving.services import PromotionRefused, promote
from training.comparing import SOURCE
from training.evaluation.scoring import expected
from training.models import Arm, BenchmarkItem, Condition, Evaluation, EvaluationAnswer, GateVerdict, Kind

PAGE = 20
READERS = (Role.ADMIN, Role.REVIEWER)
TODAY, CANDIDATE = Arm.BASE_RAG.value, Arm.ADAPTER_RAG.value
SHOWN_METRICS = (
    ("grounded_correct", "Grounded and correct", True),
    ("answer_presence", "Right content", True),
    ("f1", "Token F1", True),
    ("citation_recall", "Supported by its citation", True),
    ("citation_precision", "Citations that support", True),
    ("over_refusal", "Declined although it stands there", False),
    ("rightly_declined", "Rightly declined", True),
    ("rightly_handed_off", "Rightly handed over", True),
)
# Under a narrow bar, a line each.
SHORT = {
    Arm.BASE.value: ["Base", "alone"],
    Arm.BASE_RAG.value: ["Base +", "retrieval", "(today)"],
    Arm.ADAPTER.value: ["Adapter", "alone"],
    Arm.ADAPTER_RAG.value: ["Adapter +", "retrieval"],
}
FILTERS = {"wins": "Wins", "losses": "Losses", "both": "Both right", "neither": "Neither right", "all": "All"}


def read_evaluation(request: HttpRequest, pk: int, *roles: str) -> Evaluation:
    """Raises Http404 or PermissionDenied: there is none, or the person holds none of ``roles`` on its assistant."""
    evaluation = get_object_or_404(
        Evaluation.objects.select_related("assistant", "adapter", "benchmark", "adapter__run__dataset"), pk=pk
    )
    require_role(request.user, evaluation.assistant, *roles)
    return evaluation


@require_GET
def before_after(request: HttpRequest, pk: int) -> HttpResponse:
    """The page. ``?show=`` wins, losses, both, neither or all; ``?condition=``; ``?kind=``;
    ``?q=`` words of a question."""
    evaluation = read_evaluation(request, pk, *READERS)
    condition = _choice(request, "condition", Condition.values, Condition.CLEAN.value)
    show = _choice(request, "show", list(FILTERS), "wins")
    kind = _choice(request, "kind", ["", *Kind.values], "")
    query = request.GET.get("q", "").strip()[:200]
    pairs = _pairs(evaluation, condition, kind=kind, query=query)
    counts = {name: sum(_outcome(p) == name or name == "all" for p in pairs) for name in FILTERS}
    chosen = [p for p in pairs if show in ("all", _outcome(p))]
    page = Paginator(chosen, PAGE).get_page(request.GET.get("page"))
    live = Deployment.objects.filter(assistant=evaluation.assistant).values_list("adapter_id", flat=True).first()
    page_of_work: Any = admin.site._registry[Evaluation]
    context = {
        **admin.site.each_context(request),
        "panel": page_of_work.panel(request, evaluation),
        "title": f"Before / after: {evaluation.adapter}",
        "evaluation": evaluation,
        "gate": evaluation.gate,
        "grid": result_grid(evaluation),
        "chart": chart(evaluation),
        "primary": evaluation.comparison.get("grounded_correct"),
        "interaction": evaluation.comparison.get("interaction"),
        "breakdowns": [
            ("By what is right", _breakdown(evaluation, "by_kind", dict(Kind.choices))),
            ("By slice of the benchmark", _breakdown(evaluation, "by_slice", {})),
        ],
        "page": page,
        "rows": [row(evaluation, pair, condition) for pair in page.object_list],
        "filters": [(name, label, counts[name]) for name, label in FILTERS.items()],
        "show": show,
        "condition": condition,
        "conditions": Condition.choices,
        "kind": kind,
        "kinds": Kind.choices,
        "query": query,
        "reviews": rounds_of(SOURCE, evaluation.pk, viewer=cast("User", request.user)),
        "withheld": WITHHELD,
        "is_live": live == evaluation.adapter_id,
        "may_promote": has_role(request.user, evaluation.assistant, Role.ADMIN),
        "passed": evaluation.verdict == GateVerdict.PASSED,
    }
    return TemplateResponse(request, "serving/before_after.html", context)


@require_GET
def export(request: HttpRequest, pk: int) -> JsonResponse:
    """Everything the page shows as JSON, for a report or another tool."""
    evaluation = read_evaluation(request, pk, *READERS)
    answers = [
        {
            "item": a.item.key, "question": a.item.question, "arm": a.arm, "condition": a.condition, "answer": a.text,
            "declined": a.declined, "measures": a.measures,
        }
        for a in evaluation.answers.select_related("item").order_by("item_id", "arm", "condition")
    ]  # fmt: skip
    body = {
        "evaluation": evaluation.pk,
        "adapter": str(evaluation.adapter),
        "benchmark": {"name": evaluation.benchmark.name, "content_hash": evaluation.benchmark.content_hash},
        "base_digest": evaluation.base_digest,
        "prompt_digest": evaluation.prompt_digest,
        "gate_rule": evaluation.gate_rule,
        "verdict": evaluation.verdict,
        "sentence": evaluation.sentence,
        "gate": evaluation.gate,
        "results": evaluation.results,
        "comparison": evaluation.comparison,
        "answers": answers,
    }
    response = JsonResponse(body, json_dumps_params={"indent": 1, "ensure_ascii": False})
    response["Content-Disposition"] = f'attachment; filename="evaluation-{evaluation.pk}.json"'
    return response


@require_POST
def promote_from_page(request: HttpRequest, pk: int) -> HttpResponse:
    evaluation = read_evaluation(request, pk, Role.ADMIN)
    try:
        promote(
            assistant=evaluation.assistant,
            adapter=evaluation.adapter,
            evaluation=evaluation,
            actor=cast("User", request.user),
            reason=request.POST.get("reason", "").strip()[:2000],
            override=bool(request.POST.get("override")),
        )
        messages.success(request, f"{evaluation.adapter} is live now. One click on Adapters rolls it back.")
    except PromotionRefused as refused:
        messages.error(request, str(refused))
    return HttpResponseRedirect(reverse("dashboards:before-after", args=[pk]))


def _choice(request: HttpRequest, name: str, allowed: list[str], default: str) -> str:
    value = request.GET.get(name, default)
    return value if value in allowed else default


def result_grid(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows of the table: one for each arm under each condition, a cell for each metric (None: does not apply)."""
    rows = []
    for arm, label in Arm.choices:
        for condition, values in sorted(evaluation.results.get(arm, {}).items()):
            cells = [
                {"label": name, "estimate": values.get(key), "more_is_better": better}
                for key, name, better in SHOWN_METRICS
            ]
            rows.append({"arm": arm, "label": label, "condition": Condition(condition).label, "cells": cells})
    return rows


def chart(evaluation: Evaluation) -> dict[str, Any]:
    """The primary metric per arm with its interval, in percent: what the script draws."""
    bars = []
    for arm in Arm.values:
        for condition, values in sorted(evaluation.results.get(arm, {}).items()):
            if estimate := values.get("grounded_correct"):
                bars.append(
                    {
                        "label": [*SHORT[arm], "clean" if condition == Condition.CLEAN else "no oracle"],
                        "arm": arm,
                        "value": round(estimate["value"] * 100, 1),
                        "low": round(estimate["low"] * 100, 1),
                        "high": round(estimate["high"] * 100, 1),
                    }
                )
    return {"bars": bars, "axis": "Grounded and correct, %"}


def _breakdown(evaluation: Evaluation, key: str, labels: dict[str, str]) -> list[dict[str, Any]]:
    groups: dict[str, Any] = evaluation.comparison.get(key) or {}
    return [
        {
            "label": labels.get(name, name.replace("_", " ").capitalize()),
            "n": values["n"],
            "today": values[TODAY],
            "candidate": values[CANDIDATE],
            "difference": values["difference"],
        }
        for name, values in groups.items()
    ]


Pair = tuple[BenchmarkItem, EvaluationAnswer, EvaluationAnswer]


def _pairs(evaluation: Evaluation, condition: str, *, kind: str, query: str) -> list[Pair]:
    """(item, today's answer, the candidate's) in benchmark order: two queries, whatever the size."""
    items = evaluation.benchmark.items.all()
    if kind:
        items = items.filter(kind=kind)
    if query:
        items = items.filter(question__icontains=query)
    answers: dict[tuple[int, str], EvaluationAnswer] = {
        (a.item_id, a.arm): a
        for a in evaluation.answers.filter(condition=condition, arm__in=[TODAY, CANDIDATE])
    }
    return [
        (item, answers[item.pk, TODAY], answers[item.pk, CANDIDATE])
        for item in items
        if (item.pk, TODAY) in answers and (item.pk, CANDIDATE) in answers
    ]


def _outcome(pair: Pair) -> str:
    _, today, candidate = pair
    before, after = (bool(a.measures.get("grounded_correct")) for a in (today, candidate))
    return {(False, True): "wins", (True, False): "losses", (True, True): "both", (False, False): "neither"}[
        before, after
    ]


def row(evaluation: Evaluation, pair: Pair, condition: str) -> dict[str, Any]:
    """What one example shows: question, what was expected, what both arms saw and said, differences marked."""
    item, today, candidate = pair
    before, after = differences(today.text, candidate.text)
    frozen = item.contexts[condition]
    wanted = expected(item, CANDIDATE, condition)
    reference = {
        Kind.ANSWER: item.answers[0] if item.answers else "",
        Kind.DECLINE: evaluation.assistant.decline_sentence,
        Kind.HANDOFF: evaluation.assistant.handoff_sentence,
    }[wanted]
    return {
        "item": item,
        "outcome": _outcome(pair),
        "wanted": wanted.label,
        "reference": reference,
        "before": before,
        "after": after,
        "before_right": bool(today.measures.get("grounded_correct")),
        "after_right": bool(candidate.measures.get("grounded_correct")),
        "evidence": _evidence(frozen),
    }


def _evidence(frozen: dict[str, Any]) -> list[tuple[int, str, str]]:
    """(passage rank, title, sentence) as offered."""
    passages = {p["rank"]: (p["title"], split_sentences(p["text"])) for p in frozen["passages"]}
    return [(rank, passages[rank][0], passages[rank][1][index]) for rank, index, _ in frozen["evidence"]]
