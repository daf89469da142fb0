"""Pages of dataset versions: build one, and read what went in, what was dropped and why, and every row."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any

from django import forms
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from assistants.models import Rendering
from assistants.policies import rules_of
from training.data.recipe import Recipe, RecipeError
from training.models import Benchmark, DatasetVersion, Example, Kind, Origin, Synthesis
from training.pages import AssistantForm, one_of, page_of, render_page, require_admin_somewhere, words_of
from training.services import NotPossible, build_dataset

ROWS_PER_PAGE = 20
SHOWN_BLOCKED = 50
RECIPE_FIELDS: dict[str, tuple[str, str]] = {
    "weight_corrected": ("Weight of corrected rows", "How often each is seen in one epoch."),
    "weight_good": ("Weight of good and declining rows", "How often each is seen in one epoch."),
    "weight_synthetic": ("Weight of synthetic rows", "How often each is seen in one epoch."),
    "synthetic_per_curated": ("Synthetic rows per curated row", "At most so many; what is over is left out."),
    "missing_oracle_share": (
        "Share of answers repeated without their source",
        "The right response is then to decline: 0.08 is 8 of 100.",
    ),
    "max_decline_share": ("Largest share of declining rows", "More would teach to decline too often."),
    "max_handoff_share": ("Largest share of rows that hand over", "Of these and the answers."),
    "per_sentence_cap": ("Rows per source sentence", "So that no sentence is learned by heart."),
    "validation_share": ("Share for validation", "By conversation or document, never by row."),
    "shuffled_share": ("Share with shuffled evidence", "So that the first place is a hint and not a rule."),
    "near_duplicate": ("Similarity that counts as the same question", "Against the benchmark and among the rows."),
    "surrogates": (
        "Invented values for what was masked",
        "In training and exports; otherwise the model reads and learns to write [PERSON_1].",
    ),
    "seed": ("Seed", "Same input and seed, same content hash."),
}
COLOURS = {
    Origin.GOOD.value: "#15803d",
    Origin.CORRECTED.value: "#1d4ed8",
    Origin.SYNTHETIC.value: "#94a3b8",
    Origin.DECLINED.value: "#475569",
}


class BuildForm(AssistantForm):
    """The recipe's fields come from the recipe itself, with its defaults."""

    benchmark = forms.ModelChoiceField(
        Benchmark.objects.none(),
        required=False,
        empty_label="none: nothing guards against leakage",
        help_text="Its questions, and what is nearly the same, are kept out of the dataset.",
    )
    synthesis = forms.ModelChoiceField(
        Synthesis.objects.none(),
        required=False,
        empty_label="none: labelled turns only",
        help_text="Its kept questions are offered beside the labelled turns.",
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, user=user, **kwargs)
        benchmark, synthesis = self.fields["benchmark"], self.fields["synthesis"]
        benchmark.queryset = Benchmark.objects.filter(assistant__in=self.own).select_related("assistant")  # type: ignore[attr-defined]
        benchmark.label_from_instance = lambda b: f"{b.name} ({b.assistant})"  # type: ignore[attr-defined]
        ended = Synthesis.objects.filter(assistant__in=self.own).exclude(pk__in=Synthesis.objects.active())
        synthesis.queryset = ended.select_related("assistant")  # type: ignore[attr-defined]
        synthesis.label_from_instance = (  # type: ignore[attr-defined]
            lambda s: f"{s}: {s.funnel.get('kept', 0)} kept ({s.assistant})"
        )
        for field in fields(Recipe):
            label, help_text = recipe_label(field.name)
            if isinstance(field.default, bool):
                self.fields[field.name] = forms.BooleanField(
                    label=label,
                    help_text=help_text,
                    initial=self._policy_says(field.name, field.default),
                    required=False,
                )
                continue
            kind = forms.IntegerField if isinstance(field.default, int) else forms.FloatField
            self.fields[field.name] = kind(label=label, help_text=help_text, initial=field.default)
        if not self.is_bound:
            self.initial.setdefault("benchmark", benchmark.queryset.first())  # type: ignore[attr-defined]
            self.initial.setdefault("synthesis", synthesis.queryset.first())  # type: ignore[attr-defined]

    def _policy_says(self, name: str, default: bool) -> bool:
        """What the privacy policy of the first assistant offered says about it."""
        first = self.own.first() if name == "surrogates" and not self.is_bound else None
        return default if first is None else rules_of(first).rendering == Rendering.SURROGATES

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        names = [field.name for field in fields(Recipe)]
        if all(name in cleaned for name in names):
            try:
                cleaned["recipe"] = Recipe.from_dict({name: cleaned[name] for name in names})
            except RecipeError as error:
                name, _, rest = str(error).partition(" ")
                self.add_error(name if name in names else None, f"This {rest}" if name in names else str(error))
        return cleaned

    @property
    def choices(self) -> list[Any]:
        return [self[name] for name in ("assistant", "benchmark", "synthesis")]

    @property
    def recipe(self) -> list[Any]:
        return [self[field.name] for field in fields(Recipe)]

    @property
    def recipe_is_wrong(self) -> bool:
        return any(field.errors for field in self.recipe)


def recipe_label(name: str) -> tuple[str, str]:
    """(label, help) of a field of the recipe; a field that this page does not know yet goes by its name."""
    return RECIPE_FIELDS.get(name, (name.replace("_", " ").capitalize(), ""))


def build_page(request: HttpRequest) -> HttpResponse:
    require_admin_somewhere(request)
    user: Any = request.user
    form = BuildForm(request.POST or None, user=user, initial=request.GET.dict())
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            dataset = build_dataset(
                assistant=values["assistant"],
                benchmark=values["benchmark"],
                synthesis=values["synthesis"],
                recipe=values["recipe"],
                created_by=user,
            )
        except NotPossible as error:
            form.add_error(None, str(error))
        else:
            return HttpResponseRedirect(reverse("admin:training_datasetversion_change", args=[dataset.pk]))
    return render_page(request, "training/dataset_build.html", {"title": "Build a dataset", "form": form})


def dataset_page(
    request: HttpRequest, dataset: DatasetVersion, panel: dict[str, Any], *, may_train: bool
) -> HttpResponse:
    """``?origin=``, ``?kind=``, ``?split=``, ``?document=`` (a path), ``?q=`` words; ``?with=`` another version."""
    chosen = {
        "origin": one_of(request, "origin", Origin.values),
        "kind": one_of(request, "kind", Kind.values),
        "split": one_of(request, "split", Example.Split.values),
        "document": one_of(request, "document", dataset.documents),
    }
    query = words_of(request)
    page = page_of(request, filtered_rows(dataset, chosen, query), ROWS_PER_PAGE)
    splits = dict(dataset.examples.order_by().values_list("split").annotate(n=Count("pk")))
    others = DatasetVersion.objects.filter(assistant=dataset.assistant, state="succeeded").exclude(pk=dataset.pk)
    compared = others.filter(pk=request.GET["with"]).first() if request.GET.get("with", "").isdecimal() else None
    context = {
        "title": str(dataset),
        "dataset": dataset,
        "panel": panel,
        "may_train": may_train and not dataset.why_unusable,
        "may_manage": may_train,
        "stale_prompt": dataset.prompt_digest != dataset.assistant.prompt_digest,
        "mix": mix_table(dataset),
        "chart": mix_chart(dataset),
        "splits": [(label, splits.get(value, 0)) for value, label in Example.Split.choices],
        "funnel": funnel_lines(dataset),
        "blocked": dataset.blocked[:SHOWN_BLOCKED],
        "unchanged_recipe": dataset.recipe == Recipe().as_dict(),
        "recipe": [
            (recipe_label(name)[0], value, getattr(Recipe(), name, None)) for name, value in dataset.recipe.items()
        ],
        "runs": list(dataset.runs.only("state", "created_at")[:10]),
        "page": page,
        "chosen": chosen,
        "query": query,
        "filtered": bool(query or any(chosen.values())),
        "choices": {"origin": Origin.choices, "kind": Kind.choices, "split": Example.Split.choices},
        "others": others.only("number")[:30],
        "compared": compared,
        "difference": difference(dataset, compared) if compared else None,
    }
    return render_page(request, "training/dataset.html", context)


def filtered_rows(dataset: DatasetVersion, chosen: dict[str, str], query: str) -> Any:
    rows = dataset.examples.order_by("position").defer("contexts", "evidence")
    rows = rows.filter(**{name: chosen[name] for name in ("origin", "kind", "split") if chosen[name]})
    if chosen["document"]:
        rows = rows.filter(contexts__contains=[{"source": chosen["document"], "relevant": True}])
    if query:
        rows = rows.filter(Q(question__icontains=query) | Q(sentences__icontains=query) | Q(group__icontains=query))
    return rows


def mix_table(dataset: DatasetVersion) -> dict[str, Any]:
    """Rows of origin × kind with sums."""
    lines: list[dict[str, Any]] = []
    for origin, label in Origin.choices:
        kinds: dict[str, int] = dataset.mix.get(origin, {})
        if kinds:
            cells = [kinds.get(kind, 0) for kind in Kind.values]
            lines.append({"origin": origin, "label": label, "cells": cells, "sum": sum(cells)})
    sums = [sum(line["cells"][i] for line in lines) for i in range(len(Kind.values))]
    answer, decline, handoff = sums
    sentence = f"Of {sum(sums)} rows {answer} teach to answer, {decline} to decline and {handoff} to hand over"
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


def funnel_lines(dataset: DatasetVersion) -> list[dict[str, Any]]:
    """Steps with what was taken out (or, negative, added), and the reasons by number."""
    return [
        {
            "step": step["step"],
            "before": step["before"],
            "kept": step["kept"],
            "dropped": step["before"] - step["kept"],
            "why": sorted(step["why"].items(), key=lambda pair: -pair[1]),
        }
        for step in dataset.funnel
    ]


def difference(dataset: DatasetVersion, other: DatasetVersion) -> dict[str, Any]:
    """Which rows are in one version only, counted by origin, and which choices differ. A row is known by its digest."""
    mine, theirs = (dict(d.examples.order_by().values_list("digest", "origin")) for d in (dataset, other))
    names = sorted(set(dataset.recipe) | set(other.recipe))
    return {
        "same": len(mine.keys() & theirs.keys()),
        "only_here": sorted(Counter(origin for digest, origin in mine.items() if digest not in theirs).items()),
        "only_there": sorted(Counter(origin for digest, origin in theirs.items() if digest not in mine).items()),
        "recipe": [
            (recipe_label(name)[0], other.recipe.get(name), dataset.recipe.get(name))
            for name in names
            if dataset.recipe.get(name) != other.recipe.get(name)
        ],
        "benchmark": dataset.benchmark_id != other.benchmark_id,
        "synthesis": dataset.synthesis_id != other.synthesis_id,
        "prompt": dataset.prompt_digest != other.prompt_digest,
    }
