"""The list of adapters, with where each is served: the room below knows nothing of that."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef
from django.http import HttpRequest

from serving.alerts.unserved import why_unserved
from serving.experiments.models import Experiment
from serving.models import Deployment
from training.admin import AdapterAdmin
from training.models import Adapter

admin.site.unregister(Adapter)


@admin.register(Adapter)
class ServedAdapterAdmin(AdapterAdmin):
    def get_list_display(self, request: HttpRequest) -> Any:
        name, *others = super().get_list_display(request)
        return (name, "where", *others)

    def get_queryset(self, request: HttpRequest) -> Any:
        deployments = Deployment.objects.filter(assistant=OuterRef("assistant"))
        running = Experiment.objects.running().filter(candidate=OuterRef("pk"))
        return super().get_queryset(request).annotate(
            is_live=Exists(deployments.filter(adapter=OuterRef("pk"))),
            was_live=Exists(deployments.filter(has_previous=True, previous=OuterRef("pk"))),
            is_candidate=Exists(running),
        )  # fmt: skip

    @admin.display(description="Where")
    def where(self, obj: Any) -> str:
        if obj.is_live:
            why = why_unserved(obj, prompt_digest=obj.assistant.prompt_digest)
            return f"✗ live, not served: {why}" if why else "● live"
        if obj.is_candidate:
            return "candidate"
        return "one step back" if obj.was_live else "–"
