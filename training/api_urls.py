"""Under /api/v1/."""

from __future__ import annotations

from django.urls import path

from training.finetune.api import RunCancelView, RunsView, RunView

urlpatterns = [
    path("runs", RunsView.as_view(), name="runs"),
    path("runs/<int:pk>", RunView.as_view(), name="run"),
    path("runs/<int:pk>/cancel", RunCancelView.as_view(), name="run-cancel"),
]
