"""Under /api/v1/."""

from __future__ import annotations

from django.urls import path

from capture import api
from capture.export_api import TurnExportView
from capture.otlp import views as otlp

urlpatterns = [
    path("turns", api.TurnsView.as_view(), name="turns"),
    path("turns/batch", api.TurnBatchView.as_view(), name="turn-batch"),
    path("turns/export", TurnExportView.as_view(), name="turn-export"),
    path("turns/<str:name>", api.TurnView.as_view(), name="turn"),
    path("feedback", api.FeedbackView.as_view(), name="feedback"),
    path("traces", otlp.traces, name="api-traces"),
]
