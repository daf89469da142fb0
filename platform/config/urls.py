"""Every address of the platform."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView

from config.api_docs import ApiDocsView
from config.metrics import engine_metrics, metrics

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", include("annotations.urls")),
    path("admin/dashboards/", include("serving.dashboards.urls")),
    path("admin/", admin.site.urls),
    path("metrics", metrics, name="metrics"),
    path("metrics/engine", engine_metrics, name="engine-metrics"),
    path("api/docs", ApiDocsView.as_view(), name="api-docs"),
    path("api/v1/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/v1/", include("capture.urls")),
    path("api/v1/", include("annotations.api_urls")),
    path("api/v1/", include("knowledge.api.urls")),
    path("api/v1/", include("training.api_urls")),
    path("v1/", include("capture.otlp.urls")),
    path("v1/", include("serving.urls")),
]

handler404 = "config.errors.not_found"
handler500 = "config.errors.server_error"
handler400 = "config.errors.bad_request"
handler403 = "config.errors.forbidden"
