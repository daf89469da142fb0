"""What the assistant may know: documents and their chunks with vectors and words."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.models import Func, Value
from django.db.models.functions import Substr
from pgvector.django import HalfVectorField

from assistants.models import Assistant
from assistants.policy_model import DocumentMasking
from knowledge.index_models import VectorIndex
from knowledge.lexicon import ChunkWords
from knowledge.query_maps import QueryMap
from knowledge.retrieval_models import LexemeCount, Lexicon, RetrievalCheck, RetrievalConfiguration
from knowledge.upload_models import Upload, UploadedFile
from knowledge.version_models import DocumentVersion

__all__ = [
    "EMBEDDING_DIMENSION",
    "Chunk",
    "Document",
    "DocumentVersion",
    "LexemeCount",
    "Lexicon",
    "QueryMap",
    "RetrievalCheck",
    "RetrievalConfiguration",
    "Upload",
    "UploadedFile",
    "VectorIndex",
]

EMBEDDING_DIMENSION = 384
"""Of the bundled MiniLM. An embedder of another dimension needs a migration; a system check says so."""


class DocumentQuerySet(models.QuerySet["Document"]):
    def ready(self) -> Self:
        return self.filter(state=Document.State.READY)

    def in_force(self) -> Self:
        return self.ready().filter(superseded=False)

    def folders_in(self, folder: str = "") -> models.QuerySet[Any, tuple[str, int, int]]:
        """(name, documents below, of them failed) of each folder in ``folder``, by name; one query for any number."""
        start = f"{folder}/" if folder else ""
        below = self.filter(path__startswith=start) if start else self
        rest = Substr("path", len(start) + 1)
        name = Func(rest, Value("/"), Value(1), function="split_part", output_field=models.CharField())
        return (
            below.annotate(rest=rest).filter(rest__contains="/").annotate(name=name).order_by("name")
            .values_list("name").annotate(n=models.Count("pk"), bad=models.Count("pk", filter=models.Q(state="failed")))
        )  # fmt: skip


class Document(models.Model):
    """One source text. Loading the same path again makes a new version, whatever is masked in the path."""

    class State(models.TextChoices):
        PENDING = "pending", "Waiting"
        READY = "ready", "Ready"
        FAILED = "failed", "Failed"

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="documents")
    source_key = models.CharField(max_length=64, help_text="Names it: see knowledge.scrubbing.source_key.")
    path = models.CharField(max_length=500, help_text="As loaded and masked.")
    title = models.CharField(max_length=300)
    media_type = models.CharField(max_length=100)
    text = models.TextField(help_text="As loaded and masked, before it is cut into chunks.")
    digest = models.CharField(max_length=64, help_text="SHA-256 of the text.")
    version = models.PositiveIntegerField(default=1)
    state = models.CharField(max_length=8, choices=State.choices, default=State.PENDING)
    error = models.TextField(blank=True, help_text="One sentence: why it could not be taken.")
    superseded = models.BooleanField(
        default=False, help_text="Another document counts now: still retrieved, but no questions are written from it."
    )
    superseded_by = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="supersedes",
        help_text="The document that counts now, where it is known.",
    )  # fmt: skip
    superseded_at = models.DateTimeField(null=True, blank=True)
    size = models.PositiveBigIntegerField(default=0, help_text="Bytes of the file.")
    pages = models.PositiveIntegerField(null=True, blank=True, help_text="Of a PDF.")
    notes = models.TextField(blank=True, help_text="Sentences: what of the file could not be read.")
    index_digest = models.CharField(max_length=64, blank=True, help_text="Names what cuts it and makes its vectors.")
    via = models.CharField(max_length=160, blank=True, help_text="page, command, or the name of the key that sent it.")
    loaded_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    masking = models.CharField(
        max_length=10, choices=DocumentMasking.choices, blank=True, help_text="What the policy said of documents then."
    )
    masked = models.JSONField(default=dict, blank=True, help_text="Type to the number of places that were masked.")
    masking_digest = models.CharField(max_length=64, blank=True, help_text="See knowledge.scrubbing.masking_digest.")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = DocumentQuerySet.as_manager()

    class Meta:
        ordering = ("path",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["assistant", "source_key"], name="document_source_once")
        ]
        indexes: ClassVar = [models.Index(fields=["assistant", "path"], name="document_path")]

    def __str__(self) -> str:
        return self.title or self.path

    @property
    def masked_words(self) -> str:
        """``2 credit card, 1 secret``; empty when nothing was masked."""
        return ", ".join(f"{n} {kind.replace('_', ' ').lower()}" for kind, n in sorted(self.masked.items()))


class Chunk(models.Model):
    """A piece of a document that the embedder reads whole (at most 256 word pieces)."""

    # Both are the first column of an index below: another of their own would only cost time to load.
    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="+", db_index=False)
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="chunks", db_index=False)
    position = models.PositiveIntegerField()
    headings = ArrayField(models.CharField(max_length=300), default=list, help_text="From the title down.")
    text = models.TextField()
    digest = models.CharField(max_length=64, help_text="SHA-256 of the text: what captured passages are matched by.")
    tokens = models.PositiveIntegerField(help_text="Word pieces, as the embedder counts them.")
    embedding = HalfVectorField(dimensions=EMBEDDING_DIMENSION)
    sentence_embeddings = models.BinaryField(
        help_text="float16 matrix, one row per sentence of the text (see knowledge.evidence): "
        "ranked without embedding again."
    )
    words = models.GeneratedField(expression=ChunkWords(), output_field=SearchVectorField(), db_persist=True)

    class Meta:
        ordering = ("document", "position")
        constraints: ClassVar = [models.UniqueConstraint(fields=["document", "position"], name="chunk_position_once")]
        indexes: ClassVar = [
            # An assistant's vectors side by side, for exact search: rows stand anywhere, and each would be a page.
            # Large assistants have an HNSW index of their own besides (knowledge.vector_indexes).
            models.Index(fields=["assistant", "id"], include=["embedding"], name="chunk_vectors"),
            GinIndex(fields=["words"], name="chunk_words_gin"),
            models.Index(fields=["assistant", "digest"], name="chunk_digest"),  # "is this captured text one of ours?"
        ]

    def __str__(self) -> str:
        return " › ".join(self.headings) or f"chunk {self.position}"

    @property
    def title(self) -> str:
        return " › ".join(self.headings)
