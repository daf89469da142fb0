"""Two answers side by side with what differs marked, as safe HTML."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

MAX_CHARS = 4000
"""Per answer. In texts of over 200 pieces the matcher passes over the most frequent ones (its `autojunk`): without that
a page of one repeated word would take minutes."""


def differences(before: str, after: str) -> tuple[SafeString, SafeString]:
    """(before, after) with ``<del>`` around words that only the first has and ``<ins>`` around those of the second.
    Spaces are kept; everything is escaped."""
    a, b = _pieces(before[:MAX_CHARS]), _pieces(after[:MAX_CHARS])
    left: list[tuple[str, str]] = []
    right: list[tuple[str, str]] = []
    for tag, a0, a1, b0, b1 in SequenceMatcher(None, a, b).get_opcodes():
        left.append(("" if tag == "equal" else "del", "".join(a[a0:a1])))
        right.append(("" if tag == "equal" else "ins", "".join(b[b0:b1])))
    return _html(left), _html(right)


def _pieces(text: str) -> list[str]:
    return re.findall(r"\s+|[\w£$€%.,:'’-]+|.", text)


def _html(parts: list[tuple[str, str]]) -> SafeString:
    return format_html_join(
        "", "{}", ((format_html("<{0}>{1}</{0}>", tag, text) if tag else text,) for tag, text in parts if text)
    )
