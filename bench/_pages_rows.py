"""Rows for the bench of pages, and what it asks of DATABASE_URL itself: `python _pages_rows.py STEP N`.

Steps: ``fill`` stored turns, feedback and a running experiment on all of them; ``statements`` of each page; ``look``,
the minute's pass over the experiment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

ADMIN = "bench-admin"
SLUG = "stored"
NEW = 600
"""Questions that somebody says something about in one minute: ten a second, if one of them were said about each."""

# Which arm is drawn by conversation; how often something happens, by the number of the question.
_EXPOSURES = """
INSERT INTO serving_exposure (experiment_id, client_id, unit, arm, epoch, at, turn_id, latency_ms, slow, declined,
                              unsupported, reformulated, down, corrected, escalated, failed, counted)
SELECT %(experiment)s, client_id, md5(conversation_id::text), CASE WHEN conversation_id %% 2 = 0 THEN 'control' ELSE
       'candidate' END, 2, now() - n * interval '200 ms', id, 200 + n %% 900, n %% 20 = 0, declined, n %% 9 = 0,
       n %% 12 = 0, CASE WHEN n %% 8 = 0 THEN n %% 24 = 0 END, false, n %% 40 = 0, false, false
FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM capture_turn WHERE assistant_id = %(assistant)s) AS turn
"""
_FEEDBACK = """
INSERT INTO capture_feedback (assistant_id, turn_id, kind, metric, value, boolean, text, given_at, received_at)
SELECT assistant_id, id, 'thumb', '', CASE WHEN declined THEN -1 ELSE 1 END, false, '', asked_at, asked_at
FROM capture_turn WHERE assistant_id = %s AND get_byte(uuid_send(id), 0) < 26
"""
# What a look read before units were kept: every question of the epoch.
_ALL = """
SELECT arm, count(*), sum(questions), avg(latency), avg(responded), count(trouble), avg(trouble), var_samp(trouble),
       count(down), avg(down), var_samp(down), count(declined), avg(declined), var_samp(declined)
FROM (SELECT unit, arm, count(*) AS questions, avg(latency_ms) AS latency, max((down IS NOT NULL)::int) AS responded,
             avg((coalesce(down, false) OR corrected OR escalated OR coalesce(reformulated, false))::int) AS trouble,
             avg(down::int) AS down, avg(declined::int) AS declined
      FROM serving_exposure WHERE experiment_id = %s AND epoch = 2 GROUP BY unit, arm) AS units
GROUP BY arm
"""


def fill(count: int) -> dict[str, Any]:
    """Returns {"cookie": of an admin's session}."""
    from _capture_million import fill as fill_turns
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore
    from django.db import connection

    from assistants.models import Assistant, Membership
    from serving.experiments.units import count_units
    from serving.models import Experiment
    from serving.traffic.counting import count as count_traffic

    assistant, _ = Assistant.objects.get_or_create(slug=SLUG, defaults={"name": "Stored"})
    fill_turns(assistant.pk, count, lambda line: print(line, file=sys.stderr, flush=True))
    user, _ = User.objects.get_or_create(username=ADMIN, defaults={"is_staff": True, "is_superuser": True})
    Membership.objects.get_or_create(user=user, assistant=assistant, role="admin")
    if not Experiment.objects.exists():
        experiment = _experiment(assistant)
        with connection.cursor() as cursor:
            cursor.execute(_FEEDBACK, [assistant.pk])
            cursor.execute(_EXPOSURES, {"experiment": experiment.pk, "assistant": assistant.pk})
        timed("units of the experiment, the first time", lambda: count_units(experiment))
        timed("traffic, the first time", count_traffic)
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
    session = SessionStore()
    session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(user.pk), settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return {"cookie": f"{settings.SESSION_COOKIE_NAME}={session.session_key}", "paths": paths()}


def _experiment(assistant: Any) -> Any:
    from serving.experiments.plan import Plan
    from serving.models import Deployment, Experiment
    from training.models import Adapter

    live, candidate = (
        Adapter.objects.create(
            assistant=assistant, number=number, folder=f"bench/{number}", base_digest="0" * 64,
            prompt_digest=assistant.prompt_digest,
        )
        for number in (1, 2)
    )  # fmt: skip
    experiment = Experiment.objects.create(
        assistant=assistant, candidate=candidate, control=live, stage="ab", share=0.5, epoch=2, plan=Plan().plain()
    )
    Deployment.objects.create(assistant=assistant, adapter=live, experiment=experiment)
    return experiment


def paths() -> list[str]:
    """Every dashboard and every list, and some filters of the longest one."""
    from django.contrib import admin
    from django.urls import NoReverseMatch, reverse

    from serving.models import Experiment
    from serving.overview.views import PAGES, RANGES

    found = ["/admin/"]
    found += [f"{reverse('dashboards:overview', args=[page, SLUG])}?days={max(RANGES)}" for page in PAGES]
    found += [
        reverse("admin:serving_experiment_change", args=[pk]) for pk in Experiment.objects.values_list("pk", flat=True)
    ]
    found += [
        reverse("dashboards:experiment-compare", args=[pk]) for pk in Experiment.objects.values_list("pk", flat=True)
    ]
    for model in admin.site._registry:
        try:
            found.append(reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"))
        except NoReverseMatch:
            continue
    turns = reverse("admin:capture_turn_changelist")
    return [*found, f"{turns}?q=ada", f"{turns}?declined__exact=1", f"{turns}?p=2"]


def statements(_: int) -> dict[str, int]:
    """Of each page, seen a second time."""
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    client = Client(headers={"Host": "localhost"})
    client.force_login(User.objects.get(username=ADMIN))
    found: dict[str, int] = {}
    for path in paths():
        client.get(path)
        with CaptureQueriesContext(connection) as captured:
            client.get(path)
        found[path] = len(captured)
    return found


def look(_: int) -> dict[str, float]:
    """Seconds of a minute's pass (median of five) when `NEW` questions got feedback since the last one, and of the
    statement that read every question."""
    from django.db import connection
    from django.utils import timezone

    from capture.models import Feedback
    from serving.experiments import looking, measuring
    from serving.models import Experiment, Exposure

    experiment = Experiment.objects.select_related("assistant", "candidate", "control").get()
    measuring.measure(experiment, now=timezone.now())
    looking.look(experiment, now=timezone.now())
    seconds: dict[str, list[float]] = {"measure_s": [], "look_s": [], "every_question_s": []}
    for _ in range(5):
        turns = Exposure.objects.filter(experiment=experiment).order_by("?").values_list("turn", flat=True)[:NEW]
        Feedback.objects.bulk_create(
            Feedback(assistant=experiment.assistant, turn_id=turn, kind="thumb", value=-1) for turn in turns
        )
        for name, work in (
            ("measure_s", lambda: measuring.measure(experiment, now=timezone.now())),
            ("look_s", lambda: looking.look(experiment, now=timezone.now())),
            ("every_question_s", lambda: connection.cursor().execute(_ALL, [experiment.pk])),
        ):
            begun = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - begun)
    return {name: round(sorted(found)[len(found) // 2], 3) for name, found in seconds.items()}


def timed(name: str, work: Callable[[], object]) -> None:
    begun = time.monotonic()
    done = work()
    print(f"  {name}: {done}, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    import django

    django.setup()
    steps: dict[str, Callable[[int], Any]] = {"fill": fill, "statements": statements, "look": look}
    print(json.dumps(steps[sys.argv[1]](int(sys.argv[2]))))
