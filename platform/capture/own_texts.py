"""Is a captured context a text of the assistant's own documents? Decides how it is scrubbed, and saves embedding it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from django.db.models import Q

from assistants.models import Assistant
from capture.payloads import Context
from knowledge.models import Chunk, Document
from knowledge.scrubbing import source_key

_WORD = re.compile(r"\w+")


@dataclass
class OwnTexts:
    """What a batch of contexts has in common with the documents of one assistant (two queries for all of them)."""

    chunks: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """digest of the text → (title, packed sentence vectors)"""
    documents: dict[str, str] = field(default_factory=dict)
    """source → its words"""

    @classmethod
    def of(cls, assistant: Assistant, contexts: Iterable[Context]) -> OwnTexts:
        found = cls()
        wanted = {digest(context.text): context.source for context in contexts}
        rows = Chunk.objects.filter(assistant=assistant, digest__in=wanted)
        for chunk in rows.only("digest", "headings", "sentence_embeddings"):
            found.chunks[chunk.digest] = (chunk.title, bytes(chunk.sentence_embeddings))
        paths = {source for key, source in wanted.items() if source and key not in found.chunks}
        if paths:
            # A frontend names the file as it is, our own chat the path as it is shown.
            keys = {source_key(assistant.pk, path): path for path in paths}
            ready = Document.objects.ready().filter(Q(source_key__in=keys) | Q(path__in=paths), assistant=assistant)
            for key, path, text in ready.values_list("source_key", "path", "text"):
                found.documents[keys.get(key, path)] = _words(text)
        return found

    def holds(self, context: Context) -> bool:
        """A chunk word for word, or a stretch of the document that the context names as its source."""
        if digest(context.text) in self.chunks:
            return True
        document = self.documents.get(context.source)
        return document is not None and f" {_words(context.text).strip()} " in document

    def sentence_vectors(self, title: str, text: str) -> bytes | None:
        """The chunk's sentence vectors, when they were made with the same heading."""
        known = self.chunks.get(digest(text))
        if known is None or _heading(known[0]) != _heading(title):
            return None
        return known[1]


def digest(text: str) -> str:
    """As `knowledge.models.Chunk.digest`."""
    return hashlib.sha256(text.encode()).hexdigest()


def _heading(title: str) -> str:
    return title.rsplit(" › ", 1)[-1].strip()


def _words(text: str) -> str:
    return f" {' '.join(_WORD.findall(text.casefold()))} "
