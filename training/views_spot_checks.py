"""Pages of spot checks: which samples wait, one item after the other, good and bad on keys, and drawing a sample."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from assistants.access import assistants_of
from generation.prompts import split_sentences
from training.models import SpotCheck, Synthesis
from training.pages import ADMINS, page_of, readable, render_page
from training.synthesis.spot_checks import (
    SAMPLE,
    CheckRefused,
    decide,
    draw_sample,
    next_check,
    precision_of,
    undo,
    waiting_for,
)
from training.views_synthesis import CHECKERS

PER_PAGE = 25
KEYS = (
    ("g", "good"), ("1 – 4", "bad, for that reason"), ("b", "bad, without a reason"), ("u", "take the last one back"),
)  # fmt: skip


@require_safe
def checks_page(request: HttpRequest) -> HttpResponse:
    own = assistants_of(request.user, *CHECKERS)
    if not own.exists():
        raise PermissionDenied("This needs a role on an assistant.")
    context = {"title": "Spot checks", "page": page_of(request, waiting_for(own), PER_PAGE)}
    return render_page(request, "training/spot_checks.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def check_page(request: HttpRequest, pk: int) -> HttpResponse:
    """One item; a POST stores the verdict on the one that was shown and leads to the next."""
    synthesis = _of(request, pk, *CHECKERS)
    person: Any = request.user
    here = reverse("admin:training_synthesis_check", args=[pk])
    if request.method == "POST":
        try:
            if "undo" in request.POST:
                if not undo(synthesis=synthesis, person=person):
                    messages.warning(request, "There is nothing of yours to take back.")
            else:
                _decide(request, synthesis, person)
        except CheckRefused as error:
            messages.warning(request, str(error))
        return HttpResponseRedirect(here)
    check = next_check(synthesis, person)
    context: dict[str, Any] = {
        "title": f"Spot check of {synthesis}",
        "synthesis": synthesis,
        "check": check,
        "precision": precision_of(synthesis),
        "reasons": list(enumerate(SpotCheck.Reason.choices, start=1)),
        "keys": KEYS,
    }
    if check is not None:
        context["passages"] = _passages(check)
    return render_page(request, "training/spot_check.html", context)


@require_POST
def draw_page(request: HttpRequest, pk: int) -> HttpResponse:
    synthesis = _of(request, pk, *ADMINS)
    person: Any = request.user
    size = request.POST.get("size", str(SAMPLE))
    try:
        count = draw_sample(synthesis=synthesis, size=int(size) if size.isdecimal() else 0, actor=person)
    except CheckRefused as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"{count} questions wait for a spot check now.")
    return HttpResponseRedirect(reverse("admin:training_synthesis_change", args=[pk]))


def _of(request: HttpRequest, pk: int, *roles: str) -> Synthesis:
    return readable(request, Synthesis.objects.select_related("assistant").filter(pk=pk).first(), *roles)


def _decide(request: HttpRequest, synthesis: Synthesis, person: Any) -> None:
    key = request.POST.get("check", "")
    check = SpotCheck.objects.of(synthesis).filter(pk=int(key)).first() if key.isdecimal() and len(key) < 18 else None
    if check is None:
        raise CheckRefused("That question is not in this sample.")
    verdict, _, reason = request.POST.get("verdict", "").partition(":")
    decide(check=check, person=person, verdict=verdict, reason=reason)


def _passages(check: SpotCheck) -> list[dict[str, Any]]:
    """What was retrieved, the sentences of the answer marked, passages without any folded."""
    cited = {tuple(ref) for sentence in check.item.answer for ref in sentence["refs"]}
    if not check.item.answer and (gold := check.item.contexts.get("gold")):
        cited = {tuple(gold)}
    found = []
    for passage in check.item.contexts.get("passages", []):
        sentences = [
            {"text": text, "cited": (passage["rank"], index) in cited}
            for index, text in enumerate(split_sentences(passage["text"]))
        ]
        found.append({**passage, "sentences": sentences, "open": any(s["cited"] for s in sentences)})
    return found
