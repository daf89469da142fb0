"""Pages of benchmarks: upload a file of held-out questions, read what was frozen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django import forms
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_safe

from assistants.access import has_role
from assistants.presenting import json_lines_response
from assistants.services import audit
from generation.prompts import split_sentences
from training.data.benchmark import BenchmarkError
from training.models import Benchmark, BenchmarkItem, BenchmarkUpload, Condition, Kind
from training.pages import (
    ADMINS,
    AssistantForm,
    one_of,
    page_of,
    readable,
    render_page,
    require_admin_somewhere,
    words_of,
)
from training.services import MAX_BENCHMARK_ITEMS, NotPossible, start_benchmark

PER_PAGE = 25
MAX_FILE_BYTES = 20_000_000
MAX_SLICES = 60


class UploadForm(AssistantForm):
    """One JSON object on each line; the page says which fields."""

    name = forms.CharField(max_length=120, help_text="Such as “Held-out questions, November”.")
    file = forms.FileField(
        label="JSON lines",
        widget=forms.ClearableFileInput(attrs={"accept": ".jsonl,.ndjson,.json,.txt"}),
        help_text=f"At most {MAX_BENCHMARK_ITEMS:,} questions, {MAX_FILE_BYTES // 1_000_000} MB.",
    )

    def clean_file(self) -> str:
        """The file's text."""
        file = self.cleaned_data["file"]
        if file.size > MAX_FILE_BYTES:
            raise forms.ValidationError(f"The file is larger than {MAX_FILE_BYTES // 1_000_000} MB.")
        try:
            text: str = file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise forms.ValidationError(
                f"The file is not UTF-8 text (byte {error.start:,}). Save it as UTF-8."
            ) from error
        if "\x00" in text:
            raise forms.ValidationError("The file is not text: it holds NUL characters.")
        return text


def upload_page(request: HttpRequest) -> HttpResponse:
    require_admin_somewhere(request)
    user: Any = request.user
    form = UploadForm(request.POST or None, request.FILES or None, user=user)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            upload = start_benchmark(
                assistant=values["assistant"], name=values["name"], content=values["file"], created_by=user
            )
        except (NotPossible, BenchmarkError) as error:
            form.add_error(None, str(error))
        else:
            return HttpResponseRedirect(reverse("admin:training_benchmarkupload_change", args=[upload.pk]))
    context = {"title": "Upload a benchmark", "form": form, "kinds": Kind.choices}
    return render_page(request, "training/benchmark_upload.html", context)


def uploaded_page(request: HttpRequest, upload: BenchmarkUpload, panel: dict[str, Any]) -> HttpResponse:
    """Progress of an upload that `training.data_admin` found readable; when it is frozen, the benchmark itself."""
    if upload.benchmark_id is not None and not upload.is_active:
        return HttpResponseRedirect(reverse("admin:training_benchmark_change", args=[upload.benchmark_id]))
    return render_page(request, "training/benchmark_uploaded.html", {"title": str(upload), "panel": panel})


@require_safe
def benchmark_page(request: HttpRequest, pk: int) -> HttpResponse:
    """Its items. ``?kind=``, ``?slice=``, ``?gold=`` (yes or no: the evidence holds the answer), ``?q=`` words."""
    benchmark = _benchmark(request, pk)
    items = benchmark.items.all()
    counts = {row["kind"]: row["n"] for row in items.order_by().values("kind").annotate(n=Count("pk"))}
    slices = list(items.order_by("slice").values_list("slice").annotate(n=Count("pk"))[:MAX_SLICES])
    clean = f"contexts__{Condition.CLEAN.value}__has_gold"
    offered = items.filter(kind=Kind.ANSWER, **{clean: True}).count()
    chosen = {
        "kind": one_of(request, "kind", Kind.values),
        "slice": one_of(request, "slice", [name for name, _ in slices]),
        "gold": one_of(request, "gold", ("yes", "no")),
    }
    query = words_of(request)
    if chosen["kind"]:
        items = items.filter(kind=chosen["kind"])
    if chosen["slice"]:
        items = items.filter(slice=chosen["slice"])
    if chosen["gold"]:
        items = items.filter(kind=Kind.ANSWER, **{clean: chosen["gold"] == "yes"})
    if query:
        items = items.filter(question__icontains=query)
    page = page_of(request, items, PER_PAGE)
    context = {
        "title": benchmark.name,
        "benchmark": benchmark,
        "total": sum(counts.values()),
        "kinds": [(value, label, counts.get(value, 0)) for value, label in Kind.choices],
        "slices": [(name, name or "(none)", n) for name, n in slices],
        "offered": offered,
        "answerable": counts.get(Kind.ANSWER.value, 0),
        "chosen": chosen,
        "query": query,
        "filtered": bool(query or any(chosen.values())),
        "page": page,
        "rows": [{"item": item, "conditions": _conditions(item)} for item in page],
        "may_manage": has_role(request.user, benchmark.assistant, *ADMINS),
        "evaluations": list(benchmark.evaluations.select_related("adapter")[:5]),
    }
    return render_page(request, "training/benchmark.html", context)


@require_safe
def benchmark_export(request: HttpRequest, pk: int) -> HttpResponse:
    """The questions as they can be uploaded again: admins only, since held-out questions must stay held out."""
    benchmark = _benchmark(request, pk, *ADMINS)
    actor: Any = request.user
    audit(assistant=benchmark.assistant, actor=actor, action="benchmark.exported", target=benchmark.name)
    streamed: Any = json_lines_response(_lines(benchmark), f"benchmark-{benchmark.pk}.jsonl")
    return streamed


def _lines(benchmark: Benchmark) -> Iterator[dict[str, Any]]:
    for item in benchmark.items.defer("contexts").iterator(chunk_size=500):
        yield {
            "id": item.key, "question": item.question, "history": item.history, "kind": item.kind,
            "answers": item.answers, "must_contain": item.must_contain, "must_not_contain": item.must_not_contain,
            "gold": item.gold, "slice": item.slice, "topic": item.topic,
        }  # fmt: skip


def _conditions(item: BenchmarkItem) -> list[dict[str, Any]]:
    """For each condition its name, the evidence as offered to every arm, and whether it holds the answer."""
    shown = []
    for name, label in Condition.choices:
        frozen = item.contexts.get(name)
        if not frozen:
            continue
        texts = {p["rank"]: (p["title"], split_sentences(p["text"])) for p in frozen["passages"]}
        evidence = [(rank, texts[rank][0], texts[rank][1][index]) for rank, index, _ in frozen["evidence"]]
        shown.append({"label": label, "evidence": evidence, "has_gold": frozen.get("has_gold", False)})
    return shown


def _benchmark(request: HttpRequest, pk: int, *roles: str) -> Benchmark:
    found = Benchmark.objects.select_related("assistant").filter(pk=pk).first()
    return readable(request, found, *roles)
