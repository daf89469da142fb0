"""From an evaluation to a blind comparison: the questions that both arms answered, and answered differently.

The two arms with retrieval, under the clean condition: only there both saw the same passages, so that the answers can
be compared, and the prompt is the same to the byte.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.contrib.auth.models import User

from annotations.comparing.models import ComparisonRound
from annotations.comparing.services import PairTexts, create_round
from generation.prompts import House, build_prompt
from training.data.render import offered
from training.evaluation.scoring import passages_of
from training.models import Arm, BenchmarkItem, Condition, Evaluation, EvaluationAnswer

SOURCE = "evaluation"
BASELINE, CANDIDATE = Arm.BASE_RAG, Arm.ADAPTER_RAG
CONDITION = Condition.CLEAN


def start_comparison(
    *, evaluation: Evaluation, name: str, pairs: int, people: Collection[User], created_by: User | None
) -> ComparisonRound:
    """Draws ``pairs`` of the differing answers, in the shares of their kinds and slices.

    Raises:
        django.core.exceptions.ValidationError: as `annotations.comparing.services.create_round`.
    """
    found, questions = differing_pairs(evaluation)
    return create_round(
        assistant=evaluation.assistant,
        name=name,
        source=(SOURCE, evaluation.pk),
        held_out=evaluation.benchmark.name,
        arms=(f"{evaluation.adapter} + retrieval", str(BASELINE.label)),
        found=found,
        questions=questions,
        pairs=pairs,
        people=people,
        created_by=created_by,
    )


def differing_pairs(evaluation: Evaluation) -> tuple[list[PairTexts], int]:
    """Questions whose two answers differ in more than spaces, and how many both arms answered. One query."""
    answers: dict[int, dict[str, EvaluationAnswer]] = {}
    rows = evaluation.answers.filter(condition=CONDITION, arm__in=[BASELINE, CANDIDATE]).select_related("item")
    for answer in rows.order_by("item_id"):
        answers.setdefault(answer.item_id, {})[answer.arm] = answer
    both = [by_arm for by_arm in answers.values() if len(by_arm) == 2]
    differ = [by_arm for by_arm in both if _plain(by_arm[BASELINE].text) != _plain(by_arm[CANDIDATE].text)]
    house = evaluation.assistant.house
    # Asked with another format, the messages cannot be built again; such pairs are judged, and teach nothing.
    known = evaluation.prompt_digest == evaluation.assistant.prompt_digest
    return [_pair(by_arm, house if known else None) for by_arm in differ], len(both)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _pair(by_arm: dict[str, EvaluationAnswer], house: House | None) -> PairTexts:
    candidate, baseline = by_arm[CANDIDATE], by_arm[BASELINE]
    item = candidate.item
    frozen: dict[str, Any] = item.contexts.get(CONDITION, {})
    passages = frozen.get("passages", [])
    return PairTexts(
        key=item.key,
        stratum=f"{item.kind} / {item.slice}"[:120],
        history=item.history,
        question=item.question,
        contexts=[{name: p.get(name, "") for name in ("rank", "title", "source", "text")} for p in passages],
        prompt=_prompt(item, house) if house is not None and frozen else [],
        candidate_text=candidate.text,
        baseline_text=baseline.text,
        candidate_completion=candidate.completion,
        baseline_completion=baseline.completion,
    )


def _prompt(item: BenchmarkItem, house: House) -> list[Any]:
    """What both arms were asked, as `training.evaluation.runner` builds it."""
    prompt = build_prompt(
        house=house,
        question=item.question,
        passages=passages_of(item, CANDIDATE, CONDITION),
        **offered(item.contexts[CONDITION]["evidence"]),
        history=item.history,
    )
    return list(prompt.messages)
