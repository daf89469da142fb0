"""Numbers of a comparison as people read them."""

from __future__ import annotations

from django import template

register = template.Library()


@register.filter
def share(value: float | None) -> str:
    """0.534 → “53 %”."""
    return "–" if value is None else f"{value * 100:.0f} %"
