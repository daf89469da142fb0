"""Why a recipe gives nothing to train on, in sentences that say what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from training.data.collect import Funnel
from training.data.pool import Head
from training.data.recipe import Recipe


def nothing_to_learn(rows: Sequence[Head], funnel: Funnel) -> str:
    """Why nothing can be learnt from these rows, with what to do; empty when something can."""
    if any(row.answers for row in rows):
        return ""
    entered = sum(step["before"] for step in funnel.steps if step["step"] in SOURCES)
    if not entered:
        return (
            "No row with an answer is left: the recipe's sources hold nothing. Label some turns as good or with a "
            "correction, write synthetic questions, or widen the recipe's filters."
        )
    lost: Counter[str] = Counter()
    for step in funnel.steps:
        if step["kept"] < step["before"]:
            lost.update(step["why"])
    took = ", ".join(f"{n} {why}" for why, n in lost.most_common(3))
    kinds = Counter("only say what not to answer" if not r.learnt else KINDS[r.kind] for r in rows)
    left = f" The {len(rows)} rows that are left all {', or '.join(sorted(kinds))}." if rows else ""
    return (
        "No row with an answer is left. Label some turns as good or with a correction, or write synthetic questions."
        + left
        + (f" Most were lost to: {took}." if took else "")
    )


def no_room(recipe: Recipe) -> str:
    """What is said where the token budget has taken every row with an answer."""
    return (
        f"No row with an answer fits into {recipe.max_tokens} tokens, not even without distractors. Raise “Most tokens "
        "of a row”, or set it to 0 for no limit."
    )


SOURCES = ("resolved turns", "imported rows", "compared pairs", "synthetic questions")
KINDS = {"answer": "answer", "decline": "decline", "handoff": "hand over"}
