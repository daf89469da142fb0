"""Starting a replay: which logged questions, asked of whom, with which passages."""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib.auth.models import User
from django.db import models, transaction

from assistants.models import Assistant
from capture.models import Turn
from training.evaluation.models import Replay, ReplayAnswer
from training.evaluation.services import NotPossible, begin
from training.models import Adapter

MAX_TURNS = 500


class Chosen(models.TextChoices):
    """Which turns are asked again; of each the newest."""

    NEWEST = "newest", "The newest"
    BAD = "bad", "Judged bad"
    GOOD = "good", "Judged good"
    THUMBS_DOWN = "thumbs_down", "With a thumb down"
    DECLINED = "declined", "Declined"
    UNLABELLED = "unlabelled", "Not labelled yet"


def turns_of(assistant: Assistant, chosen: str) -> models.QuerySet[Turn]:
    turns = Turn.objects.of(assistant)
    found = {
        Chosen.NEWEST.value: turns,
        Chosen.BAD.value: turns.filter(resolution__verdict="bad"),
        Chosen.GOOD.value: turns.filter(resolution__verdict="good"),
        Chosen.THUMBS_DOWN.value: turns.with_feedback("down"),
        Chosen.DECLINED.value: turns.filter(declined=True),
        Chosen.UNLABELLED.value: turns.filter(resolution=None),
    }[chosen]
    return found.order_by("-asked_at", "-pk")


def start_replay(
    *,
    assistant: Assistant,
    adapter: Adapter | None,
    chosen: str,
    count: int,
    modes: Sequence[str],
    created_by: User | None = None,
) -> Replay:
    """Asks the ``count`` newest turns of a choice again, with the base model where no adapter is named.

    Raises:
        NotPossible: nothing to ask, a number or mode out of its limits, an adapter of another assistant, of another
            prompt format, or of erased rows.
    """
    if chosen not in Chosen.values or not modes or set(modes) - set(ReplayAnswer.Mode.values):
        raise NotPossible("Choose which turns are asked again, and with which passages.")
    if not 1 <= count <= MAX_TURNS:
        raise NotPossible(f"Between 1 and {MAX_TURNS} turns can be asked again, not {count}.")
    if adapter is not None:
        _refuse(assistant, adapter)
    keys = list(turns_of(assistant, chosen).values_list("pk", flat=True)[:count])
    if not keys:
        raise NotPossible("There is no such turn. Choose others, or wait until some are captured.")
    with transaction.atomic():
        replay = Replay.objects.create(
            assistant=assistant, adapter=adapter, chosen=chosen, prompt_digest=assistant.prompt_digest,
            created_by=created_by,
        )  # fmt: skip
        ReplayAnswer.objects.bulk_create(
            [ReplayAnswer(replay=replay, turn_id=key, mode=mode) for mode in modes for key in keys], batch_size=500
        )
        details = {"turns": len(keys), "chosen": chosen, "modes": list(modes), "adapter": str(adapter or "base model")}
        begin(replay, created_by, details)
    return replay


def _refuse(assistant: Assistant, adapter: Adapter) -> None:
    if adapter.assistant_id != assistant.pk:
        raise NotPossible(f"{adapter} belongs to another assistant.")
    if adapter.prompt_digest != assistant.prompt_digest:
        raise NotPossible(
            f"{adapter} was trained with prompt format {adapter.prompt_digest}; the assistant now uses "
            f"{assistant.prompt_digest}. Train a new adapter, or ask the base model."
        )
    if adapter.erased_rows:
        raise NotPossible(f"{adapter} has learned from rows that were erased since. Train a new one and ask that.")
