"""The log API: turns and feedback in, scrubbed turns out. Views only validate, call, and answer."""

from __future__ import annotations

from typing import ClassVar

from django.http import HttpRequest
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from assistants.auth import ApiKeyAuthentication, HasScope
from assistants.errors import ApiError
from assistants.limits import KeyThrottle
from assistants.models import ApiKey, Scope
from capture import describing
from capture.answers import ItemRefused, many, one, take
from capture.bodies import Batch, batch_of, is_lines, read_batch, read_json, read_turn, read_turns
from capture.counting import count, count_refusal
from capture.models import IntakeCount, Receipt
from capture.negotiation import OneKind
from capture.reading import find_turn, list_turns, turn_json
from capture.receiving import product_of, receive_feedback, receive_turns, receive_updates
from capture.rendering import QuickJSONRenderer
from capture.room import check_room
from capture.vault import stored_id

_WRITES = ("POST", "PATCH")


class LogView(APIView):
    """Base: a key with the scope that the method needs, and its rate limit."""

    authentication_classes = (ApiKeyAuthentication,)
    permission_classes = (HasScope,)
    throttle_classes = (KeyThrottle,)
    content_negotiation_class = OneKind
    renderer_classes = (QuickJSONRenderer,)
    scopes: ClassVar[dict[str, str]] = {}

    def key(self, request: Request) -> ApiKey:
        assert isinstance(request.auth, ApiKey)
        return request.auth

    def raw(self, request: Request) -> HttpRequest:
        return request._request

    def handle_exception(self, exc: Exception) -> Response:
        counted = isinstance(exc, ItemRefused) or self.request.method not in _WRITES
        # Asked last: where authentication itself has failed, the framework would try again, and a database that is away
        # would end the request here, with a 500 instead of "come back later".
        if isinstance(exc, ApiError) and not counted and isinstance(key := self.request.auth, ApiKey):
            count_refusal(key, exc)
        return super().handle_exception(exc)


class TurnsView(LogView):
    scopes: ClassVar[dict[str, str]] = {"POST": Scope.LOG, "GET": Scope.READ}

    @describing.post_turn
    def post(self, request: Request) -> Response:
        key = self.key(request)
        check_room(key.assistant)
        items = [read_turn(self.raw(request))]
        return one(receive_turns(assistant=key.assistant, api_key=key, items=items, client=_client(request))[0])

    @describing.list_turns
    def get(self, request: Request) -> Response:
        query = dict(request.query_params.lists())
        page = list_turns(assistant=self.key(request).assistant, query=query)
        return Response({"turns": page.rows(), "next": page.next})


class TurnBatchView(LogView):
    scopes: ClassVar[dict[str, str]] = {"POST": Scope.LOG, "PATCH": Scope.LOG}

    @describing.post_turns
    def post(self, request: Request) -> Response:
        key = self.key(request)
        check_room(key.assistant)
        batch = read_turns(self.raw(request))
        client = _client(request)
        results = take(
            batch, lambda items: receive_turns(assistant=key.assistant, api_key=key, items=items, client=client)
        )
        _count_unreadable(key, batch)
        return many(results, batch.lines)

    @describing.patch_turns
    def patch(self, request: Request) -> Response:
        key = self.key(request)
        check_room(key.assistant)
        batch = read_batch(self.raw(request), "updates")
        results = take(batch, lambda items: receive_updates(assistant=key.assistant, api_key=key, items=items))
        _count_unreadable(key, batch)
        return many(results, batch.lines)


class TurnView(LogView):
    scopes: ClassVar[dict[str, str]] = {"GET": Scope.READ, "PATCH": Scope.LOG}

    @describing.patch_turn
    def patch(self, request: Request, name: str) -> Response:
        key = self.key(request)
        check_room(key.assistant)
        body = read_json(self.raw(request))
        if isinstance(body, dict) and "turn" in body:
            raise ApiError(422, detail="turn: the turn is named by the address")
        item = {**body, "turn": name} if isinstance(body, dict) else body
        return one(receive_updates(assistant=key.assistant, api_key=key, items=[item])[0], created=202)

    @describing.get_turn
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

    @describing.post_feedback
    def post(self, request: Request) -> Response:
        key = self.key(request)
        check_room(key.assistant)
        raw = self.raw(request)
        body = None if is_lines(raw) else read_json(raw)
        if isinstance(body, dict) and set(body) != {"feedback"}:
            return one(receive_feedback(assistant=key.assistant, api_key=key, items=[body])[0])
        batch = read_batch(raw, "feedback") if body is None else batch_of(body, "feedback")
        results = take(batch, lambda items: receive_feedback(assistant=key.assistant, api_key=key, items=items))
        _count_unreadable(key, batch)
        return many(results, batch.lines)


def _client(request: Request) -> str:
    return product_of(request.headers.get("User-Agent", ""))


def _count_unreadable(key: ApiKey, batch: Batch) -> None:
    count(key.assistant_id, key.pk, IntakeCount.Event.REFUSED, "unreadable", len(batch.unreadable))
