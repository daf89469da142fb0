"""Every table that could hold words of users is decided upon: it goes with a turn, is emptied, or holds none."""

from __future__ import annotations

from django.apps import apps
from django.db import models

from annotations.models import Annotation, Assignment, ContextMark, QueueItem, Resolution
from capture.erasing import dependent_paths
from capture.models import Feedback, Retrieval
from training.models import Example

EMPTIED = {
    "admin.LogEntry": "entries on a turn, which quote its question",
    "capture.Conversation": "when its last turn has gone",
    "capture.Passage": "when no turn shows it any more",
    "capture.Quarantine": "what waits of the scope",
    "capture.Receipt": "a keyed hash stands for the id",
    "capture.WaitingSpans": "what waits of the scope",
    "serving.Erasure": "the scope, when the act is done or the look is old",
    "serving.ExposedUnit": "a keyed hash; counted anew from what is left of its questions",
    "training.BenchmarkItem": "kept in the playground from what became a turn",
    "training.DatasetVersion": "questions that the leakage guard listed",
    "training.EvaluationAnswer": "with its question",
    "training.Example": "rows made of a turn, or of preferences among answers to a kept question",
    "training.FrozenWords": "keyed hashes of the words of a version, with the first row that is emptied",
    "training.Judgement": "with its question",
    "training.Run": "sampled answers, and what a provider said",
}
"""Tables that erasing empties by hand, or whose rows go with one that it does."""

HOLD_NONE = {
    # The house itself: people, settings, keys, what staff call things and why they did something.
    "assistants.ApiKey": "", "assistants.Assistant": "", "assistants.AuditEvent": "keys of turns, never their words",
    "assistants.PrivacyPolicy": "", "auth.Group": "", "auth.Permission": "", "auth.User": "staff",
    "contenttypes.ContentType": "", "sessions.Session": "of staff; nothing of ours is put into one",
    "annotations.ComparisonRound": "its pairs hold the texts", "annotations.Queue": "", "capture.Metric": "",
    "serving.SuggestionRun": "who was asked, and why it ended; the answers hang on their item",
    "serving.AlertChannel": "", "serving.Experiment": "", "serving.Promotion": "", "training.GateDeclaration": "",
    "training.TrainingProvider": "",
    # Documents of the house, scrubbed as its policy says, and what is made of them alone.
    "knowledge.Chunk": "", "knowledge.Document": "", "knowledge.DocumentVersion": "", "knowledge.Upload": "",
    "knowledge.UploadedFile": "encrypted until it is read", "training.Synthesis": "",
    "training.SyntheticItem": "written from documents; of the log only the shapes of questions",
    # Files of staff, encrypted until they are scrubbed. Nothing in them says whose turn a row was.
    "training.Benchmark": "", "training.BenchmarkUpload": "encrypted until it is read",
    "training.CuratedRow": "scrubbed; of no turn", "training.CuratedSet": "encrypted until it is read",
    # Numbers, names of ours and keys of rows.
    "capture.IntakeCount": "", "capture.LeakReport": "kinds and places, not values", "capture.Rescrub": "counts",
    "django_q.Failure": "keys of rows", "django_q.OrmQ": "keys of rows", "django_q.Schedule": "keys of rows",
    "django_q.Success": "keys of rows", "django_q.Task": "keys of rows",
    "knowledge.QueryMap": "weights", "knowledge.RetrievalCheck": "measures on documents",
    "knowledge.VectorIndex": "measures on documents",
    "knowledge.RetrievalConfiguration": "", "serving.Alert": "numbers", "serving.AlertDelivery": "",
    "serving.DriftReport": "numbers and keys; words are counted when the page is looked at",
    "serving.ExperimentLook": "numbers", "serving.TrafficDay": "counts", "serving.TrafficHour": "counts",
    "serving.TrafficMark": "", "training.Adapter": "",
    "training.AdapterMerge": "", "training.DatasetPreview": "names rows of turns, and shows those of nobody's",
    "training.Evaluation": "numbers", "training.Judging": "numbers", "training.KnowledgeScore": "numbers",
    "training.EvaluationHelper": "numbers", "training.EvaluationUnit": "numbers",
    "assistants.KeyCheck": "a keyed hash of nothing",
    "training.Replay": "numbers; its answers go with their turns", "training.RetrainingProposal": "numbers",
    "training.RetrievalComparison": "measures", "training.RetrieverTuning": "measures", "training.RunMetric": "numbers",
}  # fmt: skip
"""Tables with text that hold none of what users said, or none that anybody could still tell the user of."""


def columns_that_could_hold_words(model: type[models.Model]) -> list[str]:
    """Text, JSON, bytes, lists and vectors: not what is chosen from a list, and not what keys of rows are made of."""
    numbers = (models.IntegerField, models.FloatField, models.BooleanField, models.DateField, models.UUIDField)
    return [
        field.attname
        for field in model._meta.concrete_fields
        if not field.is_relation and not field.choices and not isinstance(field, numbers)
    ]


def test_every_table_that_could_hold_words_of_users_is_decided_upon() -> None:
    """Somebody who adds a table says here what an erasure does with it."""
    holding = {model._meta.label for model in apps.get_models() if columns_that_could_hold_words(model)}
    going = {model._meta.label for model in dependent_paths()}
    assert EMPTIED.keys() & HOLD_NONE.keys() == set()
    undecided = holding - going - EMPTIED.keys() - HOLD_NONE.keys()
    assert undecided == set(), "hang these on their turn, empty them in an erasing module, or say why they hold none"
    assert (EMPTIED.keys() | HOLD_NONE.keys()) & going == set(), "these go with their turn by themselves"
    assert (EMPTIED.keys() | HOLD_NONE.keys()) - holding == set(), "these are gone"


def test_every_table_with_text_of_a_turn_hangs_on_it() -> None:
    """A table that somebody adds with a key to a turn must go with it, or have its rows emptied by hand."""
    reached = set(dependent_paths())
    by_hand = {Example}
    strangers = [
        model
        for model in apps.get_models()
        for field in model._meta.get_fields()
        if isinstance(field, models.ForeignKey)
        and field.related_model in reached
        and model not in reached | by_hand
        and not model._meta.auto_created
    ]
    assert strangers == [], "say in training.erasing or capture.erasing what becomes of these"
    assert {Feedback, Retrieval, Annotation, ContextMark, Resolution, QueueItem, Assignment} <= reached
