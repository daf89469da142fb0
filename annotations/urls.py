"""Pages of the labelling room, below the admin's address and behind its login."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from annotations import adjudicate_views, label_views

app_name = "annotations"
_staff = admin.site.admin_view

urlpatterns = [
    path("label/<int:queue_id>/", _staff(label_views.label_page), name="label"),
    path("label/<int:queue_id>/submit", _staff(label_views.submit_label), name="submit"),
    path("label/<int:queue_id>/skip", _staff(label_views.skip_item), name="skip"),
    path("label/<int:queue_id>/undo", _staff(label_views.undo), name="undo"),
    path("label/<int:queue_id>/renew", _staff(label_views.renew), name="renew"),
    path("label/<int:queue_id>/release", _staff(label_views.release), name="release"),
    path("adjudicate/<int:queue_id>/", _staff(adjudicate_views.disagreements), name="disagreements"),
    path("adjudicate/<int:queue_id>/<int:item_id>/", _staff(adjudicate_views.adjudicate_page), name="adjudicate"),
]
