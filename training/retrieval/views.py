"""Pages of retrieval that need labels and benchmarks: comparisons, and the threshold for declining."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from assistants.access import assistants_of, has_role
from assistants.models import Assistant, AuditEvent
from assistants.services import audit
from knowledge.configuration import SettingsRefused, config_digest, settings_of
from knowledge.configuring import activate, save_configuration, saved
from knowledge.models import RetrievalConfiguration
from training.evaluation.attempts import THRESHOLD_APPLIED
from training.models import Benchmark, BenchmarkItem
from training.pages import ADMINS, READERS, page_of, render_page, require_admin_somewhere
from training.retrieval import calibration, worth
from training.retrieval.comparing import MEASURES, sentence, start_comparison
from training.retrieval.models import RetrievalComparison
from training.services import NotPossible

ROWS = 50


class ComparisonForm(forms.Form):
    benchmark = forms.ModelChoiceField(Benchmark.objects.none(), empty_label=None)
    first = forms.ModelChoiceField(RetrievalConfiguration.objects.none(), empty_label=None, label="This version")
    second = forms.ModelChoiceField(RetrievalConfiguration.objects.none(), empty_label=None, label="Against this one")

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = assistants_of(user, *ADMINS)
        for name, model in (
            ("benchmark", Benchmark), ("first", RetrievalConfiguration), ("second", RetrievalConfiguration)
        ):  # fmt: skip
            field: Any = self.fields[name]
            field.queryset = model._default_manager.filter(assistant__in=own).select_related("assistant")
            field.label_from_instance = lambda row: f"{row.assistant}: {row}"


def start_page(request: HttpRequest) -> HttpResponse:
    require_admin_somewhere(request)
    user: Any = request.user
    form = ComparisonForm(request.POST or None, user=user)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            started = start_comparison(
                benchmark=values["benchmark"], first=values["first"], second=values["second"], actor=user
            )
        except NotPossible as refused:
            form.add_error(None, str(refused))
        else:
            return HttpResponseRedirect(reverse("admin:training_retrievalcomparison_change", args=[started.pk]))
    own = assistants_of(user, *ADMINS)
    missing = {
        "benchmark": not Benchmark.objects.filter(assistant__in=own).exists(),
        "versions": RetrievalConfiguration.objects.filter(assistant__in=own).count() < 2,
    }
    context = {"title": "Compare two versions", "form": form, "missing": missing}
    return render_page(request, "training/retrieval_start.html", context)


def comparison_page(request: HttpRequest, comparison: RetrievalComparison, panel: dict[str, Any]) -> HttpResponse:
    """A comparison that the admin found readable. ``?show=``: better, worse or all questions."""
    result = comparison.result
    wanted = request.GET.get("show", "changed")
    ranks = [row for row in result.get("ranks", ()) if _is_shown(row, wanted)]
    page = page_of(request, ranks, ROWS)
    keys = [row[0] for row in page]
    items = BenchmarkItem.objects.filter(benchmark=comparison.benchmark_id, key__in=keys).only("key", "question")
    questions = {item.key: item.question for item in items}
    context = {
        "title": str(comparison),
        "comparison": comparison,
        "panel": panel,
        "result": result,
        "sentence": sentence(comparison),
        "measures": [_line(name, result) for name in MEASURES] if result else [],
        "page": page,
        "rows": [(questions.get(key, key), first, second) for key, first, second in page],
        "show": wanted,
    }
    return render_page(request, "training/retrieval_comparison.html", context)


def _is_shown(row: list[Any], wanted: str) -> bool:
    _, first, second = row
    # Not found is behind every rank.
    one, other = first or float("inf"), second or float("inf")
    return {"better": other < one, "worse": other > one, "all": True}.get(wanted, one != other)


def _line(name: str, result: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "first": result["first"][name], "second": result["second"][name], **result["tests"][name]}


# --- The threshold ----------------------------------------------------------------------------------------------------


@require_safe
def threshold_page(request: HttpRequest) -> HttpResponse:
    """``?assistant=`` its slug; ``?from=`` ``labels`` or the id of a benchmark; ``?aim=`` ``lost`` (with ``?allowed=``
    percent of the answers that may be lost) or who answers, of whose questions most are to be right."""
    own = assistants_of(request.user, *READERS)
    assistant = own.filter(slug=request.GET.get("assistant", "")).first() or own.first()
    if assistant is None:
        raise PermissionDenied("Only admins and reviewers of an assistant see this.")
    benchmarks = list(Benchmark.objects.filter(assistant=assistant, sanity=False).order_by("-created_at")[:20])
    chosen = next((b for b in benchmarks if str(b.pk) == request.GET.get("from", "")), None)
    allowed = _percent(request.GET.get("allowed", ""))
    questions = calibration.labelled_items(chosen) if chosen else calibration.labelled_turns(assistant)
    evaluation, judged = worth.judged_items(chosen) if chosen else (None, worth.judged_turns(assistant))
    people = worth.who_answered(judged)
    aim = request.GET.get("aim", "lost")
    aim = aim if aim in people else "lost"
    found = calibration.calibrate(questions, allowed / 100)
    if aim != "lost" and found.proposed is not None:
        most = worth.most_right(judged, aim, now=assistant.evidence_threshold)
        # What such a choice does on questions that it has not seen: `worth.unseen`, among the effects.
        found = replace(found, proposed=calibration.operating(questions, most), honest=None)
    now = calibration.operating(questions, assistant.evidence_threshold)
    step = max(1, len(found.curve) // 20)
    points = [now, *([found.proposed] if found.proposed else []), *found.curve[::step]]
    points = calibration.with_intervals(questions, points)
    proposed = points[1] if found.proposed else None
    effects: list[worth.Effect] = []
    if proposed and judged:
        effects = worth.effects(judged, now=assistant.evidence_threshold, then=proposed.threshold)
        effects += [worth.unseen(judged, aim, now=assistant.evidence_threshold)] if aim != "lost" else []
    context = {
        "title": "Threshold for declining",
        "assistants": own,
        "assistant": assistant,
        "benchmarks": benchmarks,
        "chosen": chosen,
        "allowed": allowed,
        "aims": [(who, worth.label_of(who)) for who in people],
        "aim": aim,
        "found": found,
        "proposed": proposed,
        "fewest": calibration.FEWEST,
        "current": points[0] if questions else None,
        "gained": (proposed.rightly - now.rightly, proposed.wrongly - now.wrongly) if proposed else None,
        "curve": points[2 if proposed else 1 :],
        "svg": _svg(found),
        "evaluation": evaluation,
        "effects": effects,
        "before": _before(assistant),
        "may_change": has_role(request.user, assistant, *ADMINS),
    }
    return render_page(request, "training/retrieval_threshold.html", context)


@require_POST
def apply_threshold(request: HttpRequest) -> HttpResponse:
    """``assistant``: its slug; ``threshold``: 0 to 1; ``from``: what it was read off. Saved as a version and made
    active."""
    own = assistants_of(request.user, *ADMINS)
    assistant: Assistant = get_object_or_404(own, slug=request.POST.get("assistant", ""))
    actor: Any = request.user
    page = f"{reverse('admin:training_retrieval_threshold')}?assistant={assistant.slug}"
    benchmark = Benchmark.objects.filter(assistant=assistant, pk=_number(request.POST.get("from", ""))).first()
    page += f"&from={benchmark.pk}" if benchmark else ""
    try:
        threshold = round(float(request.POST.get("threshold", "")), 4)
        settings = settings_of(assistant)
        settings = type(settings).model_validate({**settings.model_dump(), "evidence_threshold": threshold})
    except (ValueError, SettingsRefused):
        messages.error(request, "A threshold is a number from 0 to 1.")
        return HttpResponseRedirect(page)
    source = f"the benchmark “{benchmark.name}”" if benchmark else "resolved turns"
    version = saved(assistant=assistant, settings=settings) or save_configuration(
        assistant=assistant, name=f"Threshold {threshold:g}", settings=settings, actor=actor,
        note=f"Read off {source}.",
    )  # fmt: skip
    with transaction.atomic():
        now = activate(configuration=version, actor=actor)
        audit(
            assistant=assistant, actor=actor, action=THRESHOLD_APPLIED, target=version.name,
            details={"threshold": threshold, "benchmark": benchmark.pk if benchmark else None},
        )  # fmt: skip
    messages.success(request, f"{assistant} declines below {threshold:g} from now on (version {now}).")
    return HttpResponseRedirect(page)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _before(assistant: Assistant) -> RetrievalConfiguration | None:
    """The version that counted before the active one, where its threshold is another one: what taking back brings."""
    events = AuditEvent.objects.filter(assistant=assistant, action="retrieval.activated")
    last = events.order_by("-pk").values_list("details", flat=True).first()
    digests = (last or {}).get("digest") or ["", ""]
    if digests[1] != config_digest(assistant):
        return None
    found = RetrievalConfiguration.objects.filter(assistant=assistant, digest=digests[0]).first()
    if found is None or found.settings.get("evidence_threshold") == assistant.evidence_threshold:
        return None
    return found


def _percent(text: str) -> float:
    try:
        return min(100.0, max(0.0, float(text)))
    except ValueError:
        return calibration.ALLOWED * 100


def _svg(found: calibration.Calibration) -> dict[str, Any]:
    """Recall (across) and precision (up) of the curve as points of a drawing of 400 × 240, origin below left."""

    def place(point: calibration.Operating) -> tuple[float, float]:
        return round(40 + 350 * point.recall, 1), round(210 - 200 * point.precision, 1)

    points = [place(point) for point in found.curve if point.declined]
    chosen = place(found.proposed) if found.proposed and found.proposed.declined else None
    return {"line": " ".join(f"{x},{y}" for x, y in points), "chosen": chosen, "n": len(points)}
