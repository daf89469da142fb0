"""The dry run: exactly what an erasure would take, counted and named, with nothing touched."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django.db.models import Min, Q, QuerySet

from assistants.models import Assistant, AuditEvent
from capture.erasing import count_dependents, find_waiting, quoting
from capture.models import Turn
from knowledge.configuration import settings_of
from serving import spool
from serving.erasure.record import Erasure
from serving.erasure.scope import Scope, unseal
from serving.models import Deployment
from training.erasing import (
    adapters_of,
    blocked_of,
    datasets_holding,
    kept_files,
    kept_questions,
    maps_since,
    runs_on,
)
from training.models import DatasetVersion
from training.providers.erasing import files_there

MAX_LISTED = 200
BEAT_SECONDS = 1.0


def perform(erasure: Erasure) -> None:
    """Fills ``plan`` of a dry run."""
    scope, _ = unseal(erasure)
    erasure.beat(stage="looking", done=0, total=0)
    erasure.plan = survey(erasure.assistant, scope, beat=beater(erasure))
    erasure.keep("plan")


def beater(erasure: Erasure) -> Callable[[], None]:
    """Beats about once a second, however often it is called."""
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last >= BEAT_SECONDS:
            erasure.beat()
            last = time.monotonic()

    return beat


def survey(assistant: Assistant, scope: Scope, *, beat: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """{"turns", "conversations", "others": turns of these conversations that carry another user's key, "counts":
    {table: rows}, "unreadable": encrypted things that no key opens, "datasets", "adapters", "runs", "downloads"}."""
    turns = scope.select(assistant)
    counts = count_dependents(turns)
    beat()
    wanted = scope.wanted(assistant)
    waiting = find_waiting(assistant, wanted, beat=beat)
    spooled = spool.find(lambda owner, item: owner == assistant.pk and wanted.item(assistant, item))
    counts |= {
        name: n
        for name, n in {
            "quarantined items": len(waiting.items),
            "waiting spans": len(waiting.spans),
            "spooled turns on disk": len(spooled.meant),
        }.items()
        if n
    }
    questions = set(turns.values_list("question", flat=True))
    blocked = blocked_of(assistant, questions)
    if blocked:
        counts["questions that the leakage guard listed"] = sum(hits for _, hits in blocked)
    kept = kept_questions(assistant, list(turns.values_list("client_id", flat=True)))
    if kept:
        counts["held-out questions"] = len(kept)
    quoted = [] if scope.is_whole else quoting(assistant, turns)
    if quoted:
        counts["histories of turns that stay"] = len(quoted)
    found = affected(
        assistant, Turn.objects.filter(Q(pk__in=turns.order_by().values("pk")) | Q(pk__in=[turn.pk for turn in quoted]))
    )
    if rows := sum(dataset["rows"] for dataset in found["datasets"]):
        counts["dataset rows emptied"] = rows
    runs = list(runs_on([dataset["id"] for dataset in found["datasets"]]))
    if files := kept_files(runs):
        counts["files of runs"] = files
    if there := sum(len(files_there(run)) for run in runs):
        counts["files at providers"] = there
    return {
        "turns": turns.count(),
        "conversations": turns.order_by().values("conversation").distinct().count(),
        "others": others(assistant, scope, turns),
        "counts": counts,
        "unreadable": waiting.unreadable + spooled.unreadable,
        **found,
    }


def others(assistant: Assistant, scope: Scope, turns: QuerySet[Turn]) -> int:
    """Turns that carry the key of somebody else, in conversations that go because of one user."""
    if scope.kind != Erasure.Kind.USER:
        return 0
    keyed = turns.filter(metadata__has_key="user_key")
    return keyed.exclude(metadata__user_key__in=sorted(scope.user_keys(assistant))).count()


def affected(assistant: Assistant, turns: QuerySet[Turn]) -> dict[str, Any]:
    """Dataset versions, runs, adapters and learned query maps that held some of it, and who downloaded what since."""
    kept = kept_questions(assistant, list(turns.values_list("client_id", flat=True)))
    held = datasets_holding(turns.order_by().values("pk"), kept)
    datasets = DatasetVersion.objects.filter(pk__in=held).only("number", "rows").order_by("number")
    active = settings_of(assistant).learned
    live = Deployment.objects.filter(assistant=assistant).values_list("adapter", flat=True).first()
    return {
        "datasets": [
            {"id": dataset.pk, "name": str(dataset), "rows": held[dataset.pk], "of": dataset.rows}
            for dataset in datasets
        ],
        "adapters": [
            {
                "id": adapter.pk,
                "name": str(adapter),
                "dataset": str(adapter.run.dataset) if adapter.run else "",
                "live": adapter.pk == live,
            }
            for adapter in adapters_of(list(held))
        ],
        "runs": [
            {"id": run.pk, "name": str(run), "active": run.is_active}
            for run in runs_on(list(held)).only("state", "dataset")
        ],
        "maps": [
            {"name": str(made), "created": made.created_at.isoformat(), "active": made.number == active}
            for made in maps_since(turns.order_by().values("pk"))
        ],
        "downloads": downloads(assistant, turns, [str(dataset) for dataset in datasets]),
    }


def downloads(assistant: Assistant, turns: QuerySet[Turn], datasets: list[str]) -> list[dict[str, Any]]:
    """Exports since the oldest of the turns came in: copies outside of this platform, which only people can delete."""
    since = turns.aggregate(since=Min("created_at"))["since"]
    if since is None:
        return []
    events = AuditEvent.objects.filter(assistant=assistant, at__gte=since, action__endswith="exported")
    mine = [
        event
        for event in events.order_by("-at")[: 5 * MAX_LISTED]
        if not event.action.startswith("dataset") or event.target in datasets
    ]
    return [
        {"at": event.at.isoformat(), "who": event.actor_name, "what": f"{event.action} {event.target}".strip()}
        for event in mine[:MAX_LISTED]
        if not event.action.startswith(("synthesis", "benchmark"))
    ]
