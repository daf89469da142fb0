"""Filters of the Turns list."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest

from assistants.access import assistants_of
from capture.models import Turn, TurnQuerySet
from capture.turn_list import adapters_of
from knowledge.models import Document


class VerdictFilter(SimpleListFilter):
    title = "verdict"
    parameter_name = "verdict"
    _lookups: ClassVar[dict[str, dict[str, Any]]] = {
        "good": {"resolution__verdict": "good"},
        "bad": {"resolution__verdict": "bad"},
        "open": {"resolution": None},
        "none": {"resolution": None, "queue_items": None},
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("good", "✓ Good"), ("bad", "✗ Bad"), ("open", "Being labelled"), ("none", "Not in a queue")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Turn]) -> QuerySet[Turn]:
        value = self.value() or ""
        if value == "open":
            # A turn may be in several queues. Not `distinct()` over a join: it would sort all columns of all turns.
            labelled_now = Turn.objects.filter(queue_items__done=False).order_by()
            queryset = queryset.filter(pk__in=labelled_now.values("pk"))
        return queryset.filter(**self._lookups[value]) if value in self._lookups else queryset


class FeedbackFilter(SimpleListFilter):
    title = "feedback"
    parameter_name = "feedback"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("up", "▲ Good"), ("down", "▼ Bad"), ("any", "Any"), ("none", "None")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Turn]) -> QuerySet[Turn]:
        known = dict(self.lookups(request, None))
        if self.value() not in known or not isinstance(queryset, TurnQuerySet):
            return queryset
        return queryset.with_feedback(str(self.value()))


class DocumentFilter(SimpleListFilter):
    """``document``: the id of one. It offers no choice, since a house has thousands: a document's page links here."""

    title = "document"
    parameter_name = "document"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        found = self._document(request)
        return [(str(found.pk), found.path)] if found is not None else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Turn]) -> QuerySet[Turn]:
        found = self._document(request)
        if found is None or not isinstance(queryset, TurnQuerySet):
            return queryset
        return queryset.filter(assistant=found.assistant_id).that_used(found.assistant_id, found.path)

    def _document(self, request: HttpRequest) -> Document | None:
        """One that the viewer may know of; looked up once."""
        if not hasattr(self, "_found"):
            value = self.value() or ""
            known = value.isdecimal() and len(value) < 19
            own = Document.objects.filter(assistant__in=assistants_of(request.user))
            self._found = own.filter(pk=value).only("assistant", "path").first() if known else None
        return self._found


class AdapterFilter(SimpleListFilter):
    title = "adapter"
    parameter_name = "adapter"
    NONE = "-"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = adapters_of(list(assistants_of(request.user).values_list("pk", flat=True)))
        return [(name or self.NONE, name or "No adapter") for name in names]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Turn]) -> QuerySet[Turn]:
        value = self.value()
        return queryset if value is None else queryset.filter(adapter="" if value == self.NONE else value)
