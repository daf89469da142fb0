"""The page on which people compare two answers blind, and what its script calls.

Nothing that is sent says which answer is whose: sides are named left and right, and the server knows who lay where.
Every action answers a script with JSON (the next pair as HTML, or a message) and a plain form with a redirect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from annotations.comparing.errors import AlreadyChosen
from annotations.comparing.models import Aspect, ComparisonChoice, ComparisonPair, ComparisonRound
from annotations.comparing.services import SETTLERS, choose, may_judge, take_back
from annotations.errors import ItemGone, LabelRefused
from annotations.presenting import AnswerPart, answer_parts
from assistants.access import has_role

SIDES = (
    ("left", "←", "A is better", "ArrowLeft"),
    ("both_good", "↑", "Both good", "ArrowUp"),
    ("both_bad", "↓", "Both bad", "ArrowDown"),
    ("right", "→", "B is better", "ArrowRight"),
)
KEYS = (
    ("←", "A is better"),
    ("→", "B is better"),
    ("↑", "Both good"),
    ("↓", "Both bad"),
    (f"1 – {len(Aspect)}", "What decided it"),
    ("Enter", "Submit (or the same arrow again)"),
    ("u", "Undo your last choice"),
    ("?", "These keys"),
)


def open_round(request: HttpRequest, round_id: int) -> tuple[ComparisonRound, User]:
    """The comparison, if this person judges in it.

    Raises:
        Http404: there is no such comparison.
        PermissionDenied: not theirs.
    """
    opened = get_object_or_404(ComparisonRound.objects.select_related("assistant"), pk=round_id)
    user = cast("User", request.user)
    if not may_judge(user, opened):
        raise PermissionDenied("You are not among those who judge in this comparison.")
    return opened, user


@require_GET
def compare_page(request: HttpRequest, round_id: int) -> HttpResponse:
    opened, user = open_round(request, round_id)
    return _page(request, opened, _work(opened, user))


@require_POST
def submit_choice(request: HttpRequest, round_id: int) -> HttpResponse:
    opened, user = open_round(request, round_id)
    pair = _posted_pair(request, opened)
    try:
        if pair is None:
            raise ItemGone
        choose(
            pair=pair,
            person=user,
            side=request.POST.get("side", ""),
            aspects=[str(aspect) for aspect in request.POST.getlist("aspects")],
            seconds=_seconds(request.POST.get("seconds", "")),
        )
    except ValidationError as error:
        return _invalid(request, opened, user, error)
    except LabelRefused as refused:
        return _refused(request, opened, refused)
    return _next(request, opened, user, "Saved.")


@require_POST
def undo_choice(request: HttpRequest, round_id: int) -> HttpResponse:
    opened, user = open_round(request, round_id)
    try:
        take_back(opened=opened, person=user)
    except LabelRefused as refused:
        return _refused(request, opened, refused)
    return _next(request, opened, user, "Taken back: choose again.")


def _posted_pair(request: HttpRequest, opened: ComparisonRound) -> ComparisonPair | None:
    key = request.POST.get("pair", "")
    if not (key.isascii() and key.isdigit() and len(key) < 19):
        return None
    return ComparisonPair.objects.select_related("round__assistant").filter(pk=int(key), round=opened).first()


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _work(opened: ComparisonRound, user: User) -> dict[str, object]:
    """What `_compare_work.html` shows: the next pair as this person sees it, or that there is none."""
    total = opened.pairs.count()
    done = ComparisonChoice.objects.current().filter(pair__round=opened, person=user).count()
    work: dict[str, object] = {
        "round": opened,
        "total": total,
        "done": done,
        "percent": 100 * done // total if total else 0,
        "may_see_results": has_role(user, opened.assistant, *SETTLERS),
    }
    pair = None if opened.closed else opened.pairs.unjudged_by(user).first()
    if pair is None:
        return work
    pair.round = opened
    ranks = {int(context["rank"]) for context in pair.contexts}
    candidate, baseline = (answer_parts(text, ranks) for text in (pair.candidate_text, pair.baseline_text))
    left, right = (candidate, baseline) if pair.candidate_is_left(user.pk) else (baseline, candidate)
    return work | {
        "pair": pair,
        "answers": [_answer("A", "left", left), _answer("B", "right", right)],
        "contexts": [{**context, "lines": context["text"].splitlines()} for context in pair.contexts],
        "sides": SIDES,
        "aspects": list(enumerate(Aspect.choices, start=1)),
    }


def _answer(name: str, side: str, parts: tuple[AnswerPart, ...]) -> dict[str, Any]:
    return {"name": name, "side": side, "parts": parts}


def _page(request: HttpRequest, opened: ComparisonRound, work: Mapping[str, object], status: int = 200) -> HttpResponse:
    context = {
        **admin.site.each_context(request),
        **work,
        "title": f"Compare: {opened.name}",
        "keys": KEYS,
    }
    return TemplateResponse(request, "annotations/compare.html", context, status=status)


def _next(request: HttpRequest, opened: ComparisonRound, user: User, said: str) -> HttpResponse:
    if not _by_script(request):
        messages.success(request, said)
        return HttpResponseRedirect(reverse("annotations:compare", args=[opened.pk]))
    html = render_to_string("annotations/_compare_work.html", _work(opened, user), request=request)
    return JsonResponse({"message": said, "html": html})


def _invalid(request: HttpRequest, opened: ComparisonRound, user: User, error: ValidationError) -> HttpResponse:
    said = " ".join(error.messages)
    if _by_script(request):
        return JsonResponse({"message": said}, status=422)
    messages.error(request, said)
    return _page(request, opened, _work(opened, user), status=422)


def _refused(request: HttpRequest, opened: ComparisonRound, refused: LabelRefused) -> HttpResponse:
    if _by_script(request):
        gone = isinstance(refused, AlreadyChosen | ItemGone)
        return JsonResponse({"message": str(refused), "gone": gone}, status=409)
    messages.error(request, str(refused))
    return HttpResponseRedirect(reverse("annotations:compare", args=[opened.pk]))


def _by_script(request: HttpRequest) -> bool:
    return request.headers.get("X-Requested-With") == "fetch"
