"""Pages of retrieval: versions of its settings, the lab, the self-test. Reached through `knowledge.retrieval_admin`."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from django.conf import settings as django_settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from assistants.access import assistants_of, has_role, require_role
from assistants.models import Assistant
from assistants.work_admin import ADMINS, READERS
from generation.engines import EngineError
from generation.prompts import Message
from knowledge import views
from knowledge.configuration import (
    RetrievalSettings,
    SettingsRefused,
    checked,
    config_digest,
    settings_of,
    surroundings,
)
from knowledge.configuring import activate, differences, save_configuration, start_check
from knowledge.models import RetrievalCheck, RetrievalConfiguration
from knowledge.retrieval import retrieve
from knowledge.retrieval_form import ConfigurationForm, initial_of, shown

MAX_BEFORE = 4000
CHANGE = "admin:knowledge_retrievalconfiguration_change"


def active_digest(assistant: Assistant) -> str:
    """Of the settings that count now; empty where they cannot be read."""
    try:
        return config_digest(assistant)
    except SettingsRefused:
        return ""


def _active(assistant: Assistant) -> RetrievalSettings:
    """What counts now; the defaults where it cannot be read, so that somebody can save something better."""
    try:
        return settings_of(assistant)
    except SettingsRefused:
        return RetrievalSettings()


# --- Versions ---------------------------------------------------------------------------------------------------------


@require_safe
def configuration_page(request: HttpRequest, pk: str) -> HttpResponse:
    configuration = _configuration(request, pk)
    assistant = configuration.assistant
    active = _active(assistant).model_dump(mode="json")
    around = surroundings(assistant)
    context = {
        "title": str(configuration),
        "configuration": configuration,
        "settings": shown(configuration.settings),
        "is_active": configuration.digest == active_digest(assistant),
        "differences": differences(configuration.settings, active),
        "changed_around": [name for name, value in configuration.around.items() if around.get(name) != value],
        "around": configuration.around,
        "may_change": has_role(request.user, assistant, *ADMINS),
    }
    return _page(request, "knowledge/configuration.html", context)


def new_page(request: HttpRequest) -> HttpResponse:
    """``?from=`` a version to begin with; else the active settings of ``?assistant=`` (its id)."""
    own = assistants_of(request.user, *ADMINS)
    if not own.exists():
        raise PermissionDenied("Only admins of an assistant change how it searches.")
    form = ConfigurationForm(request.POST or None, user=request.user, initial=_initial(request, own))
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        actor: Any = request.user
        try:
            made = save_configuration(
                assistant=values["assistant"], name=values["name"], settings=values["settings"], note=values["note"],
                actor=actor,
            )  # fmt: skip
        except SettingsRefused as refused:
            form.add_error(None, str(refused))
        else:
            messages.success(request, f"Version {made} is saved. It does not count yet: try it, then make it active.")
            return HttpResponseRedirect(reverse(CHANGE, args=[made.pk]))
    context = {"title": "New version", "form": form, "reranker": bool(django_settings.RATCHET_RERANKER)}
    return _page(request, "knowledge/configuration_new.html", context)


def _initial(request: HttpRequest, own: QuerySet[Assistant]) -> dict[str, Any]:
    start = request.GET.get("from", "")
    if start.isdecimal():
        found = RetrievalConfiguration.objects.filter(pk=start, assistant__in=own).first()
        if found is not None:
            with contextlib.suppress(SettingsRefused):  # written by a release that knew other settings
                return {"assistant": found.assistant_id, **initial_of(checked(found.settings))}
    chosen = request.GET.get("assistant", "")
    assistant = (own.filter(pk=chosen).first() if chosen.isdecimal() else None) or own[0]
    return {"assistant": assistant.pk, **initial_of(_active(assistant))}


@require_POST
def make_active(request: HttpRequest, pk: int) -> HttpResponse:
    configuration = _configuration(request, str(pk))
    require_role(request.user, configuration.assistant, *ADMINS)
    actor: Any = request.user
    try:
        now = activate(configuration=configuration, actor=actor)
    except SettingsRefused as refused:
        messages.error(request, f"It cannot be made active: {refused}")
        return HttpResponseRedirect(reverse(CHANGE, args=[pk]))
    anew = "" if now.pk == configuration.pk else ", made anew since embedder, chunks or glossary are others now"
    messages.success(request, f"{configuration.assistant} searches by version {now}{anew}.")
    return HttpResponseRedirect(reverse(CHANGE, args=[now.pk]))


@require_safe
def by_digest(request: HttpRequest, slug: str, digest: str) -> HttpResponse:
    """Where the retrieval digest of a turn leads."""
    assistant = assistants_of(request.user, *READERS).filter(slug=slug).first()
    found = RetrievalConfiguration.objects.filter(assistant=assistant, digest=digest).first() if assistant else None
    if found is None:
        raise Http404("No stored version has this digest: the turn came from elsewhere, or from an older release.")
    return HttpResponseRedirect(reverse(CHANGE, args=[found.pk]))


# --- The lab ----------------------------------------------------------------------------------------------------------


@require_safe
def lab_page(request: HttpRequest) -> HttpResponse:
    """One question, two configurations. ``?q=``, ``?before=`` (question), ``?answer=`` (before it), ``?assistant=`` its
    slug, ``?first=`` and ``?second=`` numbers of versions; nothing: the active settings."""
    own = assistants_of(request.user, *READERS)
    if not own.exists():
        raise PermissionDenied("Only admins and reviewers of an assistant search its documents.")
    assistant = own.filter(slug=request.GET.get("assistant", "")).first() or own[0]
    versions = list(RetrievalConfiguration.objects.filter(assistant=assistant).order_by("-number")[:100])
    words = {name: _words(request, name) for name in ("q", "before", "answer")}
    chosen = [_chosen(request, name, versions) for name in ("first", "second")]
    context: dict[str, Any] = {
        "title": "Retrieval lab", "assistants": own, "assistant": assistant, "versions": versions, **words,
        "digest": active_digest(assistant), "chosen": chosen, "columns": [],
        "checks": RetrievalCheck.objects.filter(assistant=assistant)[:3],
        "may_change": has_role(request.user, assistant, *ADMINS),
    }  # fmt: skip
    if words["q"]:
        history: list[Message] = []
        if words["before"]:
            history.append({"role": "user", "content": words["before"]})
        if words["answer"]:
            history.append({"role": "assistant", "content": words["answer"]})
        try:
            context["columns"] = _columns(assistant, words["q"], history, chosen)
        except (EngineError, SettingsRefused) as error:
            context["problem"] = str(error)
    return _page(request, "knowledge/lab.html", context)


def _columns(
    assistant: Assistant, question: str, history: list[Message], chosen: list[RetrievalConfiguration | None]
) -> list[dict[str, Any]]:
    columns: list[dict[str, Any]] = []
    for configuration in chosen:
        settings = checked(configuration.settings) if configuration else settings_of(assistant)
        started = time.perf_counter()
        result = retrieve(assistant=assistant, question=question, history=history, settings=settings)
        columns.append({
            "configuration": configuration, "passages": views.found(result), "evidence": len(result.evidence),
            "keys": [p.chunk_id for p in result.passages], "ms": (time.perf_counter() - started) * 1000,
            "digest": result.config_digest,
        })  # fmt: skip
    for column, other in (columns, columns[::-1]):
        # Where the other one has the same passage: what moved is what one looks for.
        column["rows"] = [
            (passage, other["keys"].index(key) + 1 if key in other["keys"] else None)
            for passage, key in zip(column["passages"], column["keys"], strict=True)
        ]
    return columns


def _chosen(request: HttpRequest, name: str, versions: list[RetrievalConfiguration]) -> RetrievalConfiguration | None:
    return next((v for v in versions if str(v.number) == request.GET.get(name, "")), None)


# --- The self-test ----------------------------------------------------------------------------------------------------


@require_POST
def check(request: HttpRequest) -> HttpResponse:
    """``assistant``: its slug."""
    own = assistants_of(request.user, *ADMINS)
    assistant = get_object_or_404(own, slug=request.POST.get("assistant", ""))
    actor: Any = request.user
    started = start_check(assistant=assistant, actor=actor)
    return HttpResponseRedirect(reverse("admin:knowledge_retrievalcheck_change", args=[started.pk]))


def check_page(request: HttpRequest, row: RetrievalCheck, panel: dict[str, Any]) -> HttpResponse:
    """A self-test that `knowledge.retrieval_admin` found readable for this person."""
    may_rebuild = has_role(request.user, row.assistant, *ADMINS)
    context = {"title": str(row), "check": row, "panel": panel, "result": row.result, "may_rebuild": may_rebuild}
    return _page(request, "knowledge/check.html", context)


# --- Shared -----------------------------------------------------------------------------------------------------------


def _configuration(request: HttpRequest, pk: str) -> RetrievalConfiguration:
    """
    Raises:
        Http404: there is none, or it is another assistant's: nobody learns which.
    """
    if not pk.isdecimal():
        raise Http404("There is no such version.")
    found = RetrievalConfiguration.objects.select_related("assistant", "created_by").filter(pk=pk).first()
    if found is None or not has_role(request.user, found.assistant, *READERS):
        raise Http404("There is no such version.")
    return found


def _words(request: HttpRequest, name: str) -> str:
    limit = views.MAX_QUESTION if name == "q" else MAX_BEFORE
    return request.GET.get(name, "").replace("\x00", " ").strip()[:limit]


def _page(request: HttpRequest, template: str, context: dict[str, Any]) -> TemplateResponse:
    return TemplateResponse(request, template, {**admin.site.each_context(request), **context})
