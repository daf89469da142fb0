"""How far programs and judges agree with people, for each version of each of them."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass

from annotations.agreement import Estimate, cohen_kappa, newest_labels, percent_agreement
from annotations.machine.models import MachineLabel
from annotations.models import Queue, QueueItem
from annotations.trust.rows import MAX_LABELS

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


def machine_agreement(queue: Queue) -> tuple[MachineAgreement, ...]:
    """Against the verdict that more than half of the people's labels in the queue give; a tie is no verdict. What a
    machine has only scored is left out. Of machines and of people the newest `MAX_LABELS` labels. Two queries."""
    items = QueueItem.objects.filter(queue=queue).order_by().values("turn")
    rows = MachineLabel.objects.filter(turn__in=items).exclude(verdict="").order_by("-created_at", "-pk")
    said: dict[tuple[str, str, str], dict[uuid.UUID, str]] = {}
    fields = ("kind", "name", "version", "turn", "verdict")
    for kind, name, version, turn, verdict in rows.values_list(*fields)[:MAX_LABELS]:
        said.setdefault((kind, name, version), {}).setdefault(turn, verdict)  # the last word, which comes first
    if not said:
        return ()
    people = people_verdicts(queue)
    most = sorted(said.items(), key=lambda entry: (-len(entry[1]), entry[0]))[:MAX_MACHINES]
    return tuple(_agreement(machine, verdicts, people) for machine, verdicts in most)


def people_verdicts(queue: Queue) -> dict[uuid.UUID, str]:
    """{turn: verdict of more than half of its current labels in the queue}, of the newest `MAX_LABELS`."""
    votes: dict[uuid.UUID, Counter[str]] = {}
    for turn, verdict in newest_labels(queue).values_list("turn", "verdict")[:MAX_LABELS]:
        votes.setdefault(turn, Counter())[verdict] += 1
    majority = {turn: counts.most_common(1)[0] for turn, counts in votes.items()}
    return {turn: verdict for turn, (verdict, n) in majority.items() if n * 2 > votes[turn].total()}


def _agreement(
    machine: tuple[str, str, str], verdicts: dict[uuid.UUID, str], people: dict[uuid.UUID, str]
) -> MachineAgreement:
    both = [(verdict, people[turn]) for turn, verdict in verdicts.items() if turn in people]
    return MachineAgreement(
        *machine,
        labels=len(verdicts),
        good=sum(verdict == "good" for verdict in verdicts.values()),
        percent=percent_agreement({i: {0: a, 1: b} for i, (a, b) in enumerate(both)}),
        kappa=cohen_kappa([a for a, _ in both], [b for _, b in both]),
    )
