"""The page of a drift report: do users ask something else than the adapter was trained on, and by what one sees it."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from annotations.languages import LANGUAGES
from assistants.access import has_role, require_role
from assistants.models import Assistant, Role
from assistants.viewing import note_view
from capture.models import Turn
from serving.drift.models import DriftReport
from serving.drift.services import DriftRefused, open_queue, propose_retraining, start_report
from serving.drift.terms import telling_terms
from training.models import Example
from training.pages import render_page

READERS = (Role.ADMIN, Role.REVIEWER)
SHOWN = 20
SERIES = 26
RELATED = ("assistant", "adapter", "dataset", "created_by")


def read_report(request: HttpRequest, pk: int, *roles: str) -> DriftReport:
    """Raises Http404 or PermissionDenied: there is none, or the person holds none of ``roles`` on its assistant."""
    report = get_object_or_404(DriftReport.objects.select_related(*RELATED), pk=pk)
    require_role(request.user, report.assistant, *roles)
    return report


@require_safe
def drift_page(request: HttpRequest, pk: int) -> HttpResponse:
    report = read_report(request, pk, *READERS)
    panel: Any = admin.site._registry[DriftReport]
    more, less = _terms(report)
    context = {
        "title": str(report),
        "report": report,
        "panel": panel.panel(request, report),
        "r": report.results,
        "questions": (questions := _questions(report)),
        "scored": any(one["score"] is not None for one in questions),
        "more": more,
        "less": less,
        "rows": rows_of(report.results),
        "languages": _languages(report.results),
        "earlier": _series(report),
        "may": has_role(request.user, report.assistant, Role.ADMIN),
    }
    user = cast("User", request.user)
    note_view(assistant_id=report.assistant_id, actor=user, what="drift", target=str(report.pk))
    return render_page(request, "serving/drift.html", context)


@require_safe
def drift_json(request: HttpRequest, pk: int) -> JsonResponse:
    """What the page counts: numbers and keys of turns, no words."""
    report = read_report(request, pk, *READERS)
    body = {
        "assistant": report.assistant.slug, "adapter": str(report.adapter), "dataset": str(report.dataset),
        "since": report.since.isoformat(), "until": report.until.isoformat(), "verdict": report.verdict,
        "alarm": report.alarm, "sentence": report.sentence, "results": report.results, "turns": report.now,
    }  # fmt: skip
    response = JsonResponse(body, json_dumps_params={"ensure_ascii": False, "indent": 1})
    response.headers["Content-Disposition"] = f'attachment; filename="drift-{report.pk}.json"'
    return response


@require_POST
def start_from_page(request: HttpRequest) -> HttpResponse:
    assistant = get_object_or_404(Assistant, pk=_number(request, "assistant"))
    require_role(request.user, assistant, Role.ADMIN)
    try:
        report = start_report(assistant=assistant, actor=cast("User", request.user), days=_number(request, "days", 7))
    except DriftRefused as refused:
        messages.error(request, str(refused))
        return HttpResponseRedirect(reverse("admin:serving_driftreport_changelist"))
    return HttpResponseRedirect(reverse("admin:serving_driftreport_change", args=[report.pk]))


@require_POST
def act(request: HttpRequest, pk: int, what: str) -> HttpResponse:
    """``what``: queue, else retrain."""
    report = read_report(request, pk, Role.ADMIN)
    actor = cast("User", request.user)
    try:
        if what == "queue":
            queue = open_queue(report=report, actor=actor, size=_number(request, "size", 50))
            messages.success(request, f"“{queue}” holds {queue.items.count()} turns.")
            return HttpResponseRedirect(reverse("admin:annotations_queue_change", args=[queue.pk]))
        propose_retraining(report=report, actor=actor)
        messages.success(
            request, "The retraining is proposed. An admin accepts or dismisses it on the page Retraining."
        )
    except DriftRefused as refused:
        messages.error(request, str(refused))
    return HttpResponseRedirect(reverse("admin:serving_driftreport_change", args=[pk]))


def rows_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What needs no test: (name, now, before, n), where it is known."""
    passages, behaviour, wording = (results.get(name) or {} for name in ("passages", "behaviour", "wording"))
    rows: list[dict[str, Any]] = []
    if passages:
        said = f"Best sentence below {passages['limit']:.2f}; of {passages['n']} questions"
        rows.append({"name": "Found no good passage", "now": passages["now"], "before": passages["before"],
                     "said": said, "share": True})  # fmt: skip
    if behaviour:
        rows.append({"name": "Declined", "now": behaviour["declined"], "before": None, "share": True,
                     "said": f"Of {behaviour['turns']} turns in the window"})  # fmt: skip
        rows.append({"name": "Thumb down", "now": behaviour["down"], "before": None, "share": True,
                     "said": f"Of {behaviour['rated']} that were rated"})  # fmt: skip
    now, before = wording.get("now") or {}, wording.get("before") or {}
    if now and before:
        for key, name in (("median_words", "Words, median"), ("long_words", "Words, 9 of 10 have fewer")):
            rows.append({"name": name, "now": now[key], "before": before[key], "said": "", "share": False})
    return rows


def _languages(results: dict[str, Any]) -> list[dict[str, Any]]:
    wording = results.get("wording") or {}
    now, before = ((wording.get(side) or {}).get("languages") or {} for side in ("now", "before"))
    codes = sorted({*now, *before}, key=lambda code: -max(now.get(code, 0), before.get(code, 0)))
    names = dict(LANGUAGES)
    return [
        {
            "name": names.get(code, f"another language ({code})"),
            "now": now.get(code, 0.0),
            "before": before.get(code, 0.0),
        }
        for code in codes
    ]


def _questions(report: DriftReport) -> list[dict[str, Any]]:
    """The most telling ones that are still there. One query."""
    scores = dict(report.now[:SHOWN])
    turns = Turn.objects.of(report.assistant).filter(pk__in=scores).only("pk", "question", "asked_at", "declined")
    found = [{"turn": turn, "score": scores[str(turn.pk)]} for turn in turns]
    return sorted(found, key=lambda one: -(one["score"] or 0.0))


def _terms(report: DriftReport) -> tuple[list[Any], list[Any]]:
    """Read from the rows that are there now, so that erased words stand nowhere. Two queries."""
    if report.verdict != DriftReport.Verdict.DRIFT:
        return [], []
    keys = [key for key, _ in report.now]
    now = Turn.objects.of(report.assistant).filter(pk__in=keys).order_by().values_list("question", flat=True)
    before = Example.objects.filter(pk__in=report.before, erased_at=None).order_by().values_list("question", flat=True)
    return telling_terms(list(now), list(before))


def _series(report: DriftReport) -> list[DriftReport]:
    rows = DriftReport.objects.filter(assistant=report.assistant, state=DriftReport.State.SUCCEEDED)
    return list(rows.defer("now", "before").order_by("-until", "-pk")[:SERIES])


def _number(request: HttpRequest, name: str, default: int = 0) -> int:
    text = request.POST.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 10 else default
