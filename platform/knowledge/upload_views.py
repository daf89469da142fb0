"""Pages of uploads: hand files in, look at what they would become, decide. Reached through `knowledge.admin`."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from assistants.access import assistants_of, has_role, require_role
from assistants.models import Assistant
from assistants.work_admin import ADMINS
from knowledge.conversion import formats
from knowledge.deciding import NothingToDecide, discard, take
from knowledge.limits import conversion_limits, megabytes, upload_limits
from knowledge.models import Upload, UploadedFile
from knowledge.uploads import IncomingFile, UploadRefused, start_upload

FILES_PER_PAGE = 100
OUTCOMES = ("loaded", "unchanged", "ready", "waiting", "failed", "unpacked", "discarded")


class ManyFiles(forms.ClearableFileInput):
    allow_multiple_selected = True


class ManyFilesField(forms.FileField):
    """What is wrong with one file is said on its row of the upload, not on the form."""

    def clean(self, data: Any, initial: Any = None) -> list[Any]:
        return data if isinstance(data, list) else [data] if data else []


class UploadForm(forms.Form):
    """Files or a folder of them; browsers send a folder's paths beside its files (knowledge/upload.js)."""

    assistant = forms.ModelChoiceField(Assistant.objects.none(), empty_label=None)
    folder = forms.CharField(
        required=False,
        max_length=200,
        label="Put them into",
        help_text="A folder such as tariffs/2026. May stay empty.",
    )
    documents = ManyFilesField(
        required=False,
        label="Files",
        widget=ManyFiles(attrs={"multiple": True, "accept": ",".join([*formats.MEDIA_TYPES, *formats.ARCHIVES])}),
        help_text=f"{formats.NAMES}, or .zip archives of them.",
    )
    tree = ManyFilesField(
        required=False,
        label="Or a folder",
        widget=ManyFiles(attrs={"multiple": True, "webkitdirectory": True}),
        help_text="With all that is in it; paths are kept.",
    )
    preview = forms.BooleanField(
        required=False,
        label="Look before they are taken",
        help_text="Shows the chunks of each file; nothing is stored until you take it.",
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["assistant"]
        field.queryset = assistants_of(user, *ADMINS)


def upload_page(request: HttpRequest) -> HttpResponse:
    """The form; its script asks for JSON, to show how much has been sent."""
    user: Any = request.user
    if not assistants_of(user, *ADMINS).exists():
        raise PermissionDenied("Only admins of an assistant load documents.")
    form = UploadForm(request.POST or None, request.FILES or None, user=user, initial=request.GET.dict())
    by_script = request.method == "POST" and request.headers.get("Accept", "") == "application/json"
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            upload = start_upload(
                assistant=values["assistant"],
                files=_incoming(request),
                folder=values["folder"],
                created_by=user,
                preview=values["preview"],
            )
        except UploadRefused as refused:
            form.add_error(None, str(refused))
        else:
            url = reverse("admin:knowledge_upload_change", args=[upload.pk])
            return JsonResponse({"url": url}) if by_script else HttpResponseRedirect(url)
    if by_script:
        return JsonResponse({"problem": " ".join(_problems(form)) or "The form is not complete."}, status=422)
    limits, reading = upload_limits(), conversion_limits()
    shown = {
        "files": limits.files, "total_bytes": limits.total_bytes, "each_bytes": limits.file_bytes,
        "each": megabytes(limits.file_bytes), "together": megabytes(limits.total_bytes), "pages": reading.pages,
        "expanded": megabytes(reading.expanded_bytes),
    }  # fmt: skip
    return _page(request, "knowledge/upload.html", {"title": "Upload documents", "form": form, "limits": shown})


def _problems(form: UploadForm) -> list[str]:
    """What is wrong, each with the field that it is said of: the script shows all of it in one place."""
    said = []
    for name, errors in form.errors.items():
        label = form[name].label if name in form.fields else ""
        said += [f"{label}: {error}" if label else str(error) for error in errors]
    return said


def _incoming(request: HttpRequest) -> list[IncomingFile]:
    """Large files lie on the disk until each is wanted."""
    tree = request.FILES.getlist("tree")
    paths = request.POST.getlist("tree_path")
    named = [(str(file.name), file) for file in request.FILES.getlist("documents")]
    named += [(paths[i] if len(paths) == len(tree) else str(file.name), file) for i, file in enumerate(tree)]
    return [IncomingFile(path=name, size=file.size or 0, data=file.read) for name, file in named]


def uploaded_page(request: HttpRequest, upload: Upload, panel: dict[str, Any]) -> HttpResponse:
    """What became of each file of an upload that `knowledge.admin` found readable for this person."""
    counts = dict.fromkeys(OUTCOMES, 0)
    counts |= dict(upload.files.order_by().values_list("outcome").annotate(n=Count("pk")))
    wanted = request.GET.get("outcome", "")
    files = upload.files.defer("data", "preview").select_related("document")
    if wanted in OUTCOMES:
        files = files.filter(outcome=wanted)
    context = {
        "title": str(upload),
        "upload": upload,
        "panel": panel,
        "counts": counts,
        "total": sum(counts.values()),
        "open": counts["ready"] + counts["waiting"],
        "wanted": wanted,
        "page": Paginator(files, FILES_PER_PAGE).get_page(request.GET.get("page")),
        "may_decide": not upload.is_active and has_role(request.user, upload.assistant, *ADMINS),
        "may_upload": has_role(request.user, upload.assistant, *ADMINS),
    }
    return _page(request, "knowledge/uploaded.html", context)


def file_page(request: HttpRequest, upload: Upload, number: int) -> HttpResponse:
    """The chunks that one file of a preview would become."""
    file = upload.files.defer("data").select_related("document").filter(pk=number).first()
    if file is None or file.preview is None:
        raise Http404("There is nothing to look at.")
    ready = upload.files.filter(outcome=UploadedFile.Outcome.READY).order_by("pk")
    context = {
        "title": file.path,
        "upload": upload,
        "file": file,
        "preview": file.shown,
        "hidden": file.shown["total"] - len(file.shown["chunks"]),
        "before": ready.filter(pk__lt=file.pk).values_list("pk", flat=True).last(),
        "after": ready.filter(pk__gt=file.pk).values_list("pk", flat=True).first(),
        "may_decide": not upload.is_active and has_role(request.user, upload.assistant, *ADMINS),
    }
    return _page(request, "knowledge/file.html", context)


def decide(request: HttpRequest, upload: Upload) -> HttpResponse:
    """``act``: take or discard, and ``file`` (several) says which; take-all or discard-all, what waits."""
    require_role(request.user, upload.assistant, *ADMINS)
    actor: Any = request.user
    act, _, everything = request.POST.get("act", "").partition("-")
    keys = [int(key) for key in request.POST.getlist("file") if key.isdecimal() and len(key) < 19]
    back = HttpResponseRedirect(reverse("admin:knowledge_upload_change", args=[upload.pk]))
    if act not in ("take", "discard") or not (keys or everything):
        messages.error(request, "Choose files first.")
        return back
    chosen = None if everything else keys
    try:
        count = (take if act == "take" else discard)(upload=upload, files=chosen, actor=actor)
    except NothingToDecide as refused:
        messages.warning(request, str(refused))
    else:
        files = f"{count} file{'' if count == 1 else 's'}"
        messages.success(request, f"{files} will be taken in." if act == "take" else f"{files} discarded.")
    return back


def _page(request: HttpRequest, template: str, context: dict[str, Any]) -> TemplateResponse:
    return TemplateResponse(request, template, {**admin.site.each_context(request), **context})
