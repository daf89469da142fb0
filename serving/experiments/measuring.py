"""What came of the questions of an experiment: filled in each minute from what was logged, as far as it is known.

The answer's turn is stored a moment after it was given, feedback comes when users give it, and whether the same was
asked again shows only later; each pass fills in what became known since the last one. Its work grows with that, and not
with the experiment: questions that still wait for something are found by partial indexes, feedback and updates by the
number of the newest row that an earlier pass has seen. What a pass touches it marks as not counted, see `units`; it
writes under the lock that is described there.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max

from annotations.groundedness import is_supported
from capture.late import TurnUpdate
from capture.models import Feedback, Turn
from generation.overlap import content_words
from serving.experiments.models import Experiment, Exposure
from serving.experiments.units import hold

MAY_COME = timedelta(days=2)
"""A spooled or held turn may come that late."""
SLACK = 10_000
"""Rows are numbered before their transactions end: so many before the newest seen one are looked at once more."""
AGAIN_WITHIN = timedelta(minutes=10)
SAME_WORDS = 0.6
"""Of the shorter question's words that carry meaning: then the next question asks the same again."""
LOOKED_AT = 500
"""Turns whose words are read in one pass."""


def measure(experiment: Experiment, *, now: datetime) -> None:
    """Fills in what became known since the last pass."""
    linked = _link(experiment, now)
    _fail(experiment, now)
    _feedback(experiment, linked)
    _support(experiment, now)
    _repeats(experiment, now)


def _link(experiment: Experiment, now: datetime) -> list[int]:
    """The rows that found their turn. Where the base model had to answer for an adapter that could not be served, the
    arm gave no answer."""
    control = experiment.control
    return _changed(
        """
        UPDATE serving_exposure AS met
        SET turn_id = turn.id, latency_ms = turn.latency_ms, declined = turn.declined,
            failed = turn.adapter <> CASE met.arm WHEN 'candidate' THEN %(candidate)s ELSE %(control)s END,
            slow = turn.latency_ms > %(limit)s, corrected = false, escalated = false, counted = false
        FROM capture_turn AS turn
        WHERE met.experiment_id = %(experiment)s AND met.turn_id IS NULL AND met.at > %(since)s
          AND turn.assistant_id = %(assistant)s AND turn.client_id = met.client_id
        RETURNING met.id
        """,
        experiment=experiment.pk, assistant=experiment.assistant_id, since=now - MAY_COME,
        limit=experiment.latency_limit_ms, candidate=experiment.candidate.engine_name,
        control=control.engine_name if control is not None else "",
    )  # fmt: skip


def _fail(experiment: Experiment, now: datetime) -> None:
    """No receipt when the engine's time is over: no answer was logged. (What waits to be scrubbed has a receipt.)"""
    patience = timedelta(seconds=settings.RATCHET_ENGINE_TIMEOUT + 30)
    _changed(
        """
        UPDATE serving_exposure AS met SET failed = true, counted = false
        WHERE met.experiment_id = %(experiment)s AND met.turn_id IS NULL AND NOT met.failed
          AND met.at BETWEEN %(since)s AND %(until)s
          AND NOT EXISTS (SELECT 1 FROM capture_receipt AS receipt
                          WHERE receipt.assistant_id = %(assistant)s AND receipt.client_id = met.client_id)
        RETURNING met.id
        """,
        experiment=experiment.pk, assistant=experiment.assistant_id, since=now - MAY_COME, until=now - patience,
    )  # fmt: skip


def _feedback(experiment: Experiment, linked: list[int]) -> None:
    """Of questions whose turn was found just now, and of those that somebody has said something new about."""
    seen = Experiment.objects.values_list("seen_feedback", "seen_update").get(pk=experiment.pk)
    newest = tuple(
        # Before the statement: what comes in between belongs to the next pass.
        model._default_manager.aggregate(newest=Max("pk"))["newest"] or 0
        for model in (Feedback, TurnUpdate)
    )
    # The first pass finds every turn of the experiment itself.
    feedback, updates = (top if last is None else last - SLACK for last, top in zip(seen, newest, strict=True))
    _changed(
        """
        UPDATE serving_exposure AS met
        SET down = said.down, corrected = said.corrected, escalated = said.escalated, counted = false
        FROM (
            SELECT own.id,
                   bool_or(CASE given.kind WHEN 'thumb' THEN given.value < 0 WHEN 'rating' THEN given.value <= 2 END)
                       AS down,
                   coalesce(bool_or(given.kind = 'correction'), false) AS corrected,
                   coalesce(bool_or(given.kind = 'escalation'), false) OR turn.outcome = 'escalated' AS escalated
            FROM serving_exposure AS own
            JOIN capture_turn AS turn ON turn.id = own.turn_id
            LEFT JOIN capture_feedback AS given ON given.turn_id = own.turn_id
            WHERE own.id IN (
                SELECT unnest(%(linked)s::bigint[])
                UNION
                SELECT about.id FROM serving_exposure AS about
                WHERE about.experiment_id = %(experiment)s AND about.turn_id IN (
                    SELECT turn_id FROM capture_feedback WHERE id > %(feedback)s
                    UNION SELECT turn_id FROM capture_turnupdate WHERE id > %(updates)s
                )
            )
            GROUP BY own.id, turn.outcome
        ) AS said
        WHERE met.id = said.id
          AND (met.down, met.corrected, met.escalated) IS DISTINCT FROM (said.down, said.corrected, said.escalated)
        RETURNING met.id
        """,
        experiment=experiment.pk, linked=linked, feedback=feedback, updates=updates,
    )  # fmt: skip
    Experiment.objects.filter(pk=experiment.pk).update(seen_feedback=newest[0], seen_update=newest[1])


def _support(experiment: Experiment, now: datetime) -> None:
    """The groundedness hint, of the newest answers that have none."""
    rows = Exposure.objects.filter(
        experiment=experiment, at__gt=now - MAY_COME, turn__isnull=False, declined=False, unsupported=None
    )
    met: dict[Any, int] = dict(rows.order_by("-at").values_list("turn", "pk")[:LOOKED_AT])
    found: dict[bool, list[int]] = {True: [], False: []}
    for turn in Turn.objects.filter(pk__in=met).order_by().with_contexts():
        passages = [(one.rank, one.passage.text) for one in turn.retrievals.all()]
        found[is_supported(turn.response, passages)].append(met[turn.pk])
    for supported, keys in found.items():
        _note(experiment, keys, unsupported=not supported)


def _repeats(experiment: Experiment, now: datetime) -> None:
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
              AND met.turn_id IS NOT NULL
              AND (following.question IS NOT NULL OR turn.asked_at < %(late)s)
            ORDER BY met.at LIMIT %(most)s
            """,
            {
                "experiment": experiment.pk, "within": AGAIN_WITHIN.total_seconds(), "since": now - MAY_COME,
                "late": now - AGAIN_WITHIN, "most": 10 * LOOKED_AT,
            },
        )  # fmt: skip
        rows = cursor.fetchall()
    again = {key for key, asked, following, _ in rows if following and asks_again(asked, following)}
    for found, keys in ((True, again), (False, {row[0] for row in rows} - again)):
        _note(experiment, keys, reformulated=found)


def asks_again(question: str, following: str) -> bool:
    """Whether most of the words that carry meaning are the same. A question of one such word cannot tell."""
    first, second = content_words(question), content_words(following)
    shorter = min(len(first), len(second))
    return shorter >= 2 and len(first & second) >= SAME_WORDS * shorter


def _note(experiment: Experiment, keys: Collection[int], **values: bool) -> None:
    with transaction.atomic():
        hold(experiment.pk)
        Exposure.objects.filter(pk__in=keys).update(**values, counted=False)


def _changed(statement: str, *, experiment: int, **values: Any) -> list[int]:
    with transaction.atomic(), connection.cursor() as cursor:
        hold(experiment)
        cursor.execute(statement, {"experiment": experiment, **values})
        return [key for (key,) in cursor.fetchall()]
