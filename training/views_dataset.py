"""The page of a dataset version: what went in, what was dropped and why, and every row."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse

from training.data.exports import FORMATS
from training.data.recipe import Recipe
from training.data.render import count_rows_by_split
from training.data.stats import bar_labels
from training.models import DatasetVersion, Example, Kind, Origin
from training.pages import one_of, page_of, render_page, words_of

ROWS_PER_PAGE = 20
SHOWN_BLOCKED = 50
SHOWN_DOCUMENTS = 500
COLOURS = {
    Origin.GOOD.value: "#15803d",
    Origin.CORRECTED.value: "#1d4ed8",
    Origin.SYNTHETIC.value: "#94a3b8",
    Origin.DECLINED.value: "#475569",
    Origin.BAD.value: "#b91c1c",
    Origin.PREFERRED.value: "#7c3aed",
    Origin.IMPORTED.value: "#0e7490",
}
LABELS = {choice.name: choice.metadata["label"] for choice in fields(Recipe)}


def recipe_label(name: str) -> str:
    """Of a field of the recipe; a field that there is no more goes by its name."""
    label: str = LABELS.get(name) or name.replace("_", " ").capitalize()
    return label


def dataset_page(
    request: HttpRequest, dataset: DatasetVersion, panel: dict[str, Any], *, may_train: bool
) -> HttpResponse:
    """``?origin=``, ``?kind=``, ``?split=``, ``?document=`` (a path), ``?judged=yes``, ``?q=`` words."""
    chosen = chosen_rows(request, dataset)
    query = words_of(request)
    page = page_of(request, filtered_rows(dataset, chosen, query), ROWS_PER_PAGE)
    others = DatasetVersion.objects.filter(assistant=dataset.assistant, state="succeeded").exclude(pk=dataset.pk)
    counts = count_rows_by_split(dataset)
    usable = not dataset.why_unusable
    context = {
        "title": str(dataset),
        "dataset": dataset,
        "panel": panel,
        "may_train": may_train and usable,
        "may_manage": may_train,
        "may_exclude": may_train and usable,
        "stale_prompt": dataset.prompt_digest != dataset.assistant.prompt_digest,
        "mix": mix_table(dataset),
        "chart": mix_chart(dataset),
        "lengths": length_chart(dataset),
        "stats": dataset.stats,
        "counts": counts,
        "splits": [(label, counts[value].sft) for value, label in Example.Split.choices],
        "funnel": funnel_lines(dataset.funnel),
        "blocked": dataset.blocked[:SHOWN_BLOCKED],
        "documents": dataset.documents[:SHOWN_DOCUMENTS],
        "more_documents": max(0, len(dataset.documents) - SHOWN_DOCUMENTS),
        "unchanged_recipe": dataset.recipe == Recipe().as_dict(),
        "recipe": recipe_lines(dataset.recipe),
        "runs": list(dataset.runs.only("state", "created_at")[:10]),
        "children": list(dataset.children.only("number", "note")[:20]),
        "page": page,
        "chosen": chosen,
        "query": query,
        "filtered": bool(query or any(chosen.values())),
        "choices": {"origin": Origin.choices, "kind": Kind.choices, "split": Example.Split.choices},
        "formats": [(name, one.label) for name, one in FORMATS.items()],
        "others": others.only("number")[:30],
    }
    return render_page(request, "training/dataset.html", context)


def recipe_lines(recipe: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(label, value, default) of each choice, as people read them."""
    default = Recipe().as_dict()

    def told(value: Any) -> Any:
        if isinstance(value, list):
            return ", ".join(map(str, value)) or "–"
        return {True: "yes", False: "no", "": "–"}.get(value, value) if isinstance(value, (bool, str)) else value

    # As they are declared: the database keeps them in an order of its own.
    known = [name for name in default if name in recipe]
    names = [*known, *sorted(recipe.keys() - default.keys())]
    return [(recipe_label(name), told(recipe[name]), told(default.get(name))) for name in names]


def chosen_rows(request: HttpRequest, dataset: DatasetVersion) -> dict[str, str]:
    return {
        "origin": one_of(request, "origin", Origin.values),
        "kind": one_of(request, "kind", Kind.values),
        "split": one_of(request, "split", Example.Split.values),
        "document": one_of(request, "document", dataset.documents),
        "judged": one_of(request, "judged", ("yes", "no")),
    }


def filtered_rows(dataset: DatasetVersion, chosen: dict[str, str], query: str) -> Any:
    rows = dataset.examples.order_by("position").defer("contexts", "evidence")
    rows = rows.filter(**{name: chosen[name] for name in ("origin", "kind", "split") if chosen[name]})
    if chosen["document"]:
        rows = rows.filter(documents__contains=[chosen["document"]])
    if chosen["judged"]:
        rows = rows.exclude(rejected="") if chosen["judged"] == "yes" else rows.filter(rejected="")
    if query:
        rows = rows.filter(
            Q(question__icontains=query)
            | Q(sentences__icontains=query)
            | Q(rejected__icontains=query)
            | Q(group__icontains=query)
            | Q(came_from__icontains=query)
        )
    return rows


def length_chart(dataset: DatasetVersion) -> dict[str, Any] | None:
    """What training/dataset.js draws: words of prompts and answers. None for versions of before it was counted."""
    if "prompt_words" not in dataset.stats:
        return None
    series = [
        {"label": "Prompts", "colour": "#64748b", "values": dataset.stats["prompt_words"]},
        {"label": "Answers", "colour": "#c2410c", "values": dataset.stats["answer_words"]},
    ]
    return {"labels": bar_labels(), "series": series, "beside": True}


def mix_table(dataset: DatasetVersion) -> dict[str, Any]:
    """Rows of origin × kind with sums."""
    lines: list[dict[str, Any]] = []
    for origin, label in Origin.choices:
        kinds: dict[str, int] = dataset.mix.get(origin, {})
        if kinds:
            cells = [kinds.get(kind, 0) for kind in Kind.values]
            lines.append({"origin": origin, "label": label, "cells": cells, "sum": sum(cells)})
    sums = [sum(line["cells"][i] for line in lines) for i in range(len(Kind.values))]
    learnt = [sum(dataset.mix.get(o, {}).get(k, 0) for o in Origin.values if o != Origin.BAD) for k in Kind.values]
    answer, decline, handoff = learnt
    bad = sum(dataset.mix.get(Origin.BAD.value, {}).values())
    sentence = f"Of {sum(sums)} rows {answer} teach to answer, {decline} to decline and {handoff} to hand over"
    sentence += f"; {bad} only say what not to answer" if bad else ""
    return {"kinds": Kind.labels, "lines": lines, "sums": sums, "sum": sum(sums), "sentence": sentence}


def mix_chart(dataset: DatasetVersion) -> dict[str, Any]:
    """What training/dataset.js draws: rows by right behaviour, stacked by origin."""
    series = [
        {
            "label": label,
            "colour": COLOURS[origin],
            "values": [dataset.mix.get(origin, {}).get(kind, 0) for kind in Kind.values],
        }
        for origin, label in Origin.choices
        if dataset.mix.get(origin)
    ]
    return {"labels": Kind.labels, "series": series}


def funnel_lines(funnel: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps with what was taken out (or, negative, added), and the reasons by number."""
    return [
        {
            "step": step["step"],
            "before": step["before"],
            "kept": step["kept"],
            "dropped": step["before"] - step["kept"],
            "why": sorted(step["why"].items(), key=lambda pair: -pair[1]),
        }
        for step in funnel
    ]
