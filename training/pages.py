"""What the pages of this room share: rendering in the admin's frame, who may read, choices of one's own assistants."""

from __future__ import annotations

from typing import Any, TypeVar

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.core.paginator import Page, Paginator
from django.db.models import Model
from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse

from assistants.access import assistants_of, has_role
from assistants.models import Assistant, Role

READERS = (Role.ADMIN.value, Role.REVIEWER.value)
ADMINS = (Role.ADMIN.value,)
MAX_QUERY = 200
M = TypeVar("M", bound=Model)


class AssistantForm(forms.Form):
    """A form about one assistant of which the person is an admin."""

    assistant = forms.ModelChoiceField(Assistant.objects.none(), empty_label=None)

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.own = assistants_of(user, *ADMINS)
        field: Any = self.fields["assistant"]
        field.queryset = self.own


def render_page(request: HttpRequest, template: str, context: dict[str, Any]) -> TemplateResponse:
    return TemplateResponse(request, template, {**admin.site.each_context(request), **context})


def require_admin_somewhere(request: HttpRequest) -> None:
    """Raises:
    PermissionDenied: the person is an admin of no assistant.
    """
    if not assistants_of(request.user, *ADMINS).exists():
        raise PermissionDenied("This needs the role of an admin.")


def readable(request: HttpRequest, row: M | None, *roles: str) -> M:
    """The row, if this person holds one of ``roles`` (reader) on its assistant.

    Raises:
        Http404: there is no such row, or it belongs to others: nobody learns which.
    """
    assistant: Any = getattr(row, "assistant", None)
    if row is None or not has_role(request.user, assistant, *(roles or READERS)):
        raise Http404("There is no such page.")
    return row


def words_of(request: HttpRequest, name: str = "q") -> str:
    return request.GET.get(name, "").replace("\x00", " ").strip()[:MAX_QUERY]


def one_of(request: HttpRequest, name: str, allowed: Any) -> str:
    """A filter's value, or an empty string for anything that is no choice."""
    value = request.GET.get(name, "")
    return value if value in allowed else ""


def page_of(request: HttpRequest, rows: Any, size: int) -> Page[Any]:
    return Paginator(rows, size).get_page(request.GET.get("page"))
