from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import OperationalError
from django.http import Http404, HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from rest_framework import exceptions, serializers
from rest_framework.decorators import api_view, permission_classes
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from config.errors import Conflict, TooLarge, flatten, problem, summary


class ContextSerializer(serializers.Serializer[Any]):
    text = serializers.CharField(max_length=5)


class ItemSerializer(serializers.Serializer[Any]):
    question = serializers.CharField()
    contexts = ContextSerializer(many=True)


RAISED: dict[str, Exception] = {
    "conflict": Conflict("The id t-1 is stored with other content."),
    "too-large": TooLarge("At most 1,000 items."),
    "missing": Http404(),
    "denied": PermissionDenied(),
    "key": exceptions.AuthenticationFailed("The key has been revoked."),
    "throttled": exceptions.Throttled(wait=2.2),
    "body": RequestDataTooBig(),
    "database": OperationalError("couldn't get a connection after 5.00 sec"),
    "model": DjangoValidationError({"name": ["Too long."]}),
}


@api_view(["GET"])
@permission_classes([AllowAny])
def raises(request: Request, name: str) -> Response:
    raise RAISED.get(name, RuntimeError("secret detail"))


@api_view(["POST"])
@permission_classes([AllowAny])
def validates(request: Request) -> Response:
    many = isinstance(request.data, list)
    ItemSerializer(data=request.data, many=many).is_valid(raise_exception=True)
    return Response({})


@api_view(["GET"])
def forgotten(request: Request) -> Response:
    return Response({"reached": True})


def plain(request: Any) -> HttpResponse:
    return HttpResponse("<h1>no</h1>", status=405, headers={"Allow": "POST"})


urlpatterns = [
    path("api/v1/raises/<str:name>", raises),
    path("api/v1/validates", validates),
    path("api/v1/forgotten", forgotten),
    path("api/v1/plain", plain),
]
handler404 = "config.errors.not_found"
handler500 = "config.errors.server_error"
handler400 = "config.errors.bad_request"

pytestmark = pytest.mark.urls(__name__)


def get(url: str) -> tuple[Any, dict[str, Any]]:
    response = Client(raise_request_exception=False).get(url)
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert set(body) - {"errors"} == {"type", "title", "status", "detail", "instance"}
    assert body["status"] == response.status_code
    assert body["instance"] == url
    assert body["title"] == HTTPStatus(body["status"]).phrase
    return response, body


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("conflict", 409), ("too-large", 413), ("missing", 404), ("denied", 403), ("key", 401), ("throttled", 429),
        ("body", 413), ("database", 503), ("model", 422),
    ],
)  # fmt: skip
def test_every_refusal_has_the_same_shape(name: str, status: int) -> None:
    response, body = get(f"/api/v1/raises/{name}")
    assert response.status_code == status
    assert body["detail"]


def test_a_caller_who_must_wait_is_told_how_long() -> None:
    response, _ = get("/api/v1/raises/throttled")
    assert response.headers["Retry-After"] == "3"
    response, _ = get("/api/v1/raises/database")
    assert int(response.headers["Retry-After"]) > 0


def test_a_bad_key_is_told_how_to_authenticate() -> None:
    response, body = get("/api/v1/raises/key")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert body["detail"] == "The key has been revoked."


def test_an_unexpected_error_tells_nothing_of_the_inside() -> None:
    response, body = get("/api/v1/raises/unknown")
    assert response.status_code == 500
    assert "secret" not in json.dumps(body)


def test_an_unknown_address_and_djangos_own_refusals_are_problems_too() -> None:
    response, _ = get("/api/v1/nothing-here")
    assert response.status_code == 404
    response, _ = get("/api/v1/plain")
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")


def test_addresses_of_the_chat_have_openais_shape_where_no_view_is() -> None:
    """The openai client reads the message out of it: completions.create, say, which is not offered."""
    response = Client().post("/v1/completions", b"{}", content_type="application/json")
    assert response.status_code == 404
    assert response.json() == {
        "error": {
            "message": "There is nothing at this address.", "type": "invalid_request_error", "param": None,
            "code": "unknown_url",
        }
    }  # fmt: skip
    assert Client().get("/v1/traces/x").json()["status"] == 404  # exporters of traces read the other one


def test_a_view_without_permissions_lets_nobody_in() -> None:
    response, _ = get("/api/v1/forgotten")
    assert response.status_code in (401, 403)


def post(data: Any) -> tuple[int, dict[str, Any]]:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    response = Client().post("/api/v1/validates", raw, content_type="application/json")
    return response.status_code, response.json()


def test_a_bad_field_is_named_with_its_path() -> None:
    status, body = post({"question": "", "contexts": [{"text": "short"}, {"text": "too long"}]})
    assert status == 422
    assert [error["field"] for error in body["errors"]] == ["question", "contexts.1.text"]
    assert body["detail"] == "question: This field may not be blank. (1 more)"


def test_a_bad_item_of_a_batch_is_named_with_its_place() -> None:
    status, body = post([{"question": "a", "contexts": []}, {"contexts": []}])
    assert status == 422
    assert body["errors"] == [{"field": "question", "message": "This field is required.", "item": 1}]
    assert body["detail"].startswith("item 1: question")


def test_malformed_json_is_a_problem_with_422() -> None:
    status, body = post(b"{not json")
    assert status == 422
    assert "JSON" in body["detail"]


@override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=100)
def test_a_body_over_the_limit_is_413() -> None:
    status, _ = post({"question": "x" * 200, "contexts": []})
    assert status == 413


def test_flatten_keeps_order_and_handles_a_single_message() -> None:
    details = exceptions.ValidationError("No.").get_full_details()
    assert list(flatten(details)) == [{"field": "", "message": "No."}]
    assert summary([]) == "Some fields are not valid."


def test_a_long_list_of_errors_is_cut() -> None:
    request = RequestFactory().get("/v1/x")
    errors = [{"field": str(number), "message": "no"} for number in range(1000)]
    assert len(json.loads(problem(request, status=422, errors=errors).content)["errors"]) == 200
