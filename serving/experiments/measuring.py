"""What came of the questions of an experiment: filled in each minute from what was logged, as far as it is known.

The answer's turn is stored a moment after it was given, feedback comes when users give it, and whether the same was
asked again shows only later; each pass fills in what became known.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection

from annotations.groundedness import is_supported
from capture.models import Turn
from generation.overlap import content_words
from serving.experiments.models import Experiment, Exposure

MAY_COME = timedelta(days=2)
"""A spooled or held turn may come that late."""
FEEDBACK_FOR = timedelta(days=14)
AGAIN_WITHIN = timedelta(minutes=10)
SAME_WORDS = 0.6
"""Of the shorter question's words that carry meaning: then the next question asks the same again."""
LOOKED_AT = 500
"""Turns whose words are read in one pass."""


def measure(experiment: Experiment, *, now: datetime, everything: bool = False) -> None:
    """``everything``: feedback on all questions of the last two weeks, not only of the last day."""
    _link(experiment, now)
    _fail(experiment, now)
    _feedback(experiment, now - (FEEDBACK_FOR if everything else timedelta(days=1)))
    _support(experiment, now)
    _repeats(experiment, now)


def _link(experiment: Experiment, now: datetime) -> int:
    """Where the base model had to answer for an adapter that could not be served, the arm gave no answer."""
    control = experiment.control
    return _execute(
        """
        UPDATE serving_exposure AS met
        SET turn_id = turn.id, latency_ms = turn.latency_ms, declined = turn.declined,
            failed = turn.adapter <> CASE met.arm WHEN 'candidate' THEN %(candidate)s ELSE %(control)s END,
            slow = turn.latency_ms > %(limit)s, corrected = false, escalated = false
        FROM capture_turn AS turn
        WHERE met.experiment_id = %(experiment)s AND met.turn_id IS NULL AND met.at > %(since)s
          AND turn.assistant_id = %(assistant)s AND turn.client_id = met.client_id
        """,
        experiment=experiment.pk, assistant=experiment.assistant_id, since=now - MAY_COME,
        limit=experiment.latency_limit_ms, candidate=experiment.candidate.engine_name,
        control=control.engine_name if control is not None else "",
    )  # fmt: skip


def _fail(experiment: Experiment, now: datetime) -> int:
    """No receipt when the engine's time is over: no answer was logged. (What waits to be scrubbed has a receipt.)"""
    patience = timedelta(seconds=settings.RATCHET_ENGINE_TIMEOUT + 30)
    return _execute(
        """
        UPDATE serving_exposure AS met SET failed = true
        WHERE met.experiment_id = %(experiment)s AND met.turn_id IS NULL AND NOT met.failed
          AND met.at BETWEEN %(since)s AND %(until)s
          AND NOT EXISTS (SELECT 1 FROM capture_receipt AS receipt
                          WHERE receipt.assistant_id = %(assistant)s AND receipt.client_id = met.client_id)
        """,
        experiment=experiment.pk, assistant=experiment.assistant_id, since=now - MAY_COME, until=now - patience,
    )  # fmt: skip


def _feedback(experiment: Experiment, since: datetime) -> int:
    return _execute(
        """
        UPDATE serving_exposure AS met
        SET down = said.down, corrected = said.corrected, escalated = said.escalated
        FROM (
            SELECT own.id,
                   bool_or(CASE given.kind WHEN 'thumb' THEN given.value < 0 WHEN 'rating' THEN given.value <= 2 END)
                       AS down,
                   coalesce(bool_or(given.kind = 'correction'), false) AS corrected,
                   coalesce(bool_or(given.kind = 'escalation'), false) OR turn.outcome = 'escalated' AS escalated
            FROM serving_exposure AS own
            JOIN capture_turn AS turn ON turn.id = own.turn_id
            LEFT JOIN capture_feedback AS given ON given.turn_id = own.turn_id
            WHERE own.experiment_id = %(experiment)s AND own.at > %(since)s
            GROUP BY own.id, turn.outcome
        ) AS said
        WHERE met.id = said.id
          AND (met.down, met.corrected, met.escalated) IS DISTINCT FROM (said.down, said.corrected, said.escalated)
        """,
        experiment=experiment.pk, since=since,
    )  # fmt: skip


def _support(experiment: Experiment, now: datetime) -> int:
    """The groundedness hint, of the newest answers that have none."""
    rows = Exposure.objects.filter(
        experiment=experiment, at__gt=now - MAY_COME, turn__isnull=False, declined=False, unsupported=None
    )
    met = {row.turn_id: row for row in rows.order_by("-pk")[:LOOKED_AT] if row.turn_id is not None}
    for turn in Turn.objects.filter(pk__in=met).order_by().with_contexts():
        passages = [(one.rank, one.passage.text) for one in turn.retrievals.all()]
        met[turn.pk].unsupported = not is_supported(turn.response, passages)
    return Exposure.objects.bulk_update(met.values(), ["unsupported"], batch_size=LOOKED_AT) if met else 0


def _repeats(experiment: Experiment, now: datetime) -> int:
    """Whether the user asked the same again. Known when they have asked the next thing, or when it is too late to."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT met.id, turn.question, following.question, turn.asked_at
            FROM serving_exposure AS met
            JOIN capture_turn AS turn ON turn.id = met.turn_id
            LEFT JOIN LATERAL (
                SELECT later.question FROM capture_turn AS later
                WHERE later.conversation_id = turn.conversation_id AND later.id <> turn.id
                  AND later.asked_at > turn.asked_at
                  AND later.asked_at <= turn.asked_at + make_interval(secs => %(within)s)
                ORDER BY later.asked_at LIMIT 1
            ) AS following ON true
            WHERE met.experiment_id = %(experiment)s AND met.reformulated IS NULL AND met.at > %(since)s
              AND (following.question IS NOT NULL OR turn.asked_at < %(late)s)
            ORDER BY met.id LIMIT %(most)s
            """,
            {
                "experiment": experiment.pk, "within": AGAIN_WITHIN.total_seconds(), "since": now - MAY_COME,
                "late": now - AGAIN_WITHIN, "most": 10 * LOOKED_AT,
            },
        )  # fmt: skip
        rows = cursor.fetchall()
    again = [key for key, asked, following, _ in rows if following and asks_again(asked, following)]
    known = [row[0] for row in rows]
    Exposure.objects.filter(pk__in=known).update(reformulated=False)
    return Exposure.objects.filter(pk__in=again).update(reformulated=True)


def asks_again(question: str, following: str) -> bool:
    """Whether most of the words that carry meaning are the same. A question of one such word cannot tell."""
    first, second = content_words(question), content_words(following)
    shorter = min(len(first), len(second))
    return shorter >= 2 and len(first & second) >= SAME_WORDS * shorter


def _execute(statement: str, **values: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return int(cursor.rowcount)
