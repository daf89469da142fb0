"""Invented values in place of placeholders, where a recipe asks for them. They are drawn when rows are rendered."""

from __future__ import annotations

import copy
from functools import lru_cache

from assistants.policies import policy_of
from assistants.vault import keyed_hash
from generation.prompts import split_sentences
from privacy.surrogates import Surrogates
from training.data.corpus_words import taken_words, words_in
from training.models import DatasetVersion, Example


def surrogates_of(dataset: DatasetVersion) -> Surrogates | None:
    """Draws the invented values of this dataset; None where its recipe keeps placeholders, and of a version that has
    lost rows, with which nothing is trained any more."""
    if not dataset.recipe.get("surrogates") or dataset.erased_rows:
        return None
    # Of the dataset as it was frozen: the same file can be made again, and another dataset has other names.
    salt = keyed_hash("surrogates", dataset.assistant_id, dataset.content_hash)
    regions = policy_of(dataset.assistant).regions
    taken = taken_words(dataset)
    avoid = taken if taken is not None else _corpus_words(dataset.pk, dataset.content_hash)
    return Surrogates(salt, regions=regions, avoid=avoid)


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
    """As `taken_words`, of a version that was frozen without them. ``content_hash`` is part of the key."""
    found: set[str] = set()
    seen: set[int] = set()
    rows = Example.objects.filter(dataset=dataset_pk).values_list("question", "rejected", "contexts", "sentences")
    for question, rejected, contexts, sentences in rows.iterator(chunk_size=500):
        texts = [question, rejected, *(c["text"] for c in contexts), *(s["text"] for s in sentences)]
        for text in texts:
            if hash(text) not in seen:  # passages repeat, and are most of the text
                seen.add(hash(text))
                found.update(words_in(text))
    return frozenset(found)
