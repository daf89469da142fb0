"""Providers in the admin: name, address, model and key. The key is entered, and never shown again."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from assistants.access import assistants_of
from assistants.scoped_admin import ScopedAdmin
from assistants.work_admin import ADMINS
from training.models import TrainingProvider
from training.pages import render_page, require_admin_somewhere
from training.providers.services import MAX_GPUS, remove_provider, save_provider

LIST = "admin:training_trainingprovider_changelist"


class ProviderForm(forms.Form):
    assistant = forms.ModelChoiceField(TrainingProvider.objects.none(), empty_label=None)
    kind = forms.ChoiceField(
        choices=TrainingProvider.Kind.choices, label="What it is", initial=TrainingProvider.Kind.OPENAI, required=False
    )
    name = forms.CharField(max_length=80)
    base_url = forms.CharField(
        max_length=300,
        label="Address",
        help_text="Up to and with /v1; of a Ray cluster that of its dashboard, such as http://head:8265.",
    )
    model = forms.CharField(
        max_length=200,
        required=False,
        help_text="The base that it fine-tunes, in the provider's words. Of a Ray cluster the folder of this "
        "platform's base on its machines; empty: the base is sent along.",
    )
    api_key = forms.CharField(
        max_length=500,
        required=False,
        label="Key",
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="Kept encrypted. Empty: stays as it is. A Ray cluster may need none.",
    )
    gpus = forms.IntegerField(
        min_value=0, max_value=MAX_GPUS, initial=0, required=False, label="GPUs",
        help_text="Ray cluster: what a job reserves on one machine; one process trains on each. 0: one processor core.",
    )  # fmt: skip
    folder = forms.CharField(
        max_length=300,
        required=False,
        label="Folder there",
        help_text="Ray cluster: for checkpoints while a run goes on, best one that all machines share. Empty: /tmp.",
    )

    def __init__(self, *args: Any, user: Any, provider: TrainingProvider | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if provider is not None:
            del self.fields["assistant"], self.fields["kind"]
            if provider.kind != TrainingProvider.Kind.RAY:
                del self.fields["gpus"], self.fields["folder"]
            return
        field: Any = self.fields["assistant"]
        field.queryset = assistants_of(user, *ADMINS)


@admin.register(TrainingProvider)
class TrainingProviderAdmin(ScopedAdmin):
    view_roles = ADMINS
    add_roles = ADMINS
    change_roles = ADMINS
    delete_roles = ADMINS
    actions = None  # one by one, with a page that says what would go
    list_display = ("name", "kind", "assistant", "base_url", "model", "created_at")
    list_filter = ("assistant", "kind")
    list_select_related = ("assistant",)
    list_before_template = "training/provider_list_top.html"
    search_fields = ("name", "model")
    show_full_result_count = False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = {"any_rows": self.get_queryset(request).exists()}
        return super().changelist_view(request, {**own, **(extra_context or {})})

    def delete_model(self, request: HttpRequest, obj: TrainingProvider) -> None:
        """One that runs have used is protected: they say where their rows went."""
        user: Any = request.user
        remove_provider(provider=obj, actor=user)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        require_admin_somewhere(request)
        return self._form_page(request, None)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        provider = self.get_object(request, object_id)
        if not isinstance(provider, TrainingProvider):
            raise Http404("There is no such page.")
        if not self.may(request, ADMINS, provider):
            raise PermissionDenied
        return self._form_page(request, provider)

    @method_decorator(sensitive_post_parameters("api_key"))
    def _form_page(self, request: HttpRequest, provider: TrainingProvider | None) -> HttpResponse:
        user: Any = request.user
        shown = ("name", "base_url", "model", "gpus", "folder")
        first = {name: getattr(provider, name) for name in shown} if provider else None
        form = ProviderForm(request.POST or None, user=user, provider=provider, initial=first)
        if request.method == "POST" and form.is_valid():
            values = {**form.cleaned_data}
            for name, default in (("gpus", 0), ("kind", TrainingProvider.Kind.OPENAI)):
                if name in values:
                    values[name] = values[name] or default
            assistant = provider.assistant if provider else values.pop("assistant")
            try:
                saved = save_provider(assistant=assistant, provider=provider, actor=user, **values)
            except ValidationError as error:
                form.add_error(None, error)
            else:
                messages.success(request, f"{saved} is saved.")
                return HttpResponseRedirect(reverse(LIST))
        title = str(provider) if provider else "Add a provider"
        return render_page(request, "training/provider.html", {"title": title, "form": form, "provider": provider})
