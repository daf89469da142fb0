"""Is the process alive, and can it do its work?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse

logger = logging.getLogger(__name__)


def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers. Touches nothing else, so that a slow database does not get web processes killed."""
    return HttpResponse("ok", content_type="text/plain")


def readyz(request: HttpRequest) -> JsonResponse:
    """200 when requests can be served: the database answers and every migration is applied; else 503 and the reason."""
    problem = database_problem()
    body: dict[str, object] = {"ready": problem is None, "database": problem or "ok", "debug": settings.DEBUG}
    return JsonResponse(body, status=200 if problem is None else 503)


def database_problem() -> str | None:
    """One sentence, or None. No detail of the connection: the page is open to everybody."""
    try:
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError:
        logger.exception("The database does not answer")
        return "The database does not answer."
    return f"{len(pending)} migrations are not applied." if pending else None


PROBES: Mapping[str, Callable[[HttpRequest], HttpResponse]] = {"/healthz": healthz, "/readyz": readyz}
"""Path → answer; see `config.middleware.HealthMiddleware`."""
