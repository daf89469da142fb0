"""Pages of imported sets: import a file, read what was taken and what was refused, and take it out again."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from assistants.access import has_role
from training.data.import_files import MAX_ROWS
from training.data.imports import MAX_BYTES
from training.data.services import delete_set, import_set
from training.models import CuratedRow, CuratedSet, Kind
from training.pages import (
    ADMINS,
    AssistantForm,
    one_of,
    page_of,
    readable,
    render_page,
    require_admin_somewhere,
    words_of,
)
from training.services import NotPossible

ROWS_PER_PAGE = 20


class ImportForm(AssistantForm):
    name = forms.CharField(max_length=120, help_text="The recipe’s sources name it.")
    file = forms.FileField(
        help_text=f"JSON lines or Parquet, at most {MAX_BYTES // 1_000_000} MB and {MAX_ROWS:,} rows. It is scrubbed "
        "of personal data before anything of it can be read."
    )

    field_order = ("assistant", "name", "file")

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file.size > MAX_BYTES:
            raise forms.ValidationError(f"The file is larger than {MAX_BYTES // 1_000_000} MB. Split it.")
        return file


def import_page(request: HttpRequest) -> HttpResponse:
    require_admin_somewhere(request)
    user: Any = request.user
    form = ImportForm(request.POST or None, request.FILES or None, user=user, initial=request.GET.dict())
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            made = import_set(
                assistant=values["assistant"], name=values["name"], content=values["file"].read(), created_by=user
            )
        except NotPossible as error:
            form.add_error(None, str(error))
        else:
            return HttpResponseRedirect(reverse("admin:training_curatedset_change", args=[made.pk]))
    return render_page(request, "training/curated_import.html", {"title": "Import a set", "form": form})


def set_page(request: HttpRequest, curated: CuratedSet, panel: dict[str, Any]) -> HttpResponse:
    """``?kind=``, ``?q=`` words of question or answer."""
    kind, query = one_of(request, "kind", Kind.values), words_of(request)
    rows = CuratedRow.objects.filter(set=curated).order_by("position").defer("contexts", "evidence", "vector")
    if kind:
        rows = rows.filter(kind=kind)
    if query:
        rows = rows.filter(question__icontains=query) | rows.filter(sentences__icontains=query)
    context = {
        "title": str(curated),
        "curated": curated,
        "panel": panel,
        "page": page_of(request, rows, ROWS_PER_PAGE),
        "kind": kind,
        "kinds": Kind.choices,
        "query": query,
        "may_manage": has_role(request.user, curated.assistant, *ADMINS),
    }
    return render_page(request, "training/curated.html", context)


@require_POST
def set_delete(request: HttpRequest, pk: int) -> HttpResponse:
    curated = readable(request, CuratedSet.objects.select_related("assistant").filter(pk=pk).first())
    if not has_role(request.user, curated.assistant, *ADMINS):
        raise PermissionDenied("Only admins take a set out.")
    actor: Any = request.user
    try:
        delete_set(curated=curated, actor=actor)
    except NotPossible as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(reverse("admin:training_curatedset_change", args=[pk]))
    messages.success(request, f"“{curated}” is gone. Versions that were built from it keep their rows.")
    return HttpResponseRedirect(reverse("admin:training_curatedset_changelist"))
