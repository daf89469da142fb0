"""The agreement page: how far the labels of an assistant can be trusted."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.views.decorators.http import require_GET

from annotations.label_views import SETTLERS
from annotations.trust import measures
from annotations.trust.accuracy import accuracy
from annotations.trust.columns import read_columns
from annotations.trust.form import AgreementForm
from annotations.trust.listing import list_turns
from annotations.trust.questions import BY_KEY, VERDICT, Question
from annotations.trust.rows import MAX_LABELS, label_rows
from assistants.access import assistants_of
from assistants.models import Assistant
from assistants.viewing import note_view

PAGE_SIZE = 10


@require_GET
def agreement_page(request: HttpRequest) -> HttpResponse:
    user = cast("User", request.user)
    assistants = list(assistants_of(user, *SETTLERS).order_by("name"))
    if not assistants:
        raise PermissionDenied
    assistant = _chosen(assistants, request.GET.get("assistant", ""))
    form = AgreementForm(request.GET, assistant=assistant)
    form.is_valid()  # what is wrong is told beside its field, and left out
    question = BY_KEY.get(form.asked, VERDICT)
    scope = form.scope
    columns = read_columns(scope)
    page = Paginator(measures.disagreements(question, columns).tolist(), PAGE_SIZE).get_page(request.GET.get("page"))
    split = [columns.key(turn) for turn in page]
    slow = measures.slowest(columns)
    keys = [key for turn in page for key in measures.keys_on(columns, turn)]
    labels = label_rows([*keys, *(key for row in slow for key in row.labels)])
    listed = list_turns([*split, *(row.turn for row in slow)], labels)
    overview = measures.overview(columns)
    weeks = measures.by_week(question, columns)
    people = accuracy(scope)
    total = sum(person.labels for person in people)
    context = {
        **admin.site.each_context(request),
        "title": f"Agreement: {assistant.name}",
        "assistants": assistants,
        "assistant": assistant,
        "form": form,
        "filtered": scope.queue or scope.since or scope.until or scope.people,
        "question": question,
        "headline": next(line for line in overview if line.question == question),
        "overview": overview,
        "matrix": measures.matrix(question, columns),
        "weeks": weeks,
        "chart": _chart(question, weeks),
        "people": people,
        "page": page,
        "rows": [listed[turn] for turn in split if turn in listed],
        "slow": [(row, listed[row.turn]) for row in slow if row.turn in listed],
        "total": total,
        "limit": MAX_LABELS,
        "counted": f"{total:,}",
        "newest": f"{MAX_LABELS:,}",
        "query": _query(request, "page"),
        "query_without_question": _query(request, "page", "question"),
    }
    note_view(
        assistant_id=assistant.pk,
        actor=user,
        what="agreement",
        target=str(scope.queue.pk) if scope.queue else "",
        details={"question": question.key, "n": len(page.object_list)},
    )
    return TemplateResponse(request, "annotations/agreement.html", context)


def _chosen(assistants: list[Assistant], slug: str) -> Assistant:
    """The one that was asked for, if this person may see it; else the first."""
    return next((assistant for assistant in assistants if assistant.slug == slug), assistants[0])


def _query(request: HttpRequest, *but: str) -> str:
    """The filters, to carry along in a link."""
    query = request.GET.copy()
    for name in but:
        query.pop(name, None)
    return query.urlencode()


def _chart(question: Question, weeks: tuple[measures.Week, ...]) -> dict[str, Any]:
    shown = [week for week in weeks if week.alpha.value is not None]
    return {
        "axis": "Krippendorff α",
        "label": question.title,
        "points": [
            {
                "label": f"{week.monday:%d %b %Y}",
                "value": week.alpha.value,
                "low": week.alpha.low,
                "high": week.alpha.high,
            }
            for week in shown
        ],
    }
