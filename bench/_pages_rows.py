"""Rows for the bench of pages, and what it asks of DATABASE_URL itself: `python _pages_rows.py STEP N`.

Steps: ``fill`` stored turns, what stands beside them (`_pages_beside`), feedback and a running experiment on a quarter
of them; ``statements`` of each page; ``look``, the minute's pass over the experiment.
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
WRITTEN = 5_000
"""Turns with words and vectors of their own. The others are copies of them under other names, in other conversations
and at other times, made by the database: no page can tell, and a million rows take minutes instead of an hour."""
PASSAGES = 2_000
EVERY = "12 seconds"
"""Between two turns; the last comes now. A million are 139 days: each overview has its full 90."""
NEW = 600
"""Questions that somebody says something about in one minute: ten a second, if one of them were said about each."""

_TIMES = """
UPDATE capture_turn SET asked_at = now() - (%(last)s - substr(client_id, 8)::int) * %(every)s::interval,
                        created_at = now() - (%(last)s - substr(client_id, 8)::int) * %(every)s::interval,
                        latency_ms = 200 + substr(client_id, 8)::int %% 900
WHERE assistant_id = %(assistant)s
"""
_WRITTEN = """
CREATE TEMPORARY TABLE written AS
SELECT id, substr(client_id, 8)::int AS number, question, response, embedding FROM capture_turn
WHERE assistant_id = %(assistant)s
"""
_TALKS = """
INSERT INTO capture_conversation (assistant_id, external_id, entities, created_at)
SELECT %(assistant)s, 'talk-' || n, '{}', now() FROM generate_series(%(written)s / 4, %(last)s / 4) AS n
"""
_PEOPLE = """
INSERT INTO auth_user (username, password, is_superuser, is_staff, is_active, first_name, last_name, email, date_joined)
SELECT 'person-' || n, '!', false, true, true, '', '', '', now() FROM generate_series(1, %(people)s) AS n
ON CONFLICT DO NOTHING
"""
# Named as the first ones are: version 4 of a digest, see `turn_key`.
_COPIES = """
CREATE TEMPORARY TABLE copies AS
SELECT overlay(overlay(md5('turn' || n) placing '4' from 13) placing
               substr('89ab', 1 + (('x' || substr(md5('turn' || n), 17, 1))::bit(4)::int & 3), 1) from 17)::uuid AS id,
       n, n %% %(written)s AS source, talk.id AS talk
FROM generate_series(%(written)s, %(last)s) AS n
JOIN capture_conversation talk ON talk.assistant_id = %(assistant)s AND talk.external_id = 'talk-' || n / 4
ORDER BY n
"""
_TURNS = """
INSERT INTO capture_turn (id, assistant_id, conversation_id, client_id, question, history, response, completion,
    citations, declined, asked_at, created_at, model, adapter, prompt_digest, retrieval_config, withheld, policy_digest,
    client, outcome, tags, metadata, pii, embedding, latency_ms)
SELECT copies.id, %(assistant)s, talk, 'stored-' || n, question, '[]', response, '', '[]', n %% 11 = 0,
       now() - (%(last)s - n) * %(every)s::interval, now() - (%(last)s - n) * %(every)s::interval, 'model-' || n %% 7,
       CASE WHEN n %% 5 = 0 THEN 'adapter-3' ELSE '' END, '', '', false, '', '', '', ARRAY['tag-' || n %% 40], '{}',
       '[]', embedding, 200 + n %% 900
FROM copies JOIN written ON written.number = copies.source
"""
_RETRIEVALS = """
INSERT INTO capture_retrieval (turn_id, passage_id, rank, score, evidence)
SELECT copies.id, passage_id, rank, score, evidence
FROM copies JOIN written ON written.number = copies.source JOIN capture_retrieval ON turn_id = written.id
"""
# A quarter of the turns met an experiment. Which arm is drawn by conversation; how often something happens, by the
# number of the question.
_EXPOSURES = """
INSERT INTO serving_exposure (experiment_id, client_id, unit, arm, epoch, at, turn_id, latency_ms, slow, declined,
                              unsupported, reformulated, down, corrected, escalated, failed, counted)
SELECT %(experiment)s, client_id, md5(conversation_id::text), CASE WHEN conversation_id %% 2 = 0 THEN 'control' ELSE
       'candidate' END, 2, now() - n * interval '200 ms', id, 200 + n %% 900, n %% 20 = 0, declined, n %% 9 = 0,
       n %% 12 = 0, CASE WHEN n %% 8 = 0 THEN n %% 24 = 0 END, false, n %% 40 = 0, false, false
FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM capture_turn
      WHERE assistant_id = %(assistant)s AND substr(client_id, 8)::int %% 4 = 0) AS turn
"""
# By the last byte of the key: by the first, those with feedback would stand together in every index by key.
_FEEDBACK = """
INSERT INTO capture_feedback (assistant_id, turn_id, kind, metric, value, boolean, text, given_at, received_at)
SELECT assistant_id, id, 'thumb', '', CASE WHEN declined THEN -1 ELSE 1 END, false, '', asked_at, asked_at
FROM capture_turn WHERE assistant_id = %s AND get_byte(uuid_send(id), 15) < 26
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
    """Returns {"cookie": of an admin's session, "paths": what to open}."""
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
    _fill_turns(assistant.pk, count)
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


def _fill_turns(assistant: int, count: int) -> None:
    """The first turns as the bench of the log API writes them, the others as copies. Copies have vectors too, but the
    index over them, which would take longer than all else and which no page of these asks, is dropped."""
    import _capture_million
    import _pages_beside
    from django.db import connection, transaction

    from capture.models import Turn

    written = min(count, WRITTEN)
    values = {"assistant": assistant, "written": written, "last": count - 1, "every": EVERY}
    if Turn.objects.filter(assistant=assistant).count() >= count:
        return
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX IF EXISTS turn_embedding_hnsw")
        cursor.execute("SET work_mem = '256MB'")
        _capture_million.PASSAGES = PASSAGES
        _capture_million.fill(assistant, written, lambda line: print(line, file=sys.stderr, flush=True))
        with transaction.atomic():
            cursor.execute(_TIMES, values)
            dropped = [*_capture_million._drop_indexes(connection.connection), *_drop_keys(connection.connection)]
            for name, statement in (
                ("written", _WRITTEN), ("conversations", _TALKS), ("copies", _COPIES), ("turns", _TURNS),
                ("passages of turns", _RETRIEVALS),
            ):  # fmt: skip
                timed(name, lambda made=statement: cursor.execute(made, values))
                if name in ("written", "copies"):
                    cursor.execute(f"ANALYZE {name}")
            for name, made in dropped:
                timed(name, lambda made=made: cursor.execute(made))
            cursor.execute("ANALYZE capture_turn, capture_retrieval")
            cursor.execute(_PEOPLE, {**values, "people": _pages_beside.PEOPLE})
            _pages_beside.fill(connection.connection, assistant, count, timed)


def _drop_keys(raw: Any) -> list[tuple[str, str]]:
    """(name, what makes it again) of foreign keys: checked at once behind the rows, instead of row by row."""
    query = """SELECT conname, format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname,
        pg_get_constraintdef(oid)), format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname)
        FROM pg_constraint WHERE contype = 'f' AND conrelid IN ('capture_turn'::regclass, 'capture_retrieval'::regclass)
        """
    found = [(str(name), str(add), str(drop)) for name, add, drop in raw.execute(query)]
    for _, _, drop in found:
        raw.execute(drop)
    return [(name, add) for name, add, _ in found]


def _experiment(assistant: Any) -> Any:
    from serving.experiments.plan import Plan
    from serving.models import Deployment, Experiment
    from training.models import Adapter

    live, candidate = Adapter.objects.filter(assistant=assistant).order_by("number")[:2]
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
    chosen = ("q=ada", "declined__exact=1", "p=2", "p=150", "when=7d", "when=30d", "adapter=adapter-3",
              *(f"verdict={one}" for one in ("good", "bad", "open", "none")),
              *(f"feedback={one}" for one in ("up", "down", "none")))  # fmt: skip
    return [*found, *(f"{turns}?{query}" for query in chosen), reverse("annotations:agreement")]


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
    work()
    print(f"  {name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    import django

    django.setup()
    steps: dict[str, Callable[[int], Any]] = {"fill": fill, "statements": statements, "look": look}
    print(json.dumps(steps[sys.argv[1]](int(sys.argv[2]))))
