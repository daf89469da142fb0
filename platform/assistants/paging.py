"""Pages of long lists in the admin."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

COUNTED = 10_000
"""Rows up to which a list is counted: nobody turns so many pages, and counting a million costs more than the page."""

DEEP = 10
"""Pages from the one after this are read by their keys."""


class Counted(int):
    """How many rows a list has, as it is written: "1,234", and "10,000+" where counting stopped.

    A number for the admin, which computes with it, and words in its templates ("Select all 10,000+ turns").
    """

    more: bool

    def __new__(cls, n: int, *, more: bool) -> Counted:
        made = super().__new__(cls, n)
        made.more = more
        return made

    def __str__(self) -> str:
        return f"{int(self):,}{'+' if self.more else ''}"


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # Django has no parameter here at run time
    """Counts to `COUNTED` and no further: pages end there, and what stands beside them says that rows go on."""

    template_name = "assistants/_list_pages.html"
    """What unfold shows in place of its own, which knows no end of counting and makes a link of "…"."""
    counted = f"{COUNTED:,}"

    def _get_page(self, object_list: Any, number: int, paginator: Any) -> Any:
        if number > DEEP and isinstance(object_list, QuerySet):
            # Rows before a page are read and thrown away: an index has their keys, whole rows are of the page alone.
            keys = list(object_list.values_list("pk", flat=True))
            rows: Any = self.object_list
            object_list = rows.filter(pk__in=keys)
        return super()._get_page(object_list, number, paginator)  # type: ignore[misc]

    @cached_property
    def count(self) -> Counted:
        rows: Any = self.object_list
        found = int(rows.order_by().values("pk")[: COUNTED + 1].count())
        return Counted(min(found, COUNTED), more=found > COUNTED)


class BoundedList:
    """Mixed into the admin's list. Beside its heading unfold says "… results (Show all)", where the link takes all
    filters away, whenever it was not told of how many: also where nothing is filtered, and where nobody counted."""

    result_count: int
    full_result_count: int | None
    has_active_filters: bool
    query: str

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)  # type: ignore[misc]
        more = isinstance(self.result_count, Counted) and self.result_count.more
        if more or not (self.has_active_filters or self.query):
            self.full_result_count = self.result_count
