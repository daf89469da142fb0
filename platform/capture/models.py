"""What was asked, what was retrieved, what was answered, what people thought of it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import BrinIndex, GinIndex
from django.contrib.postgres.search import SearchQuery, SearchVector, SearchVectorField
from django.db import models
from django.utils import timezone
from pgvector.django import HalfVectorField, HnswIndex

from assistants.models import ApiKey, Assistant
from capture.counted import IntakeCount
from capture.late import Metric, TurnUpdate
from capture.leak_reports import LeakReport
from capture.review_models import KeptSpelling, Rescrub, UncertainMask
from capture.waiting import WaitingSpans
from knowledge.models import EMBEDDING_DIMENSION

__all__ = [
    "Conversation",
    "Feedback",
    "IntakeCount",
    "KeptSpelling",
    "LeakReport",
    "Metric",
    "Passage",
    "Quarantine",
    "Receipt",
    "Rescrub",
    "Retrieval",
    "Turn",
    "TurnUpdate",
    "UncertainMask",
    "WaitingSpans",
]


class Receipt(models.Model):
    """One client id, for ever: what makes posting idempotent. Written in the transaction that acknowledges.

    ``payload_digest`` tells a repeat (same content) from a conflict (other content) after the payload is gone.
    """

    # Unique keys and indexes that begin with a reference serve it too: it has no index of its own here and below.
    assistant = models.ForeignKey(Assistant, db_index=False, on_delete=models.CASCADE, related_name="+")
    client_id = models.CharField(max_length=200)
    payload_digest = models.CharField(max_length=64)
    received_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["assistant", "client_id"], name="receipt_once")]

    def __str__(self) -> str:
        return self.client_id


class QuarantineQuerySet(models.QuerySet["Quarantine"]):
    def waiting(self) -> Self:
        return self.filter(state=Quarantine.State.WAITING)

    def held(self) -> Self:
        return self.filter(state=Quarantine.State.HELD)


class Quarantine(models.Model):
    """A captured payload, encrypted, until it has been scrubbed; deleted in the transaction that writes the turn."""

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting to be scrubbed"
        HELD = "held", "Held: scrubbing failed"

    class Kind(models.TextChoices):
        TURN = "turn", "Turn"
        FEEDBACK = "feedback", "Feedback"
        UPDATE = "update", "Update"

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="+")
    # One statement writes both, so it names no receipt that is not there, and Django deletes them together. The
    # database would look each receipt up that it has just written, lock it and log that: a fifth of a batch's cost.
    receipt = models.OneToOneField(
        Receipt, on_delete=models.CASCADE, null=True, related_name="quarantine", db_constraint=False
    )
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.TURN)
    conversation_key = models.CharField(
        max_length=64, help_text="Keyed hash of the conversation: its items are scrubbed in order of arrival."
    )
    payload = models.BinaryField(help_text="Encrypted JSON.")
    state = models.CharField(max_length=8, choices=State.choices, default=State.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=300, blank=True, help_text="What went wrong, without any of the text.")
    claimed_until = models.DateTimeField(null=True, blank=True, help_text="Lease of the worker that scrubs it now.")
    received_at = models.DateTimeField(auto_now_add=True)

    objects = QuarantineQuerySet.as_manager()

    class Meta:
        verbose_name = "quarantined item"
        ordering = ("received_at", "pk")
        indexes: ClassVar = [
            models.Index(fields=["state", "id"], name="quarantine_next"),
            models.Index(fields=["conversation_key", "id"], name="quarantine_conversation"),
            # Few rows at any time: which conversations are being scrubbed just now.
            models.Index(
                fields=["claimed_until"], condition=models.Q(claimed_until__isnull=False), name="quarantine_leased"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk} ({self.state})"


class Conversation(models.Model):
    """Turns in order. ``entities`` is the conversation's table of masked values as keyed hashes: no value is stored."""

    assistant = models.ForeignKey(Assistant, db_index=False, on_delete=models.CASCADE, related_name="conversations")
    external_id = models.CharField(max_length=200)
    entities = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["assistant", "external_id"], name="conversation_once")]

    def __str__(self) -> str:
        return self.external_id


class Passage(models.Model):
    """A retrieved text, stored once per assistant under the digest of its scrubbed form (most of a log)."""

    assistant = models.ForeignKey(Assistant, db_index=False, on_delete=models.CASCADE, related_name="+")
    digest = models.CharField(max_length=64, help_text="SHA-256 of title and scrubbed text.")
    title = models.CharField(max_length=500, blank=True)
    source = models.CharField(max_length=500, blank=True, help_text="Path of the document, as the frontend named it.")
    text = models.TextField()
    metadata = models.JSONField(default=dict, blank=True)
    sentence_embeddings = models.BinaryField(null=True, help_text="As Chunk.sentence_embeddings.")
    trusted = models.BooleanField(
        default=False,
        help_text="A text of the assistant's own documents when it was scrubbed: only the worst was masked.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["assistant", "digest"], name="passage_once")]
        indexes: ClassVar = [models.Index(fields=["assistant", "source"], name="passage_source")]

    def __str__(self) -> str:
        return self.title or self.text[:60]


PLAYGROUND_TAG = "playground"
"""Of turns that the playground made; no key posted them."""


_ADAPTER, _MODEL = "\x1f", "\x1e"


def _with(traits: str | models.Func, name: str, code: int) -> models.Func:
    """``traits`` with what stands in a column, behind a character of its own."""
    return models.Func(
        models.F(traits) if isinstance(traits, str) else traits,
        models.F(name),
        # In the order of their names, as a migration writes them: Django compares that too.
        arg_joiner=f"::text[], chr({code}) || ",
        output_field=ArrayField(models.TextField()),
        template="array_append(%(expressions)s)",
    )


TRAITS = _with(_with("tags", "adapter", ord(_ADAPTER)), "model", ord(_MODEL))
"""A turn's tags with its adapter and model: one index of all three finds at once that an adapter never met a tag, for
which all turns with the tag would be read."""


_DOWN = models.Q(kind="thumb", value__lt=0) | models.Q(kind="rating", value__lte=2)


class TurnQuerySet(models.QuerySet["Turn"]):
    def of(self, assistant: Assistant) -> Self:
        return self.filter(assistant=assistant)

    def asked_by_users(self) -> Self:
        """Without what people of the house asked in the playground and put into a queue."""
        return self.exclude(tags__contains=[PLAYGROUND_TAG], api_key=None)

    def tagged(self, tags: Sequence[str], *, adapter: str | None = None, model: str | None = None) -> Self:
        """Turns that have all these tags, and were answered by these where they are given."""
        turns, wanted = self._really_tagged(tags, "contains"), list(tags)
        if adapter is not None:
            wanted.append(f"{_ADAPTER}{adapter}")
            turns = turns.filter(adapter=adapter)
        if model is not None:
            wanted.append(f"{_MODEL}{model}")
            turns = turns.filter(model=model)
        # An adapter or a model alone has an index of its own, in the order of time.
        return turns.alias(traits=TRAITS).filter(traits__contains=wanted) if tags or len(wanted) > 1 else turns

    def with_any_tag(self, tags: Sequence[str]) -> Self:
        return self._really_tagged(tags, "overlap").alias(traits=TRAITS).filter(traits__overlap=list(tags))

    def _really_tagged(self, tags: Sequence[str], how: str) -> Self:
        """A tag may be written like an adapter or a model in `TRAITS`."""
        odd = any(tag.startswith((_ADAPTER, _MODEL)) for tag in tags)
        return self.filter(**{f"tags__{how}": list(tags)}) if odd else self

    def newest_first(self) -> Self:
        return self.order_by("-asked_at", "-id")

    def newest_collected(self) -> Self:
        """As `newest_first`, in an order that no index has: what matches is found by other means, then sorted."""
        return self.order_by((models.F("asked_at") + models.Value(timedelta())).desc(), "-id")

    def older_than(self, asked_at: datetime, pk: uuid.UUID) -> Self:
        """What comes after that turn in `newest_first`."""
        return self.filter(
            models.Q(asked_at__lt=asked_at) | models.Q(asked_at=asked_at, id__lt=pk), asked_at__lte=asked_at
        )

    def with_feedback(self, sign: str) -> Self:
        """``up``, ``down``: thumb, or rating of at least 4 or at most 2; ``any``; ``none``. Metrics are no opinion."""
        rows = Feedback.objects.filter(turn=models.OuterRef("pk")).exclude(kind=Feedback.Kind.METRIC)
        if sign == "none":
            return self.filter(~models.Exists(rows))
        if sign == "up":
            rows = rows.filter(models.Q(kind="thumb", value__gt=0) | models.Q(kind="rating", value__gte=4))
        elif sign == "down":
            rows = rows.filter(_DOWN)
        return self.filter(models.Exists(rows))

    def matching(self, words: str) -> Self:
        """Turns whose question or response holds the words, as a web search reads them (quotes, minus, or)."""
        return self.filter(words=SearchQuery(words, search_type="websearch", config="english"))

    def that_used(self, assistant: int, path: str) -> Self:
        """Turns for which something of the document at this path was retrieved, as it was named with the turn."""
        one, other = Retrieval.objects.of_document(assistant, path)
        # One list of keys: with two, joined by OR, no index helps, and every turn is looked at.
        return self.filter(pk__in=one.order_by().values("turn").union(other.order_by().values("turn")))

    def with_contexts(self) -> Self:
        """Two more queries in all, however many turns."""
        return self.prefetch_related(
            models.Prefetch("retrievals", queryset=Retrieval.objects.select_related("passage").order_by("rank"))
        )


class Turn(models.Model):
    """One question with its history, its retrieved passages and the response; scrubbed text only."""

    class Outcome(models.TextChoices):
        RESOLVED = "resolved", "Resolved"
        UNRESOLVED = "unresolved", "Not resolved"
        ESCALATED = "escalated", "Handed to a person"
        ABANDONED = "abandoned", "Given up by the user"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # The first column of several indexes below.
    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="turns", db_index=False)
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="turns")
    client_id = models.CharField(max_length=200)
    question = models.TextField()
    history = models.JSONField(default=list, help_text="[{role, content}], oldest first.")
    response = models.TextField(help_text="As the user saw it, with [n] citations of passages.")
    completion = models.TextField(blank=True, help_text="As the model wrote it; only for turns that we served.")
    citations = models.JSONField(default=list, help_text="[[passage rank, sentence index], …]")
    declined = models.BooleanField(default=False)
    asked_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    # provenance
    model = models.CharField(max_length=200, blank=True)
    adapter = models.CharField(max_length=120, blank=True, help_text="Name of the adapter; empty for the base.")
    prompt_digest = models.CharField(max_length=64, blank=True)
    retrieval_config = models.CharField(max_length=64, blank=True)
    withheld = models.BooleanField(
        default=False,
        help_text="Nothing was offered: not even the best sentence was as similar as the threshold asks. The sentences "
        "that are stored as evidence were ranked, and no model was asked.",
    )
    policy_digest = models.CharField(max_length=64, help_text="Of the privacy policy that scrubbed it.")
    client = models.CharField(max_length=120, blank=True, help_text="Name and version of the program that posted it.")
    api_key = models.ForeignKey(ApiKey, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    # measures
    outcome = models.CharField(max_length=10, choices=Outcome.choices, blank=True)
    latency_ms = models.PositiveIntegerField(null=True, blank=True)
    prompt_tokens = models.PositiveIntegerField(null=True, blank=True)
    completion_tokens = models.PositiveIntegerField(null=True, blank=True)
    tags = ArrayField(models.CharField(max_length=60), default=list, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    pii = models.JSONField(
        default=list,
        blank=True,
        help_text="Masked: [{field, placeholder, type, score, recognizer, context_word, uncertain}]; no values.",
    )
    embedding = HalfVectorField(dimensions=EMBEDDING_DIMENSION, null=True, help_text="Of the history-aware question.")
    words = models.GeneratedField(
        expression=SearchVector("question", "response", config="english"),
        output_field=SearchVectorField(),
        db_persist=True,
    )

    objects = TurnQuerySet.as_manager()

    class Meta:
        ordering = ("-asked_at",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["assistant", "client_id"], name="turn_client_id_once")]
        indexes: ClassVar = [
            # Every list of turns walks one of these and stops after a page. The id is in them because the pages go on
            # by (time, id), and an import can bring a million turns of the same moment.
            models.Index(fields=["assistant", "-asked_at", "-id"], name="turn_newest"),
            # The list of who sees several assistants: from one index of each, all their turns would be sorted.
            models.Index(fields=["-asked_at", "-id"], name="turn_newest_of_all"),
            # Whose turn is it? Labels and verdicts are counted by the assistant of their turn, and rows are wide.
            models.Index(fields=["assistant", "id"], name="turn_of_assistant"),
            models.Index(fields=["assistant", "adapter", "-asked_at", "-id"], name="turn_newest_of_adapter"),
            models.Index(fields=["assistant", "model", "-asked_at", "-id"], name="turn_newest_of_model"),
            models.Index(
                fields=["assistant", "-asked_at", "-id"], condition=models.Q(declined=True), name="turn_newest_declined"
            ),
            BrinIndex(fields=["created_at"], autosummarize=True, name="turn_came"),  # what is new since a moment
            GinIndex(TRAITS, name="turn_traits_gin"),
            GinIndex(fields=["words"], name="turn_words_gin"),
            HnswIndex(  # search by meaning
                name="turn_embedding_hnsw",
                fields=["embedding"],
                m=16,
                ef_construction=64,
                opclasses=["halfvec_cosine_ops"],
            ),
        ]

    def __str__(self) -> str:
        return self.question[:80]


class RetrievalQuerySet(models.QuerySet["Retrieval"]):
    def of_document(self, assistant: int, path: str) -> tuple[Self, Self]:
        """By the passage's source, and by one that was given with the turn: each has an index, both together none."""
        return (
            self.filter(own_source=None, passage__assistant=assistant, passage__source=path),
            self.filter(own_source=path, turn__assistant=assistant),
        )


class Retrieval(models.Model):
    """One passage at one rank of one turn, with the sentences of it that were offered as evidence."""

    turn = models.ForeignKey(Turn, db_index=False, on_delete=models.CASCADE, related_name="retrievals")
    passage = models.ForeignKey(Passage, on_delete=models.PROTECT, related_name="retrievals")
    rank = models.PositiveSmallIntegerField(help_text="1 is first.")
    score = models.FloatField(null=True)
    evidence = models.JSONField(
        default=list,
        help_text="[[place, sentence index, similarity], …]: place is the order over all passages of the turn, from 0.",
    )
    # A text is stored once, but it may have come from another place, or with other metadata, than the first time.
    own_source = models.CharField(max_length=500, null=True, help_text="Where it differs from the passage's.")  # noqa: DJ001
    own_metadata = models.JSONField(null=True, help_text="Where it differs from the passage's.")

    objects = RetrievalQuerySet.as_manager()

    class Meta:
        ordering = ("turn", "rank")
        constraints: ClassVar = [models.UniqueConstraint(fields=["turn", "rank"], name="retrieval_rank_once")]
        indexes: ClassVar = [
            models.Index(
                fields=["own_source"], condition=models.Q(own_source__isnull=False), name="retrieval_own_source"
            )
        ]

    def __str__(self) -> str:
        return f"[{self.rank}] {self.passage}"

    @property
    def source(self) -> str:
        """Path of the document, as it was named with this turn."""
        return self.passage.source if self.own_source is None else self.own_source

    @property
    def metadata(self) -> dict[str, Any]:
        """As it came with this turn."""
        found: dict[str, Any] = self.passage.metadata if self.own_metadata is None else self.own_metadata
        return found


class Feedback(models.Model):
    """What the user of the chatbot thought of a turn."""

    class Kind(models.TextChoices):
        THUMB = "thumb", "Thumb"
        RATING = "rating", "Rating"
        CORRECTION = "correction", "Correction"
        COMMENT = "comment", "Comment"
        ESCALATION = "escalation", "Escalation"
        METRIC = "metric", "Metric"

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="+")
    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, related_name="feedback")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    metric = models.CharField(max_length=60, blank=True, help_text="Name of the metric.")
    value = models.FloatField(null=True, help_text="Thumb: 1 or -1. Rating: 1 to 5. Metric: any; 1 is true, 0 false.")
    boolean = models.BooleanField(default=False, help_text="The metric's value means true or false.")
    text = models.TextField(blank=True, help_text="Scrubbed.")
    given_at = models.DateTimeField(default=timezone.now, help_text="When it was given: as posted, else when it came.")
    received_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name_plural = "feedback"
        ordering = ("-given_at",)
        indexes: ClassVar = [
            BrinIndex(fields=["received_at"], autosummarize=True, name="feedback_came"),
            models.Index(fields=["turn"], condition=_DOWN, name="feedback_down"),  # few of all that is said
        ]

    def __str__(self) -> str:
        return f"{self.metric or self.get_kind_display()} {self.in_words}".strip()

    @property
    def in_words(self) -> str:
        """The value for people to read; empty where a kind has none."""
        if self.value is None:
            return ""
        if self.kind == self.Kind.THUMB:
            return "up" if self.value > 0 else "down"
        if self.kind == self.Kind.RATING:
            return f"{self.value:g} of 5"
        return str(self.shown_value).lower() if self.boolean else f"{self.value:g}"

    @property
    def shown_value(self) -> float | bool | None:
        """As it was posted."""
        return bool(self.value) if self.boolean else self.value
