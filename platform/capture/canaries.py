"""Canaries: people who do not exist, posted like anybody's turns; afterwards nothing stored may know them.

Where they are looked for is read from the models, so that a column that somebody adds is looked through as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.apps import apps
from django.contrib.postgres.fields import ArrayField
from django.db import models

from assistants.models import ApiKey, Assistant
from capture.leaks import canaries_of
from capture.receiving import receive_feedback, receive_turns
from privacy.canaries import Matcher, Person, sayings

CHUNK = 500
MAX_FILE = 64 * 1024 * 1024
TAG = "canary"
_TEXT = (models.CharField, models.TextField, models.JSONField, models.BinaryField, ArrayField, models.FileField)
_TEXT_INSIDE = frozenset({"TextField", "CharField", "JSONField"})
"""What fields of other libraries are stored as: the arguments of a job are a pickle in a text column."""
_NO_TEXT = frozenset({".safetensors", ".bin", ".sock", ".pt"})


@dataclass
class Survivors:
    """Where canaries stand: {"table.column" or file: {kind: how often}}. ``looked``: columns and files."""

    places: dict[str, Counter[str]] = field(default_factory=dict)
    columns: int = 0
    files: int = 0
    too_large: int = 0

    def add(self, place: str, kinds: list[str]) -> None:
        if kinds:
            self.places.setdefault(place, Counter()).update(kinds)

    @property
    def total(self) -> int:
        return sum(counts.total() for counts in self.places.values())


def items_of(assistant: Assistant, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(turns, feedback) as a frontend posts them; the same ids each time, so that planting twice stores once."""
    turns: list[dict[str, Any]] = []
    feedback: list[dict[str, Any]] = []
    for number, person in enumerate(canaries_of(assistant, count)):
        for place, saying in enumerate(sayings(person, 2 * number)):
            name = f"canary-{assistant.pk}-{number}-{place}"
            context = {"text": saying.context, "title": "Letter", "source": "letters/canary.txt"}
            turns.append(
                {
                    "id": name,
                    "conversation": f"canary-{assistant.pk}-{saying.conversation}",
                    "question": saying.question,
                    "history": [{"role": role, "content": text} for role, text in saying.history],
                    "contexts": [context] if saying.context else [],
                    "response": saying.response,
                    "tags": [TAG],
                    "metadata": {"note": saying.question},
                }
            )
            if saying.comment:
                feedback.append({"turn": name, "id": f"{name}-f", "kind": "comment", "text": saying.comment})
    return turns, feedback


def plant(assistant: Assistant, *, api_key: ApiKey | None = None, count: int) -> Counter[str]:
    """Takes canaries in through the function behind the log API; {status: items}."""
    turns, feedback = items_of(assistant, count)
    results = receive_turns(assistant=assistant, api_key=api_key, items=turns)
    results += receive_feedback(assistant=assistant, api_key=api_key, items=feedback)
    return Counter(result.status for result in results)


def check(found: list[Person], *, folders: list[Path]) -> Survivors:
    """Looks through every text column of every table, and through the files below ``folders``."""
    matcher = Matcher.of(found)
    survivors = Survivors()
    for model in apps.get_models(include_auto_created=True):
        _check_table(model, matcher, survivors)
    for folder in folders:
        _check_files(folder, matcher, survivors)
    return survivors


def text_columns(model: type[models.Model]) -> list[str]:
    return [
        field.attname
        for field in model._meta.concrete_fields
        if isinstance(field, _TEXT) or field.get_internal_type() in _TEXT_INSIDE
    ]


def _check_table(model: type[models.Model], matcher: Matcher, survivors: Survivors) -> None:
    columns = text_columns(model)
    survivors.columns += len(columns)
    if not columns or not model._meta.managed:
        return
    for row in model._default_manager.order_by().values_list(*columns).iterator(chunk_size=CHUNK):
        for column, value in zip(columns, row, strict=True):
            for text in strings(_opened(model, column, value)):
                survivors.add(f"{model._meta.label}.{column}", matcher.kinds(text))


def _opened(model: type[models.Model], column: str, value: Any) -> Any:
    """A queued job is packed so that no search would find anything in it."""
    if model._meta.label == "django_q.OrmQ" and column == "payload":
        from django.core.signing import BadSignature
        from django_q.signing import SignedPackage

        try:
            return SignedPackage.loads(value)
        except (BadSignature, TypeError):
            return value
    return value


def strings(value: Any) -> Iterator[str]:
    """Every string in a value, keys of mappings too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, bytes | memoryview):
        yield bytes(value).decode("utf-8", "replace")
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _check_files(folder: Path, matcher: Matcher, survivors: Survivors) -> None:
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix in _NO_TEXT:
            continue
        try:
            if path.stat().st_size > MAX_FILE:
                survivors.too_large += 1
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # gone meanwhile, or not ours to read
        survivors.files += 1
        survivors.add(str(path.relative_to(folder)), matcher.kinds(text))
