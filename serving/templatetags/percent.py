"""Shares as people read them."""

from __future__ import annotations

from collections.abc import Mapping

from django import template

from training.evaluation.statistics import interval_told, share_told
from training.signs import signed as signed_text

register = template.Library()


@register.filter
def percent(value: float | str | None, digits: int = 1) -> str:
    """0.534 → “53.4 %”; a dash for what is not there (templates say an empty text)."""
    return "–" if value is None or isinstance(value, str) else f"{value * 100:.{digits}f} %"


@register.filter
def points(value: float | None) -> str:
    """0.031 → “+3.1”: a change in percentage points."""
    return "–" if value is None else signed_text(value * 100)


@register.filter
def signed(value: float | None, digits: int = 1) -> str:
    """0.016 → “+0.016” with three digits: a change in its own unit."""
    return "–" if value is None else signed_text(value, digits)


@register.filter
def share_interval(estimate: Mapping[str, float]) -> str:
    """“47.1 %–60.0 %” of a share; a dash where too few documents speak for one."""
    told = share_told(estimate)
    return f"{percent(told[0])}–{percent(told[1])}" if told else "–"


@register.filter
def ratio_interval(estimate: Mapping[str, float]) -> str:
    """As `share_interval`, of a precision or the like: of how many it is one is not stored, so that Wilson's interval
    is not known where it is 0 or 1."""
    return "–" if estimate["low"] == estimate["high"] else share_interval(estimate)


@register.filter
def change_interval(estimate: Mapping[str, float]) -> str:
    """“−1.2 … +5.0” of a change in points; a dash where too few documents speak for one."""
    told = interval_told(estimate)
    return f"{points(told[0])} … {points(told[1])}" if told else "–"


@register.filter
def size(value: float | None) -> str:
    """0.091 → “9.1”: a number of percentage points without a sign."""
    return "–" if value is None else f"{value * 100:.1f}"


@register.filter
def level(value: float | None) -> float | None:
    """−0.02 → 0.02: a level is kept as its negative, so that more is better everywhere."""
    return None if value is None else abs(value)
