"""Lookups that Django's templates cannot do by themselves."""

from __future__ import annotations

from collections.abc import Mapping

from django import template

register = template.Library()


@register.filter
def at(mapping: Mapping[int, str], key: int) -> str:
    """The value of a key, or nothing."""
    return mapping.get(key, "")
