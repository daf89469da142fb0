"""How far programs and judges agree with people, for each version of each of them."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

from django.db import connection

from annotations.agreement import Estimate
from annotations.machine.models import MachineLabel
from annotations.models import Annotation, Queue, QueueItem, Verdict
from annotations.trust.rows import MAX_LABELS
from annotations.trust.tables import pair_estimates

MAX_MACHINES = 20
"""Of a queue's page; those with the most labels come first."""


@dataclass(frozen=True)
class MachineAgreement:
    """``labels``: its last words on turns of the queue; ``kappa`` and ``percent`` on those with a verdict of people."""

    kind: str
    name: str
    version: str
    labels: int
    good: int
    percent: Estimate
    kappa: Estimate

    @property
    def good_percent(self) -> int | None:
        return round(100 * self.good / self.labels) if self.labels else None


# The newest labels of each side, what each machine said last of a turn, and what most people said of it; then how often
# each two verdicts came together.
_COUNTED = f"""
WITH machines AS (
    SELECT DISTINCT ON (kind, name, version, turn_id) kind, name, version, turn_id, verdict
    FROM (SELECT kind, name, version, turn_id, verdict, created_at, id FROM {MachineLabel._meta.db_table}
          WHERE turn_id IN (SELECT turn_id FROM {QueueItem._meta.db_table} WHERE queue_id = %(queue)s)
          AND verdict <> '' ORDER BY created_at DESC, id DESC LIMIT %(most)s) newest
    ORDER BY kind, name, version, turn_id, created_at DESC, id DESC
), people AS (
    SELECT turn_id, count(*) AS n, count(*) FILTER (WHERE verdict = %(good)s) AS good
    FROM (SELECT turn_id, verdict FROM {Annotation._meta.db_table}
          WHERE queue_id = %(queue)s AND replaced_by_id IS NULL AND withdrawn_at IS NULL
          ORDER BY created_at DESC, id DESC LIMIT %(most)s) newest
    GROUP BY turn_id
)
SELECT kind, name, version, verdict,
       CASE WHEN good * 2 > n THEN %(good)s WHEN (n - good) * 2 > n THEN %(bad)s ELSE '' END AS people, count(*)
FROM machines LEFT JOIN people ON people.turn_id = machines.turn_id
GROUP BY kind, name, version, verdict, people
"""  # noqa: S608 - names of tables


def machine_agreement(queue: Queue) -> tuple[MachineAgreement, ...]:
    """Against the verdict that more than half of the people's labels in the queue give; a tie is no verdict. What a
    machine has only scored is left out. Of machines and of people the newest `MAX_LABELS` labels. One query."""
    values: dict[str, int | str] = {
        "queue": queue.pk, "most": MAX_LABELS, "good": Verdict.GOOD.value, "bad": Verdict.BAD.value,
    }  # fmt: skip
    said: dict[tuple[str, str, str], Counter[tuple[str, str]]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_COUNTED, values)
        for kind, name, version, verdict, people, n in cursor.fetchall():
            said.setdefault((kind, name, version), Counter())[verdict, people] = n
    most = sorted(said.items(), key=lambda entry: (-entry[1].total(), entry[0]))[:MAX_MACHINES]
    return tuple(_agreement(machine, counted) for machine, counted in most)


def _agreement(machine: tuple[str, str, str], counted: Counter[tuple[str, str]]) -> MachineAgreement:
    sides = itertools.product((Verdict.BAD.value, Verdict.GOOD.value), repeat=2)
    percent, kappa = pair_estimates(*(counted[machine_says, people_say] for machine_says, people_say in sides))
    return MachineAgreement(
        *machine,
        labels=counted.total(),
        good=sum(n for (verdict, _), n in counted.items() if verdict == Verdict.GOOD),
        percent=percent,
        kappa=kappa,
    )
