"""Rows of versions: one rendered as the model reads it, those of a turn, some left out, all of them as files."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from annotations.models import Resolution
from assistants.access import has_role
from assistants.models import Role
from assistants.presenting import PiecewiseResponse
from assistants.services import audit
from capture.models import Turn
from capture.parquet import ParquetMissing
from training.data.exports import FORMATS, METHODS, NO_PARQUET, SPLITS, NothingToExport, check_rows
from training.data.invented import surrogates_of, with_surrogates
from training.data.render import Method, dpo_row, kto_rows_of, sft_row
from training.data.services import MAX_EXCLUDED, exclude_rows
from training.models import DatasetVersion, Example, Origin
from training.pages import ADMINS, readable, render_page, words_of
from training.services import NotPossible
from training.views_dataset import chosen_rows, filtered_rows


@require_safe
def row_page(request: HttpRequest, pk: int, position: int) -> HttpResponse:
    """The messages of one row, built with the code that builds them for training and for serving."""
    dataset = _dataset(request, pk)
    example = dataset.examples.select_related("turn", "chunk").filter(position=position).first()
    if example is None:
        raise Http404("There is no such row.")
    house = dataset.assistant.house
    drawn = with_surrogates(example, surrogates_of(dataset))
    prompt, learnt, judged, problem = [], "", "", ""
    try:
        row = sft_row(house, drawn)
        prompt = row["prompt"]
        learnt = row["completion"][0]["content"] if example.origin != Origin.BAD else ""
        judged = next((r["completion"][0]["content"] for r in kto_rows_of(house, drawn) if not r["label"]), "")
        pair = example.origin != Origin.BAD and dpo_row(house, drawn) is not None
    except ValueError as error:
        problem, pair = str(error), False
    elsewhere = Example.objects.filter(digest=example.digest, dataset__assistant=dataset.assistant)
    context = {
        "title": f"Row {position} of {dataset}",
        "dataset": dataset,
        "example": example,
        "prompt": prompt,
        "learnt": learnt,
        "judged": judged,
        "pair": pair,
        "problem": problem,
        "stale_prompt": dataset.prompt_digest != dataset.assistant.prompt_digest,
        "previous": position - 1 if position else None,
        "next": position + 1 if position + 1 < dataset.rows else None,
        "may_see_turn": has_role(request.user, dataset.assistant, *Role.values),
        "resolution": Resolution.objects.filter(turn=example.turn_id).first() if example.turn_id else None,
        "elsewhere": list(elsewhere.exclude(dataset=dataset).select_related("dataset").order_by("-dataset")[:20]),
    }
    return render_page(request, "training/dataset_row.html", context)


@require_safe
def rows_of_turn(request: HttpRequest, key: uuid.UUID) -> HttpResponse:
    """Every row of every version that was made of one turn."""
    turn = readable(request, Turn.objects.select_related("assistant").filter(pk=key).first())
    rows = Example.objects.filter(turn=turn).select_related("dataset").order_by("-dataset__number", "position")
    context = {
        "title": "Rows made of a turn",
        "turn": turn,
        "rows": list(rows.defer("contexts", "evidence", "history")[:200]),
        "resolution": Resolution.objects.filter(turn=turn).first(),
    }
    return render_page(request, "training/dataset_turn.html", context)


@require_POST
def rows_exclude(request: HttpRequest, pk: int) -> HttpResponse:
    """Leaves out the ticked rows (``row``), or with ``all`` every row that the filters of the page show."""
    dataset = _dataset(request, pk, *ADMINS)
    if "all" in request.POST:
        request.GET = request.POST
        chosen = chosen_rows(request, dataset)
        query = words_of(request)
        rows = filtered_rows(dataset, chosen, query) if query or any(chosen.values()) else dataset.examples.none()
        positions = list(rows.values_list("position", flat=True)[: MAX_EXCLUDED + 1])
    else:
        positions = [int(one) for one in request.POST.getlist("row")[:1000] if one.isdecimal() and len(one) < 10]
    actor: Any = request.user
    try:
        made = exclude_rows(dataset=dataset, positions=positions, note=request.POST.get("note", ""), created_by=actor)
    except NotPossible as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(_page_of(dataset) + "#rows")
    return HttpResponseRedirect(_page_of(made))


@require_safe
def dataset_export(request: HttpRequest, pk: int) -> HttpResponse:
    """``?format=`` (see `training.data.exports.FORMATS`), ``?method=sft``, ``kto`` or ``dpo``, ``?split=``."""
    dataset = _dataset(request, pk, *ADMINS)
    split = request.GET.get("split", Example.Split.TRAIN.value)
    name = request.GET.get("format", "trl")
    method: Any = request.GET.get("method", "sft")
    if split not in SPLITS or name not in FORMATS or method not in METHODS or dataset.state != "succeeded":
        raise Http404("There is no such export.")
    chosen = FORMATS[name]
    if chosen.whole or name == "own":
        method = "sft"
    try:
        pieces = _pieces(dataset, split, name, method)
    except (NotPossible, NothingToExport, ParquetMissing) as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(_page_of(dataset))
    actor: Any = request.user
    audit(
        assistant=dataset.assistant, actor=actor, action="dataset.exported", target=str(dataset),
        details={"split": split, "format": name, "method": method, "content_hash": dataset.content_hash},
    )  # fmt: skip
    parts = [f"dataset-{dataset.number}", dataset.content_hash[:8]]
    parts += [] if chosen.whole else [split] if name == "own" else [method, split]
    response = PiecewiseResponse(pieces, content_type=chosen.content_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{"-".join(parts)}.{chosen.suffix}"'
    streamed: Any = response
    return streamed


def _pieces(dataset: DatasetVersion, split: str, name: str, method: Method) -> Any:
    """Raises what the page has a sentence for, before the first byte."""
    if why := dataset.why_unusable:
        raise NotPossible(why)
    if name != "own" and dataset.prompt_digest != dataset.assistant.prompt_digest:
        raise NotPossible(
            "The assistant’s prompt format has changed since this version was frozen, so its prompts can no longer be "
            "written as they were. Export it in Ratchet’s own format, or build a new version."
        )
    chosen = FORMATS[name]
    if method not in chosen.methods:
        raise NotPossible(f"{chosen.label} has no form for {method.upper()} rows.")
    if not chosen.whole:
        check_rows(dataset, split, method)
    if name == "parquet":
        from importlib.util import find_spec

        if find_spec("pyarrow") is None:
            raise ParquetMissing(NO_PARQUET)
    return chosen.made(dataset, split, method)


def _page_of(dataset: DatasetVersion) -> str:
    return reverse("admin:training_datasetversion_change", args=[dataset.pk])


def _dataset(request: HttpRequest, pk: int, *roles: str) -> DatasetVersion:
    found = DatasetVersion.objects.select_related("assistant", "leak_report", "benchmark").filter(pk=pk).first()
    return readable(request, found, *roles)
