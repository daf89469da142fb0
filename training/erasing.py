"""Taking turns out of frozen datasets, and telling what was trained on them.

A row of a frozen dataset is not deleted: it is emptied and marked, so that the version can say "3 of 412 rows erased"
and its numbers still add up. What was trained on it cannot forget; it is named and is to be trained anew.
"""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.db.models import Count, Min, Q, QuerySet
from django.utils import timezone

from annotations.comparing.models import ComparisonPair
from annotations.models import ContextMark
from assistants.models import Assistant
from assistants.performing import log_path
from assistants.vault import keyed_hash
from knowledge.models import QueryMap
from training.choices import Origin
from training.data.candidates import group_name
from training.finetune.bases import from_state
from training.models import (
    Adapter,
    AdapterMerge,
    BenchmarkItem,
    DatasetVersion,
    Example,
    FrozenWords,
    ReplayAnswer,
    Run,
)

ERASED_QUESTION = "[erased]"
PLAYGROUND = "playground-"
"""How the key of a held-out question begins that was kept in the playground; the id of its turn follows."""
ROW_FILES = ("train.jsonl", "validation.jsonl", "preferences.jsonl", "held_preferences.jsonl")


def rows_of(turns: Any, kept: Collection[BenchmarkItem] = ()) -> QuerySet[Example]:
    """Rows that still hold their text: made of these turns (keys or a subquery), or of what people preferred among
    answers to these held-out questions."""
    made = Q(turn__in=turns)
    if kept:
        made |= Q(dataset__assistant=kept_by(kept), origin=Origin.PREFERRED) & _preferred(kept)
    return Example.objects.filter(made, erased_at=None)


def kept_by(kept: Collection[BenchmarkItem]) -> int:
    return next(iter(kept)).benchmark.assistant_id


def _preferred(kept: Collection[BenchmarkItem]) -> Q:
    """By the group that they were given, and by the question itself where the pair was deleted since."""
    pairs = ComparisonPair.objects.filter(round__assistant=kept_by(kept), key__in=[item.key for item in kept])
    groups = [group_name("comparison", f"{name}:{key}") for name, key in pairs.values_list("round__name", "key")]
    return Q(group__in=groups) | Q(came_from__startswith="comparison ", question__in=[item.question for item in kept])


def blocked_of(assistant: Assistant, questions: Collection[str]) -> list[tuple[DatasetVersion, int]]:
    """Dataset versions that list one of the questions among the rows which the leakage guard refused, with how often.

    Those entries know no turn, only the question: it is taken out wherever it stands, whoever else has asked it.
    """
    found: list[tuple[DatasetVersion, int]] = []
    wanted = set(questions)
    rows = DatasetVersion.objects.filter(assistant=assistant).exclude(blocked=[])
    for dataset in rows.only("number", "blocked"):
        hits = sum(entry.get("question") in wanted for entry in dataset.blocked)
        if hits:
            found.append((dataset, hits))
    return found


def kept_questions(assistant: Assistant, names: Collection[str]) -> list[BenchmarkItem]:
    """Held-out questions that were kept in the playground from what became these turns (``names``: client's ids)."""
    rows = BenchmarkItem.objects.filter(benchmark__assistant=assistant, key__startswith=PLAYGROUND)
    rows = rows.select_related("benchmark").only("pk", "key", "question", "benchmark__assistant")
    wanted = set(names)
    return [row for row in rows if row.key.removeprefix(PLAYGROUND).rpartition("-")[0] in wanted]


def delete_kept_questions(assistant: Assistant, names: Collection[str]) -> Counter[str]:
    """Deletes them with every model's answers to them, and the pairs that show those. A benchmark that has lost one
    goes on with the others: an emptied question would be asked again. Returns {table: rows}."""
    items = kept_questions(assistant, names)
    pairs = ComparisonPair.objects.filter(round__assistant=assistant, key__in=[item.key for item in items])
    shown = pairs.delete()[1].get("annotations.ComparisonPair", 0) if items else 0
    gone = BenchmarkItem.objects.filter(pk__in=[item.pk for item in items]).delete()[1] if items else {}
    return Counter({"held-out questions": gone.get("training.BenchmarkItem", 0), "pairs of held-out questions": shown})


def empty_rows(
    assistant: Assistant,
    turns: Collection[uuid.UUID],
    questions: Collection[str],
    kept: Collection[BenchmarkItem] = (),
) -> Counter[str]:
    """Empties the rows of frozen datasets that were made of these turns. Call it before the turns are deleted (their
    lineage goes with them), in the same transaction, and before `delete_kept_questions`.

    ``questions`` are the texts of the erased turns' questions; ``kept`` what `kept_questions` says of them. Returns
    {table: rows}.
    """
    rows = rows_of(list(turns), kept).select_related("dataset").only("pk", "digest", "dataset_id")
    examples = list(rows.select_for_update(of=("self",)).order_by("pk"))
    now = timezone.now()
    for example in examples:
        example.history, example.contexts, example.evidence, example.sentences = [], [], [], []
        example.documents = []
        example.question, example.rejected, example.group = ERASED_QUESTION, "", "erased"
        # An open hash of a short text can be guessed; this one still tells the same row of two versions.
        example.digest = keyed_hash("erased row", example.digest).hex()
        example.turn_id, example.erased_at = None, now
    Example.objects.bulk_update(
        examples,
        [
            "history",
            "contexts",
            "evidence",
            "sentences",
            "documents",
            "question",
            "rejected",
            "group",
            "digest",
            "turn",
            "erased_at",
        ],
        batch_size=500,
    )
    touched = Counter(example.dataset_id for example in examples)
    FrozenWords.objects.filter(dataset__in=touched).delete()
    for key in touched:
        erased = Example.objects.filter(dataset=key).exclude(erased_at=None).count()
        DatasetVersion.objects.filter(pk=key).update(erased_rows=erased, erased_at=now)
    wanted = set(questions)
    blocked = 0
    for dataset, hits in blocked_of(assistant, wanted):
        dataset.blocked = [
            {**entry, "question": ERASED_QUESTION} if entry.get("question") in wanted else entry
            for entry in dataset.blocked
        ]
        dataset.save(update_fields=["blocked"])
        blocked += hits
    # A turn that stays because only its history quotes an erased one would keep answers that repeat it.
    replayed = ReplayAnswer.objects.filter(turn__in=list(turns)).delete()[0]
    return Counter(
        {
            "dataset rows emptied": len(examples),
            "questions that the leakage guard listed": blocked,
            "replayed answers": replayed,
        }
    )


# --- What was trained on them -----------------------------------------------------------------------------------------


def datasets_holding(turns: Any, kept: Collection[BenchmarkItem] = ()) -> dict[int, int]:
    """{dataset pk: rows} made of these turns, or of preferences among answers to these held-out questions."""
    return dict(rows_of(turns, kept).order_by().values_list("dataset").annotate(n=Count("pk")))


def runs_on(datasets: Collection[int]) -> QuerySet[Run]:
    return Run.objects.filter(dataset__in=datasets).order_by("pk")


def adapters_of(datasets: Collection[int]) -> QuerySet[Adapter]:
    """Adapters that have learned from these datasets, themselves or through an adapter that they continue."""
    keys = _with_children(Adapter.objects.filter(run__dataset__in=datasets))
    return Adapter.objects.filter(pk__in=keys).select_related("run__dataset").order_by("number")


def holding_erased(assistant: Assistant) -> QuerySet[Adapter]:
    """Adapters that hold erased data: to be trained anew."""
    keys = _with_children(Adapter.objects.filter(assistant=assistant, run__dataset__erased_rows__gt=0))
    return Adapter.objects.filter(pk__in=keys)


def _with_children(adapters: QuerySet[Adapter]) -> set[int]:
    """Keys of the adapters and of everything that continues them."""
    found: set[int] = set()
    fresh = set(adapters.values_list("pk", flat=True))
    while fresh:
        found |= fresh
        fresh = set(Adapter.objects.filter(parent__in=fresh).values_list("pk", flat=True)) - found
    return found


def maps_since(turns: Any) -> list[QueryMap]:
    """Learned query maps that may know these turns: made after one of them was labelled passage by passage. They are
    weights, no words can be read out of them, and like adapters they cannot forget."""
    marks = ContextMark.objects.filter(annotation__turn__in=turns).order_by()
    first = marks.aggregate(first=Min("annotation__created_at"), assistant=Min("annotation__turn__assistant"))
    if first["first"] is None:
        return []
    made = QueryMap.objects.filter(assistant=first["assistant"], created_at__gte=first["first"])
    return list(made.defer("down", "up").order_by("number"))


def stop_runs(datasets: Collection[int]) -> int:
    """Asks the runs that train on these datasets just now to stop; how many still do something."""
    active = list(Run.objects.active().filter(dataset__in=datasets))
    for run in active:
        if run.cancel_requested_at is None:
            run.request_cancel()
    return sum(run.is_active for run in active)


def erase_files(runs: Collection[Run]) -> Counter[str]:
    """Deletes what ended runs keep of their rows: the files they trained from, checkpoints, sampled answers, and logs.

    The adapters themselves stay until somebody replaces them: taking a live one away is for people to decide.
    """
    counts: Counter[str] = Counter()
    for run in runs:
        if run.folder:
            folder = from_state(run.folder)
            for name in ROW_FILES:
                counts["files with training rows"] += _remove(folder / name)
            if (folder / "work").is_dir():
                shutil.rmtree(folder / "work", ignore_errors=True)
                counts["checkpoint folders"] += 1
        counts["logs of runs"] += _remove(log_path(run._meta.label, run.pk))
        if run.progress.get("samples"):
            run.progress = {key: value for key, value in run.progress.items() if key != "samples"}
            run.save(update_fields=["progress"])
            counts["sampled answers of runs"] += 1
        if run.provider_id is not None and run.error:
            run.error = "The provider refused or failed; what it said was erased with the rows."  # it may quote them
            run.save(update_fields=["error"])
            counts["messages of providers"] += 1
    counts["merged models"] += _erase_merges(runs)
    return counts


def _erase_merges(runs: Collection[Run]) -> int:
    """Merged models are copies for other servers, made again from an adapter in minutes: unlike it they just go."""
    adapters = _with_children(Adapter.objects.filter(run__in=[run.pk for run in runs]))
    merges = list(AdapterMerge.objects.filter(adapter__in=adapters).exclude(folder=""))
    for merge in merges:
        shutil.rmtree(from_state(merge.folder), ignore_errors=True)
        merge.folder, merge.size_bytes, merge.digest = "", 0, ""
        merge.error = "The merged model was deleted: rows that its adapter has learned from were erased."
        merge.save(update_fields=["folder", "size_bytes", "digest", "error"])
    return len(merges)


def kept_files(runs: Iterable[Run]) -> int:
    """How many files and folders `erase_files` would delete."""
    paths: list[Path] = []
    for run in runs:
        folder = from_state(run.folder) if run.folder else None
        paths += [folder / name for name in (*ROW_FILES, "work")] if folder else []
        paths.append(log_path(run._meta.label, run.pk))
    return sum(path.exists() for path in paths)


def _remove(path: Path) -> int:
    with suppress(FileNotFoundError):
        path.unlink()
        return 1
    return 0
