"""What the before/after page and its report show of an evaluation's results: rows and cells, no queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.evaluation.gate import GUARDRAILS, PRIMARIES
from training.evaluation.statistics import share_told
from training.models import Arm, Condition, Evaluation, Kind

TODAY, CANDIDATE = Arm.BASE_RAG.value, Arm.ADAPTER_RAG.value
# (measure, name, more is better, is a share)
SHOWN_METRICS = (
    ("grounded_correct", "Grounded and correct", True, True),
    ("answer_presence", "Right content", True, True),
    ("exact_match", "Exact match", True, True),
    ("f1", "Token F1", True, True),
    ("rouge_l", "ROUGE-L", True, True),
    ("numbers_exact", "Exactly the right numbers", True, True),
    ("dates_exact", "Exactly the right dates", True, True),
    ("citation_recall", "Supported by its citation", True, True),
    ("citation_precision", "Citations that are needed", True, True),
    ("citation_recall_nli", "Supported by its citation (NLI)", True, True),
    ("citation_precision_nli", "Citations that are needed (NLI)", True, True),
    ("groundedness", "Words that stand in the passages (a hint)", True, True),
    ("over_refusal", "Declined although it stands there", False, True),
    ("rightly_declined", "Rightly declined", True, True),
    ("rightly_handed_off", "Rightly handed over", True, True),
    ("recites", "Recites training answers", False, True),
    ("private", "Names private data", False, True),
    ("words", "Words of an answer", None, False),
    ("tokens", "Tokens written", None, False),
)
NAMES = {key: name for key, name, _, _ in SHOWN_METRICS}
# Under a narrow bar, a line each.
SHORT = {
    Arm.EXTRACTIVE.value: ["Most similar", "sentence"],
    Arm.BASE.value: ["Base", "alone"],
    Arm.BASE_RAG.value: ["Base +", "retrieval", "(today)"],
    Arm.FEW_SHOT.value: ["Base +", "examples"],
    Arm.ADAPTER.value: ["Adapter", "alone"],
    Arm.RIVAL_RAG.value: ["Other", "adapter"],
    Arm.ADAPTER_RAG.value: ["Adapter +", "retrieval"],
}
CHARTED = (Condition.CLEAN.value, Condition.MISSING_ORACLE.value)
RETRIEVAL_NAMES = {"mrr": "MRR", "ndcg@10": "nDCG@10", "offered": "Gold sentence offered"}


def conditions_of(evaluation: Evaluation) -> list[str]:
    """Those that were asked under, in the order of `Condition`."""
    asked = {name for conditions in evaluation.results.values() for name in conditions}
    return [name for name in Condition.values if name in asked]


def result_grid(evaluation: Evaluation) -> dict[str, Any]:
    """``columns``: measures that were taken anywhere. ``rows``: one for each arm under each condition, a cell for each
    column (None: does not apply)."""
    results: Mapping[str, Any] = evaluation.results
    taken = {key for conditions in results.values() for values in conditions.values() for key in values}
    columns = [metric for metric in SHOWN_METRICS if metric[0] in taken]
    rows = [
        {
            "arm": arm,
            "label": label,
            "condition": Condition(condition).label,
            "cells": [{"estimate": results[arm][condition].get(key), "share": share} for key, _, _, share in columns],
        }
        for arm, label in Arm.choices
        for condition in conditions_of(evaluation)
        if condition in results.get(arm, {})
    ]
    return {"columns": [{"label": name, "better": better} for _, name, better, _ in columns], "rows": rows}


def primary_grid(evaluation: Evaluation) -> dict[str, Any]:
    """Arms × conditions of the primary measure alone: the table that is read first."""
    conditions = conditions_of(evaluation)
    rows = []
    for arm, label in Arm.choices:
        if found := evaluation.results.get(arm):
            cells = [found.get(condition, {}).get("grounded_correct") for condition in conditions]
            rows.append({"arm": arm, "label": label, "cells": cells})
    return {"conditions": [Condition(name).label for name in conditions], "rows": rows}


def bars(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The primary measure of each arm, clean and without the oracle, in percent."""
    found = []
    for arm in Arm.values:
        for condition in CHARTED:
            estimate = evaluation.results.get(arm, {}).get(condition, {}).get("grounded_correct")
            if estimate:
                shown = "clean" if condition == Condition.CLEAN else "no oracle"
                value = estimate["value"]
                low, high = share_told(estimate) or (value, value)
                percent = {"value": round(value * 100, 1), "low": round(low * 100, 1), "high": round(high * 100, 1)}
                width = round(percent["high"] - percent["low"], 1)
                found.append({"label": [*SHORT[arm], shown], "arm": arm, "width": width, **percent})
    return found


def chart(evaluation: Evaluation) -> dict[str, Any]:
    return {"bars": bars(evaluation), "axis": "Grounded and correct, %"}


def gate_lines(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The gate's table; rows of older evaluations know no reason."""
    lines = []
    for line in evaluation.gate:
        rail = GUARDRAILS.get(line["name"])
        lines.append({"reason": "", **line, "level": rail is not None and rail.kind == "level"})
    return lines


def secondary_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    found: Mapping[str, Any] = evaluation.comparison.get("secondary") or {}
    return [{"label": NAMES.get(name, name), **values} for name, values in found.items()]


def robustness_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    found: Mapping[str, Any] = evaluation.comparison.get("robustness") or {}
    return [
        {
            "label": Condition(name).label,
            "today": values[TODAY],
            "candidate": values[CANDIDATE],
            "difference": values["difference"],
        }
        for name, values in found.items()
    ]


def declining_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    found: Mapping[str, Any] = evaluation.comparison.get("declining") or {}
    return [
        {
            "label": label,
            "measures": [found[arm].get(name) for name in ("precision", "recall", "f1")],
            "over_refusal": evaluation.results.get(arm, {}).get(Condition.CLEAN.value, {}).get("over_refusal"),
        }
        for arm, label in Arm.choices
        if found.get(arm)
    ]


def retrieval_cells(evaluation: Evaluation) -> list[dict[str, Any]]:
    found: Mapping[str, Any] = evaluation.comparison.get("retrieval") or {}
    return [{"label": RETRIEVAL_NAMES.get(name, name.capitalize()), "estimate": value} for name, value in found.items()]


def latency_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    found: Mapping[str, Any] = evaluation.comparison.get("latency") or {}
    return [{"label": label, **found[arm]} for arm, label in Arm.choices if arm in found]


def breakdowns(evaluation: Evaluation) -> list[tuple[str, list[dict[str, Any]]]]:
    """(title, groups) where there is more than nothing to show."""
    wanted: tuple[tuple[str, str, dict[str, str] | None], ...] = (
        ("By what is right", "by_kind", dict(Kind.choices)),
        ("By slice of the benchmark", "by_slice", {}),
        ("By topic", "by_topic", {}),
        ("By document", "by_document", None),
    )
    return [(title, rows) for title, key, labels in wanted if (rows := _breakdown(evaluation, key, labels))]


def _breakdown(evaluation: Evaluation, key: str, labels: dict[str, str] | None) -> list[dict[str, Any]]:
    groups: Mapping[str, Any] = evaluation.comparison.get(key) or {}
    return [
        {
            "label": name if labels is None else labels.get(name, name.replace("_", " ").capitalize()),
            "n": values["n"],
            "today": values[TODAY],
            "candidate": values[CANDIDATE],
            "difference": values["difference"],
        }
        for name, values in groups.items()
    ]


def everything(evaluation: Evaluation) -> dict[str, Any]:
    """The tables of the page and of the report alike."""
    return {
        "gate": gate_lines(evaluation),
        "primary_label": PRIMARIES.get(evaluation.gate_rule.get("primary", "grounded_correct"), ""),
        "primary_grid": primary_grid(evaluation),
        "grid": result_grid(evaluation),
        "secondary": secondary_rows(evaluation),
        "robustness": robustness_rows(evaluation),
        "declining": declining_rows(evaluation),
        "retrieval": retrieval_cells(evaluation),
        "latency": latency_rows(evaluation),
        "attempts": evaluation.comparison.get("attempts"),
        "primary": evaluation.comparison.get("primary") or evaluation.comparison.get("grounded_correct"),
        "interaction": evaluation.comparison.get("interaction"),
        "breakdowns": breakdowns(evaluation),
    }
