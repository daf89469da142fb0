"""Rows of a dataset version: one rendered as the model reads it, all of them as a download."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_safe

from assistants.access import has_role
from assistants.models import Role
from assistants.presenting import json_lines_response
from assistants.services import audit
from training.data.render import sft_row, sft_rows, surrogates_of, with_surrogates
from training.models import DatasetVersion, Example
from training.pages import ADMINS, readable, render_page


@require_safe
def row_page(request: HttpRequest, pk: int, position: int) -> HttpResponse:
    """The messages of one row, built with the code that builds them for training and for serving."""
    dataset = _dataset(request, pk)
    example = dataset.examples.select_related("turn", "chunk").filter(position=position).first()
    if example is None:
        raise Http404("There is no such row.")
    try:
        row = sft_row(dataset.assistant.house, with_surrogates(example, surrogates_of(dataset)))
    except ValueError as error:
        row, problem = None, str(error)
    else:
        problem = ""
    context = {
        "title": f"Row {position} of {dataset}",
        "dataset": dataset,
        "example": example,
        "row": row,
        "problem": problem,
        "stale_prompt": dataset.prompt_digest != dataset.assistant.prompt_digest,
        "previous": position - 1 if position else None,
        "next": position + 1 if position + 1 < dataset.rows else None,
        "may_see_turn": has_role(request.user, dataset.assistant, *Role.values),
    }
    return render_page(request, "training/dataset_row.html", context)


@require_safe
def dataset_export(request: HttpRequest, pk: int) -> HttpResponse:
    """The supervised rows of one split (``?split=``) as JSON lines, in TRL's prompt-completion format."""
    dataset = _dataset(request, pk, *ADMINS)
    split = request.GET.get("split", Example.Split.TRAIN.value)
    if split not in Example.Split.values or dataset.state != "succeeded":
        raise Http404("There is no such split.")
    if why := dataset.why_unusable:
        messages.error(request, why)
        return HttpResponseRedirect(reverse("admin:training_datasetversion_change", args=[pk]))
    actor: Any = request.user
    audit(
        assistant=dataset.assistant, actor=actor, action="dataset.exported", target=str(dataset),
        details={"split": split, "content_hash": dataset.content_hash},
    )  # fmt: skip
    name = f"dataset-{dataset.number}-{dataset.content_hash[:8]}-{split}.jsonl"
    streamed: Any = json_lines_response(sft_rows(dataset, split), name)
    return streamed


def _dataset(request: HttpRequest, pk: int, *roles: str) -> DatasetVersion:
    found = DatasetVersion.objects.select_related("assistant").filter(pk=pk).first()
    return readable(request, found, *roles)
