"""The parametric knowledge score of base and adapter on the answers that an evaluation has stored.

It explains and judges nothing: a higher score in late layers says that the weights move the answer more, not that the
answer is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.conf import settings

from generation.engines import GenerationRequest
from training.evaluation.asking import ADAPTER_ARMS, Task, below, cluster_of, task_prompt
from training.evaluation.loading import load_into
from training.evaluation.models import KnowledgeScore
from training.evaluation.statistics import cluster_bootstrap
from training.models import Arm, Condition, EvaluationAnswer, Kind

if TYPE_CHECKING:
    from generation.local import TransformersEngine

ARMS = (Arm.BASE.value, Arm.ADAPTER.value, Arm.BASE_RAG.value, Arm.ADAPTER_RAG.value)
DIFFERENCES = {"retrieval": (Arm.ADAPTER_RAG.value, Arm.BASE_RAG.value), "alone": (Arm.ADAPTER.value, Arm.BASE.value)}


class NothingToScore(ValueError):
    """No question was answered by all four arms."""


def perform(score: KnowledgeScore) -> None:
    """Looks into every layer for the first questions to answer; begun again, it begins anew.

    Raises:
        NothingToScore: the evaluation has no answers of base and adapter to the same question.
        generation.engines.EngineError: the base or the adapter cannot be loaded, or its layers are not known.
    """
    answers = _answers(score)
    if not answers:
        raise NothingToScore("No question was answered by all arms. Evaluate with base and adapter, then ask again.")
    engine = _engine(score)
    rows: dict[str, list[Sequence[float]]] = {arm: [] for arm in ARMS}
    clusters: list[str] = []
    for done, by_arm in enumerate(answers):
        score.beat(stage="looking into the layers", done=done, total=len(answers))
        for arm, answer in by_arm.items():
            rows[arm].append(_scores(score, engine, answer))
        clusters.append(cluster_of(next(iter(by_arm.values())).item))
    arms = [arm for arm in ARMS if len(rows[arm]) == len(answers)]
    score.results = {
        "arms": {arm: [sum(layer) / len(layer) for layer in zip(*rows[arm], strict=True)] for arm in arms},
        "differences": {
            name: _differences(rows[more], rows[less], clusters)
            for name, (more, less) in DIFFERENCES.items()
            if more in arms and less in arms
        },
        "answers": len(answers),
    }
    score.keep("results")


def _answers(score: KnowledgeScore) -> list[dict[str, EvaluationAnswer]]:
    """Of the first questions to answer: what each arm wrote under the clean condition."""
    wanted = [arm for arm in ARMS if arm in score.evaluation.results]
    found: dict[int, dict[str, EvaluationAnswer]] = {}
    rows = score.evaluation.answers.filter(condition=Condition.CLEAN, arm__in=wanted, item__kind=Kind.ANSWER)
    for answer in rows.exclude(completion="").select_related("item").order_by("item_id"):
        answer.evaluation = score.evaluation
        if below(Task(answer.item, answer.arm, answer.condition), score.evaluation.threshold):
            continue  # no model wrote it
        found.setdefault(answer.item_id, {})[answer.arm] = answer
    complete = [by_arm for by_arm in found.values() if len(by_arm) == len(wanted)]
    return complete[: score.questions]


def _engine(score: KnowledgeScore) -> TransformersEngine:
    from generation.local import TransformersEngine

    adapter = score.evaluation.adapter
    engine = TransformersEngine(settings.RATCHET_BASE_MODEL_PATH)
    load_into(engine, adapter)
    return engine


def _scores(score: KnowledgeScore, engine: TransformersEngine, answer: EvaluationAnswer) -> list[float]:
    from generation.layers import knowledge_scores

    prompt = task_prompt(score.evaluation, Task(answer.item, answer.arm, answer.condition))
    adapter = score.evaluation.adapter.engine_name if answer.arm in ADAPTER_ARMS else None
    request = GenerationRequest(messages=prompt.messages, adapter=adapter)
    return [float(value) for value in knowledge_scores(engine, request, answer.completion)]


def _differences(
    more: Sequence[Sequence[float]], less: Sequence[Sequence[float]], clusters: Sequence[str]
) -> list[Mapping[str, Any]]:
    """Of each layer: adapter minus base, paired by question, with its interval."""
    layers = [
        [a - b for a, b in zip(one, other, strict=True)]
        for one, other in zip(zip(*more, strict=True), zip(*less, strict=True), strict=True)
    ]
    return [cluster_bootstrap(values, clusters).as_dict() for values in layers]
