"""Starting long work of the training room: each function makes its row in a transaction and launches it on commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max

from assistants.background import launch
from assistants.models import ApiKey, Assistant, Rendering
from assistants.policies import rules_of
from assistants.services import audit
from assistants.vault import encrypt
from training.data.benchmark import read_items
from training.data.recipe import Recipe
from training.evaluation.declaring import rule_of
from training.evaluation.gate import GateRule
from training.evaluation.plan import Plan
from training.evaluation.services import NotPossible as NotPossible  # noqa: PLC0414 - others import it from here
from training.finetune.bases import digest_of_base
from training.finetune.cleaning import ensure_cleaning, has_checkpoints
from training.finetune.config import FinetuneConfig
from training.finetune.counting import counts_of_dataset
from training.finetune.methods import METHODS, recommend, shortage
from training.models import (
    Adapter,
    Benchmark,
    BenchmarkUpload,
    DatasetVersion,
    Evaluation,
    Judging,
    KnowledgeScore,
    Replay,
    Run,
    Synthesis,
    TrainingProvider,
)
from training.providers.limits import why_not_there
from training.synthesis.plan import Plan as SynthesisPlan

MAX_SYNTHETIC = 20_000
MAX_BENCHMARK_ITEMS = 5_000

Work = BenchmarkUpload | Synthesis | DatasetVersion | Run | Evaluation | Judging | KnowledgeScore | Replay


def start_synthesis(
    *,
    assistant: Assistant,
    wanted: int,
    created_by: User | None = None,
    seed: int = 1,
    plan: SynthesisPlan | None = None,
) -> Synthesis:
    """Writes ``wanted`` questions from the assistant's documents, as the plan says (its defaults when not given).

    Raises:
        NotPossible: ``wanted`` is out of its limits, there are no documents, or no teacher to write them.
    """
    plan = plan or SynthesisPlan()
    check_synthesis(assistant=assistant, wanted=wanted, plan=plan)
    with transaction.atomic():
        synthesis = Synthesis.objects.create(
            assistant=assistant, wanted=wanted, seed=seed, plan=plan.as_dict(), created_by=created_by
        )
        _start(synthesis, created_by, {"wanted": wanted, "writer": plan.writer})
    return synthesis


def check_synthesis(*, assistant: Assistant, wanted: int, plan: SynthesisPlan) -> None:
    """Raises NotPossible as `start_synthesis`."""
    if not 1 <= wanted <= MAX_SYNTHETIC:
        raise NotPossible(f"Between 1 and {MAX_SYNTHETIC:,} questions can be written, not {wanted}.")
    if not assistant.documents.exists():
        raise NotPossible("There are no documents to write questions from. Load some first.")
    _refuse_without_teacher(plan)


def go_on_with_synthesis(*, synthesis: Synthesis, actor: User | None) -> None:
    """Queues a synthesis again that failed or was cancelled: it goes on after its last stored batch.

    Raises:
        NotPossible: it is at work, has ended well, or a dataset was made of it.
    """
    ended = (Synthesis.State.FAILED, Synthesis.State.CANCELLED)
    _refuse_without_teacher(SynthesisPlan.from_dict(synthesis.plan))
    with transaction.atomic():
        if DatasetVersion.objects.filter(synthesis=synthesis).exists():
            raise NotPossible(f"A dataset was made of {synthesis}; what it holds stays as it is. Start a new one.")
        again = Synthesis.objects.filter(pk=synthesis.pk, state__in=ended).update(
            state=Synthesis.State.QUEUED, attempt=0, token=None, pid=None, cancel_requested_at=None, finished_at=None,
            error="", stopped_by="",
        )  # fmt: skip
        if not again:
            raise NotPossible(f"{synthesis} is at work, or has ended. Only one that failed or was cancelled goes on.")
        synthesis.refresh_from_db()
        _start(synthesis, actor, {"again": True})


def _refuse_without_teacher(plan: SynthesisPlan) -> None:
    if plan.writer == "teacher" and not (
        django_settings.RATCHET_TEACHER_BASE_URL or django_settings.RATCHET_OPENAI_BASE_URL
    ):
        raise NotPossible("No teacher is set up: name its address in RATCHET_TEACHER_BASE_URL, or write by rule.")


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
            assistant=assistant, name=name, sealed=encrypt(content.encode()), created_by=created_by
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
    method: str = "sft",
    parent: Adapter | None = None,
    provider: TrainingProvider | None = None,
    key: ApiKey | None = None,
) -> Run:
    """Trains an adapter on a frozen dataset version.

    Args:
        method: one of `training.finetune.methods.METHODS`, or ``auto``: what suits the labels of the dataset.
        parent: the adapter to continue; None begins with the base.
        provider: who trains it; None: this platform.
        key: the program that asks, for the audit trail.

    Raises:
        NotPossible: the dataset is another assistant's, not frozen, empty, of another prompt format, blocked by a leak
            audit, or has lost rows to an erasure; its rows do not suit the method; the parent has another base or
            prompt format, or no weights here; the provider cannot do this.
        training.finetune.config.ConfigError: a setting is unknown or out of its limits.
        generation.engines.EngineUnavailable: the base model is not here.
    """
    _refuse_stranger(assistant, dataset, parent, provider)
    config = settings if isinstance(settings, FinetuneConfig) else FinetuneConfig.from_dict(dict(settings or {}))
    if why := dataset.why_unusable:
        raise NotPossible(why)
    if dataset.prompt_digest != assistant.prompt_digest:
        raise NotPossible(
            f"{dataset} was made for prompt format {dataset.prompt_digest}; the assistant now uses "
            f"{assistant.prompt_digest}. Build a new dataset."
        )
    counts = counts_of_dataset(dataset)
    if method == "auto":
        method = recommend(counts)[0]
    if method not in METHODS:
        raise NotPossible(f"There is no method {method[:40]!r}; there are {', '.join(METHODS)}, and auto.")
    if why := shortage(method, counts) or config.alone(method):
        raise NotPossible(why)
    if provider is not None and (why := why_not_there(provider, method, parent)):
        raise NotPossible(why)
    ours = provider is None or provider.kind == TrainingProvider.Kind.RAY
    digest = digest_of_base() if ours else ""
    if parent is not None:
        _refuse_parent(assistant, parent, digest)
    with transaction.atomic():
        run = Run.objects.create(
            assistant=assistant,
            dataset=dataset,
            settings=config.as_dict(),
            seed=seed,
            method=method,
            parent=parent,
            provider=provider,
            base_model=provider.model if provider is not None and not ours else django_settings.RATCHET_BASE_MODEL,
            base_digest=digest,
            prompt_digest=assistant.prompt_digest,
            created_by=created_by,
        )
        details: dict[str, Any] = {"dataset": dataset.number, "seed": seed, "method": method}
        if provider is not None:
            details["provider"] = provider.name  # the rows leave this house: who sent them there is written down
        _start(run, created_by, details | _by(key))
    transaction.on_commit(ensure_cleaning)
    return run


def resume_run(*, run: Run, actor: User | None) -> bool:
    """Queues a run again that failed or was cancelled; it goes on from its last checkpoint. False when it is at work,
    or done.

    Raises:
        NotPossible: its checkpoints are gone, or its dataset must not be trained on any more.
    """
    if why := run.dataset.why_unusable:
        raise NotPossible(why)
    if run.provider_id is None and not has_checkpoints(run):
        raise NotPossible(f"{run} has no checkpoint to go on from. Start a new run.")
    with transaction.atomic():
        stopped = Run.objects.filter(pk=run.pk, state__in=[Run.State.FAILED, Run.State.CANCELLED])
        changed = stopped.update(
            state=Run.State.QUEUED, attempt=0, error="", cancel_requested_at=None, finished_at=None, token=None
        )
        if changed:
            run.refresh_from_db()
            audit(assistant=run.assistant, actor=actor, action="run.resumed", target=str(run))
            transaction.on_commit(lambda: launch(run))
    return bool(changed)


def _refuse_parent(assistant: Assistant, parent: Adapter, digest: str) -> None:
    if parent.source == Adapter.Source.REMOTE:
        raise NotPossible(f"{parent} was trained elsewhere; its weights are not here. Continue another adapter.")
    if parent.base_digest != digest:
        raise NotPossible(f"{parent} was trained on another base model. Begin with the base, or restore that one.")
    if parent.prompt_digest != assistant.prompt_digest:
        raise NotPossible(
            f"{parent} was trained with prompt format {parent.prompt_digest}; the assistant now uses "
            f"{assistant.prompt_digest}. Begin with the base."
        )
    if parent.erased_rows:
        raise NotPossible(f"{parent} holds erased data, and what continues it would, too. Begin with the base.")


def start_evaluation(
    *,
    assistant: Assistant,
    adapter: Adapter,
    benchmark: Benchmark,
    created_by: User | None = None,
    rule: GateRule | None = None,
    plan: Plan | None = None,
    rival: Adapter | None = None,
    threshold: float | None = None,
) -> Evaluation:
    """Measures an adapter against today's answers. The gate is the assistant's declaration as it stands now; ``rule``
    is one of this evaluation's own. ``rival``: another adapter, such as the live one, that is asked beside.
    ``threshold``: under which all arms decline; None: the one by which the assistant serves now.

    Raises:
        NotPossible: adapter or benchmark are another assistant's, the adapter speaks another prompt format or has
            learned from rows that were erased since, the benchmark is empty, or the rule needs a rival.
    """
    _refuse_stranger(assistant, adapter, benchmark, rival)
    version = None
    if rule is None:
        rule, version = rule_of(assistant)
    if benchmark.sanity or not benchmark.items.exists():
        raise NotPossible(f"“{benchmark}” has no questions to evaluate on. Upload a benchmark, or choose another one.")
    if rival == adapter:
        raise NotPossible(f"{adapter} cannot be compared with itself. Name another adapter, or none.")
    if "rival" in rule.margins and rival is None:
        raise NotPossible("The gate asks for a comparison with another adapter. Name it, such as the live one.")
    for one in filter(None, (adapter, rival)):
        if one.erased_rows:
            raise NotPossible(
                f"{one} has learned from {one.erased_rows} rows that were erased since. Build a new dataset, train a "
                "new adapter, and evaluate that one."
            )
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
            rival=rival,
            plan=replace(
                (plan or Plan()).complete(rule),
                threshold=assistant.evidence_threshold if threshold is None else threshold,
                dtype=django_settings.RATCHET_ENGINE_DTYPE,
            ).as_dict(),
            gate_rule=rule.as_dict(),
            gate_version=version,
            base_digest=adapter.base_digest,
            prompt_digest=adapter.prompt_digest,
            created_by=created_by,
        )
        _start(evaluation, created_by, {"adapter": adapter.number, "benchmark": benchmark.name})
    return evaluation


def cancel(*, work: Work, actor: User | None, key: ApiKey | None = None) -> bool:
    """Asks running work to stop, and takes queued work out of the queue. False when it had ended already."""
    with transaction.atomic():
        asked = work.request_cancel()
        if asked:
            name = f"{work._meta.model_name}.cancelled"
            audit(assistant=work.assistant, actor=actor, action=name, target=str(work), details=_by(key))
    return asked


def _by(key: ApiKey | None) -> dict[str, str]:
    """For the audit trail, where a program has no name but its key's."""
    return {} if key is None else {"key": str(key)}


def _start(work: Work, actor: User | None, details: dict[str, Any]) -> None:
    name = f"{work._meta.model_name}.started"
    audit(assistant=work.assistant, actor=actor, action=name, target=str(work), details=details)
    transaction.on_commit(lambda: launch(work))


def _refuse_stranger(assistant: Assistant, *things: Any) -> None:
    for thing in things:
        if thing is not None and thing.assistant_id != assistant.pk:
            raise NotPossible(f"{thing} belongs to another assistant.")
