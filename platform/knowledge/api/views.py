"""``/api/v1/documents`` and ``/api/v1/uploads``: views only check, call, and answer."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db.models import Count, Q
from django.http import HttpRequest
from django.http.multipartparser import MultiPartParserError
from pydantic import BaseModel, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from assistants.auth import ApiKeyAuthentication, HasScope
from assistants.errors import ApiError
from assistants.limits import KeyThrottle
from assistants.models import ApiKey, Assistant, Scope
from assistants.services import audit
from knowledge import deciding, services
from knowledge.api import describing
from knowledge.api.shapes import Decision, DocumentQuery, UploadQuery, document_detail, document_shape, upload_shape
from knowledge.limits import megabytes, upload_limits
from knowledge.models import Document, Upload, UploadedFile
from knowledge.scrubbing import source_key
from knowledge.uploads import MAX_PATH, IncomingFile, UploadRefused, clean_path, start_upload

M = TypeVar("M", bound=BaseModel)
VERSIONS_TOLD = 50
_MAX_JSON = 100_000
_SLACK = 1_000_000
"""Bytes of a multipart body that are not files."""


class DocumentsApi(APIView):
    """Base: a key with the scope for documents, and its rate limit."""

    authentication_classes = (ApiKeyAuthentication,)
    permission_classes = (HasScope,)
    throttle_classes = (KeyThrottle,)
    scopes: ClassVar[dict[str, str]] = dict.fromkeys(("GET", "POST", "PUT", "DELETE"), Scope.DOCUMENTS)

    def key(self, request: Request) -> ApiKey:
        assert isinstance(request.auth, ApiKey)
        return request.auth

    def raw(self, request: Request) -> HttpRequest:
        return request._request


class DocumentsView(DocumentsApi):
    @describing.post_documents
    def post(self, request: Request) -> Response:
        key, raw = self.key(request), self.raw(request)
        if raw.content_type != "multipart/form-data":
            raise ApiError(415, detail="Send files as multipart/form-data: curl -F file=@fees.pdf.")
        _check_length(raw, upload_limits().total_bytes + _SLACK)
        try:
            files, paths = raw.FILES.getlist("file"), raw.POST.getlist("path")
            folder, preview = raw.POST.get("folder", ""), raw.POST.get("preview", "").lower() in ("1", "true", "on")
        except (MultiPartParserError, SuspiciousOperation, RequestDataTooBig) as error:
            raise ApiError(422, detail="The form cannot be read: it is damaged, or has too many parts.") from error
        if paths and len(paths) != len(files):
            raise _bad("path", f"is given {len(paths)} times, file {len(files)} times")
        for path in paths:
            _check_path(path, "path")
        if folder.strip("/"):
            _check_path(folder.strip("/"), "folder")
        named = paths or [str(file.name) for file in files]
        incoming = [IncomingFile(path, file.size or 0, file.read) for path, file in zip(named, files, strict=True)]
        return _accepted(_start(key, incoming, folder=folder, preview=preview))

    @describing.list_documents
    def get(self, request: Request) -> Response:
        assistant, query = self.key(request).assistant, _query(request, DocumentQuery)
        found = _documents(assistant).order_by("pk")
        if query.path is not None:
            found = found.filter(source_key=source_key(assistant.pk, query.path))
        if query.folder:
            found = found.filter(path__startswith=query.folder.strip("/") + "/")
        if query.state is not None:
            found = found.filter(state=query.state)
        if query.superseded is not None:
            found = found.filter(superseded=query.superseded)
        for word in (query.q or "").split()[:10]:
            found = found.filter(Q(title__icontains=word) | Q(path__icontains=word))
        rows = list(found.filter(pk__gt=query.after or 0)[: query.limit + 1])
        more = len(rows) > query.limit
        told = [document_shape(document) for document in rows[: query.limit]]
        return Response({"documents": told, "next": told[-1]["id"] if more else None})


class DocumentView(DocumentsApi):
    @describing.get_document
    def get(self, request: Request, pk: int) -> Response:
        return Response(_detail(_found(_documents(self.key(request).assistant), pk=pk), request))

    @describing.delete_document
    def delete(self, request: Request, pk: int) -> Response:
        key = self.key(request)
        return _delete(_found(_documents(key.assistant), pk=pk), key)


class DocumentAtView(DocumentsApi):
    """A document by the path under which it was loaded, for programs that keep a folder in step."""

    @describing.put_at
    def put(self, request: Request, path: str) -> Response:
        _check_path(path, "path")
        raw, most = self.raw(request), upload_limits().file_bytes
        _check_length(raw, most)
        data = raw.read(most + 1)
        if len(data) > most:
            raise _too_large(most)
        return _accepted(_start(self.key(request), [IncomingFile(path, len(data), data)]))

    @describing.get_at
    def get(self, request: Request, path: str) -> Response:
        return Response(_detail(self._at(request, path), request))

    @describing.delete_at
    def delete(self, request: Request, path: str) -> Response:
        return _delete(self._at(request, path), self.key(request))

    def _at(self, request: Request, path: str) -> Document:
        _check_path(path, "path")
        assistant = self.key(request).assistant
        return _found(_documents(assistant), source_key=source_key(assistant.pk, path))


class UploadView(DocumentsApi):
    @describing.get_upload
    def get(self, request: Request, pk: int) -> Response:
        upload = _upload(self.key(request).assistant, pk)
        return Response(_told(upload, _query(request, UploadQuery)))

    @describing.cancel_upload
    def delete(self, request: Request, pk: int) -> Response:
        key = self.key(request)
        upload = _upload(key.assistant, pk)
        if not upload.request_cancel():
            raise ApiError(409, detail="This upload has ended.")
        audit(
            assistant=key.assistant,
            actor=None,
            action="upload.cancelled",
            target=str(upload),
            details={"key": key.name},
        )
        return _accepted(upload)


class DecideView(DocumentsApi):
    @describing.decide_upload
    def post(self, request: Request, pk: int, act: str) -> Response:
        key, raw = self.key(request), self.raw(request)
        upload = _upload(key.assistant, pk)
        _check_length(raw, _MAX_JSON)
        body = raw.read(_MAX_JSON + 1)
        if body and "json" not in (raw.content_type or ""):
            raise ApiError(415, detail="Send JSON: Content-Type: application/json.")
        decision = _valid(lambda: Decision.model_validate_json(body or b"{}"))
        act_on = deciding.take if act == "take" else deciding.discard
        try:
            return Response({"files": act_on(upload=upload, files=decision.files, via=f"key {key.name}")})
        except deciding.NothingToDecide as refused:
            raise ApiError(409, detail=str(refused)) from None


def _documents(assistant: Assistant) -> Any:
    own = Document.objects.filter(assistant=assistant)
    return own.defer("text").annotate(n_chunks=Count("chunks"))


def _found(rows: Any, **which: Any) -> Document:
    document: Document | None = rows.filter(**which).first()
    if document is None:
        raise ApiError(404, detail="There is no such document.")
    return document


def _upload(assistant: Assistant, pk: int) -> Upload:
    upload = Upload.objects.filter(assistant=assistant, pk=pk).first()
    if upload is None:
        raise ApiError(404, detail="There is no such upload.")
    return upload


def _detail(document: Document, request: Request) -> dict[str, Any]:
    versions = list(document.versions.defer("text")[:VERSIONS_TOLD])
    wanted = request.query_params.get("text", "").lower()
    if wanted not in ("", "0", "1", "true", "false"):
        raise _bad("text", "must be true or false")
    return document_detail(document, versions, text=wanted in ("1", "true"))


def _delete(document: Document, key: ApiKey) -> Response:
    pk = document.pk
    services.delete_document(document=document, via=f"key {key.name}")
    return Response({"deleted": pk})


def _start(key: ApiKey, files: list[IncomingFile], *, folder: str = "", preview: bool = False) -> Upload:
    try:
        return start_upload(assistant=key.assistant, files=files, folder=folder, preview=preview, via=f"key {key.name}")
    except UploadRefused as refused:
        raise ApiError(422, detail=str(refused)) from None


def _accepted(upload: Upload) -> Response:
    upload.refresh_from_db()
    return Response(_told(upload, UploadQuery()), status=202)


def _told(upload: Upload, query: UploadQuery) -> dict[str, Any]:
    files = upload.files.defer("data", "preview").order_by("pk").filter(pk__gt=query.after or 0)
    if query.outcome is not None:
        files = files.filter(outcome=query.outcome)
    rows = list(files[: query.limit + 1])
    more = rows[query.limit - 1].pk if len(rows) > query.limit else None
    counts = dict(UploadedFile.objects.filter(upload=upload).values_list("outcome").annotate(n=Count("pk")).order_by())
    return upload_shape(upload, rows[: query.limit], counts, more)


def _check_path(path: str, name: str) -> None:
    """What the page would mend silently is an error of a program."""
    if len(path) > MAX_PATH or clean_path(path) != path:
        raise _bad(name, f"must be a plain relative path of at most {MAX_PATH} characters, such as tariffs/fees.md")


def _check_length(request: HttpRequest, most: int) -> None:
    announced = request.META.get("CONTENT_LENGTH") or "0"
    if announced.isdecimal() and int(announced) > most:
        raise _too_large(most)


def _too_large(most: int) -> ApiError:
    return ApiError(413, detail=f"At most {megabytes(most)} are taken.")


def _query(request: Request, model: type[M]) -> M:
    given = dict(request.query_params.lists())
    for name, values in given.items():
        if len(values) > 1:
            raise _bad(name[:64] if name.isprintable() else "?", "is given more than once")
    return _valid(lambda: model.model_validate({name: values[0] for name, values in given.items()}))


def _valid(check: Any) -> Any:
    try:
        return check()
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)
        told = [{"field": ".".join(map(str, one["loc"]))[:64] or "body", "message": one["msg"]} for one in wrong[:20]]
        raise ApiError(422, detail=f"{told[0]['field']}: {told[0]['message']}", errors=told) from None


def _bad(field: str, message: str) -> ApiError:
    return ApiError(422, detail=f"{field}: {message}", errors=[{"field": field, "message": message}])
