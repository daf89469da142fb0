"""Two versions side by side: which rows are in one of them only, and which choices differ."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Exists, OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from training.models import DatasetVersion, Example, Origin
from training.pages import one_of, page_of, readable, render_page, words_of
from training.views_dataset import recipe_label

ROWS_PER_PAGE = 25
SIDES = ("here", "there")


@require_safe
def difference_page(request: HttpRequest, pk: int) -> HttpResponse:
    """``?with=`` the other version; ``?side=here`` or ``there``, ``?origin=``, ``?q=`` for the rows that are listed."""
    dataset = _version(request, pk)
    key = request.GET.get("with", "")
    if not key.isdecimal() or len(key) > 17:
        raise Http404("There is no such version.")
    other = _version(request, int(key))
    if other.assistant_id != dataset.assistant_id:
        raise Http404("Versions of two assistants have nothing in common.")
    side = one_of(request, "side", SIDES) or "here"
    origin, query = one_of(request, "origin", Origin.values), words_of(request)
    mine, theirs = only_in(dataset, other), only_in(other, dataset)
    rows = mine if side == "here" else theirs
    if origin:
        rows = rows.filter(origin=origin)
    if query:
        rows = rows.filter(question__icontains=query)
    here, there = counted(mine), counted(theirs)
    context = {
        "title": f"{dataset} and {other}",
        "dataset": dataset,
        "other": other,
        "side": side,
        "origin": origin,
        "query": query,
        "origins": Origin.choices,
        "here": here,
        "there": there,
        "only_here": sum(n for _, n in here),
        "only_there": sum(n for _, n in there),
        "same": dataset.rows - sum(n for _, n in here),
        "changes": changed_choices(dataset, other),
        "page": page_of(request, rows.order_by("position").defer("contexts", "evidence", "history"), ROWS_PER_PAGE),
    }
    return render_page(request, "training/dataset_difference.html", context)


def only_in(dataset: DatasetVersion, other: DatasetVersion) -> QuerySet[Example]:
    """Rows whose digest the other version has not. A row is known by what it teaches, not by its place."""
    twin = Example.objects.filter(dataset=other, digest=OuterRef("digest"))
    return Example.objects.filter(~Exists(twin), dataset=dataset)


def counted(rows: QuerySet[Example]) -> list[tuple[str, int]]:
    labels = dict(Origin.choices)
    found = dict(rows.order_by().values_list("origin").annotate(n=Count("pk")))
    return [(str(labels[origin]), found[origin]) for origin in Origin.values if origin in found]


def changed_choices(dataset: DatasetVersion, other: DatasetVersion) -> list[tuple[str, Any, Any]]:
    """(what, there, here)."""
    names = sorted(set(dataset.recipe) | set(other.recipe))
    changes: list[tuple[str, Any, Any]] = [
        (recipe_label(name), other.recipe.get(name), dataset.recipe.get(name))
        for name in names
        if dataset.recipe.get(name) != other.recipe.get(name)
    ]
    for label, there, here in (
        ("Benchmark", other.benchmark, dataset.benchmark),
        ("Synthesis", other.synthesis, dataset.synthesis),
        ("Prompt format", other.prompt_digest, dataset.prompt_digest),
        ("Rows left out by hand", len(other.excluded), len(dataset.excluded)),
    ):
        if there != here:
            changes.append((label, there or "none", here or "none"))
    return changes


def _version(request: HttpRequest, pk: int) -> DatasetVersion:
    rows = DatasetVersion.objects.select_related("assistant", "benchmark", "synthesis").filter(pk=pk)
    dataset = readable(request, rows.defer("blocked", "documents", "stats").first())
    if dataset.state != DatasetVersion.State.SUCCEEDED:
        raise Http404("It is not frozen.")
    return dataset
