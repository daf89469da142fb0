"""Two to four runs side by side: what they were asked for, where that differs, and how they went."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from assistants.access import assistants_of
from training.models import Run, RunMetric
from training.pages import READERS, render_page

MOST = 4
POINTS = 300
"""Of a curve."""


@require_safe
def compare_page(request: HttpRequest) -> HttpResponse:
    """``?run=1&run=2``; with one run, its assistant's others are offered. Runs of others are not found."""
    wanted = [int(value) for value in request.GET.getlist("run") if value.isdecimal() and len(value) < 10][:MOST]
    rows = Run.objects.filter(assistant__in=assistants_of(request.user, *READERS))
    found = rows.filter(pk__in=wanted).select_related("assistant", "dataset", "parent", "provider", "adapter")
    by_key = {run.pk: run for run in found.prefetch_related("adapter__evaluations")}
    runs = [by_key[key] for key in dict.fromkeys(wanted) if key in by_key]
    if not runs:
        raise Http404("There is no such page.")
    others = rows.filter(assistant=runs[0].assistant).exclude(pk__in=by_key).order_by("-pk")[:30]
    context = {
        "title": "Compare runs",
        "runs": runs,
        "table": [row for row in map(_row, *map(_facts, runs)) if row is not None],
        "curves": {
            "runs": [{"name": str(run), "points": points} for run, points in zip(runs, _curves(runs), strict=True)]
        },
        "others": others if len(runs) < MOST else [],
        "chosen": [run.pk for run in runs],
    }
    return render_page(request, "training/run_compare.html", context)


def _facts(run: Run) -> list[tuple[str, str]]:
    """The same names in the same order for every run."""
    progress = run.progress
    start = progress.get("start", {})
    settings = {**run.settings, **start.get("settings", {})}
    adapter = getattr(run, "adapter", None)
    manifest: dict[str, Any] = adapter.manifest if adapter is not None else {}
    losses = manifest.get("losses", {})
    validation = losses.get("validation") or []
    verdicts = [e.get_verdict_display() for e in adapter.evaluations.all() if e.verdict] if adapter is not None else []
    names = (
        "rank", "alpha", "rank_stabilised", "dropout", "learning_rate", "epochs", "preference_learning_rate",
        "preference_epochs", "beta", "batch", "micro_batch", "keep", "precision", "quantise", "warmup_share",
        "weight_decay", "max_grad_norm",
    )  # fmt: skip
    return [
        ("State", run.get_state_display()),
        ("Method", run.get_method_display()),
        ("Began with", str(run.parent or "the base model")),
        ("Where", str(run.provider or "this platform")),
        ("Dataset", f"{run.dataset} ({run.dataset.content_hash[:8]})"),
        ("Rows", _number(start.get("weighted_rows"))),
        ("Base", f"{run.base_model} {run.base_digest[:8]}"),
        ("Seed", str(run.seed)),
        *((name, _number(settings.get(name))) for name in names),
        ("Steps", _number(manifest.get("steps") or progress.get("total"))),
        ("Loss at the end", _number(losses.get("last", progress.get("loss")))),
        ("Validation loss", _number(validation[-1]["loss"] if validation else progress.get("validation_loss"))),
        ("Tokens / s", _number(progress.get("tokens_per_second"))),
        ("Took", "–" if run.seconds is None else f"{run.seconds:.0f} s"),
        ("Peak memory, MB", _number(manifest.get("peak_mb"))),
        ("Adapter", str(adapter or "–")),
        ("Verdict", verdicts[0] if verdicts else "–"),
    ]


def _row(*facts: tuple[str, str]) -> dict[str, Any] | None:
    """None for what no run says."""
    values = [value for _, value in facts]
    if set(values) == {"–"}:
        return None
    return {"name": facts[0][0], "values": values, "differs": len(set(values)) > 1}


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _curves(runs: list[Run]) -> list[list[list[Any]]]:
    """Loss and validation loss by step, thinned to `POINTS`. One query."""
    keys = [run.pk for run in runs]
    points: dict[int, list[list[Any]]] = {key: [] for key in keys}
    rows = RunMetric.objects.filter(run__in=keys).order_by("run", "step")
    for key, step, loss, validation in rows.values_list("run_id", "step", "loss", "validation_loss"):
        points[key].append([step, loss, validation])
    thinned = []
    for key in keys:
        own = points[key]
        every = max(1, len(own) // POINTS)
        thinned.append([p for i, p in enumerate(own) if i % every == 0 or p[2] is not None or i == len(own) - 1])
    return thinned
