"""A queue's guideline as HTML: Markdown without raw HTML, so that nothing in it can run."""

from __future__ import annotations

from functools import lru_cache

from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

# `js-default` escapes HTML, refuses javascript: and data: addresses; pictures would load from other machines.
_markdown = MarkdownIt("js-default", {"linkify": False}).disable(["image", "linkify"])


@lru_cache(maxsize=64)
def render_guideline(text: str) -> SafeString:
    return mark_safe(_markdown.render(text))  # noqa: S308 (the renderer escapes everything that is not Markdown)
