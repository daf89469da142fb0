"""The base of every admin page that belongs to an assistant: people see the rows of their assistants, nobody else's.

Django's own model permissions know no tenants; here the roles of `Membership` decide, for lists, pages and actions.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from django.contrib.admin import RelatedFieldListFilter
from django.contrib.auth.models import User
from django.db.models import ForeignKey, Model, QuerySet
from django.forms import ModelChoiceField
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.admin import ModelAdmin

from assistants.access import ALL_ROLES, assistants_of, has_role, holds_anywhere
from assistants.models import Assistant, Membership, Role
from assistants.paging import BoundedList, BoundedPaginator


class OwnRowsFilter(RelatedFieldListFilter):
    """Offers the assistants, people and rows of one's own assistants; Django's would name everybody's."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        user: Any = request.user
        if user.is_superuser:
            return super().field_choices(field, request, model_admin)
        own: QuerySet[Any] = assistants_of(user)
        limits = {
            Assistant: {"pk__in": own},
            User: {"pk__in": Membership.objects.filter(assistant__in=own).values("user")},
        }
        limit = limits.get(field.related_model, {"assistant__in": own})
        return field.get_choices(include_blank=False, limit_choices_to=limit)


class ScopedAdmin(ModelAdmin):
    """``assistant_path`` leads from the row to its assistant (``"turn__assistant"``; ``""``: the row is one)."""

    assistant_path: ClassVar[str] = "assistant"
    view_roles: ClassVar[Collection[str]] = ALL_ROLES
    add_roles: ClassVar[Collection[str]] = ()
    change_roles: ClassVar[Collection[str]] = ()
    delete_roles: ClassVar[Collection[str]] = ()
    paginator = BoundedPaginator
    empty_value_display = "–"
    when_empty: ClassVar[str] = ""
    """What fills the list, for whoever finds it empty."""

    class Media:
        css: ClassVar = {"all": ["assistants/list.css"]}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[Any]:
        return type("ScopedList", (BoundedList, super().get_changelist(request, **kwargs)), {})

    def assistant_of(self, obj: Model) -> Assistant:
        found: Any = obj
        for step in filter(None, self.assistant_path.split("__")):
            found = getattr(found, step)
        return found

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        user: Any = request.user
        if user.is_superuser:
            return rows
        lookup = f"{self.assistant_path}__in" if self.assistant_path else "pk__in"
        return rows.filter(**{lookup: assistants_of(user, *self.view_roles)})

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        return [self._scoped(name) for name in super().get_list_filter(request)]

    def _scoped(self, name: Any) -> Any:
        """A relation by its name gets the filter; what is written out in full stays."""
        fields = {field.name for field in self.opts.get_fields() if isinstance(field, ForeignKey)}
        return (name, OwnRowsFilter) if name in fields else name

    def may(self, request: HttpRequest, roles: Collection[str], obj: Model | None) -> bool:
        """Whether the person holds one of ``roles``: on the row's assistant, or on any when there is no row."""
        user: Any = request.user
        if not (user.is_active and user.is_staff):
            return False
        if user.is_superuser:
            return True
        if not roles:
            return False
        if obj is not None and obj.pk is not None:
            return has_role(user, self.assistant_of(obj), *roles)
        return holds_anywhere(user, *roles)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.may(request, self.view_roles, None)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.may(request, self.view_roles, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(self.add_roles) and self.may(request, self.add_roles, None)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(self.change_roles) and self.may(request, self.change_roles, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(self.delete_roles) and self.may(request, self.delete_roles, obj)

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: int) -> HttpResponse:
        """Back to the list, also for whoever may delete a row and not change one."""
        response: HttpResponse = super().response_delete(request, obj_display, obj_id)
        home = reverse("admin:index", current_app=self.admin_site.name)
        if response.headers.get("Location") == home and self.has_view_permission(request):
            return HttpResponseRedirect(reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"))
        return response

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> ModelChoiceField[Any] | None:
        if db_field.related_model is Assistant:
            kwargs.setdefault("queryset", assistants_of(request.user, *(self.add_roles or (Role.ADMIN,))))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)
