"""What one person's labels changed: which counted, which corrections were adopted, which rows of which datasets they
made. Rows of later rooms are reached by relation names, as on the page of a turn."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import models
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet

from annotations.models import Annotation, AnnotationQuerySet, MissedPassage, Resolution, Verdict
from assistants.models import Assistant

LISTED_DATASETS = 50


class State(models.TextChoices):
    """What became of a label."""

    COUNTS = "counts", "Counts"
    OVERRULED = "overruled", "Overruled"
    WAITS = "waits", "Waits for others"
    REPLACED = "replaced", "Replaced by its author"
    TAKEN_BACK = "taken_back", "Taken back"


@dataclass(frozen=True)
class Impact:
    """Counts over labels that stand; ``replaced`` and ``taken_back`` are kept and not counted."""

    labels: int
    good: int
    counts: int
    overruled: int
    waits: int
    corrections: int
    adopted: int
    """Corrections that are word for word what is learnt."""
    missed: int
    """Passages that retrieval should have found."""
    replaced: int
    taken_back: int


@dataclass(frozen=True)
class DatasetRows:
    """Rows of one dataset version that were made of turns whose verdict this person's label made."""

    pk: int
    number: int
    assistant: str
    rows: int
    corrected: int
    declined: int


def with_state(labels: AnnotationQuerySet | QuerySet[Annotation]) -> QuerySet[Any]:
    """Adds ``state`` (of `State`) and ``adopted``."""
    settled = Resolution.objects.filter(turn=OuterRef("turn"))
    # A good label counts also where machines or a reviewer made the verdict, if it is named by the resolution.
    counted = Resolution.annotations.through.objects.filter(annotation=OuterRef("pk"))
    adopted = settled.filter(annotations=OuterRef("pk"), response=OuterRef("correction"))
    state = models.Case(
        models.When(~Q(withdrawn_at=None), then=models.Value(State.TAKEN_BACK)),
        models.When(~Q(replaced_by=None), then=models.Value(State.REPLACED)),
        models.When(Exists(counted), then=models.Value(State.COUNTS)),
        models.When(Exists(settled), then=models.Value(State.OVERRULED)),
        default=models.Value(State.WAITS),
        output_field=models.CharField(),
    )
    return labels.annotate(state=state, adopted=Q(~Q(correction="") & Exists(adopted)))


def labels_of(person: User, assistants: Collection[Assistant] | QuerySet[Assistant]) -> QuerySet[Any]:
    """All labels of a person on these assistants, newest first, with what became of them."""
    return with_state(Annotation.objects.filter(annotator=person, turn__assistant__in=assistants)).order_by(
        "-created_at", "-pk"
    )


def impact_of(person: User, assistants: Collection[Assistant] | QuerySet[Assistant]) -> Impact:
    """Two queries."""

    def n(*conditions: Q, **fields: Any) -> Count:
        return Count("pk", filter=Q(*conditions, **fields))

    stands = Q(state__in=[State.COUNTS, State.OVERRULED, State.WAITS])
    counts = labels_of(person, assistants).aggregate(
        labels=n(stands),
        good=n(stands, verdict=Verdict.GOOD),
        counts=n(state=State.COUNTS),
        overruled=n(state=State.OVERRULED),
        waits=n(state=State.WAITS),
        corrections=n(stands, ~Q(correction="")),
        n_adopted=n(stands, adopted=True),
        replaced=n(state=State.REPLACED),
        taken_back=n(state=State.TAKEN_BACK),
    )
    standing = Annotation.objects.current().filter(annotator=person, turn__assistant__in=assistants)
    missed = MissedPassage.objects.filter(annotation__in=standing).count()
    return Impact(adopted=counts.pop("n_adopted"), missed=missed, **counts)


def datasets_of(person: User, assistants: Collection[Assistant] | QuerySet[Assistant]) -> Sequence[DatasetRows]:
    """Newest dataset versions first, `LISTED_DATASETS` at most. A row counts when the label was there before the
    dataset was ordered, and its text has not been erased since."""
    dataset = "turn__examples__dataset"
    rows = (
        Annotation.objects.current()
        .filter(annotator=person, turn__assistant__in=assistants)
        .filter(Exists(Resolution.annotations.through.objects.filter(annotation=OuterRef("pk"))))
        .filter(
            **{f"{dataset}__state": "succeeded", f"{dataset}__created_at__gte": F("created_at")},
            turn__examples__erased_at=None,
        )
        .order_by()
        .values(f"{dataset}", f"{dataset}__number", f"{dataset}__assistant__name")
        .annotate(
            n=Count("turn__examples"),
            n_corrected=Count("turn__examples", filter=Q(turn__examples__origin="corrected")),
            n_declined=Count("turn__examples", filter=Q(turn__examples__kind="decline")),
        )
        .order_by(f"-{dataset}")[:LISTED_DATASETS]
    )
    return [
        DatasetRows(
            row[dataset], row[f"{dataset}__number"], row[f"{dataset}__assistant__name"], row["n"], row["n_corrected"],
            row["n_declined"],
        )
        for row in rows
    ]  # fmt: skip
