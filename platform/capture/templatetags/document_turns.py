"""Which turns used a document: for the document's page, which is of a room that knows no turns."""

from __future__ import annotations

from typing import Any

from django import template

from assistants.access import has_role
from assistants.models import Role
from capture.models import Retrieval

register = template.Library()

OVERSEERS = (Role.ADMIN.value, Role.PRIVACY.value, Role.REVIEWER.value)
MOST = 5_000
"""Passages that are counted; a document that everybody asks for has been retrieved a million times."""


@register.inclusion_tag("capture/_document_turns.html", takes_context=True)
def document_turns(context: dict[str, Any], document: Any) -> dict[str, Any]:
    """How many turns retrieved it, in how many it came first, and where their list is. Two bounded queries."""
    if not has_role(context["request"].user, document.assistant, *OVERSEERS):
        return {"shown": False}
    rows: list[tuple[Any, int]] = []
    for found in Retrieval.objects.of_document(document.assistant_id, document.path):
        rows += found.order_by().values_list("turn", "rank")[:MOST]
    return {
        "shown": True,
        "document": document,
        "turns": len({turn for turn, _ in rows}),
        "first": len({turn for turn, rank in rows if rank == 1}),
        "more": len(rows) >= MOST,
    }
