"""What changes on a run's page while the run goes on: as JSON when asked, and as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from assistants.access import require_role
from assistants.models import Role
from assistants.performing import log_path
from training.finetune.process import log_tail
from training.models import Run

READERS = (Role.ADMIN.value, Role.REVIEWER.value)
MAX_POINTS = 2000
LOG_BYTES = 8_000
TICK_SECONDS = 1.0
STREAM_SECONDS = 300.0
"""Then the browser opens the next one by itself, and permissions are looked at again."""
MAX_STREAMS = 40
"""Of one process. Who comes later is told to ask instead."""

_open = 0


@require_safe
def run_live(request: HttpRequest, pk: int) -> HttpResponse:
    """What has changed since step ``?after=``."""
    run = readable_run(request, pk)
    after = request.GET.get("after", "0")
    if not after.isdecimal() or len(after) > 9:
        return HttpResponseBadRequest("after must be a step.")
    return JsonResponse(live_state(run, after=int(after)))


@require_safe
def run_events(request: HttpRequest, pk: int) -> HttpResponse | StreamingHttpResponse:
    """Server-sent events: the state whenever it has changed, about once a second; ``end`` when the run has ended.

    The id of an event is the last step that it told, so that a browser which connects again goes on from there.
    A plain view that returns an asynchronous stream: permissions are checked like on every other page, and the stream
    holds no thread and no connection between two looks.
    """
    run = readable_run(request, pk)
    if _open >= MAX_STREAMS:
        return HttpResponse("Too many pages follow runs just now.", status=503, headers={"Retry-After": "30"})
    if not isinstance(request, ASGIRequest):
        # A server of the other kind would collect the whole stream before it sends a byte: the page asks instead.
        return HttpResponse("This server streams nothing; ask for what is new instead.", status=406)
    last = request.headers.get("Last-Event-ID", request.GET.get("after", "0"))
    after = int(last) if last.isdecimal() and len(last) <= 9 else 0
    return StreamingHttpResponse(
        _stream(run.pk, after),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _stream(pk: int, after: int) -> AsyncIterator[bytes]:
    global _open  # noqa: PLW0603 - one number per process, touched by one event loop
    _open += 1
    before = ""
    try:
        for _ in range(int(STREAM_SECONDS / TICK_SECONDS)):
            state = await sync_to_async(_look)(pk, after)
            if state is None:
                return
            told = json.dumps(state, ensure_ascii=False)
            if told != before:
                before = told
                if state["points"]:
                    after = state["points"][-1][0]
                yield f"id: {after}\ndata: {told}\n\n".encode()
            else:
                yield b": still here\n\n"  # a write finds out that the browser has gone
            if not state["active"]:
                yield b"event: end\ndata: {}\n\n"
                return
            await asyncio.sleep(TICK_SECONDS)
    finally:
        _open -= 1


def _look(pk: int, after: int) -> dict[str, Any] | None:
    try:
        run = Run.objects.filter(pk=pk).first()
        if run is None:
            return None
        state = live_state(run, after=after)
        state["log"] = log_tail(log_path(run._meta.label, pk), LOG_BYTES)
        state.pop("seconds")  # it changes with every look
        return state
    finally:
        close_old_connections()


def live_state(run: Run, *, after: int) -> dict[str, Any]:
    """State, progress, and the points of the curve from step ``after`` on (that one again: its validation loss may
    have come later)."""
    points = run.metrics.filter(step__gte=after).values_list(
        "step", "loss", "learning_rate", "validation_loss", "tokens_per_second", "measures"
    )[:MAX_POINTS]
    progress = run.progress
    return {
        "state": run.state,
        "label": run.get_state_display(),
        "active": run.is_active,
        "cancelling": run.is_active and run.cancel_requested_at is not None,
        "stage": progress.get("stage", ""),
        "done": progress.get("done", 0),
        "total": progress.get("total", 0),
        "epoch": progress.get("epoch"),
        "loss": progress.get("loss"),
        "validation_loss": progress.get("validation_loss"),
        "tokens_per_second": progress.get("tokens_per_second"),
        "eta_seconds": progress.get("eta_seconds"),
        "measures": progress.get("measures", {}),
        "seconds": run.seconds,
        "error": run.error,
        "points": [list(point) for point in points],
        "samples": progress.get("samples", []),
    }


def readable_run(request: HttpRequest, pk: int) -> Run:
    """Raises Http404 for no such run and PermissionDenied for one of others."""
    rows = Run.objects.select_related(
        "assistant", "dataset__leak_report", "created_by", "parent", "provider", "adapter"
    )
    run = get_object_or_404(rows, pk=pk)
    require_role(request.user, run.assistant, *READERS)
    return run
