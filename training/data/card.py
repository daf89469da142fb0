"""The dataset card: what a folder says of itself to Hugging Face's tools and to people. Numbers and choices, no text of
anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from training.data.recipe import Recipe
from training.data.render import Method, MethodCounts
from training.models import DatasetVersion, Kind, Origin

NAMES: Mapping[str, str] = {
    "sft": "supervised: prompt, completion",
    "kto": "unpaired preferences: prompt, completion, label",
    "dpo": "pairs: prompt, chosen, rejected",
}


def card_of(dataset: DatasetVersion, files: Mapping[tuple[Method, str], str], have: Mapping[str, MethodCounts]) -> str:
    """Markdown with the front matter that `datasets.load_dataset` reads. ``files``: {(method, split): path}."""
    head: dict[str, Any] = {
        "pretty_name": f"{dataset.assistant.name}, dataset {dataset.number}",
        "task_categories": ["question-answering", "text-generation"],
        "tags": ["rag", "trl", "grounded", "ratchet"],
        "size_categories": [size_of(dataset.rows)],
        "configs": _configs(files),
    }
    parts = [
        "---\n" + yaml.safe_dump(head, sort_keys=False, allow_unicode=True) + "---\n",
        f"# {head['pretty_name']}\n",
        f"A frozen version with {dataset.rows:,} rows, content `{dataset.content_hash}`. Prompts are in format "
        f"`{dataset.prompt_digest}`: they are what the assistant is asked with, to the byte. `weight` says how often a "
        "row is meant to be seen in one epoch.\n",
        "## Rows\n",
        _rows(files, have),
        _mix(dataset),
        "## From labels to rows\n",
        _funnel(dataset),
        "## Care\n",
        _care(dataset),
        "## Recipe\n",
        _recipe(dataset),
    ]
    return "\n".join(parts)


def size_of(rows: int) -> str:
    """Hugging Face's name for a size."""
    for most, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
        if rows < most:
            return name
    return "100K<n<1M"


def _configs(files: Mapping[tuple[Method, str], str]) -> list[dict[str, Any]]:
    methods = list(dict.fromkeys(method for method, _ in files))
    return [
        {
            "config_name": method,
            "default": method == methods[0],
            "data_files": [{"split": split, "path": path} for (one, split), path in files.items() if one == method],
        }
        for method in methods
    ]


def _rows(files: Mapping[tuple[Method, str], str], have: Mapping[str, MethodCounts]) -> str:
    lines = ["| file | what | rows |", "|---|---|---|"]
    for (method, split), path in files.items():
        counts = have[split]
        n = {"sft": counts.sft, "kto": counts.kto_desirable + counts.kto_undesirable, "dpo": counts.dpo}[method]
        lines.append(f"| `{path}` | {NAMES[method]} | {n:,} |")
    return "\n".join(lines) + "\n"


def _mix(dataset: DatasetVersion) -> str:
    lines = ["| origin | " + " | ".join(Kind.labels) + " |", "|---|" + "---|" * len(Kind.labels)]
    for origin, label in Origin.choices:
        if kinds := dataset.mix.get(origin):
            lines.append(f"| {label} | " + " | ".join(str(kinds.get(kind, 0)) for kind in Kind.values) + " |")
    return "\n".join(lines) + "\n"


def _funnel(dataset: DatasetVersion) -> str:
    lines = ["| step | before | after | why |", "|---|---|---|---|"]
    for step in dataset.funnel:
        why = ", ".join(f"{n} {reason}" for reason, n in step["why"].items())
        lines.append(f"| {step['step']} | {step['before']} | {step['kept']} | {why} |")
    return "\n".join(lines) + "\n"


def _care(dataset: DatasetVersion) -> str:
    report = dataset.leak_report
    # The list holds the first of them only; the funnel has counted all.
    guard = [step["before"] - step["kept"] for step in dataset.funnel if step["step"] == "leakage guard"]
    blocked = guard[0] if guard else len(dataset.blocked)
    guarded = f"`{dataset.benchmark.content_hash[:12]}`" if dataset.benchmark else "none"
    said = [
        "Texts were scrubbed of personal data when they came in"
        + (", and invented values stand for what was masked." if dataset.recipe.get("surrogates") else "."),
        f"Leak audit: {'nothing blocks' if report and not report.blocks else 'none, or not passed'}"
        + (f", strict policy `{report.policy_digest[:12]}`." if report else "."),
        f"Questions of the benchmark that guards it (content {guarded}) and near copies were kept out: "
        f"{blocked:,} rows. Splits are by conversation or document.",
    ]
    return "\n".join(f"- {line}" for line in said) + "\n"


def _recipe(dataset: DatasetVersion) -> str:
    default = Recipe().as_dict()
    changed = {name: value for name, value in dataset.recipe.items() if value != default.get(name)}
    told = "\n".join(f"- `{name}`: {value}" for name, value in changed.items()) or "- the defaults"
    return f"`recipe.yaml` holds all of it. What differs from the defaults:\n\n{told}\n"
