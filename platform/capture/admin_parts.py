"""Small pieces that the admin pages of this room share."""

from __future__ import annotations

from datetime import datetime

from django.contrib.auth.models import User
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

EXCERPT = 110


def excerpt(text: str) -> str:
    """The first words, on one line."""
    line = " ".join(text[: EXCERPT * 2].split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1].rstrip() + "…"


def moment(at: datetime) -> SafeString:
    """How long ago, with the exact time on hover."""
    return format_html(
        '<time datetime="{}" title="{}">{} ago</time>',
        at.isoformat(), at.strftime("%Y-%m-%d %H:%M:%S %Z"), timesince(at, depth=1),
    )  # fmt: skip


def actor_of(request: HttpRequest) -> User | None:
    return request.user if isinstance(request.user, User) else None
