"""A filter by time for long lists in the admin.

Django's ``date_hierarchy`` asks for the first and the last day, and then for every day between: each reads the whole
list, half a second at a million rows. Here the choices are made without a query, and each is one range of an index.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

LAST = {"1d": ("Last 24 hours", 1), "7d": ("Last 7 days", 7), "30d": ("Last 30 days", 30), "90d": ("Last 90 days", 90)}
MONTHS = 24
"""Offered; an address may name any month."""
_MONTH = re.compile(r"(20\d\d)-(0[1-9]|1[0-2])")


class WhenFilter(SimpleListFilter):
    """``when``: ``7d`` or ``2026-11``. What is neither filters nothing."""

    title = "when"
    parameter_name = "when"
    field: ClassVar[str]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        offered = [(value, label) for value, (label, _) in LAST.items()]
        first = timezone.localtime().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        months = [_earlier(first, n) for n in range(MONTHS)]
        return [*offered, *((f"{month:%Y-%m}", f"{month:%B %Y}") for month in months)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value() or ""
        if value in LAST:
            return queryset.filter(**{f"{self.field}__gte": timezone.now() - timedelta(days=LAST[value][1])})
        if found := _MONTH.fullmatch(value):
            year, month = int(found[1]), int(found[2])
            first = timezone.make_aware(datetime(year, month, 1))
            return queryset.filter(**{f"{self.field}__gte": first, f"{self.field}__lt": _earlier(first, -1)})
        return queryset


def when(field: str, title: str = "when") -> type[WhenFilter]:
    """The filter of a list by that column, which an index should begin with."""
    return type("WhenFilter", (WhenFilter,), {"field": field, "title": title})


def _earlier(first: datetime, months: int) -> datetime:
    """The first of a month so many months before (or, below 0, after) the month of ``first``."""
    count = first.year * 12 + first.month - 1 - months
    return timezone.make_aware(datetime(count // 12, count % 12 + 1, 1))
