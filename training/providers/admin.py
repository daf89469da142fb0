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
from training.providers.services import remove_provider, save_provider

LIST = "admin:training_trainingprovider_changelist"


class ProviderForm(forms.Form):
    assistant = forms.ModelChoiceField(TrainingProvider.objects.none(), empty_label=None)
    name = forms.CharField(max_length=80)
    base_url = forms.CharField(max_length=300, label="Address", help_text="Up to and with /v1.")
    model = forms.CharField(max_length=200, help_text="The base that it fine-tunes, in the provider's words.")
    api_key = forms.CharField(
        max_length=500,
        required=False,
        label="Key",
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="Kept encrypted. Empty: stays as it is.",
    )

    def __init__(self, *args: Any, user: Any, provider: TrainingProvider | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if provider is not None:
            del self.fields["assistant"]
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
    list_display = ("name", "assistant", "base_url", "model", "created_at")
    list_filter = ("assistant",)
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
        first = {name: getattr(provider, name) for name in ("name", "base_url", "model")} if provider else None
        form = ProviderForm(request.POST or None, user=user, provider=provider, initial=first)
        if request.method == "POST" and form.is_valid():
            values = form.cleaned_data
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
