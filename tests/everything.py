"""A row of every model of the house, made by looking at its fields: for tests that walk all pages.

Texts begin with markup that would run if a page let it through, so a page that shows one unescaped can be told.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.apps import apps
from django.contrib.auth.models import User
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.utils import timezone
from pgvector.django import HalfVectorField

from assistants.models import Assistant, Membership

MARK = "zebra"
"""In every text: whose pages show it may read the assistant."""
HOSTILE = f"<img src=x onerror=alert(1)>\"'{MARK}"
ROOMS = ("assistants", "knowledge", "capture", "annotations", "training", "serving")
NOBODYS = {"serving.TrafficMark"}
"""One row for the whole house."""
NAMES = {"slug", "digest", "base_digest", "prompt_digest", "policy_digest", "masking_digest", "index_digest", "host"}
"""Made by code, never typed: a text in them would only break what reads them."""
GIVEN: dict[str, dict[str, Any]] = {
    "assistants.AuditEvent": {"details": {HOSTILE: HOSTILE}},
    "annotations.Annotation": {"replaced_by": None, "queue": None},
    "annotations.ComparisonRound": {"source": "evaluation", "source_id": 1},
    "annotations.Queue": {"selection": {"by": "random"}},
    "capture.Turn": {
        "history": [{"role": "user", "content": HOSTILE}], "citations": [[1, 0]], "metadata": {"a": HOSTILE},
        "tags": [HOSTILE[:60]], "pii": {},
    },
    "capture.Passage": {"metadata": {"b": HOSTILE}},
    "capture.Retrieval": {"evidence": [[0, 0, 0.8]]},
    "capture.TurnUpdate": {"changes": {"tags": [HOSTILE]}},
    "knowledge.RetrievalConfiguration": {"settings": {}, "around": {}},
    "knowledge.Document": {"superseded_by": None, "state": "ready"},
    "serving.AlertChannel": {"address": "people@example.test"},
    "training.BenchmarkItem": {
        "history": [{"role": "user", "content": HOSTILE}], "answers": [HOSTILE], "must_not_contain": [HOSTILE],
        "must_contain": [[HOSTILE]], "gold": [{"path": HOSTILE, "sentence": HOSTILE}],
    },
    "training.Example": {
        "history": [{"role": "user", "content": HOSTILE}], "documents": [HOSTILE],
        "contexts": [{"title": HOSTILE, "source": HOSTILE, "text": HOSTILE, "rank": 1, "relevant": True}],
        "sentences": [{"text": HOSTILE, "refs": [[1, 0]]}],
    },
    "training.Replay": {"chosen": "newest"},
    "training.Run": {"parent": None, "provider": None},
    "training.Adapter": {"parent": None},
    "training.DatasetVersion": {"parent": None},
    "training.SpotCheck": {"verdict": "bad"},
    "training.TrainingProvider": {"base_url": "https://train.example.test/v1"},
}  # fmt: skip


def everything(assistant: Assistant, person: User) -> dict[str, Any]:
    """``{"capture.Turn": row, …}``: one row of each model of our rooms, all of them of this assistant, in which the
    person must have a role."""
    role = Membership.objects.filter(assistant=assistant, user=person).first()
    rows: dict[str, Any] = {"assistants.Assistant": assistant, "auth.User": person, "assistants.Membership": role}
    for model in apps.get_models():
        if model._meta.app_label in ROOMS and model._meta.label not in NOBODYS:
            _row(model, rows)
    return rows


def _row(model: type[models.Model], rows: dict[str, Any]) -> Any:
    label = model._meta.label
    if label not in rows:
        given = GIVEN.get(label, {})
        values = {
            (field.attname if field.is_relation else field.name): value
            for field in model._meta.concrete_fields
            if field.name not in given and (value := _value(field, rows)) is not None
        }
        rows[label] = model._default_manager.create(**values, **given)
    return rows[label]


def _value(field: Any, rows: dict[str, Any]) -> Any:
    """None: the field keeps its default."""
    if (field.primary_key and not field.is_relation) or getattr(field, "generated", False):
        return None
    if isinstance(field, models.ForeignKey):
        return None if field.related_model is field.model else _row(field.related_model, rows).pk
    if field.choices:
        return None if field.has_default() else next(value for value, _ in field.flatchoices if value)
    if isinstance(field, models.CharField | models.TextField):
        room = field.max_length or 99
        return HOSTILE if field.name not in NAMES and room >= len(HOSTILE) else MARK[:room]
    if field.null or field.has_default() or isinstance(field, SearchVectorField):
        return None
    if getattr(field, "auto_now_add", False) or getattr(field, "auto_now", False):
        return None
    if isinstance(field, HalfVectorField):
        return [0.0] * (field.dimensions - 1) + [1.0]
    makers: dict[Any, Any] = {
        models.JSONField: {}, models.BinaryField: b"x", models.BooleanField: False, ArrayField: [],
        models.IntegerField: 1, models.FloatField: 0.5, models.DateTimeField: timezone.now() + timedelta(days=1),
        models.DateField: timezone.now().date(),
    }  # fmt: skip
    return next(value for kind, value in makers.items() if isinstance(field, kind))
