"""Shares as people read them."""

from __future__ import annotations

from django import template

register = template.Library()


@register.filter
def percent(value: float | str | None, digits: int = 1) -> str:
    """0.534 → “53.4 %”; a dash for what is not there (templates say an empty text)."""
    return "–" if value is None or isinstance(value, str) else f"{value * 100:.{digits}f} %"


@register.filter
def points(value: float | None) -> str:
    """0.031 → “+3.1”: a change in percentage points."""
    return "–" if value is None else f"{value * 100:+.1f}".replace("-", "−")


@register.filter
def size(value: float | None) -> str:
    """0.091 → “9.1”: a number of percentage points without a sign."""
    return "–" if value is None else f"{value * 100:.1f}"


@register.filter
def level(value: float | None) -> float | None:
    """−0.02 → 0.02: a level is kept as its negative, so that more is better everywhere."""
    return None if value is None else abs(value)
