"""Under /api/v1/."""

from __future__ import annotations

from django.urls import path

from annotations.machine.api import MachineLabelsView

urlpatterns = [
    path("annotations", MachineLabelsView.as_view(), name="machine-labels"),
]
