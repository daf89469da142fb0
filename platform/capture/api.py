"""The log API: turns and feedback in, scrubbed turns out. Views only validate, call, and answer."""

from __future__ import annotations

from typing import ClassVar

from django.http import HttpRequest
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from assistants.auth import ApiKeyAuthentication, HasScope
from assistants.errors import ApiError
from assistants.limits import KeyThrottle
from assistants.models import ApiKey, Scope
from capture.answers import many, one, take
from capture.bodies import batch_of, is_lines, read_batch, read_json
from capture.models import Receipt
from capture.payloads import FeedbackItem, TurnItem
from capture.reading import find_turn, list_turns, turn_json
from capture.receiving import receive_feedback, receive_turns
from capture.vault import stored_id

_BODY = OpenApiTypes.OBJECT


class LogView(APIView):
    """Base: a key with the scope that the method needs, and its rate limit."""

    authentication_classes = (ApiKeyAuthentication,)
    permission_classes = (HasScope,)
    throttle_classes = (KeyThrottle,)
    scopes: ClassVar[dict[str, str]] = {}

    def key(self, request: Request) -> ApiKey:
        assert isinstance(request.auth, ApiKey)
        return request.auth

    def raw(self, request: Request) -> HttpRequest:
        return request._request


class TurnsView(LogView):
    scopes: ClassVar[dict[str, str]] = {"POST": Scope.LOG, "GET": Scope.READ}

    @extend_schema(
        summary="Post one turn",
        description="201 created, 200 known already with the same content, 409 known with other content.",
        request={"application/json": TurnItem},
        responses={201: _BODY, 200: _BODY},
    )
    def post(self, request: Request) -> Response:
        key = self.key(request)
        result = receive_turns(assistant=key.assistant, api_key=key, items=[read_json(self.raw(request))])[0]
        return one(result)

    @extend_schema(
        operation_id="turns_list",
        summary="List turns, newest first",
        parameters=[
            OpenApiParameter(name, str, required=False)
            for name in ("cursor", "limit", "q", "since", "until", "adapter", "model", "declined", "feedback", "tag",
                         "conversation")
        ],
        responses={200: _BODY},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        query = dict(request.query_params.lists())
        page = list_turns(assistant=self.key(request).assistant, query=query)
        return Response({"turns": page.rows(), "next": page.next})


class TurnBatchView(LogView):
    scopes: ClassVar[dict[str, str]] = {"POST": Scope.LOG}

    @extend_schema(
        summary="Post up to 1,000 turns",
        description="207 with one result per item, in order: created, duplicate, conflict or invalid.",
        request={"application/json": {"type": "array", "items": {"type": "object"}}},
        responses={207: _BODY},
    )
    def post(self, request: Request) -> Response:
        key = self.key(request)
        batch = read_batch(self.raw(request), "turns")
        results = take(batch, lambda items: receive_turns(assistant=key.assistant, api_key=key, items=items))
        return many(results, batch.lines)


class TurnView(LogView):
    scopes: ClassVar[dict[str, str]] = {"GET": Scope.READ}

    @extend_schema(summary="One turn, by its id or the client's", responses={200: _BODY})
    def get(self, request: Request, name: str) -> Response:
        assistant = self.key(request).assistant
        if "\x00" in name or len(name) > 200:
            raise ApiError(404, detail="There is no such turn.")
        turn = find_turn(assistant=assistant, name=name)
        if turn is not None:
            return Response(turn_json(turn))
        waits = Receipt.objects.filter(assistant=assistant, client_id=stored_id(name), quarantine__isnull=False)
        if waits.exists():
            raise ApiError(404, "Not yet", "This turn was received and has not been scrubbed yet.")
        raise ApiError(404, detail="There is no such turn.")


class FeedbackView(LogView):
    scopes: ClassVar[dict[str, str]] = {"POST": Scope.LOG}

    @extend_schema(
        summary="Post feedback on a turn (an object, or up to 1,000 in an array)",
        request={"application/json": FeedbackItem},
        responses={201: _BODY, 200: _BODY, 207: _BODY},
    )
    def post(self, request: Request) -> Response:
        key = self.key(request)
        raw = self.raw(request)
        body = None if is_lines(raw) else read_json(raw)
        if isinstance(body, dict) and set(body) != {"feedback"}:
            return one(receive_feedback(assistant=key.assistant, api_key=key, items=[body])[0])
        batch = read_batch(raw, "feedback") if body is None else batch_of(body, "feedback")
        results = take(batch, lambda items: receive_feedback(assistant=key.assistant, api_key=key, items=items))
        return many(results, batch.lines)
