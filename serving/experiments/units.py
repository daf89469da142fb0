"""What came of each unit's questions, kept up with the questions: a look adds up units, and reads no question twice.

A row of `Exposure` that is new or was changed is marked as not counted; its unit is then computed anew from all its
rows. Rows are marked first, and read by a second statement: who changes one in between waits, marks it again, and the
next pass counts it once more. One at a time counts an experiment, or forgets of it: of two, the one whose statement
began first and ended last would write over a unit without what the other had counted.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from django.db import connection, transaction

from serving.experiments.models import Experiment, ExposedUnit
from serving.experiments.plan import OUTCOMES

AT_ONCE = 5_000
"""Questions in one transaction."""
_LOCK = 0x554E4954

_KNOWN = {
    "trouble": "CASE WHEN turn_id IS NOT NULL AND NOT failed THEN {column} END",
    "failed": "CASE WHEN failed THEN true WHEN turn_id IS NOT NULL THEN false END",
}
_OTHERS = "CASE WHEN NOT failed THEN {column} END"
_MEANS = {name: f"({_KNOWN.get(name, _OTHERS).format(column=one.column)})::int" for name, one in OUTCOMES.items()}
_VALUES = ("questions", "latency_ms", "responded", *_MEANS)

# Locked ones are another pass's, or go with an erasure.
_TAKE = """
UPDATE serving_exposure SET counted = true WHERE id IN (
    SELECT id FROM serving_exposure WHERE experiment_id = %s AND NOT counted
    ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
)
RETURNING epoch, unit
"""

# In one order everywhere, so that two passes wait for each other in the same order.
_COUNT = f"""
INSERT INTO serving_exposedunit (experiment_id, epoch, unit, arm, {", ".join(_VALUES)})
SELECT experiment_id, epoch, unit, arm, count(*), avg(latency_ms), bool_or(down IS NOT NULL),
       {", ".join(f"avg({column})" for column in _MEANS.values())}
FROM serving_exposure
WHERE experiment_id = %s AND (epoch, unit) IN (SELECT * FROM unnest(%s::int[], %s::text[]))
GROUP BY experiment_id, epoch, unit, arm ORDER BY epoch, unit, arm
ON CONFLICT (experiment_id, epoch, unit, arm) DO UPDATE
SET {", ".join(f"{name} = excluded.{name}" for name in _VALUES)}
"""  # noqa: S608 - the columns are ours

# Also those that run and have not found these turns yet: the next pass would, while they are being deleted.
_OF_TURNS = """
SELECT experiment_id FROM serving_exposure WHERE turn_id = ANY(%(turns)s)
UNION
SELECT id FROM serving_experiment WHERE stage <> 'ended'
    AND assistant_id IN (SELECT assistant_id FROM capture_turn WHERE id = ANY(%(turns)s))
"""


def count_units(experiment: Experiment) -> int:
    """Brings units up to date; how many rows of questions were new or had changed."""
    done = 0
    while taken := _count_some(experiment):
        done += taken
    return done


def hold(experiment: int) -> None:
    """Until the transaction ends nobody else measures, counts or forgets questions of the experiment. They change many
    rows of questions in whatever order, and turns are deleted behind them: two at once would wait for each other."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_LOCK, experiment])


@transaction.atomic
def _count_some(experiment: Experiment) -> int:
    hold(experiment.pk)
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, [experiment.pk, AT_ONCE])
        rows = cursor.fetchall()
        if rows:
            epochs, units = zip(*sorted(set(rows)), strict=True)
            cursor.execute(_COUNT, [experiment.pk, list(epochs), list(units)])
    return len(rows)


def forget_units_of(turns: Sequence[uuid.UUID]) -> None:
    """Before turns are deleted, and their exposures with them, in the same transaction: their units go, and are counted
    anew from what is left of them."""
    with connection.cursor() as cursor:
        cursor.execute(_OF_TURNS, {"turns": list(turns)})
        for experiment in sorted(key for (key,) in cursor.fetchall()):
            hold(experiment)
        cursor.execute(
            """
            UPDATE serving_exposure AS met SET counted = false
            FROM (SELECT DISTINCT experiment_id, epoch, unit FROM serving_exposure WHERE turn_id = ANY(%s)) AS going
            WHERE met.experiment_id = going.experiment_id AND met.epoch = going.epoch AND met.unit = going.unit
            RETURNING met.experiment_id, met.epoch, met.unit
            """,
            [list(turns)],
        )
        if rows := set(cursor.fetchall()):
            cursor.execute(
                "DELETE FROM serving_exposedunit WHERE (experiment_id, epoch, unit) IN "
                "(SELECT * FROM unnest(%s::bigint[], %s::int[], %s::text[]))",
                [list(column) for column in zip(*sorted(rows), strict=True)],
            )


def forget_ended() -> int:
    """Units of experiments that have ended: what they said is kept in their looks. How many rows."""
    return ExposedUnit.objects.filter(experiment__stage=Experiment.Stage.ENDED).delete()[0]
