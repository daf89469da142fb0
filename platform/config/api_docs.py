"""`/api/docs`: the description of the API as a page, from files of our own, so that it works offline and under our
content policy."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.request import Request
from rest_framework.response import Response

from config.middleware import PAGE_POLICY


class ApiDocsView(SpectacularSwaggerSplitView):
    """Swagger UI. Its set-up comes as a script with an address, since inline scripts are forbidden here."""

    template_name = "config/api_docs.html"
    title = "Ratchet: API"

    @extend_schema(exclude=True)
    def get(self, request: Request | HttpRequest, *args: Any, **kwargs: Any) -> Response:
        answer: Response = super().get(request, *args, **kwargs)
        answer.headers["Content-Security-Policy"] = PAGE_POLICY  # addresses under /api/ have a stricter one
        return answer
