"""Under /api/v1/."""

from __future__ import annotations

from django.urls import path, re_path

from knowledge.api import views

urlpatterns = [
    path("documents", views.DocumentsView.as_view(), name="documents"),
    path("documents/<int:pk>", views.DocumentView.as_view(), name="document"),
    path("documents/at/<path:path>", views.DocumentAtView.as_view(), name="document-at"),
    path("uploads/<int:pk>", views.UploadView.as_view(), name="upload"),
    re_path(r"^uploads/(?P<pk>[0-9]{1,18})/(?P<act>take|discard)$", views.DecideView.as_view(), name="upload-decide"),
]
