"""The one error that every room may raise towards an API caller; `config.errors` renders it as problem+json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, NotRequired, TypedDict

from rest_framework.exceptions import APIException, ErrorDetail


class FieldError(TypedDict):
    """One thing that is wrong with a request: where (``field`` as ``contexts.0.text``), and what in plain words.

    ``item`` is the place in a batch, from 0."""

    field: str
    message: str
    item: NotRequired[int]


class ApiError(APIException):
    """An answer that is not a success, with everything the caller needs to put it right.

    Args:
        status: HTTP status.
        title: short name of the problem; the phrase of the status when empty.
        detail: one sentence, free of log text and of secrets.
        errors: what is wrong field by field.
        headers: sent with the answer (`Retry-After`, `WWW-Authenticate`).
    """

    def __init__(
        self,
        status: int,
        title: str = "",
        detail: str = "",
        errors: Iterable[FieldError | Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status_code = int(status)
        self.title = title or HTTPStatus(status).phrase
        # APIException's own constructor would turn the sentence into nested lists for some inputs.
        self.detail = ErrorDetail(detail or self.title, code="error")
        self.errors = [dict(error) for error in errors]
        self.headers = dict(headers or {})
        Exception.__init__(self, str(self.detail))
