"""The API of machine labels: in with a scope of its own, out with `read`."""

from __future__ import annotations

from typing import ClassVar

from django.http import HttpRequest
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotations.machine.models import MachineKind
from annotations.machine.payloads import MachineLabelItem, MachineLabelPage
from annotations.machine.reading import MAX_LIMIT, list_labels
from annotations.machine.receiving import MAX_EXPLAINED, MAX_WITH_EXPLANATION, receive_labels
from assistants.auth import ApiKeyAuthentication, HasScope
from assistants.limits import KeyThrottle
from assistants.models import ApiKey, Scope
from capture.answers import many, one, take
from capture.bodies import batch_of, is_lines, read_batch, read_json
from capture.describing import problems
from capture.negotiation import OneKind
from capture.shapes import BatchAnswer, ItemAnswer

_TEXT = {"type": "string", "maxLength": 200}
LABEL = {
    "id": "judge-1",
    "turn": "web-4711",
    "kind": "LLM",
    "name": "faithfulness-judge",
    "version": "2026-11",
    "verdict": "bad",
    "score": 0.2,
    "reasons": ["not_supported"],
    "explanation": "Passage 1 names another fee.",
}

post_labels = extend_schema(
    operation_id="annotations_create",
    tags=["Label"],
    summary="Post labels of a program or judge",
    description='An object; or up to 1,000 in an array, as lines of JSON, or as `{"annotations": […]}`: then the '
    f"answer is 207 with one result per item. At most {MAX_WITH_EXPLANATION:,} labels of a request have an "
    f"explanation, of {MAX_EXPLAINED:,} characters together. "
    "They are kept apart from the labels of people.",
    request={"application/json": MachineLabelItem, "application/x-ndjson": OpenApiTypes.STR},
    responses={201: ItemAnswer, 200: ItemAnswer, 207: BatchAnswer, **problems(404, 409, 413, 415, 422)},
    examples=[OpenApiExample("What a judge says", LABEL, request_only=True, media_type="application/json")],
)
get_labels = extend_schema(
    operation_id="annotations_list",
    tags=["Label"],
    summary="List labels of programs and judges, newest first",
    description="All parameters must hold. Labels of people are exported from their queues.",
    parameters=[
        OpenApiParameter("turn", _TEXT, description="Our id of a turn, or yours."),
        OpenApiParameter("kind", str, enum=MachineKind.values),
        OpenApiParameter("name", _TEXT, description="Exactly."),
        OpenApiParameter("version", _TEXT, description="Exactly."),
        OpenApiParameter("cursor", str, description="`next` of the page before."),
        OpenApiParameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}, description="Default: 50."),
    ],
    responses={200: MachineLabelPage, **problems(422)},
)


class MachineLabelsView(APIView):
    """``/api/v1/annotations``."""

    authentication_classes = (ApiKeyAuthentication,)
    permission_classes = (HasScope,)
    throttle_classes = (KeyThrottle,)
    content_negotiation_class = OneKind
    scopes: ClassVar[dict[str, str]] = {"POST": Scope.ANNOTATE, "GET": Scope.READ}

    @post_labels
    def post(self, request: Request) -> Response:
        key = _key(request)
        raw: HttpRequest = request._request
        body = None if is_lines(raw) else read_json(raw)
        if isinstance(body, dict) and set(body) != {"annotations"}:
            return one(receive_labels(assistant=key.assistant, api_key=key, items=[body])[0])
        batch = read_batch(raw, "annotations") if body is None else batch_of(body, "annotations")
        results = take(batch, lambda items: receive_labels(assistant=key.assistant, api_key=key, items=items))
        return many(results, batch.lines)

    @get_labels
    def get(self, request: Request) -> Response:
        query = dict(request.query_params.lists())
        return Response(list_labels(assistant=_key(request).assistant, query=query))


def _key(request: Request) -> ApiKey:
    assert isinstance(request.auth, ApiKey)
    return request.auth
