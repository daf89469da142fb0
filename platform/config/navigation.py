"""The sidebar of the admin: the loop from left to right, then people and platform."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from assistants.access import holds_anywhere
from assistants.models import Role

# (group, [(title, icon, model as app.model, or address as namespace:name)]): an entry is shown when its model has an
# admin page, or to those whose roles stand in `PAGES`.
GROUPS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "Overview",
        (
            ("Live", "monitoring", "dashboards:overview-of live"),
            ("Labels", "label", "dashboards:overview-of labels"),
            ("Data", "stacked_bar_chart", "dashboards:overview-of data"),
            ("Privacy", "shield", "dashboards:overview-of privacy"),
        ),
    ),
    (
        "Capture",
        (
            ("Turns", "forum", "capture.turn"),
            ("Conversations", "chat", "capture.conversation"),
            ("Intake", "speed", "capture.intakecount"),
            ("Uncertain masks", "visibility_lock", "capture.uncertainmask"),
            ("Quarantine", "policy", "capture.quarantine"),
            ("Waiting traces", "hourglass_empty", "capture.waitingspans"),
            ("Erasures", "ink_eraser", "serving.erasure"),
            ("Leak audits", "plumbing", "capture.leakreport"),
            ("Feedback", "thumbs_up_down", "capture.feedback"),
            ("Metrics", "straighten", "capture.metric"),
        ),
    ),
    (
        "Knowledge",
        (
            ("Documents", "description", "knowledge.document"),
            ("Chunks", "article", "knowledge.chunk"),
            ("Retrieval", "manage_search", "knowledge.retrievalconfiguration"),
            ("Learned retrieval", "school", "training.retrievertuning"),
        ),
    ),
    (
        "Label",
        (
            ("Queues", "checklist", "annotations.queue"),
            ("My labels", "volunteer_activism", "annotations:mine"),
            ("Annotations", "rate_review", "annotations.annotation"),
            ("Resolutions", "gavel", "annotations.resolution"),
            ("Missed passages", "search_off", "annotations.missedpassage"),
            ("Agreement", "handshake", "annotations:agreement"),
            ("Machine labels", "robot_2", "annotations.machinelabel"),
            ("Comparisons", "balance", "annotations.comparisonround"),
            ("Spot checks", "task_alt", "admin:training_synthesis_checks"),
        ),
    ),
    (
        "Train",
        (
            ("Benchmarks", "quiz", "training.benchmark"),
            ("Syntheses", "auto_awesome", "training.synthesis"),
            ("Datasets", "dataset", "training.datasetversion"),
            ("Imported sets", "upload_file", "training.curatedset"),
            ("Runs", "model_training", "training.run"),
            ("Adapters", "extension", "training.adapter"),
            ("Retraining", "autorenew", "training.retrainingrule"),
            ("Providers", "cloud", "training.trainingprovider"),
            ("Evaluations", "compare", "training.evaluation"),
            ("Gate", "rule", "training.gatedeclaration"),
            ("Replays", "replay", "training.replay"),
        ),
    ),
    (
        "Serve",
        (
            ("Deployments", "rocket_launch", "serving.deployment"),
            ("Promotions", "history", "serving.promotion"),
            ("Experiments", "science", "serving.experiment"),
            ("Drift", "trending_up", "serving.driftreport"),
            ("Playground", "play_circle", "dashboards:playground"),
        ),
    ),
    (
        "Platform",
        (
            ("Assistants", "smart_toy", "assistants.assistant"),
            ("People", "group", "auth.user"),
            ("Roles", "badge", "assistants.membership"),
            ("API keys", "key", "assistants.apikey"),
            ("Privacy policies", "shield_lock", "assistants.privacypolicy"),
            ("Re-scrubs", "cleaning_services", "capture.rescrub"),
            ("Alerts", "notifications", "serving.alert"),
            ("Alert channels", "outgoing_mail", "serving.alertchannel"),
            ("Audit", "fact_check", "assistants.auditevent"),
            ("Failed jobs", "error", "django_q.failure"),
            ("Queued jobs", "pending", "django_q.ormq"),
        ),
    ),
)

PAGES: dict[str, tuple[str, ...]] = {
    "dashboards:overview-of live": (Role.REVIEWER, Role.ADMIN),
    "dashboards:overview-of labels": (Role.REVIEWER, Role.ADMIN),
    "dashboards:overview-of data": (Role.REVIEWER, Role.ADMIN),
    "dashboards:overview-of privacy": (Role.PRIVACY, Role.ADMIN),
    "annotations:agreement": (Role.REVIEWER, Role.ADMIN),
    "dashboards:playground": (Role.REVIEWER, Role.ADMIN),
    "annotations:mine": (Role.ANNOTATOR, Role.REVIEWER, Role.ADMIN),
    "admin:training_synthesis_checks": (Role.ANNOTATOR, Role.REVIEWER, Role.ADMIN),
}


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Groups of links for django-unfold. Pages that this person may not see are left out."""
    groups = []
    for title, entries in GROUPS:
        items = [item for entry in entries if (item := _item(request, *entry)) is not None]
        if items:
            groups.append({"title": title, "separator": True, "collapsible": False, "items": items})
    return groups


def _item(request: HttpRequest, title: str, icon: str, label: str) -> dict[str, Any] | None:
    if label in PAGES:
        shown = holds_anywhere(request.user, *PAGES[label])
        name, *given = label.split()
        return {"title": title, "icon": icon, "link": reverse(name, args=given)} if shown else None
    app, model = label.split(".")
    try:
        page = admin.site._registry[apps.get_model(app, model)]
        link = reverse(f"admin:{app}_{model}_changelist")
    except (LookupError, NoReverseMatch):
        return None
    # The page decides: its roles are per assistant, which Django's model permissions know nothing of.
    if not page.has_view_permission(request):
        return None
    return {"title": title, "icon": icon, "link": link}
