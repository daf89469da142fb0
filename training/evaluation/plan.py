"""What an evaluation asks: which arms, under which conditions, and how many questions one by one for their seconds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from training.evaluation.gate import MAX_TIMED, GateRule
from training.models import Arm, Condition

RETRIEVAL_ARMS = frozenset(
    arm.value for arm in (Arm.EXTRACTIVE, Arm.BASE_RAG, Arm.FEW_SHOT, Arm.RIVAL_RAG, Arm.ADAPTER_RAG)
)
ALWAYS = (Arm.EXTRACTIVE.value, Arm.BASE_RAG.value, Arm.ADAPTER_RAG.value)
"""Candidate, today, and what costs no model time."""
STANDARD_ARMS = (Arm.EXTRACTIVE.value, Arm.BASE.value, Arm.BASE_RAG.value, Arm.ADAPTER.value, Arm.ADAPTER_RAG.value)
STANDARD_CONDITIONS = (Condition.CLEAN.value, Condition.MISSING_ORACLE.value)
MIN_TIMED = 20
"""Of fewer, a 95th percentile is the slowest one."""


class PlanError(ValueError):
    """A plan that cannot be carried out; the message says why."""


@dataclass(frozen=True)
class Plan:
    """``timed``: so many questions are asked one by one, to candidate and today in turn; 0: none. ``threshold``: below
    this similarity of the best sentence every arm with retrieval declines, as serving does; 0: each is always asked.
    ``dtype``: in which format it is multiplied (`RATCHET_ENGINE_DTYPE`); another one may give another text."""

    arms: Sequence[str] = STANDARD_ARMS
    conditions: Sequence[str] = STANDARD_CONDITIONS
    timed: int = 0
    threshold: float = 0.0
    dtype: str = "float32"

    def as_dict(self) -> dict[str, Any]:
        return {
            "arms": list(self.arms), "conditions": list(self.conditions), "timed": self.timed,
            "threshold": self.threshold, "dtype": self.dtype,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Raises PlanError: an unknown field, arm or condition, or a number out of its limits."""
        if unknown := set(values) - {f.name for f in fields(cls)}:
            raise PlanError(f"A plan has no {', '.join(sorted(unknown))}.")
        plan = cls(**values)
        for names, allowed, what in (
            (plan.arms, Arm.values, "arm"),
            (plan.conditions, Condition.values, "condition"),
        ):
            if wrong := set(names) - set(allowed):
                raise PlanError(f"There is no {what} {', '.join(sorted(wrong))}.")
        if not isinstance(plan.timed, int) or not (plan.timed == 0 or MIN_TIMED <= plan.timed <= MAX_TIMED):
            raise PlanError(f"Between {MIN_TIMED} and {MAX_TIMED} questions can be timed, or none.")
        if (
            isinstance(plan.threshold, bool)
            or not isinstance(plan.threshold, int | float)
            or not 0 <= plan.threshold <= 1
        ):
            raise PlanError("The threshold is a number from 0 to 1.")
        return plan

    def complete(self, rule: GateRule) -> Plan:
        """With everything that cannot be left out: candidate, today, and what the gate's rule must be shown."""
        arms = {*self.arms, *ALWAYS} | ({Arm.RIVAL_RAG.value} if "rival" in rule.margins else set())
        conditions = {*self.conditions, *rule.needs()}
        # As many as the rule asks for, where that many can be: on fewer the guardrail is never shown.
        least = min(max(MIN_TIMED, math.ceil(rule.least_questions)), MAX_TIMED)
        timed = max(self.timed, least) if "latency" in rule.margins else self.timed
        return Plan(
            arms=[arm for arm in Arm.values if arm in arms],
            conditions=[name for name in Condition.values if name in conditions],
            timed=timed,
            threshold=self.threshold,
            dtype=self.dtype,
        )

    def pairs(self) -> Iterator[tuple[str, str]]:
        """(arm, condition): what without retrieval sees no passages is asked once."""
        for arm in self.arms:
            for condition in self.conditions if arm in RETRIEVAL_ARMS else [Condition.CLEAN.value]:
                yield arm, condition
