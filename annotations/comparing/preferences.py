"""Comparisons as preference pairs for training (DPO): what people agreed on, and everything that they chose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from annotations.comparing.models import Choice, ComparisonChoice, ComparisonPair, ComparisonRound
from capture import export_guard

CHUNK = 200


def preference_lines(opened: ComparisonRound, *, people: int = 1) -> Iterator[str]:
    """JSON lines in TRL's conversational preference format, of the pairs on which everybody who judged chose the same
    answer (at least ``people`` of them). Pairs whose prompt is not known any more are left out.

    Raises:
        capture.export_guard.ExportBlocked: something leaks; nothing of the batch has left.
    """
    pairs = ComparisonPair.objects.filter(round=opened).exclude(prompt=[]).preferred(people=people)
    yield from _lines(opened, (preference(opened, pair) for pair in pairs.order_by("position").iterator(CHUNK)))


def preference(opened: ComparisonRound, pair: Any) -> dict[str, Any]:
    """One pair of `ComparisonPairQuerySet.preferred`. ``held_out`` names the benchmark that the question is from."""
    answers = [pair.candidate_completion, pair.baseline_completion]
    chosen, rejected = answers if pair.winner == Choice.CANDIDATE else reversed(answers)
    return {
        "prompt": pair.prompt,
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "id": f"comparison-{opened.pk}-{pair.position}",
        "people": pair.judges,
        "held_out": opened.held_out,
    }


def choice_lines(opened: ComparisonRound) -> Iterator[str]:
    """Every choice as a JSON line, also those taken back (``counts`` is false). Raises as `preference_lines`."""
    choices = ComparisonChoice.objects.filter(pair__round=opened).select_related("pair", "person")
    rows = choices.order_by("pair__position", "created_at", "pk").iterator(CHUNK)
    yield from _lines(opened, (_choice(opened, choice) for choice in rows))


def _choice(opened: ComparisonRound, choice: ComparisonChoice) -> dict[str, Any]:
    pair = choice.pair
    return {
        "id": f"comparison-{opened.pk}-{pair.position}-{choice.pk}",
        "pair": pair.position,
        "key": pair.key,
        "question": pair.question,
        "candidate": pair.candidate_text,
        "baseline": pair.baseline_text,
        "arms": {"candidate": opened.candidate_arm, "baseline": opened.baseline_arm},
        "person": choice.person.get_username(),
        "choice": choice.choice,
        "candidate_on": "left" if choice.candidate_left else "right",
        "reasons": choice.aspects,
        "seconds": choice.seconds,
        "created_at": choice.created_at.isoformat(),
        "counts": choice.withdrawn_at is None,
    }


def _lines(opened: ComparisonRound, records: Iterator[dict[str, Any]]) -> Iterator[str]:
    batch: list[dict[str, Any]] = []
    for record in records:
        batch.append(record)
        if len(batch) == CHUNK:
            yield from _checked(opened, batch)
            batch = []
    yield from _checked(opened, batch)


def _checked(opened: ComparisonRound, batch: list[dict[str, Any]]) -> list[str]:
    if batch:
        export_guard.check(opened.assistant, batch)
    return [json.dumps(record, ensure_ascii=False) + "\n" for record in batch]
