"""Pages of long lists in the admin."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.utils.functional import cached_property

COUNTED = 10_000
"""Rows up to which a list is counted: nobody turns so many pages, and counting a million costs more than the page."""


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # Django has no parameter here at run time
    """Counts to `COUNTED` and no further."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by().values("pk")[:COUNTED].count())
