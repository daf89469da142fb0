"""Days that a text names, in whatever form."""

from __future__ import annotations

import re

_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_MONTH = "|".join(f"{name[:3]}(?:{name[3:]})?" for name in _MONTHS)
_DATES = (
    re.compile(r"\b(?P<year>\d{4})-(?P<number>\d{1,2})-(?P<day>\d{1,2})\b"),
    re.compile(r"\b(?P<day>\d{1,2})[./](?P<number>\d{1,2})[./](?P<year>\d{4})\b"),
    re.compile(
        rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<month>{_MONTH})\b\.?(?:,?\s+(?P<year>\d{{4}}))?"
    ),
    re.compile(rf"\b(?P<month>{_MONTH})\.?\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,?\s+(?P<year>\d{{4}}))?"),
)


def dates(text: str) -> frozenset[tuple[int | None, int, int]]:
    """Days named in a text as (year or None, month, day): 2026-03-01, 1.3.2026 and 1/3/2026 (day first), 1 March 2026,
    March 1st. What no calendar has is left out."""
    found = set()
    left = text.casefold()
    for pattern in _DATES:
        for match in pattern.finditer(left):
            parts = match.groupdict()
            name = parts.get("month")
            month = (
                next(i for i, m in enumerate(_MONTHS, 1) if m.startswith(name[:3])) if name else int(parts["number"])
            )
            day, year = int(parts["day"]), int(parts["year"]) if parts["year"] else None
            if 1 <= month <= 12 and 1 <= day <= 31:
                found.add((year, month, day))
        left = pattern.sub(" ", left)  # what one form has read, the next must not read again
    return frozenset(found)
