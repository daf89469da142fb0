"""Under /v1/, where exporters look when they are given the address of the server, and under /api/v1/."""

from __future__ import annotations

from django.urls import path

from capture.otlp import views

urlpatterns = [path("traces", views.traces, name="traces")]
