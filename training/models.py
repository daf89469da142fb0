"""From labels to an adapter with a verdict: benchmark, dataset version, run, adapter, evaluation."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models

from assistants.background import BackgroundQuerySet, BackgroundWork
from assistants.models import Assistant
from capture.models import LeakReport, Turn
from knowledge.models import Chunk
from training.choices import Arm, Condition, GateVerdict, Kind, Origin
from training.data.models import CuratedRow, CuratedSet, DatasetPreview, FrozenWords
from training.finetune.methods import LABELS
from training.providers.models import TrainingProvider
from training.registry.models import AdapterMerge
from training.retrieval.models import RetrievalComparison, RetrieverTuning
from training.rules.models import RetrainingProposal, RetrainingRule
from training.synthesis.models import SpotCheck, Synthesis, SyntheticItem

UNTOUCHED = "untouched"
"""Slice of a benchmark on documents from which no row of a dataset that is guarded by it may answer."""


class Benchmark(models.Model):
    """Frozen held-out questions. No dataset may hold its questions or near-duplicates of them."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="benchmarks")
    name = models.CharField(max_length=120)
    content_hash = models.CharField(max_length=64, help_text="SHA-256 over its items in order.")
    sanity = models.BooleanField(
        default=False, help_text="The bundled questions outside any domain: asked beside, never the benchmark itself."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-created_at",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["assistant", "name"], name="benchmark_name_once")]

    def __str__(self) -> str:
        return self.name


class BenchmarkItem(models.Model):
    """One held-out question with its gold.

    ``contexts`` holds the frozen passages of each condition, so that every arm sees an identical prompt:
    {condition: {"passages": [{rank, title, source, text}], "evidence": [[rank, sentence, similarity], …],
    "has_gold": bool}}.
    """

    benchmark = models.ForeignKey(Benchmark, on_delete=models.CASCADE, related_name="items")
    key = models.CharField(max_length=80)
    question = models.TextField()
    history = models.JSONField(default=list)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    answers = ArrayField(models.TextField(), default=list, help_text="Full gold answers; the first is the reference.")
    must_contain = models.JSONField(
        default=list, help_text="[[alternative, …], …]: one alternative of each group must be in a right answer."
    )
    must_not_contain = ArrayField(models.CharField(max_length=200), default=list, help_text="Superseded values etc.")
    gold = models.JSONField(default=list, help_text="[{path, sentence}]: where the answer stands.")
    slice = models.CharField(max_length=60, blank=True, help_text="E.g. untouched documents, vocabulary, superseded.")
    topic = models.CharField(max_length=60, blank=True)
    contexts = models.JSONField(default=dict)

    class Meta:
        ordering = ("pk",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["benchmark", "key"], name="benchmark_item_once")]

    def __str__(self) -> str:
        return self.question[:80]


class BenchmarkUpload(BackgroundWork):
    """A file of held-out questions on its way to a frozen benchmark: embedding and retrieval take their time."""

    needs_device = False

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="benchmark_uploads")
    name = models.CharField(max_length=120)
    sealed = models.BinaryField(
        null=True, editable=False, help_text="JSON lines, checked and encrypted; destroyed when frozen."
    )
    benchmark = models.ForeignKey(Benchmark, null=True, editable=False, on_delete=models.SET_NULL, related_name="+")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Upload of “{self.name}”"

    def perform(self) -> None:
        from training.data.benchmark import perform

        perform(self)


class DatasetVersion(BackgroundWork):
    """A frozen, content-hashed training set: its rows never change; another recipe makes another version."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="datasets")
    number = models.PositiveIntegerField()
    recipe = models.JSONField(default=dict, help_text="training.data.recipe.Recipe as a dict.")
    benchmark = models.ForeignKey(Benchmark, null=True, on_delete=models.PROTECT, related_name="+")
    synthesis = models.ForeignKey(Synthesis, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    prompt_digest = models.CharField(max_length=16)
    content_hash = models.CharField(max_length=64, blank=True)
    funnel = models.JSONField(default=list, help_text="[{step, kept, dropped, why}] from turns to rows.")
    mix = models.JSONField(default=dict, help_text="{origin: {kind: n}}")
    blocked = models.JSONField(
        default=list, help_text="Rows that the leakage guard refused: [{question, item, by, score}]"
    )
    documents = models.JSONField(default=list, help_text="Paths that the rows cite.")
    rows = models.PositiveIntegerField(default=0)
    parent = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="children",
        help_text="The version whose rows these are, without the excluded ones.",
    )
    excluded = models.JSONField(default=list, help_text="Positions of the parent's rows that were left out.")
    note = models.CharField(max_length=300, blank=True, help_text="Why it was made.")
    stats = models.JSONField(default=dict, help_text="training.data.stats.Stats as a dict, of the rows as frozen.")
    erased_rows = models.PositiveIntegerField(
        default=0, help_text="Rows whose text an erasure has removed: the content hash no longer matches."
    )
    erased_at = models.DateTimeField(null=True, blank=True)
    leak_report = models.ForeignKey(
        LeakReport, null=True, blank=True, on_delete=models.SET_NULL, related_name="datasets"
    )

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-number",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["assistant", "number"], name="dataset_number_once")]

    def __str__(self) -> str:
        return f"Dataset {self.number}"

    @property
    def why_unusable(self) -> str:
        """Why nobody may train on it or export it, in one sentence with what to do; empty when they may."""
        if self.state != self.State.SUCCEEDED or not self.rows:
            return f"{self} is not frozen yet, or holds no rows. Wait for its build, or build another one."
        if self.erased_rows:
            return (
                f"An erasure has removed {self.erased_rows} of the {self.rows} rows of {self}, so it is no longer what "
                "was frozen. Build a new dataset."
            )
        if self.leak_report is not None and self.leak_report.blocks:
            return (
                f"The leak audit has found personal data in {self}. Its report names rows and fields; scrub those "
                "turns again and build a new dataset, or ask a privacy officer."
            )
        return ""

    def perform(self) -> None:
        from training.data.build import perform

        perform(self)


class Example(models.Model):
    """The canonical training record. `training.data.render` turns it into SFT, KTO or DPO rows."""

    class Split(models.TextChoices):
        TRAIN = "train", "Train"
        VALIDATION = "validation", "Validation"

    dataset = models.ForeignKey(DatasetVersion, on_delete=models.CASCADE, related_name="examples")
    position = models.PositiveIntegerField()
    split = models.CharField(max_length=10, choices=Split.choices)
    origin = models.CharField(max_length=10, choices=Origin.choices)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    group = models.CharField(max_length=200, help_text="Conversation or document: a group is in one split only.")
    weight = models.PositiveSmallIntegerField(default=1, help_text="How often the row is seen in one epoch.")
    history = models.JSONField(default=list)
    question = models.TextField()
    contexts = models.JSONField(default=list, help_text="[{rank, title, source, text, relevant}]")
    evidence = models.JSONField(default=list, help_text="[[rank, sentence, similarity], …] in the order offered.")
    sentences = models.JSONField(default=list, help_text="The response: [{text, refs: [[rank, sentence], …]}]")
    rejected = models.TextField(blank=True, help_text="The logged answer that was judged bad.")
    turn = models.ForeignKey(Turn, null=True, blank=True, on_delete=models.SET_NULL, related_name="examples")
    chunk = models.ForeignKey(Chunk, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    came_from = models.CharField(max_length=200, blank=True, help_text="Where neither turn nor chunk says it.")
    # Also in the contexts, of which a filter would have to unpack hundreds of megabytes.
    documents = ArrayField(models.TextField(), default=list, help_text="Paths of the relevant contexts.")
    digest = models.CharField(max_length=64)
    erased_at = models.DateTimeField(null=True, blank=True, help_text="Its text is gone; the row stays to be counted.")

    class Meta:
        ordering = ("dataset", "position")
        constraints: ClassVar = [models.UniqueConstraint(fields=["dataset", "position"], name="example_position_once")]
        # The same row of other versions, from its page.
        indexes: ClassVar = [
            models.Index(fields=["digest"], name="example_digest"),
            GinIndex(fields=["documents"], name="example_documents"),
        ]

    def __str__(self) -> str:
        return self.question[:80]

    @property
    def response(self) -> str:
        return " ".join(sentence["text"] for sentence in self.sentences)


class Run(BackgroundWork):
    """One training of one adapter."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="runs")
    dataset = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, related_name="runs")
    method = models.CharField(max_length=8, choices=LABELS.items(), default="sft")
    settings = models.JSONField(default=dict, help_text="training.finetune.config.FinetuneConfig as a dict.")
    seed = models.PositiveIntegerField(default=1)
    base_model = models.CharField(max_length=300)
    base_digest = models.CharField(max_length=64, blank=True)
    prompt_digest = models.CharField(max_length=16)
    folder = models.CharField(max_length=500, blank=True, help_text="Relative to the state folder.")
    parent = models.ForeignKey(
        "Adapter", null=True, blank=True, on_delete=models.SET_NULL, related_name="+", help_text="What it continues."
    )
    provider = models.ForeignKey(
        TrainingProvider, null=True, blank=True, on_delete=models.PROTECT, related_name="runs",
        help_text="Where it is trained; empty: on this platform.",
    )  # fmt: skip
    remote = models.JSONField(default=dict, editable=False, help_text="What the provider calls files, job and model.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Run {self.pk}"

    @property
    def needs_device(self) -> bool:  # type: ignore[override]
        """A run at a provider only waits: it must not keep the machine from others."""
        return self.provider_id is None

    @classmethod
    def elsewhere(cls) -> models.Q:
        return models.Q(provider__isnull=False)

    def perform(self) -> None:
        from training.finetune.runs import perform

        perform(self)


class RunMetric(models.Model):
    """One logged step: what the live chart draws."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="metrics")
    step = models.PositiveIntegerField()
    loss = models.FloatField(null=True)
    validation_loss = models.FloatField(null=True)
    learning_rate = models.FloatField(null=True)
    tokens_per_second = models.FloatField(null=True)
    measures = models.JSONField(default=dict, help_text="{margin, accuracy, kl, …} of DPO and KTO.")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("run", "step")
        constraints: ClassVar = [
            # A resumed run repeats the steps since its last checkpoint: they overwrite, never double.
            models.UniqueConstraint(fields=["run", "step"], name="run_metric_once")
        ]

    def __str__(self) -> str:
        return f"{self.run} step {self.step}"


class Adapter(models.Model):
    """A trained LoRA adapter: a folder with safetensors and a manifest, and the whole record of how it came to be."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="adapters")
    number = models.PositiveIntegerField()

    class Source(models.TextChoices):
        RUN = "run", "Trained here"
        IMPORTED = "imported", "Imported"
        REMOTE = "remote", "Trained elsewhere, served there"

    run = models.OneToOneField(Run, null=True, blank=True, on_delete=models.PROTECT, related_name="adapter")
    source = models.CharField(max_length=8, choices=Source.choices, default=Source.RUN)
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="children")
    remote_model = models.CharField(max_length=300, blank=True, help_text="Its name at the provider of its run.")
    folder = models.CharField(max_length=500, blank=True, help_text="Relative to the state folder; empty: remote.")
    manifest = models.JSONField(default=dict, help_text="Digests, versions, seed, data hash: as manifest.json.")
    base_digest = models.CharField(max_length=64)
    prompt_digest = models.CharField(max_length=16)
    size_bytes = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-number",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["assistant", "number"], name="adapter_number_once")]

    def __str__(self) -> str:
        return f"Adapter {self.number}"

    @property
    def erased_rows(self) -> int:
        """Rows it has learned from that were erased since. Above 0: it holds erased data and is to be trained anew."""
        own = self.run.dataset.erased_rows if self.run is not None else 0
        return own + (self.parent.erased_rows if self.parent is not None else 0)

    @property
    def engine_name(self) -> str:
        """The immutable name under which engines hold it: never reused for other weights."""
        if self.source == self.Source.REMOTE:
            return self.remote_model
        return f"{self.assistant.slug}--{self.number}"


class Evaluation(BackgroundWork):
    """One before/after on one benchmark."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="evaluations")
    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="evaluations")
    benchmark = models.ForeignKey(Benchmark, on_delete=models.PROTECT, related_name="evaluations")
    rival = models.ForeignKey(
        Adapter, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", help_text="Asked beside, if any."
    )
    plan = models.JSONField(default=dict, help_text="training.evaluation.plan.Plan: arms, conditions, timed questions.")
    gate_rule = models.JSONField(default=dict, help_text="Declared before the evaluation starts.")
    gate_version = models.PositiveIntegerField(
        null=True, blank=True, help_text="Of the declaration; empty: a rule of its own, or the standard one."
    )
    base_digest = models.CharField(max_length=64, blank=True)
    prompt_digest = models.CharField(max_length=16, blank=True)
    results = models.JSONField(default=dict, help_text="{arm: {condition: {metric: {value, low, high, n}}}}")
    comparison = models.JSONField(default=dict, help_text="Paired candidate − today: difference, interval, p, MDE.")
    gate = models.JSONField(default=list, help_text="[{criterion, limit, value, low, high, passed}]")
    verdict = models.CharField(max_length=12, choices=GateVerdict.choices, blank=True)
    sentence = models.TextField(blank=True, help_text="The verdict in one sentence with its interval.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Evaluation {self.pk} of {self.adapter}"

    @property
    def threshold(self) -> float:
        """Below this similarity every arm with retrieval declined; 0: each was always asked."""
        return float(self.plan.get("threshold", 0.0))

    @property
    def dtype(self) -> str:
        """The format in which the models were multiplied, as `RATCHET_ENGINE_DTYPE` names it."""
        return str(self.plan.get("dtype", "float32"))

    def perform(self) -> None:
        from training.evaluation.runner import perform

        perform(self)


class EvaluationAnswer(models.Model):
    """One answer of one arm to one item under one condition, with its measures."""

    evaluation = models.ForeignKey(Evaluation, on_delete=models.CASCADE, related_name="answers")
    item = models.ForeignKey(BenchmarkItem, on_delete=models.CASCADE, related_name="+")
    arm = models.CharField(max_length=12, choices=Arm.choices)
    condition = models.CharField(max_length=16, choices=Condition.choices)
    completion = models.TextField()
    text = models.TextField(help_text="With [n] citations of passages.")
    declined = models.BooleanField(default=False)
    measures = models.JSONField(default=dict, help_text="{metric: number}")
    seconds = models.FloatField(default=0.0)
    completion_tokens = models.PositiveIntegerField(default=0)

    class Meta:
        constraints: ClassVar = [
            # What makes an interrupted evaluation go on where it stopped.
            models.UniqueConstraint(fields=["evaluation", "item", "arm", "condition"], name="evaluation_answer_once")
        ]

    def __str__(self) -> str:
        return f"{self.arm} on {self.item}"


from training.evaluation.models import (  # noqa: E402 - they point to the rows above
    EvaluationHelper,
    EvaluationUnit,
    GateDeclaration,
    Judgement,
    Judging,
    KnowledgeScore,
    Replay,
    ReplayAnswer,
)

__all__ = [
    "UNTOUCHED",
    "Adapter",
    "AdapterMerge",
    "Arm",
    "Benchmark",
    "BenchmarkItem",
    "BenchmarkUpload",
    "Condition",
    "CuratedRow",
    "CuratedSet",
    "DatasetPreview",
    "DatasetVersion",
    "Evaluation",
    "EvaluationAnswer",
    "EvaluationHelper",
    "EvaluationUnit",
    "Example",
    "FrozenWords",
    "GateDeclaration",
    "GateVerdict",
    "Judgement",
    "Judging",
    "Kind",
    "KnowledgeScore",
    "Origin",
    "Replay",
    "ReplayAnswer",
    "RetrainingProposal",
    "RetrainingRule",
    "RetrievalComparison",
    "RetrieverTuning",
    "Run",
    "RunMetric",
    "SpotCheck",
    "Synthesis",
    "SyntheticItem",
    "TrainingProvider",
]
