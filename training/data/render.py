"""Examples as training rows, through the one prompt module: a model is trained on what it is served, to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypedDict

from generation.prompts import House, Message, Prompt, PromptPassage, SentenceRef, build_prompt, render_completion
from training.models import DatasetVersion, Example


class SftRow(TypedDict):
    """TRL's conversational prompt-completion format; ``weight`` is how often the row is seen in one epoch."""

    prompt: list[Message]
    completion: list[Message]
    weight: int


def sft_rows(dataset: DatasetVersion, split: str) -> Iterator[SftRow]:
    """Rows of one split (`Example.Split`) in the dataset's order; those that were erased are left out.

    Raises:
        ValueError: an example's evidence does not fit its contexts (a build refuses such rows).
    """
    house = dataset.assistant.house
    rows = dataset.examples.filter(split=split, erased_at=None).order_by("position")
    for example in rows.iterator(chunk_size=500):
        yield sft_row(house, example)


def sft_row(house: House, example: Example) -> SftRow:
    prompt = example_prompt(house, example)
    completion = render_completion(
        house=house,
        prompt=prompt,
        sentences=[(s["text"], [SentenceRef(*ref) for ref in s["refs"]]) for s in example.sentences],
    )
    return {
        "prompt": list(prompt.messages),
        "completion": [{"role": "assistant", "content": completion}],
        "weight": example.weight,
    }


def example_prompt(house: House, example: Example) -> Prompt:
    contexts: list[dict[str, Any]] = example.contexts
    return build_prompt(
        house=house,
        question=example.question,
        passages=[PromptPassage(c["rank"], c["title"], c["text"]) for c in contexts],
        evidence=[SentenceRef(*ref) for ref in example.evidence],
        history=example.history,
    )
