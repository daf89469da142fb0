"""Assistants, people, keys and the audit trail in the admin."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from assistants.models import VIEWED, ApiKey, Assistant, AuditEvent, Membership, Role, Scope
from assistants.policy_admin import PrivacyPolicyAdmin
from assistants.scoped_admin import ScopedAdmin
from assistants.services import audit, issue_key, revoke_key
from assistants.when import when

__all__ = ["ApiKeyAdmin", "AssistantAdmin", "AuditEventAdmin", "MembershipAdmin", "PersonAdmin", "PrivacyPolicyAdmin"]

ADMIN_ONLY = (Role.ADMIN.value,)
PROMPT_FIELDS = ("prompt_style", "decline_sentence", "instructions")
PROMPT_WARNING = (
    "These three make the prompt. Whoever changes one of them takes every adapter that was trained before out of "
    "service: it is refused until the old prompt is back, and a new one has to be trained and proved."
)

if TYPE_CHECKING:
    _KeyForm = forms.ModelForm[ApiKey]
    _UserAdmin = UserAdmin[User]
else:
    _KeyForm = forms.ModelForm
    _UserAdmin = UserAdmin


class MembershipInline(TabularInline):
    """People and roles on the page of an assistant."""

    model = Membership
    extra = 0
    fields = ("user", "role", "created_at")
    readonly_fields = ("created_at",)
    autocomplete_fields = ("user",)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._is_admin(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._is_admin(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # a role is given or taken, so that the audit trail reads as two acts

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._is_admin(request, obj)

    def _is_admin(self, request: HttpRequest, obj: Any) -> bool:
        page = self.admin_site._registry[Assistant]
        return isinstance(page, ScopedAdmin) and page.may(request, ADMIN_ONLY, obj)


@admin.register(Assistant)
class AssistantAdmin(ScopedAdmin):
    assistant_path = ""
    change_roles = ADMIN_ONLY
    inlines = (MembershipInline,)
    list_display = ("name", "slug", "prompt_style", "retrieval_k", "evidence_sentences", "created_at")
    search_fields = ("name", "slug")
    readonly_fields = ("created_at", "prompt_digest")
    fieldsets = (
        (None, {"fields": ("name", "slug")}),
        ("Prompt", {"fields": (*PROMPT_FIELDS, "prompt_digest"), "description": PROMPT_WARNING}),
        ("Answers", {"fields": ("handoff_sentence",)}),
        ("Retrieval", {"fields": ("retrieval_k", "evidence_sentences", "evidence_threshold", "glossary")}),
        ("Keeping", {"fields": ("keep_turns_days",)}),
        ("Record", {"fields": ("created_at",)}),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False  # it would take turns, datasets and adapters with it

    def save_model(self, request: HttpRequest, obj: Assistant, form: forms.ModelForm[Any], change: bool) -> None:
        before = Assistant.objects.get(pk=obj.pk).prompt_digest if change else obj.prompt_digest
        super().save_model(request, obj, form, change)
        details: dict[str, Any] = {"fields": list(form.changed_data)}
        if obj.prompt_digest != before:
            details["prompt_digest"] = [before, obj.prompt_digest]
            self.message_user(
                request,
                f"The prompt changed (from {before} to {obj.prompt_digest}). Adapters trained on the old one are "
                "refused from now on: undo the change, or train a new adapter.",
                messages.WARNING,
            )
        action = "assistant.changed" if change else "assistant.created"
        audit(assistant=obj, actor=_actor(request), action=action, target=obj.slug, details=details)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        super().save_formset(request, form, formset, change)
        changes = [("role.granted", m) for m in formset.new_objects]
        changes += [("role.withdrawn", m) for m in formset.deleted_objects]
        for action, membership in changes:
            audit(
                assistant=membership.assistant, actor=_actor(request), action=action,
                target=f"{membership.user.get_username()}: {membership.role}",
            )  # fmt: skip


@admin.register(Membership)
class MembershipAdmin(ScopedAdmin):
    """Who may do what, over all assistants; roles are given on the page of the assistant."""

    view_roles = ADMIN_ONLY
    list_display = ("user", "assistant", "role", "created_at")
    list_filter = ("role", "assistant")
    list_select_related = ("user", "assistant")
    search_fields = ("user__username", "assistant__name")


MADE = "keys_made"
"""In the session: forms that have made a key already."""


class KeyForm(_KeyForm):
    once = forms.CharField(widget=forms.HiddenInput, initial=lambda: secrets.token_hex(8), required=False, label="")
    scopes = forms.MultipleChoiceField(choices=Scope.choices, widget=forms.CheckboxSelectMultiple)

    class Meta:
        model = ApiKey
        fields: ClassVar = ["assistant", "name", "scopes", "expires_at"]

    def clean_expires_at(self) -> Any:
        expires_at = self.cleaned_data.get("expires_at")
        if expires_at is not None and expires_at <= timezone.now():
            raise ValidationError("The key would have expired already.")
        return expires_at


@admin.register(ApiKey)
class ApiKeyAdmin(ScopedAdmin):
    """Keys are made here, shown once, and revoked; never changed, never deleted."""

    view_roles = add_roles = ADMIN_ONLY
    form = KeyForm
    list_display = ("name", "prefix", "assistant", "scope_list", "state", "last_used_at", "created_at")
    list_filter = ("assistant",)
    list_select_related = ("assistant",)
    search_fields = ("name", "prefix")
    actions = ("revoke",)

    @display(description="Scopes")
    def scope_list(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @display(description="State", label={"usable": "success", "expired": "warning", "revoked": "danger"})
    def state(self, key: ApiKey) -> str:
        if key.revoked_at is not None:
            return "revoked"
        return "usable" if key.is_usable else "expired"

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> Any:
        """The page that shows a key answers the form itself: loaded again, it would make another key."""
        if request.method == "POST" and request.POST.get("once") in request.session.get(MADE, []):
            self.message_user(request, "That key was made before; it is shown once only.", messages.WARNING)
            return HttpResponseRedirect(reverse("admin:assistants_apikey_changelist"))
        return super().add_view(request, form_url, extra_context)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: forms.ModelForm[Any], change: bool) -> None:
        if once := form.cleaned_data["once"]:
            request.session[MADE] = [*request.session.get(MADE, []), once][-20:]
        key, secret = issue_key(
            assistant=obj.assistant, name=obj.name, scopes=form.cleaned_data["scopes"],
            expires_at=obj.expires_at, created_by=_actor(request),
        )  # fmt: skip
        obj.pk, obj.prefix = key.pk, key.prefix
        request.issued_secret = secret  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        """The secret goes straight into this one page: a message would put it in a cookie."""
        context = {
            **self.admin_site.each_context(request), "title": "Copy the new key now", "opts": self.opts,
            "key": obj, "secret": request.issued_secret,  # type: ignore[attr-defined]
        }  # fmt: skip
        response = TemplateResponse(request, "assistants/key_created.html", context)
        response.headers["Cache-Control"] = "no-store"
        return response

    @admin.action(description="Revoke")
    def revoke(self, request: HttpRequest, keys: QuerySet[ApiKey]) -> None:
        allowed = [key for key in keys.select_related("assistant") if self.may(request, ADMIN_ONLY, key)]
        for key in allowed:
            revoke_key(key=key, actor=_actor(request))
        self.message_user(request, f"{len(allowed)} key{'s' * (len(allowed) != 1)} revoked.", messages.SUCCESS)


class LooksFilter(admin.SimpleListFilter):
    """Looks are many: the list leaves them out until they are asked for."""

    title = "kind"
    parameter_name = "looks"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("only", "Who looked at what"), ("all", "Acts and looks")]

    def choices(self, changelist: Any) -> Any:
        first, *others = super().choices(changelist)
        return [{**first, "display": "Acts"}, *others]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        if self.value() == "all" or request.GET.get("action"):
            return queryset
        look = Q(action__endswith=VIEWED)
        return queryset.filter(look) if self.value() == "only" else queryset.exclude(look)


@admin.register(AuditEvent)
class AuditEventAdmin(ScopedAdmin):
    when_empty = "Who did what, and who looked at what."
    view_roles = ADMIN_ONLY
    list_display = ("at", "actor_name", "action", "target", "assistant", "reason")
    list_filter = (LooksFilter, when("at"), "action", "assistant")
    list_select_related = ("assistant",)
    search_fields = ("actor_name", "target", "action")
    show_full_result_count = False
    list_per_page = 50


admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class PersonAdmin(_UserAdmin, ModelAdmin):
    """Accounts; superusers only. What somebody may do is said by roles, so groups and permissions are not shown."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_superuser", "last_login")
    list_filter = ("is_active", "is_superuser")
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("Access", {"fields": ("is_active", "is_staff", "is_superuser")}),
        ("Record", {"fields": ("last_login", "date_joined")}),
    )
    readonly_fields = ("last_login", "date_joined")
    filter_horizontal = ()

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[User], search_term: str) -> Any:
        return super().get_search_results(request, queryset.order_by("username"), search_term)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Admins of an assistant look people up to give them roles.
        user: Any = request.user
        if request.path.endswith("/autocomplete/"):
            page = self.admin_site._registry[Assistant]
            return isinstance(page, ScopedAdmin) and page.may(request, ADMIN_ONLY, None)
        return bool(user.is_active and user.is_superuser)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        if not change:
            obj.is_staff = True  # everybody who has an account works in the admin
        super().save_model(request, obj, form, change)
        action = "person.changed" if change else "person.created"
        audit(
            assistant=None, actor=_actor(request), action=action, target=obj.username,
            details={"fields": [name for name in form.changed_data if "password" not in name]},
        )  # fmt: skip


def _actor(request: HttpRequest) -> User | None:
    return request.user if isinstance(request.user, User) else None
