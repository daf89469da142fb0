"""Starting long work of the training room: each function makes its row in a transaction and launches it on commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max

from assistants.background import launch
from assistants.models import Assistant, Rendering
from assistants.policies import rules_of
from assistants.services import audit
from training.data.benchmark import read_items
from training.data.recipe import Recipe
from training.evaluation.gate import GateRule
from training.finetune.bases import digest_of_base
from training.finetune.config import FinetuneConfig
from training.models import Adapter, Benchmark, BenchmarkUpload, DatasetVersion, Evaluation, Run, Synthesis

MAX_SYNTHETIC = 20_000
MAX_BENCHMARK_ITEMS = 5_000

Work = BenchmarkUpload | Synthesis | DatasetVersion | Run | Evaluation


class NotPossible(ValueError):
    """What was asked for cannot be started; the message says why and what to do."""


def start_synthesis(*, assistant: Assistant, wanted: int, created_by: User | None = None, seed: int = 1) -> Synthesis:
    """Writes ``wanted`` questions from the assistant's documents.

    Raises:
        NotPossible: ``wanted`` is out of its limits, or there are no documents.
    """
    if not 1 <= wanted <= MAX_SYNTHETIC:
        raise NotPossible(f"Between 1 and {MAX_SYNTHETIC:,} questions can be written, not {wanted}.")
    if not assistant.documents.exists():
        raise NotPossible("There are no documents to write questions from. Load some first.")
    with transaction.atomic():
        synthesis = Synthesis.objects.create(assistant=assistant, wanted=wanted, seed=seed, created_by=created_by)
        _start(synthesis, created_by, {"wanted": wanted})
    return synthesis


def start_benchmark(
    *, assistant: Assistant, name: str, content: str, created_by: User | None = None
) -> BenchmarkUpload:
    """Freezes a benchmark from JSON lines (`training.data.benchmark.Item`), which are checked at once.

    Raises:
        NotPossible: no name, too many questions, or a benchmark of that name is there.
        training.data.benchmark.BenchmarkError: lines that are no items.
    """
    name = name.strip()
    if not 1 <= len(name) <= 120:
        raise NotPossible("A benchmark needs a name of at most 120 characters.")
    if assistant.benchmarks.filter(name=name).exists():
        raise NotPossible(f"A benchmark “{name}” is there already. Give the new one another name.")
    count = len(read_items(content.split("\n")))
    if count > MAX_BENCHMARK_ITEMS:
        raise NotPossible(f"The file holds {count:,} questions; at most {MAX_BENCHMARK_ITEMS:,} make a benchmark.")
    with transaction.atomic():
        upload = BenchmarkUpload.objects.create(
            assistant=assistant, name=name, content=content, created_by=created_by
        )
        _start(upload, created_by, {"questions": count})
    return upload


def build_dataset(
    *,
    assistant: Assistant,
    benchmark: Benchmark | None,
    synthesis: Synthesis | None,
    recipe: Recipe | None = None,
    created_by: User | None = None,
) -> DatasetVersion:
    """Builds and freezes the assistant's next dataset version.

    Raises:
        NotPossible: benchmark or synthesis are another assistant's, or the synthesis has not ended.
    """
    _refuse_stranger(assistant, benchmark, synthesis)
    if synthesis is not None and synthesis.is_active:
        raise NotPossible(f"{synthesis} is still writing. Wait for its end, or cancel it.")
    recipe = recipe or Recipe(surrogates=rules_of(assistant).rendering == Rendering.SURROGATES)
    with transaction.atomic():
        Assistant.objects.select_for_update().get(pk=assistant.pk)  # numbers are given one by one
        last = DatasetVersion.objects.filter(assistant=assistant).aggregate(last=Max("number"))["last"] or 0
        dataset = DatasetVersion.objects.create(
            assistant=assistant,
            number=last + 1,
            recipe=recipe.as_dict(),
            benchmark=benchmark,
            synthesis=synthesis,
            prompt_digest=assistant.prompt_digest,
            created_by=created_by,
        )
        _start(dataset, created_by, {"benchmark": str(benchmark or ""), "synthesis": str(synthesis or "")})
    return dataset


def start_run(
    *,
    assistant: Assistant,
    dataset: DatasetVersion,
    settings: Mapping[str, Any] | FinetuneConfig | None = None,
    seed: int = 1,
    created_by: User | None = None,
) -> Run:
    """Trains an adapter on a frozen dataset version.

    Raises:
        NotPossible: the dataset is another assistant's, not frozen, empty, of another prompt format, blocked by a leak
            audit, or has lost rows to an erasure.
        training.finetune.config.ConfigError: a setting is unknown or out of its limits.
        generation.engines.EngineUnavailable: the base model is not here.
    """
    _refuse_stranger(assistant, dataset)
    config = settings if isinstance(settings, FinetuneConfig) else FinetuneConfig.from_dict(dict(settings or {}))
    if why := dataset.why_unusable:
        raise NotPossible(why)
    if dataset.prompt_digest != assistant.prompt_digest:
        raise NotPossible(
            f"{dataset} was made for prompt format {dataset.prompt_digest}; the assistant now uses "
            f"{assistant.prompt_digest}. Build a new dataset."
        )
    digest = digest_of_base()
    with transaction.atomic():
        run = Run.objects.create(
            assistant=assistant,
            dataset=dataset,
            settings=config.as_dict(),
            seed=seed,
            base_model=django_settings.RATCHET_BASE_MODEL,
            base_digest=digest,
            prompt_digest=assistant.prompt_digest,
            created_by=created_by,
        )
        _start(run, created_by, {"dataset": dataset.number, "seed": seed})
    return run


def start_evaluation(
    *,
    assistant: Assistant,
    adapter: Adapter,
    benchmark: Benchmark,
    created_by: User | None = None,
    rule: GateRule | None = None,
) -> Evaluation:
    """Measures an adapter against today's answers; the gate's rule is declared now, before anything is measured.

    Raises:
        NotPossible: adapter or benchmark are another assistant's, or the adapter speaks another prompt format.
    """
    _refuse_stranger(assistant, adapter, benchmark)
    if adapter.prompt_digest != assistant.prompt_digest:
        raise NotPossible(
            f"{adapter} was trained with prompt format {adapter.prompt_digest}; the assistant now uses "
            f"{assistant.prompt_digest}. Train a new adapter."
        )
    with transaction.atomic():
        evaluation = Evaluation.objects.create(
            assistant=assistant,
            adapter=adapter,
            benchmark=benchmark,
            gate_rule=(rule or GateRule()).as_dict(),
            base_digest=adapter.base_digest,
            prompt_digest=adapter.prompt_digest,
            created_by=created_by,
        )
        _start(evaluation, created_by, {"adapter": adapter.number, "benchmark": benchmark.name})
    return evaluation


def cancel(*, work: Work, actor: User | None) -> bool:
    """Asks running work to stop, and takes queued work out of the queue. False when it had ended already."""
    with transaction.atomic():
        asked = work.request_cancel()
        if asked:
            name = f"{work._meta.model_name}.cancelled"
            audit(assistant=work.assistant, actor=actor, action=name, target=str(work))
    return asked


def _start(work: Work, actor: User | None, details: dict[str, Any]) -> None:
    name = f"{work._meta.model_name}.started"
    audit(assistant=work.assistant, actor=actor, action=name, target=str(work), details=details)
    transaction.on_commit(lambda: launch(work))


def _refuse_stranger(assistant: Assistant, *things: Any) -> None:
    for thing in things:
        if thing is not None and thing.assistant_id != assistant.pk:
            raise NotPossible(f"{thing} belongs to another assistant.")
