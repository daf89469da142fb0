"""`POST /v1/traces`: a plain view, because requests, answers and errors have the shapes of OTLP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from assistants import limits
from assistants.auth import authenticate_key, require_scope
from assistants.errors import ApiError
from assistants.models import ApiKey, Scope
from capture import counting
from capture.models import IntakeCount
from capture.otlp import wire
from capture.otlp.decoding import decode
from capture.otlp.receiving import RETRY_SECONDS, check_room, receive_spans

logger = logging.getLogger(__name__)
View = Callable[[HttpRequest], HttpResponse]


def _in_otlp_shape(view: View) -> View:
    """Every refusal of the view as exporters expect it; 429 and 503 are those that they try again."""

    @wraps(view)
    def answer(request: HttpRequest) -> HttpResponse:
        try:
            return view(request)
        except ApiError as error:
            return wire.refusal(wire.encoding_of(request), error)
        except (OperationalError, InterfaceError):
            logger.exception("The database does not answer.")
            busy = ApiError(
                503,
                detail="The service is busy or starting; try again shortly.",
                headers={"Retry-After": str(RETRY_SECONDS)},
            )
            return wire.refusal(wire.encoding_of(request), busy)

    return answer


@csrf_exempt
@_in_otlp_shape
def traces(request: HttpRequest) -> HttpResponse:
    """Spans in; they are durable when the answer has come."""
    if request.method != "POST":
        raise ApiError(405, detail="Use POST.", headers={"Allow": "POST"})
    key = authenticate_key(request.headers.get("Authorization"))
    require_scope(key, Scope.LOG.value)
    try:
        return _take(request, key)
    except ApiError as error:
        counting.count_refusal(key, error)
        raise


def _take(request: HttpRequest, key: ApiKey) -> HttpResponse:
    limits.take(key)
    encoding = wire.encoding_of(request)
    if encoding is None:
        raise ApiError(415, detail="Send application/x-protobuf or application/json.")
    check_room(key.assistant)
    decoded = decode(wire.read_body(request), encoding)
    received = receive_spans(assistant=key.assistant, api_key=key, decoded=decoded)
    counting.count(key.assistant_id, key.pk, IntakeCount.Event.REFUSED, "spans", received.rejected)
    return wire.answer(encoding, rejected=received.rejected, message=received.message)
