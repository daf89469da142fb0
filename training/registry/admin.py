"""Pages of the adapter registry: bring one in, take one out, merge one into its base."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.views.decorators.http import require_POST

from assistants.access import assistants_of
from assistants.models import Assistant
from assistants.work_admin import ADMINS, READERS, WorkPageAdmin
from training.models import Adapter, AdapterMerge
from training.pages import AssistantForm, render_page, require_admin_somewhere
from training.registry.exporting import ExportRefused, export_zip
from training.registry.importing import Claim, ImportRefused, import_zip, largest_zip
from training.registry.merging import MergeRefused, cancel_merge, start_merge

PAGE = "admin:training_adapter_change"


class ImportForm(AssistantForm):
    file = forms.FileField(
        label="Zip of the adapter's folder",
        help_text="adapter_config.json and adapter_model.safetensors; manifest.json where Ratchet exported it.",
    )
    prompt_ours = forms.BooleanField(
        required=False,
        label="It was trained with this assistant's prompt format",
        help_text="Only for a folder without manifest.json: on rows exported from a dataset of the assistant.",
    )

    def clean_file(self) -> Any:
        """Only its size: what is in it is looked at piece by piece, from the disk where it lies by then."""
        file = self.cleaned_data["file"]
        most = largest_zip()
        if file.size > most:
            raise forms.ValidationError(
                f"The zip is larger than {most // 2**20} MiB. Raise RATCHET_MAX_ADAPTER_BYTES, or use manage.py "
                "import_adapter on the server."
            )
        return file


def import_page(request: HttpRequest) -> HttpResponse:
    require_admin_somewhere(request)
    user: Any = request.user
    form = ImportForm(request.POST or None, request.FILES or None, user=user)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        assistant: Assistant = values["assistant"]
        try:
            adapter = import_zip(
                assistant=assistant,
                file=values["file"],
                claim=Claim(prompt_ours=values["prompt_ours"]),
                created_by=user,
            )
        except ImportRefused as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"{adapter} is in the list. Evaluate it before it is promoted.")
            return HttpResponseRedirect(reverse(PAGE, args=[adapter.pk]))
    context = {"title": "Import an adapter", "form": form, "most": largest_zip() // 2**20}
    return render_page(request, "training/adapter_import.html", context)


@require_POST
def export_view(request: HttpRequest, pk: int) -> HttpResponse | FileResponse:
    """A post, because it is written down who took an adapter out."""
    adapter = _own(request, pk)
    user: Any = request.user
    try:
        file = export_zip(adapter=adapter, actor=user)
    except ExportRefused as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(reverse(PAGE, args=[pk]))
    return FileResponse(file, as_attachment=True, filename=f"{adapter.engine_name}.zip", content_type="application/zip")


@require_POST
def merge_view(request: HttpRequest, pk: int) -> HttpResponse:
    adapter = _own(request, pk)
    user: Any = request.user
    try:
        merge = start_merge(adapter=adapter, created_by=user)
    except MergeRefused as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(reverse(PAGE, args=[pk]))
    messages.success(request, f"{merge} waits for the worker.")
    return HttpResponseRedirect(reverse("admin:training_adaptermerge_change", args=[merge.pk]))


def _own(request: HttpRequest, pk: int) -> Adapter:
    """Raises Http404 for an adapter of an assistant that the person does not administer."""
    rows = Adapter.objects.filter(assistant__in=assistants_of(request.user, *ADMINS))
    return get_object_or_404(rows.select_related("assistant", "run__dataset", "parent__run__dataset"), pk=pk)


@admin.register(AdapterMerge)
class AdapterMergeAdmin(WorkPageAdmin):
    view_roles = READERS
    list_display = ("__str__", "assistant", "state_label", "how_far", "size", "when", "took")
    list_filter = ("assistant", "state")
    list_select_related = ("assistant", "adapter")

    def cancel(self, work: Any, actor: Any) -> bool:
        return cancel_merge(merge=work, actor=actor)

    @admin.display(description="Size")
    def size(self, merge: AdapterMerge) -> str:
        return filesizeformat(merge.size_bytes) if merge.size_bytes else "–"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        if not object_id.isdecimal():
            raise Http404("There is no such page.")
        merge = self.readable(request, object_id)
        context = {"title": str(merge), "merge": merge, "panel": self.panel(request, merge)}
        return render_page(request, "training/merge.html", context)
