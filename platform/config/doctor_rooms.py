"""What the doctor looks at where the database is as this code expects it."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Literal

from django.conf import settings
from django.utils import timezone

Level = Literal["ok", "note", "warning", "error"]
Found = tuple[Level, str, str]
"""Level, text, hint."""
Look = Callable[[], Iterator[Found]]
FULL = 0.8
"""Share of a quarantine from which it is nearly full."""
_BROKEN_DAYS = 7


def processes() -> Iterator[Found]:
    from django_q.models import OrmQ, Schedule

    from capture.management.commands.worker import queue_stands_still, schedule_is_late

    waiting = OrmQ.objects.count()
    if not Schedule.objects.exists():
        yield "note", "No worker has ever run on this database.", "Start everything with `python manage.py up`."
    elif schedule_is_late() or queue_stands_still():
        yield "error", f"The worker stands still ({waiting} jobs wait).", "Start it: `python manage.py up` or `worker`."
    else:
        yield "ok", f"The worker keeps its schedule; {waiting} jobs wait.", ""
    yield from _engine()


def _engine() -> Iterator[Found]:
    from generation.engines import EngineError
    from serving.api import client
    from training.finetune.bases import digest_of_base

    try:
        health = client().health()
    except EngineError as error:
        yield (
            ("error" if is_up() else "note"),
            f"No engine answers: {error.sentence}",
            "Start it with `python manage.py up`.",
        )
        return
    if not health.ready:
        yield "warning", "The engine answers, and is not ready yet.", "It loads the base model: look again in a minute."
        return
    loaded = f"{len(health.adapters)} adapters" if len(health.adapters) != 1 else "1 adapter"
    yield "ok", f"The engine holds {health.base} on {health.device} ({health.dtype}) with {loaded}.", ""
    if health.base_digest and not settings.RATCHET_OPENAI_BASE_URL and health.base_digest != digest_of_base():
        yield "error", "The engine holds another base model than RATCHET_BASE_MODEL names.", "Restart the engine."


def capture() -> Iterator[Found]:
    from assistants.models import Assistant
    from capture.intake_numbers import intake_of
    from capture.rotation import unopenable
    from serving.management.commands.rotate_keys import SEALED

    intakes = intake_of(Assistant.objects.only("pk", "slug", "name"))
    for intake in intakes:
        if intake.held:
            text = f"{intake.assistant.slug}: {intake.held} captured items are held."
            yield "warning", text, "Look at the page Quarantine: it says why, and lets you try again."
        late = intake.oldest is not None and timezone.now() - intake.oldest > timedelta(minutes=10)
        if late and intake.waiting:
            text = f"{intake.assistant.slug}: {intake.waiting} items wait to be scrubbed, the oldest for long."
            yield "warning", text, "Is a worker running? If it is, add others (RATCHET_WORKERS)."
        if intake.fullness > FULL:
            text = f"{intake.assistant.slug}: its quarantine is {intake.percent} % full; when it is, posts get 503."
            yield "error", text, "Start a worker, or settle what is held."
    if foreign := unopenable(SEALED):
        yield (
            "error",
            f"{foreign} encrypted payloads were closed with a key that is not in RATCHET_DATA_KEY.",
            "Put that key behind the one of now, with a comma between, and restart: nothing of them is lost yet.",
        )
    spooled = [path for path in (settings.VAR_DIR / "spool").glob("*") if path.is_file()]
    refused = sum(path.suffix == ".refused" for path in spooled)
    if refused:
        yield "warning", f"{refused} turns of our own chat were set aside.", "The log of the worker says why."
    if len(spooled) > refused:
        yield (
            "note",
            f"{len(spooled) - refused} turns of our own chat wait in the spool.",
            "Each minute some are stored.",
        )
    yield "ok", f"{len(intakes)} assistants, {sum(i.waiting for i in intakes)} items wait to be scrubbed.", ""


def work() -> Iterator[Found]:
    from assistants.background import STALE_AFTER, BackgroundWork, work_models

    since = timezone.now() - timedelta(days=_BROKEN_DAYS)
    running = 0
    for model in work_models():
        name = str(model._meta.verbose_name_plural)
        active = model._default_manager.filter(state__in=[BackgroundWork.State.QUEUED, BackgroundWork.State.RUNNING])
        running += active.count()
        stale = active.filter(heartbeat_at__lt=timezone.now() - STALE_AFTER).count()
        if stale:
            yield (
                "error",
                f"{stale} {name} show no life.",
                "A worker finds and resumes them each minute: is one running?",
            )
        failed = model._default_manager.filter(state=BackgroundWork.State.FAILED, finished_at__gte=since)
        if count := failed.count():
            yield "note", f"{count} {name} failed within {_BROKEN_DAYS} days.", "Their rows in the admin say why."
    yield "ok", f"{running} pieces of long work wait or run.", ""


def search() -> Iterator[Found]:
    from knowledge.indexing import without_index

    missing = without_index()
    for slug, chunks in missing:
        yield (
            "note",
            f"{slug} has {chunks:,} chunks and no whole vector index: it is searched exactly, which takes longer.",
            "The worker makes one within ten minutes; the page Vector indexes says why it did not.",
        )
    if not missing:
        yield "ok", "Every large assistant has its vector index.", ""


def live() -> Iterator[Found]:
    from generation.adapters import check_adapter
    from generation.engines import AdapterRefused
    from serving.models import Deployment
    from training.finetune.bases import from_state

    damaged = False
    deployments = list(Deployment.objects.select_related("assistant", "adapter", "previous"))
    for found in deployments:
        for role, adapter in (("live", found.adapter), ("previous", found.previous)):
            if adapter is None:
                continue
            try:
                check_adapter(from_state(adapter.folder), base_digest=adapter.base_digest)
            except (AdapterRefused, OSError) as error:
                level: Level = "error" if role == "live" else "warning"
                damaged = True
                yield level, f"{found.assistant}: its {role} adapter {adapter} is damaged: {error}", "Restore a backup."
    if not damaged:
        count = sum(deployment.adapter_id is not None for deployment in deployments)
        yield "ok", f"{count} adapters are live; their files are whole.", ""


def is_up() -> bool:
    """Whether a supervisor holds the state folder: what it starts is expected to answer then."""
    try:
        with (settings.VAR_DIR / "up.lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


LOOKS: dict[str, Look] = {"Processes": processes, "Capture": capture, "Work": work, "Search": search, "Live": live}
