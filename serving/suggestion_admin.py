"""Passes that ask the live model for suggestions, in the admin: how far, cancel, and why one ended."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.decorators import display

from assistants.work_admin import READERS, WorkPageAdmin
from serving.models import SuggestionRun
from serving.suggesting.services import cancel_run


@admin.register(SuggestionRun)
class SuggestionRunAdmin(WorkPageAdmin):
    view_roles = READERS
    list_display = ("name", "assistant", "agent", "state_label", "how_far", "answered", "ended", "when", "took")
    list_filter = ("state", "assistant", "queue")
    list_select_related = ("assistant", "queue")
    search_fields = ("queue__name", "agent")

    @display(description="Pass")
    def name(self, run: SuggestionRun) -> str:
        return str(run)

    @display(description="Ended early")
    def ended(self, run: SuggestionRun) -> str:
        return run.stopped or "–"

    def cancel(self, work: Any, actor: Any) -> bool:
        return cancel_run(run=work, actor=actor)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        run: SuggestionRun = self.readable(request, object_id)
        context = {
            **self.admin_site.each_context(request), "opts": self.opts, "title": str(run), "run": run,
            "panel": self.panel(request, run),
        }  # fmt: skip
        return TemplateResponse(request, "serving/suggestion_run.html", context)
