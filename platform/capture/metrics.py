"""Which metrics an assistant has, and what each of them holds."""

from __future__ import annotations

from collections.abc import Mapping

from assistants.errors import FieldError
from assistants.models import Assistant
from capture.late import MAX_METRICS, Metric
from capture.naming import is_plain

_SENTENCES = {
    Metric.Holds.BOOLEAN: "This metric is true or false",
    Metric.Holds.NUMBER: "This metric is a number",
}


def holds(value: float | bool | None) -> Metric.Holds:
    return Metric.Holds.BOOLEAN if isinstance(value, bool) else Metric.Holds.NUMBER


def declare(assistant: Assistant, wanted: Mapping[str, Metric.Holds]) -> dict[str, str]:
    """What each of the metrics holds, {name: `Metric.Holds`}. Names that are new are declared by this; beyond
    `MAX_METRICS`, and where they are somebody's number or a secret, they are left out. Two processes at once may pass
    that bound by a few."""
    if not wanted:
        return {}
    mine = Metric.objects.filter(assistant=assistant)
    known = dict(mine.filter(name__in=wanted).values_list("name", "holds"))
    new = sorted(name for name in wanted.keys() - known.keys() if is_plain(name))
    if new:
        room = max(0, MAX_METRICS - mine.count())
        rows = [Metric(assistant=assistant, name=name, holds=wanted[name]) for name in new[:room]]
        Metric.objects.bulk_create(rows, ignore_conflicts=True)
        known |= dict(mine.filter(name__in=new).values_list("name", "holds"))
    return known


def misfit(known: Mapping[str, str], name: str, value: float | bool | None) -> FieldError | None:
    """Why this value cannot be posted under this name; ``known`` from `declare`."""
    if name not in known:
        if not is_plain(name):
            return {"field": "metric", "message": "The name looks like somebody's number, or like a secret"}
        return {"field": "metric", "message": f"The assistant has {MAX_METRICS} metrics already; use one of them"}
    if known[name] != holds(value):
        return {"field": "value", "message": _SENTENCES[Metric.Holds(known[name])]}
    return None
