"""Filters of the Turns list."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import SimpleListFilter
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest

from assistants.access import assistants_of
from capture.models import Turn, TurnQuerySet
from capture.turn_list import adapters_of
from knowledge.models import Document


class VerdictFilter(SimpleListFilter):
    title = "verdict"
    parameter_name = "verdict"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("good", "✓ Good"), ("bad", "✗ Bad"), ("open", "Being labelled"), ("none", "Not in a queue")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Turn]) -> QuerySet[Turn]:
        match self.value():
            case "good" | "bad" as verdict:
                return queryset.filter(resolution__verdict=verdict)
            case "open":
                return queryset.filter(_beside("queue_items", done=False), ~_beside("resolution"))
            case "none":
                return queryset.filter(~_beside("queue_items"), ~_beside("resolution"))
        return queryset


def _beside(relation: str, **lookup: Any) -> Exists:
    """Whether such a row belongs to the turn. Over a join that asks for none, PostgreSQL expects one row, and reads all
    turns for it; and a turn may be in several queues."""
    model: Any = Turn._meta.get_field(relation).related_model
    return Exists(model.objects.filter(turn=OuterRef("pk"), **lookup))


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
