"""One evaluation among others: the adapters before and after it, and other seeds of its recipe."""

from __future__ import annotations

from typing import Any

from django.db.models import F

from training.evaluation.seeds import OverSeeds, over_seeds, same_recipe
from training.models import Evaluation

MOST = 40
LOOKED_AT = 200


def trend(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The newest finished evaluation of each adapter on this benchmark, in the adapters' order: one query."""
    found = Evaluation.objects.filter(
        assistant=evaluation.assistant_id, benchmark=evaluation.benchmark_id, state=Evaluation.State.SUCCEEDED
    ).select_related("adapter")
    newest: dict[int, Any] = {}
    # Of each comparison one value: a whole one may be a hundred kilobytes.
    wanted = found.defer("results", "comparison", "gate", "sentence").annotate(
        shown=F("comparison__primary"), former=F("comparison__grounded_correct")
    )
    for one in wanted.order_by("-created_at", "-pk")[:LOOKED_AT]:
        newest.setdefault(one.adapter.number, one)
    return [
        {
            "evaluation": one,
            "primary": one.shown or one.former,
            "here": one.pk == evaluation.pk,
        }
        for _, one in sorted(newest.items())[-MOST:]
    ]


def trend_chart(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The gain of each adapter over today with its interval, in points."""
    points = [row for row in rows if row["primary"]]
    return {
        "bars": [
            {
                "label": [f"Adapter {row['evaluation'].adapter.number}"],
                "arm": "adapter_rag",
                **{key: round(row["primary"]["difference"][key] * 100, 1) for key in ("value", "low", "high")},
            }
            for row in points
        ],
        "axis": "Gain over today, points",
        "signed": True,
    }


def seeds(evaluation: Evaluation) -> OverSeeds | None:
    """All finished evaluations of this recipe on this benchmark together; None when this is the only one."""
    others = same_recipe(evaluation)
    return over_seeds(others) if len(others) > 1 else None
