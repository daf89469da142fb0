"""Examples as training rows, through the one prompt module: a model is trained on what it is served, to the byte.

Which example gives which rows (`docs/data.md` has the table): an answer to learn gives a supervised row and a desirable
one of KTO, an answer that was judged bad gives an undesirable one, and both together make a pair of DPO.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from django.db.models import Count, Q, QuerySet

from generation.prompts import (
    House,
    Message,
    Prompt,
    PromptPassage,
    SentenceRef,
    build_prompt,
    render_completion,
)
from training.data.invented import surrogates_of, with_surrogates
from training.data.rejected import rejected_completion
from training.models import DatasetVersion, Example, Origin

Method = Literal["sft", "kto", "dpo"]


class SftRow(TypedDict):
    """TRL's conversational prompt-completion format; ``weight`` is how often the row is seen in one epoch."""

    prompt: list[Message]
    completion: list[Message]
    weight: int


class KtoRow(TypedDict):
    """TRL's conversational unpaired preference format; ``label`` is whether the completion is what is wanted."""

    prompt: list[Message]
    completion: list[Message]
    label: bool
    weight: int


class DpoRow(TypedDict):
    """TRL's conversational preference format with an explicit prompt."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    weight: int


@dataclass(frozen=True)
class MethodCounts:
    """Rows that one split gives for each method, as far as the database can tell: a pair whose two answers turn out to
    be the same when they are rendered is left out then."""

    sft: int
    kto_desirable: int
    kto_undesirable: int
    dpo: int


def count_rows(dataset: DatasetVersion, split: str) -> MethodCounts:
    """One query."""
    return count_rows_by_split(dataset)[split]


def count_rows_by_split(dataset: DatasetVersion) -> dict[str, MethodCounts]:
    """Of every split, in one query: it reads all rows of the version."""
    judged = Q(erased_at=None) & ~Q(rejected="")
    rows = dataset.examples.order_by().values("split")
    counted = rows.annotate(
        learnt=Count("pk", filter=Q(erased_at=None) & ~Q(origin=Origin.BAD)),
        bad=Count("pk", filter=judged),
        pairs=Count("pk", filter=judged & ~Q(origin=Origin.BAD)),
    )
    found = {one["split"]: MethodCounts(one["learnt"], one["learnt"], one["bad"], one["pairs"]) for one in counted}
    return {split: found.get(split, MethodCounts(0, 0, 0, 0)) for split in Example.Split.values}


def sft_rows(dataset: DatasetVersion, split: str) -> Iterator[SftRow]:
    """Rows of one split (`Example.Split`) in the dataset's order; those that were erased are left out, and those that
    only say what not to answer.

    Raises:
        ValueError: an example's evidence does not fit its contexts (a build refuses such rows).
    """
    house = dataset.assistant.house
    for example in _examples(dataset, split, ~Q(origin=Origin.BAD)):
        yield sft_row(house, example)


def kto_rows(dataset: DatasetVersion, split: str) -> Iterator[KtoRow]:
    """As `sft_rows`: answers to learn are desirable, answers that were judged bad are not. An example that has both
    gives two rows, the desirable one first."""
    house = dataset.assistant.house
    for example in _examples(dataset, split, Q()):
        yield from kto_rows_of(house, example)


def dpo_rows(dataset: DatasetVersion, split: str) -> Iterator[DpoRow]:
    """As `sft_rows`, of the examples with an answer to learn and one that was judged bad."""
    house = dataset.assistant.house
    for example in _examples(dataset, split, ~Q(origin=Origin.BAD) & ~Q(rejected="")):
        if (row := dpo_row(house, example)) is not None:
            yield row


def rows_for(
    dataset: DatasetVersion, split: str, method: Method
) -> Iterator[SftRow] | Iterator[KtoRow] | Iterator[DpoRow]:
    if method == "sft":
        return sft_rows(dataset, split)
    return kto_rows(dataset, split) if method == "kto" else dpo_rows(dataset, split)


def _examples(dataset: DatasetVersion, split: str, which: Q) -> Iterator[Example]:
    surrogates = surrogates_of(dataset)
    rows: QuerySet[Example] = dataset.examples.filter(which, split=split, erased_at=None).order_by("position")
    for example in rows.iterator(chunk_size=500):
        yield with_surrogates(example, surrogates)


def sft_row(house: House, example: Example) -> SftRow:
    prompt = example_prompt(house, example)
    return {
        "prompt": list(prompt.messages),
        "completion": _said(_learnt(house, prompt, example)),
        "weight": example.weight,
    }


def kto_rows_of(house: House, example: Example) -> Iterator[KtoRow]:
    prompt = example_prompt(house, example)
    wanted = "" if example.origin == Origin.BAD else _learnt(house, prompt, example)
    if wanted:
        yield {"prompt": list(prompt.messages), "completion": _said(wanted), "label": True, "weight": example.weight}
    unwanted = _unwanted(house, prompt, example)
    if unwanted and unwanted != wanted:
        yield {"prompt": list(prompt.messages), "completion": _said(unwanted), "label": False, "weight": 1}


def dpo_row(house: House, example: Example) -> DpoRow | None:
    """None where nothing was judged bad, or where both answers are the same once they are rendered."""
    prompt = example_prompt(house, example)
    chosen, rejected = _learnt(house, prompt, example), _unwanted(house, prompt, example)
    if not chosen or not rejected or chosen == rejected:
        return None
    return {
        "prompt": list(prompt.messages),
        "chosen": _said(chosen),
        "rejected": _said(rejected),
        "weight": example.weight,
    }


def _said(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def _learnt(house: House, prompt: Prompt, example: Example) -> str:
    sentences = [(s["text"], [SentenceRef(*ref) for ref in s["refs"]]) for s in example.sentences]
    return render_completion(house=house, prompt=prompt, sentences=sentences)


def _unwanted(house: House, prompt: Prompt, example: Example) -> str:
    if not example.rejected:
        return ""
    passages = [PromptPassage(c["rank"], c["title"], c["text"]) for c in example.contexts]
    return rejected_completion(house=house, prompt=prompt, passages=passages, text=example.rejected)


class Offered(TypedDict):
    evidence: list[SentenceRef]
    similarity: list[float]


def offered(evidence: Sequence[Sequence[float]]) -> Offered:
    """Evidence as rows store it ([rank, sentence, similarity], …), as `build_prompt` takes it."""
    return {
        "evidence": [SentenceRef(int(rank), int(sentence)) for rank, sentence, _ in evidence],
        "similarity": [similarity for _, _, similarity in evidence],
    }


def example_prompt(house: House, example: Example) -> Prompt:
    contexts: list[dict[str, Any]] = example.contexts
    return build_prompt(
        house=house,
        question=example.question,
        passages=[PromptPassage(c["rank"], c["title"], c["text"]) for c in contexts],
        **offered(example.evidence),
        history=example.history,
    )
