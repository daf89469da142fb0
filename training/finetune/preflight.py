"""What a run would do, said before it starts: rows, lengths, memory, time, and what stands against it.

Nothing here loads a model library: sizes come from the headers of the weight files, lengths from the base's tokenizer
(its Rust part alone), the speed from earlier runs on the same base. Lengths are of a sample and leave out the few
tokens of the chat template; the run itself counts every row exactly, and refuses to start when one would be cut.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from django.db.models import F, Sum, Value

from generation.engines import EngineError
from training.data.render import dpo_row, kto_rows_of, sft_row
from training.finetune.bases import base_folder
from training.finetune.config import FinetuneConfig
from training.finetune.counting import counts_of_dataset
from training.finetune.methods import NAMES, Counts, Stage, recommend, shortage, stages
from training.finetune.sizes import BaseSize, size_of_base
from training.models import Adapter, DatasetVersion, Example, Origin, Run, RunMetric, TrainingProvider
from training.providers.limits import why_not_there

SAMPLE = 200
MARKS = 4
"""Tokens of the chat template around one message, about."""
BINS = 8
MEMORY_SPARE = 1.15


@dataclass(frozen=True)
class StagePlan:
    """One stage, as it would be. ``seconds`` None: no run on this base has been timed yet."""

    stage: Stage
    name: str
    rows: int
    steps: int
    epochs: float
    learning_rate: float
    batch: int
    tokens: int
    seconds: float | None
    why: list[str]


@dataclass(frozen=True)
class Preflight:
    """``problems`` keep the run from starting; ``warnings`` do not. Memory in MB, lengths in tokens."""

    method: str
    recommended: str
    reason: str
    counts: Counts
    plans: list[StagePlan] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sampled: int = 0
    longest: int = 0
    median: int = 0
    limit: int = 0
    histogram: list[tuple[str, int]] = field(default_factory=list)
    memory_mb: int = 0
    memory_from: str = ""
    free_mb: int = 0
    adapter_mb: float = 0.0
    parameters: int = 0
    seconds: float | None = None
    speed_from: str = ""
    prompt_digest: str = ""
    dataset_digest: str = ""


def preflight(
    *,
    dataset: DatasetVersion,
    settings: FinetuneConfig,
    method: str = "auto",
    parent: Adapter | None = None,
    provider: TrainingProvider | None = None,
) -> Preflight:
    """Reads at most `SAMPLE` rows of the dataset for each stage, whatever its size."""
    counts = counts_of_dataset(dataset)
    recommended, reason = recommend(counts)
    method = recommended if method == "auto" else method
    base: dict[str, Any] = {
        "method": method,
        "recommended": recommended,
        "reason": reason,
        "counts": counts,
        "prompt_digest": dataset.assistant.prompt_digest,
        "dataset_digest": dataset.content_hash,
    }
    problems = [why for why in (dataset.why_unusable, shortage(method, counts), _prompt_problem(dataset)) if why]
    if why := settings.alone(method):
        problems.append(why)
    if provider is not None and (why := why_not_there(provider, method, parent)):
        problems.append(why)
    try:
        folder = base_folder()
        size = size_of_base(folder)
    except (EngineError, OSError, ValueError) as error:
        return Preflight(**base, problems=[*problems, str(error)])
    lengths = {stage: _lengths(dataset, stage, folder) for stage in stages(method)}
    speed, speed_from = measured_speed(size.digest)
    plans = [
        _plan(dataset, settings, stage, counts=counts, size=size, lengths=lengths[stage], speed=speed)
        for stage in stages(method)
    ]
    every = [length for own in lengths.values() for length in own]
    limit = min(settings.max_length or size.context, size.context)
    longest = max(every, default=0)
    if longest > limit:
        problems.append(
            f"A row of the sample has {longest} tokens, and {limit} fit: it would be cut. Offer fewer evidence "
            "sentences or shorter passages, or use a base with a longer context."
        )
    memory, memory_from = _memory(settings, size, longest, plans)
    free = round(psutil.virtual_memory().available / 1024**2)
    warnings = []
    if memory > free:
        warnings.append(
            f"About {memory} MB are needed and {free} MB are free. Set a smaller micro_batch, or stop what else runs."
        )
    if settings.quantise and not Path("/dev/nvidiactl").exists():
        warnings.append("This machine shows no CUDA device: a run with quantise is refused unless its worker has one.")
    if provider is not None:
        theirs = f", whose base is {provider.model}" if provider.kind == TrainingProvider.Kind.OPENAI else ""
        warnings = [
            f"The rows leave this platform for {provider}{theirs}. Lengths, memory and time below are those of the "
            "base here."
        ]
    if parent is not None and parent.erased_rows:
        problems.append(f"{parent} holds erased data, and what continues it would, too.")
    rank = parent.manifest.get("settings", {}).get("rank", settings.rank) if parent is not None else settings.rank
    seconds = sum(plan.seconds or 0 for plan in plans) if speed else None
    return Preflight(
        **base,
        plans=plans,
        problems=problems,
        warnings=warnings,
        sampled=len(every),
        longest=longest,
        median=round(statistics.median(every)) if every else 0,
        limit=limit,
        histogram=_histogram(every),
        memory_mb=memory,
        memory_from=memory_from,
        free_mb=free,
        adapter_mb=round(size.lora_parameters(rank) * 4 / 1024**2, 1),
        parameters=size.parameters,
        seconds=seconds,
        speed_from=speed_from,
    )


def measured_speed(base_digest: str) -> tuple[float | None, str]:
    """Tokens per second of the last run on this base that got anywhere, and which one it was."""
    timed = RunMetric.objects.filter(run__base_digest=base_digest, tokens_per_second__gt=0, step__gt=1)
    last = timed.order_by("-run_id").values_list("run_id", flat=True).first()
    if last is None:
        return None, ""
    told = timed.filter(run_id=last).values_list("tokens_per_second", flat=True)[:500]
    return statistics.median(speed for speed in told if speed), f"Run {last}"


def _prompt_problem(dataset: DatasetVersion) -> str:
    now = dataset.assistant.prompt_digest
    if dataset.prompt_digest == now:
        return ""
    return (
        f"{dataset} was made for prompt format {dataset.prompt_digest}; the assistant now uses {now}. Build a new "
        "dataset."
    )


def _rows(dataset: DatasetVersion, stage: Stage) -> Iterator[Any]:
    """Rows of at most `SAMPLE` examples, taken at equal distances over the whole dataset. Placeholders stay: drawing
    invented values would read every row."""
    house = dataset.assistant.house
    examples = dataset.examples.filter(split=Example.Split.TRAIN, erased_at=None)
    if stage != "kto":
        examples = examples.exclude(origin=Origin.BAD)
    if stage == "dpo":
        examples = examples.exclude(rejected="")
    every = max(1, -(-examples.count() // SAMPLE))
    spread = examples.annotate(place=F("position") % Value(every)).filter(place=0).order_by("position")[:SAMPLE]
    for example in spread:
        if stage == "sft":
            yield sft_row(house, example)
        elif stage == "kto":
            yield from kto_rows_of(house, example)
        elif (pair := dpo_row(house, example)) is not None:
            yield pair


def _lengths(dataset: DatasetVersion, stage: Stage, folder: Path) -> list[int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = []
    for row in _rows(dataset, stage):
        answers = [row.get(name) for name in ("completion", "chosen", "rejected")]
        texts = [[m["content"] for m in answer] for answer in answers if answer]
        prompt = [m["content"] for m in row["prompt"]]
        longest = max(texts, key=lambda answer: sum(map(len, answer)))
        messages = [*prompt, *longest]
        encoded = tokenizer.encode_batch(messages, add_special_tokens=False)
        found.append(sum(len(one.ids) + MARKS for one in encoded))
    return found


def _plan(
    dataset: DatasetVersion,
    settings: FinetuneConfig,
    stage: Stage,
    *,
    counts: Counts,
    size: BaseSize,
    lengths: list[int],
    speed: float | None,
) -> StagePlan:
    # Repetitions are rows of the supervised and of the chosen answers; bad answers are seen once.
    weight = dataset.examples.filter(split=Example.Split.TRAIN, erased_at=None).aggregate(n=Sum("weight"))["n"] or 0
    share = weight / max(counts.sft + (counts.bad if stage == "kto" else 0), 1)
    rows = {"sft": counts.sft, "dpo": counts.pairs, "kto": counts.good + counts.bad}[stage]
    repeated = max(rows, round(rows * max(share, 1.0)))
    resolved, why = settings.for_stage(stage).resolve(
        rows=repeated, parameters=size.parameters, stage=stage, counts=counts
    )
    assert resolved.epochs is not None
    assert resolved.learning_rate is not None
    assert resolved.batch is not None
    # A pair is two answers to one prompt; KTO reads every prompt once more with an answer that is not its own, and both
    # read everything once beforehand for the reference (a third of the price: no backward pass).
    passes = {"sft": resolved.epochs, "dpo": 2 * (resolved.epochs + 1 / 3), "kto": resolved.epochs * 4 / 3 + 2 / 3}
    tokens = round(repeated * (statistics.fmean(lengths) if lengths else 0) * passes[stage])
    return StagePlan(
        stage=stage,
        name=NAMES[stage],
        rows=repeated,
        steps=resolved.steps(repeated),
        epochs=resolved.epochs,
        learning_rate=resolved.learning_rate,
        batch=resolved.batch,
        tokens=tokens,
        seconds=round(tokens / speed, 1) if speed else None,
        why=why,
    )


def _memory(settings: FinetuneConfig, size: BaseSize, longest: int, plans: list[StagePlan]) -> tuple[int, str]:
    """MB at the peak, and where the number is from: an earlier run on this base, or a count of what is held."""
    pairs = 2 if any(plan.stage == "dpo" for plan in plans) else 1
    earlier = Run.objects.filter(base_digest=size.digest, state=Run.State.SUCCEEDED, adapter__isnull=False)
    for run in earlier.select_related("adapter").order_by("-pk")[:1]:
        peak = run.adapter.manifest.get("peak_mb")
        if peak:
            return round(peak * (MEMORY_SPARE if pairs > 1 else 1.0)), f"measured by {run}"
    lora = size.lora_parameters(settings.rank)
    rows = min(settings.micro_batch, 8) * pairs
    activations = rows * max(longest, 1) * size.hidden * size.layers * 34
    held = size.parameters * 6 + lora * 16 + activations + 600 * 1024**2
    return round(held * MEMORY_SPARE / 1024**2), "counted: base, LoRA layers, optimiser, activations, libraries"


def _histogram(lengths: list[int]) -> list[tuple[str, int]]:
    if not lengths:
        return []
    low, high = min(lengths), max(lengths)
    width = max(1, -(-(high - low + 1) // BINS))
    counts: dict[int, int] = {}
    for length in lengths:
        counts[(length - low) // width] = counts.get((length - low) // width, 0) + 1
    found = []
    for place in range(max(counts) + 1):
        first = low + place * width
        last = min(first + width - 1, high)
        found.append((str(first) if first == last else f"{first}–{last}", counts.get(place, 0)))
    return found


def as_json(found: Preflight) -> dict[str, Any]:
    """For the API: plain values."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(found)))
    return plain
