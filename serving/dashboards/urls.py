"""Pages of the serving room, below the admin's address and behind its login."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from serving.dashboards import adapters, before_after, comparing, report

app_name = "dashboards"
_staff = admin.site.admin_view

urlpatterns = [
    path("evaluation/<int:pk>/", _staff(before_after.before_after), name="before-after"),
    path("evaluation/<int:pk>/export.json", _staff(report.export_json), name="evaluation-export"),
    path("evaluation/<int:pk>/report.html", _staff(report.export_html), name="evaluation-report"),
    path("evaluation/<int:pk>/compare", _staff(comparing.open_comparison), name="open-comparison"),
    path("evaluation/<int:pk>/promote", _staff(before_after.promote_from_page), name="promote"),
    path("rollback/<slug:slug>/", _staff(adapters.roll_back_from_page), name="roll-back"),
]
