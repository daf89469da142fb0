"""Worked examples before the question: how much of what an adapter gains could a prompt have gained?

Two answers and one decline of the rows that the adapter has learned from, the shortest ones, so that they fit a small
model's context. Many gains of fine-tuning are gains of form, and this arm shows them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from generation.prompts import House, Message, Prompt
from training.data.invented import surrogates_of, with_surrogates
from training.data.render import example_prompt, sft_row
from training.models import Adapter, Example, Kind

SENTENCES = 3
"""Offered in an example: what it cites, and the nearest besides."""
LOOKED_AT = 400
Demonstration = tuple[Message, Message]


def demonstrations(adapter: Adapter, house: House) -> list[Demonstration]:
    """(what was asked, what was answered) of up to three rows; none for an adapter whose dataset is not known."""
    if adapter.run is None:
        return []
    dataset = adapter.run.dataset
    surrogates = surrogates_of(dataset)
    rows = dataset.examples.filter(split=Example.Split.TRAIN, erased_at=None, history=[]).order_by("position")
    shown: dict[str, list[tuple[int, int, Demonstration]]] = {Kind.ANSWER.value: [], Kind.DECLINE.value: []}
    for example in rows.filter(kind__in=shown)[:LOOKED_AT]:
        short = _shortened(with_surrogates(example, surrogates))
        if short is None:
            continue
        question = example_prompt(house, short).messages[-1]
        answer = sft_row(house, short)["completion"][0]
        length = len(question["content"]) + len(answer["content"])
        shown[example.kind].append((length, example.position, (question, answer)))
    answers = [one for _, _, one in sorted(shown[Kind.ANSWER.value], key=lambda entry: entry[:2])[:2]]
    declines = [one for _, _, one in sorted(shown[Kind.DECLINE.value], key=lambda entry: entry[:2])[:1]]
    return answers[:1] + declines + answers[1:]


def _shortened(example: Example) -> Example | None:
    """With as few sentences offered as show the task; None where the row has no sentence to offer."""
    if not example.evidence or not example.sentences:
        return None
    cited = [ref for sentence in example.sentences for ref in sentence["refs"]]
    kept = [entry for entry in example.evidence if list(entry[:2]) in cited]
    if example.kind == Kind.ANSWER and not kept:
        return None
    for entry in example.evidence:
        if len(kept) < SENTENCES and entry not in kept:
            kept.append(entry)
    short = copy.copy(example)
    short.evidence = [entry for entry in example.evidence if entry in kept]
    return short


def with_demonstrations(prompt: Prompt, shown: Sequence[Demonstration]) -> list[Message]:
    """The prompt's messages with worked examples behind the instructions."""
    system, *rest = prompt.messages
    return [system, *(message for pair in shown for message in pair), *rest]
