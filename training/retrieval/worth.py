"""What a threshold is worth with those who answer: how many questions are right, asked or declined.

Declining costs most where the answer would have been good, so the best threshold depends on who answers. Nobody is
asked again: a question below the threshold is declined without a model, so its worth is known; of all others the stored
answer stays what it was. That holds only for answers that were given without a threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db.models.fields.json import KeyTransform

from annotations.becoming import kind_of
from annotations.models import Resolution, Verdict
from annotations.resolving import Wording
from assistants.models import Assistant
from capture.models import Retrieval
from training.evaluation.asking import cluster_of
from training.evaluation.extractive import FOLDS, best_threshold, fold_of
from training.evaluation.plan import RETRIEVAL_ARMS
from training.evaluation.statistics import Estimate, cluster_bootstrap
from training.models import Arm, Benchmark, BenchmarkItem, Condition, Evaluation, EvaluationAnswer, Kind
from training.retrieval.calibration import clean

LOGGED = "logged"
"""Whoever answered the turns that people have judged."""
MOST = 2_000
"""Questions; their intervals are drawn while the page waits."""
LOOKED_AT = 50
"""Evaluations among which one without a threshold is looked for."""


@dataclass(frozen=True)
class Judged:
    """One question. ``declining``: what that is worth, ``answered``: {who: what the stored answer is}; 0 to 1."""

    similarity: float
    group: str
    declining: float
    answered: Mapping[str, float]

    def worth(self, who: str, threshold: float) -> float:
        return self.declining if self.similarity < threshold else self.answered[who]


@dataclass(frozen=True)
class Effect:
    """Share of questions that are right before and after a change of the threshold, and the paired difference."""

    who: str
    label: str
    before: float
    after: float
    difference: Estimate


def judged_turns(assistant: Assistant) -> list[Judged]:
    """The newest resolved turns that a model answered: right is what people found good, and declining where the
    resolution declines. A turn for a person is lost by declining."""
    wording = Wording(decline=assistant.decline_sentence, handoff=assistant.handoff_sentence)
    rows = (
        Resolution.objects.filter(turn__conversation__assistant=assistant, turn__withheld=False)
        .exclude(response="")
        .order_by("-resolved_at", "pk")
        .values_list("turn_id", "turn__conversation_id", "response", "verdict")[:MOST]
    )
    found = list(rows)
    best: dict[object, float] = {}
    evidence = Retrieval.objects.filter(turn__in=[row[0] for row in found]).values_list("turn_id", "evidence")
    for turn, offered in evidence:
        for _, _, similarity in offered:
            best[turn] = max(best.get(turn, -1.0), float(similarity))
    return [
        Judged(
            best[turn],
            str(conversation),
            float(kind_of(response, wording) == "decline"),
            {LOGGED: float(verdict == Verdict.GOOD)},
        )
        for turn, conversation, response, verdict in found
        if turn in best
    ]


def judged_items(benchmark: Benchmark) -> tuple[Evaluation | None, list[Judged]]:
    """The newest finished evaluation on it without a threshold, and what its arms with retrieval made of each question
    under the clean condition: right is grounded and correct. None, and nothing, where there is none."""
    finished = Evaluation.objects.filter(benchmark=benchmark, state=Evaluation.State.SUCCEEDED).select_related(
        "adapter"
    )
    newest = finished.defer("results", "comparison", "gate").order_by("-created_at", "-pk")[:LOOKED_AT]
    evaluation = next((one for one in newest if not one.threshold), None)
    if evaluation is None:
        return None, []
    # What needs no model has declined below a threshold of its own already.
    arms = [arm for arm in Arm.values if arm in RETRIEVAL_ARMS and arm != Arm.EXTRACTIVE]
    answers: dict[int, dict[str, float]] = {}
    rows = EvaluationAnswer.objects.filter(evaluation=evaluation, condition=Condition.CLEAN, arm__in=arms)
    for item, arm, worth in rows.values_list("item", "arm", KeyTransform("grounded_correct", "measures")):
        answers.setdefault(item, {})[arm] = float(worth or 0.0)
    found = []
    items = BenchmarkItem.objects.filter(benchmark=benchmark, pk__in=answers).order_by("pk")[:MOST]
    rows_of_items = items.values_list("pk", "kind", "gold", "key", *clean("evidence", "has_gold"))
    for pk, kind, gold, key, evidence, has_gold in rows_of_items:
        best = max((float(similarity) for _, _, similarity in evidence or ()), default=-1.0)
        declining = kind == Kind.DECLINE or (kind == Kind.ANSWER and not has_gold)
        found.append(Judged(best, cluster_of(BenchmarkItem(gold=gold, key=key)), float(declining), answers[pk]))
    return evaluation, found


def label_of(who: str) -> str:
    return "As it was answered" if who == LOGGED else str(Arm(who).label)


def who_answered(judged: Sequence[Judged]) -> list[str]:
    """Those of whom an answer to every question is stored."""
    names = dict.fromkeys(name for one in judged for name in one.answered)
    return [name for name in names if all(name in one.answered for one in judged)]


def most_right(judged: Sequence[Judged], who: str, *, now: float = 0.0) -> float:
    """The threshold with which most questions are right when ``who`` answers the others; 0 where none helps.

    Not less than ``now``, the one that counts, where no model was asked below it: nobody knows what it would say.
    """
    best = best_threshold([(one.similarity, one.answered[who], one.declining) for one in judged])
    # Between two similarities; the upper one declines the same, and has no digits that a form would round away.
    upper = min((one.similarity for one in judged if one.similarity >= best), default=round(best, 4)) if best else 0.0
    return upper if any(one.similarity < now for one in judged) else max(upper, now)


def effects(judged: Sequence[Judged], *, now: float, then: float) -> list[Effect]:
    """Of a change from ``now`` to ``then``, for everyone who answered; intervals over documents or conversations."""
    return [_effect(judged, who, label_of(who), now, [then] * len(judged)) for who in who_answered(judged)]


def unseen(judged: Sequence[Judged], who: str, *, now: float) -> Effect:
    """As `effects` of thresholds that are chosen with `most_right` on four fifths of the documents or conversations and
    counted on the last, each in its turn: what such a choice does on questions that it has not seen."""
    folds = [fold_of(one.group) for one in judged]
    others = [[one for one, fold in zip(judged, folds, strict=True) if fold != own] for own in range(FOLDS)]
    chosen = [most_right(rest, who, now=now) for rest in others]
    label = f"{label_of(who)}, on questions that did not choose the threshold"
    return _effect(judged, who, label, now, [chosen[fold] for fold in folds])


def _effect(judged: Sequence[Judged], who: str, label: str, now: float, then: Sequence[float]) -> Effect:
    before = [one.worth(who, now) for one in judged]
    after = [one.worth(who, threshold) for one, threshold in zip(judged, then, strict=True)]
    gains = [b - a for a, b in zip(before, after, strict=True)]
    gain = cluster_bootstrap(gains, [one.group for one in judged])
    return Effect(who, label, sum(before) / len(before), sum(after) / len(after), gain)
