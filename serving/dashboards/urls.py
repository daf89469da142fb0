"""Pages of the serving room, below the admin's address and behind its login."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from serving.dashboards import adapters, before_after, comparing, drift, experiment, loop_export, report
from serving.overview import views as overview
from serving.playground.views import playground

app_name = "dashboards"
_staff = admin.site.admin_view

urlpatterns = [
    path("loop/<slug:slug>/figures.csv", _staff(loop_export.loop_csv), name="loop-csv"),
    path("evaluation/<int:pk>/", _staff(before_after.before_after), name="before-after"),
    path("evaluation/<int:pk>/export.json", _staff(report.export_json), name="evaluation-export"),
    path("evaluation/<int:pk>/report.html", _staff(report.export_html), name="evaluation-report"),
    path("evaluation/<int:pk>/compare", _staff(comparing.open_comparison), name="open-comparison"),
    path("evaluation/<int:pk>/promote", _staff(before_after.promote_from_page), name="promote"),
    path("playground/", _staff(playground), name="playground"),
    path("experiment/start/<slug:slug>/", _staff(experiment.start_page), name="experiment-start"),
    path("experiment/<int:pk>/export.json", _staff(experiment.experiment_json), name="experiment-json"),
    path("experiment/<int:pk>/compare/", _staff(experiment.compare_live), name="experiment-compare"),
    path("experiment/<int:pk>/<slug:what>/", _staff(experiment.act), name="experiment-act"),
    path("drift/start/", _staff(drift.start_from_page), name="drift-start"),
    path("drift/<int:pk>/export.json", _staff(drift.drift_json), name="drift-json"),
    path("drift/<int:pk>/<slug:what>/", _staff(drift.act), name="drift-act"),
    path("overview/<slug:page>/", _staff(overview.choose), name="overview-of"),
    path("overview/<slug:page>/<slug:slug>/", _staff(overview.overview), name="overview"),
    path("rollback/<slug:slug>/", _staff(adapters.roll_back_from_page), name="roll-back"),
]
