"""An evaluation to take away: one HTML file that needs nothing else, or JSON with every answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET

from assistants.services import audit
from serving.dashboards.examples import pairs_of, rows_of
from serving.dashboards.reading import READERS, read_evaluation
from serving.dashboards.tables import bars, everything
from training.evaluation.blind import HIDDEN, must_stay_blind
from training.models import Condition, Evaluation

MOST_EXAMPLES = 300
"""Wins and losses in the report; the JSON holds all answers."""
CHUNK = 500


@require_GET
def export_json(request: HttpRequest, pk: int) -> HttpResponse | StreamingHttpResponse:
    """Everything that was measured, with every answer."""
    evaluation = read_evaluation(request, pk, *READERS)
    if refused := _refused(request, evaluation):
        return refused
    _audit(request, evaluation, "json")
    response = StreamingHttpResponse(_json(evaluation), content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="evaluation-{evaluation.pk}.json"'
    return response


@require_GET
def export_html(request: HttpRequest, pk: int) -> HttpResponse:
    """Tables, chart, wins and losses as one file without scripts or foreign addresses."""
    evaluation = read_evaluation(request, pk, *READERS)
    if refused := _refused(request, evaluation):
        return refused
    _audit(request, evaluation, "html")
    clean = Condition.CLEAN.value
    pairs = [pair for pair in pairs_of(evaluation, clean) if pair.outcome in ("wins", "losses")]
    context = {
        "evaluation": evaluation,
        **everything(evaluation),
        "bars": bars(evaluation),
        "rows": rows_of(evaluation, pairs[:MOST_EXAMPLES], clean),
        "left_out": max(len(pairs) - MOST_EXAMPLES, 0),
        "made_at": timezone.now(),
    }
    response = HttpResponse(render_to_string("serving/report.html", context))
    response["Content-Disposition"] = f'attachment; filename="evaluation-{evaluation.pk}.html"'
    return response


def _refused(request: HttpRequest, evaluation: Evaluation) -> HttpResponse | None:
    """Back to the page with a sentence, where there is nothing to export yet or the person must not see it."""
    if evaluation.state != Evaluation.State.SUCCEEDED:
        messages.error(request, f"{evaluation} is not finished; there is nothing to export yet.")
    elif must_stay_blind(cast("User", request.user), evaluation):
        messages.error(request, HIDDEN)
    else:
        return None
    return HttpResponseRedirect(reverse("dashboards:before-after", args=[evaluation.pk]))


def _audit(request: HttpRequest, evaluation: Evaluation, form: str) -> None:
    audit(
        assistant=evaluation.assistant,
        actor=cast("User", request.user),
        action="evaluation.exported",
        target=str(evaluation),
        details={"format": form},
    )


def _json(evaluation: Evaluation) -> Iterator[str]:
    """One JSON object, piece by piece: an evaluation may hold a hundred thousand answers."""
    head: dict[str, Any] = {
        "evaluation": evaluation.pk,
        "adapter": str(evaluation.adapter),
        "other_adapter": str(evaluation.rival or ""),
        "benchmark": {"name": evaluation.benchmark.name, "content_hash": evaluation.benchmark.content_hash},
        "base_digest": evaluation.base_digest,
        "prompt_digest": evaluation.prompt_digest,
        "plan": evaluation.plan,
        "gate_rule": evaluation.gate_rule,
        "gate_version": evaluation.gate_version,
        "verdict": evaluation.verdict,
        "sentence": evaluation.sentence,
        "gate": evaluation.gate,
        "results": evaluation.results,
        "comparison": evaluation.comparison,
    }
    yield json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}") + ',\n "answers": ['
    first = True
    answers = evaluation.answers.select_related("item").defer("item__contexts")
    for a in answers.order_by("item_id", "arm", "condition").iterator(chunk_size=CHUNK):
        row = {
            "item": a.item.key, "question": a.item.question, "arm": a.arm, "condition": a.condition, "answer": a.text,
            "completion": a.completion, "declined": a.declined, "measures": a.measures,
        }  # fmt: skip
        yield ("\n  " if first else ",\n  ") + json.dumps(row, ensure_ascii=False)
        first = False
    yield "\n ]\n}\n"
