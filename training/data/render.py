"""Examples as training rows, through the one prompt module: a model is trained on what it is served, to the byte."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypedDict

from assistants.policies import policy_of
from assistants.vault import keyed_hash
from generation.prompts import (
    House,
    Message,
    Prompt,
    PromptPassage,
    SentenceRef,
    build_prompt,
    render_completion,
    split_sentences,
)
from privacy.surrogates import Surrogates
from training.models import DatasetVersion, Example

_WORD = re.compile(r"[^\W\d_]+")


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
    surrogates = surrogates_of(dataset)
    rows = dataset.examples.filter(split=split, erased_at=None).order_by("position")
    for example in rows.iterator(chunk_size=500):
        yield sft_row(house, with_surrogates(example, surrogates))


def surrogates_of(dataset: DatasetVersion) -> Surrogates | None:
    """Draws the invented values of this dataset; None where its recipe keeps placeholders."""
    if not dataset.recipe.get("surrogates"):
        return None
    # Of the dataset as it was frozen: the same file can be made again, and another dataset has other names.
    salt = keyed_hash("surrogates", dataset.assistant_id, dataset.content_hash)
    regions = policy_of(dataset.assistant).regions
    return Surrogates(salt, regions=regions, avoid=_corpus_words(dataset.pk, dataset.content_hash))


def with_surrogates(example: Example, surrogates: Surrogates | None) -> Example:
    """The row as it is trained on: invented values for its placeholders, the same ones in question, passages and
    response. A row in which a value would move the end of a sentence keeps its placeholders: evidence counts sentences.
    """
    if surrogates is None:
        return example

    def draw(text: str) -> str:
        return surrogates.render(text, example.group)

    contexts = [{**c, "title": draw(c["title"]), "text": draw(c["text"])} for c in example.contexts]
    for before, after in zip(example.contexts, contexts, strict=True):
        if len(split_sentences(before["text"])) != len(split_sentences(after["text"])):
            return example
    drawn = copy.copy(example)
    drawn.question, drawn.rejected, drawn.contexts = draw(example.question), draw(example.rejected), contexts
    drawn.history = [{**message, "content": draw(message["content"])} for message in example.history]
    drawn.sentences = [{**sentence, "text": draw(sentence["text"])} for sentence in example.sentences]
    return drawn


@lru_cache(maxsize=2)
def _corpus_words(dataset_pk: int, content_hash: str) -> frozenset[str]:
    """Casefolded words of all rows: an invented name shall have none of them. ``content_hash`` is part of the key."""
    found: set[str] = set()
    seen: set[int] = set()
    rows = Example.objects.filter(dataset=dataset_pk).values_list("question", "rejected", "contexts", "sentences")
    for question, rejected, contexts, sentences in rows.iterator(chunk_size=500):
        texts = [question, rejected, *(c["text"] for c in contexts), *(s["text"] for s in sentences)]
        for text in texts:
            if hash(text) not in seen:  # passages repeat, and are most of the text
                seen.add(hash(text))
                found.update(word.casefold() for word in _WORD.findall(text))
    return frozenset(found)


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
