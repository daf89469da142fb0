"""Replays, knowledge scores and judgings in the admin: lists here, their pages in the views beside."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, cast

from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from unfold.decorators import display

from assistants.scoped_admin import ScopedAdmin
from assistants.work_admin import READERS
from training import views_gate, views_replay
from training.data_admin import TrainingWorkAdmin
from training.evaluation.blind import HIDDEN, must_stay_blind
from training.evaluation.gate import LEAST_PAIRS
from training.evaluation.judged import counting, said_of
from training.models import EvaluationHelper, GateDeclaration, Judging, KnowledgeScore, Replay
from training.pages import render_page
from training.replay.services import Chosen


@admin.register(Replay)
class ReplayAdmin(TrainingWorkAdmin):
    """Logged questions asked again."""

    list_display = ("__str__", "assistant", "which", "state_label", "how_far", "changed", "when", "took")
    list_filter = ("state", "assistant")
    list_select_related = ("assistant", "adapter")
    list_before_template = "training/replay_list_top.html"

    @display(description="Turns")
    def which(self, replay: Replay) -> str:
        return Chosen(replay.chosen).label if replay.chosen in Chosen.values else replay.chosen

    @display(description="Changed")
    def changed(self, replay: Replay) -> str:
        found = [f"{r['answered'] - r['same']} of {r['answered']} ({mode})" for mode, r in replay.results.items()]
        return ", ".join(found) or "–"

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        export = path("<int:pk>/export/", staff(views_replay.replay_export), name="training_replay_export")
        return [export, *super().get_urls()]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return views_replay.start_page(request)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        replay = self.readable(request, object_id)
        return views_replay.replay_page(request, replay, self.panel(request, replay))


class OfEvaluationAdmin(TrainingWorkAdmin):
    """Work that is started on an evaluation's page."""

    add_roles: ClassVar[Collection[str]] = ()
    list_display: Any = ("__str__", "assistant", "evaluation", "state_label", "how_far", "when", "took")
    list_filter = ("state", "assistant")
    list_select_related = ("assistant", "evaluation__adapter")
    template = ""

    def shown(self, request: HttpRequest, work: Any) -> dict[str, Any]:
        """More for the template."""
        return {}

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        work = self.readable(request, object_id)
        context = {"title": str(work), "work": work, "panel": self.panel(request, work), **self.shown(request, work)}
        return render_page(request, self.template, context)


@admin.register(KnowledgeScore)
class KnowledgeScoreAdmin(OfEvaluationAdmin):
    """Parametric knowledge by layer."""

    template = "training/knowledge_score.html"

    def shown(self, request: HttpRequest, work: Any) -> dict[str, Any]:
        return layer_tables(work)


@admin.register(Judging)
class JudgingAdmin(OfEvaluationAdmin):
    """What a judge said."""

    list_display = ("__str__", "assistant", "evaluation", "model", "state_label", "how_far", "when", "took")
    template = "training/judging.html"

    def shown(self, request: HttpRequest, work: Any) -> dict[str, Any]:
        """Who still judges blind does not read what a judge thinks of the same answers."""
        said = said_of(work.evaluation)
        least = int(work.evaluation.gate_rule.get("judge_pairs", LEAST_PAIRS))
        first = counting(said, least)
        return {
            "least_pairs": least,
            "hidden": HIDDEN if must_stay_blind(cast("User", request.user), work.evaluation) else "",
            "asked": len(said),
            "counts": first,
        }


@admin.register(EvaluationHelper)
class EvaluationHelperAdmin(OfEvaluationAdmin):
    """Processes that ask beside an evaluation's own; what they do shows on its page."""

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        helper = self.readable(request, object_id)
        return HttpResponseRedirect(reverse("dashboards:before-after", args=[helper.evaluation_id]))


@admin.register(GateDeclaration)
class GateAdmin(ScopedAdmin):
    """The list is the page of the gate itself."""

    view_roles = READERS

    def get_urls(self) -> list[URLPattern]:
        page = path("of/<slug:slug>/", self.admin_site.admin_view(views_gate.gate_page), name="training_gate")
        return [page, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return views_gate.gate_page(request)


TITLES = {
    "retrieval": "With retrieval: adapter minus base",
    "alone": "Without retrieval: adapter minus base",
}
SCALE = 1000


def layer_tables(score: KnowledgeScore) -> dict[str, Any]:
    """A chart and a table for each difference; thousandths of a nat."""
    found = score.results.get("differences") or {}
    shown = []
    for name, layers in found.items():
        bars = [
            {
                "label": [str(number)],
                "arm": "adapter_rag" if name == "retrieval" else "adapter",
                **{key: round(layer[key] * SCALE, 2) for key in ("value", "low", "high")},
            }
            for number, layer in enumerate(layers, start=1)
        ]
        chart = {"bars": bars, "axis": "Score difference, thousandths", "across": "Layer", "signed": True}
        shown.append({"id": f"layers-{name}", "title": TITLES[name], "chart": chart})
    return {"tables": shown}
