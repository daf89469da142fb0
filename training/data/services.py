"""What people start here: previews, versions without some rows, imported sets."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max

from assistants.background import launch
from assistants.models import Assistant
from assistants.prose import masked_prose
from assistants.services import audit
from assistants.vault import encrypt
from training.data.collect import refuse_unknown_names
from training.data.imports import MAX_BYTES
from training.data.recipe import Recipe
from training.models import Benchmark, CuratedSet, DatasetPreview, DatasetVersion, Synthesis
from training.services import NotPossible

KEPT_PREVIEWS = 20
MAX_EXCLUDED = 20_000


def start_preview(
    *,
    assistant: Assistant,
    recipe: Recipe,
    benchmark: Benchmark | None,
    synthesis: Synthesis | None,
    created_by: User | None = None,
) -> DatasetPreview:
    """Counts what a recipe would give. Of an assistant's previews the last `KEPT_PREVIEWS` are kept.

    Raises:
        NotPossible: benchmark or synthesis are another assistant's.
        training.data.recipe.RecipeError: a name in the recipe is nobody's.
    """
    for thing in (benchmark, synthesis):
        if thing is not None and thing.assistant_id != assistant.pk:
            raise NotPossible(f"{thing} belongs to another assistant.")
    refuse_unknown_names(assistant, recipe)
    with transaction.atomic():
        own = DatasetPreview.objects.filter(assistant=assistant)
        old = list(own.order_by("-pk").values_list("pk", flat=True)[KEPT_PREVIEWS - 1 :])
        own.filter(pk__in=old).exclude(pk__in=own.active()).delete()
        preview = DatasetPreview.objects.create(
            assistant=assistant, recipe=recipe.as_dict(), benchmark=benchmark, synthesis=synthesis,
            created_by=created_by,
        )  # fmt: skip
        transaction.on_commit(lambda: launch(preview))
    return preview


def exclude_rows(
    *, dataset: DatasetVersion, positions: Collection[int], note: str, created_by: User | None = None
) -> DatasetVersion:
    """The next version: the rows of ``dataset`` without those at ``positions``, and nothing else changed.

    Raises:
        NotPossible: the version is not frozen or may not be used, or has no such rows, or all of them.
    """
    if why := dataset.why_unusable:
        raise NotPossible(why)
    wanted = sorted(set(positions))
    if not wanted or len(wanted) > MAX_EXCLUDED:
        raise NotPossible(f"Choose between 1 and {MAX_EXCLUDED:,} rows to leave out.")
    there = dataset.examples.filter(position__in=wanted).count()
    if there != len(wanted):
        raise NotPossible(f"{dataset} has no such rows.")
    if there >= dataset.rows:
        raise NotPossible("Nothing would be left.")
    if not note.strip():
        raise NotPossible("Say why these rows are left out: it stands on the new version.")
    assistant = dataset.assistant
    why = masked_prose(note[:300], assistant=assistant, typed_by=created_by)[:300]
    with transaction.atomic():
        Assistant.objects.select_for_update().get(pk=assistant.pk)  # numbers are given one by one
        last = DatasetVersion.objects.filter(assistant=assistant).aggregate(last=Max("number"))["last"] or 0
        made = DatasetVersion.objects.create(
            assistant=assistant,
            number=last + 1,
            recipe=dataset.recipe,
            benchmark=dataset.benchmark,
            synthesis=dataset.synthesis,
            prompt_digest=dataset.prompt_digest,
            parent=dataset,
            excluded=wanted,
            note=why,
            created_by=created_by,
        )
        details: dict[str, Any] = {"parent": dataset.number, "excluded": len(wanted)}
        audit(
            assistant=assistant, actor=created_by, action="datasetversion.started", target=str(made),
            reason=made.note, details=details,
        )  # fmt: skip
        transaction.on_commit(lambda: launch(made))
    return made


def import_set(*, assistant: Assistant, name: str, content: bytes, created_by: User | None = None) -> CuratedSet:
    """Takes a file of examples (`training.data.imports`). It is stored encrypted and scrubbed before it is readable.

    Raises:
        NotPossible: no name, a name that is taken, an empty file or one that is too large.
    """
    name = " ".join(name.split())
    if not 1 <= len(name) <= 120:
        raise NotPossible("A set needs a name of at most 120 characters.")
    if not content.strip() or len(content) > MAX_BYTES:
        raise NotPossible(f"The file must hold something, and at most {MAX_BYTES // 1_000_000} MB.")
    with transaction.atomic():
        made, new = CuratedSet.objects.get_or_create(
            assistant=assistant, name=name, defaults={"sealed": encrypt(content), "created_by": created_by}
        )
        if not new:
            raise NotPossible(f"There is a set “{name}” already. Give the new one another name.")
        audit(assistant=assistant, actor=created_by, action="curatedset.started", target=name)
        transaction.on_commit(lambda: launch(made))
    return made


def delete_set(*, curated: CuratedSet, actor: User | None) -> None:
    """Deletes an imported set. Versions that were built from it keep their rows.

    Raises:
        NotPossible: it is being read just now.
    """
    with transaction.atomic():
        locked = CuratedSet.objects.select_for_update().get(pk=curated.pk)
        if locked.is_active:
            raise NotPossible(f"“{locked}” is being read. Cancel that first.")
        audit(assistant=locked.assistant, actor=actor, action="curatedset.deleted", target=str(locked))
        # Their samples show rows of it.
        previews = DatasetPreview.objects.filter(assistant=locked.assistant)
        previews.filter(recipe__curated_sets__contains=[locked.name]).delete()
        locked.delete()
