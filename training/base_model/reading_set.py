"""Questions by people, in SQuAD's JSON format (for instance XQuAD), as examples for the evaluation.

Nothing of such a set is shipped or trained on; the evaluation reads a file that the caller has.
"""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generation.prompts import split_sentences
from training.base_model.ranking import Ranker
from training.base_model.sessions import STAGES, Example, examples
from training.base_model.worlds import Item, Line, World

_PASSAGES = 3
"""Paragraphs offered per question: those with the most similar sentence."""


@dataclass(frozen=True)
class _Question:
    text: str
    paragraph: int
    answer: str
    start: int


def read_reading_set(path: Path, ranker: Ranker, count: int, seed: int) -> list[Example]:
    """``count`` questions with their evidence; some lose the sentence that answers (to be declined).

    Raises:
        ValueError: the file is not in SQuAD's format.
    """
    paragraphs, asked = _load(path)
    rng = random.Random(seed)
    chosen = rng.sample(asked, min(count, len(asked)))
    lines = [Line(n, "Article", s) for n, text in enumerate(paragraphs) for s in split_sentences(text)]
    of_line = np.array([line.document for line in lines])
    vectors = ranker.embed([f"Article: {line.text}" for line in lines])
    questions = ranker.embed([q.text for q in chosen])
    found: list[Example] = []
    for question, vector in zip(chosen, questions, strict=True):
        scores = vectors @ vector
        best = np.array([scores[of_line == n].max(initial=-1.0) for n in range(len(paragraphs))])
        offered = set(best.argsort()[::-1][:_PASSAGES].tolist())
        picked = [i for i, line in enumerate(lines) if line.document in offered]
        gold = _gold_line(question, [lines[i] for i in picked], paragraphs[question.paragraph])
        world = World([lines[i] for i in picked])
        marked = () if gold is None else ((gold, world.lines[gold].text),)
        world.items.append(Item(question.text, marked, short=question.answer))
        found += examples(rng, world, scores[picked][None, :], STAGES["test"])
    return found


def _load(path: Path) -> tuple[list[str], list[_Question]]:
    data = path.read_bytes()
    document = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    paragraphs: list[str] = []
    asked: list[_Question] = []
    try:
        for article in document["data"]:
            for paragraph in article["paragraphs"]:
                paragraphs.append(paragraph["context"])
                for q in paragraph["qas"]:
                    answer = q["answers"][0]
                    asked.append(_Question(q["question"], len(paragraphs) - 1, answer["text"], answer["answer_start"]))
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path} is not in SQuAD's format: {error!r}") from error
    return paragraphs, asked


def _gold_line(question: _Question, lines: list[Line], context: str) -> int | None:
    """Index of the sentence that holds the marked answer, or None when its paragraph was not found."""
    end = question.start + len(question.answer)
    for at, line in enumerate(lines):
        if line.document == question.paragraph and question.answer in line.text:
            position = context.find(line.text)
            if position < 0 or position <= question.start <= end <= position + len(line.text):
                return at
    return None
