"""Public questions by people as libraries for the evaluation. Nothing of them is shipped or trained on.

The evaluation reads files that the caller has: SQuAD's format (for instance XQuAD), Doc2Dial's reading comprehension
files, and the MTRAG-UN reference file.
"""

from __future__ import annotations

import ast
import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generation.prompts import Message, split_sentences
from training.base_model.library import DECLINE, SENTENCES, Library
from training.base_model.ranking import Ranker, line_text, query_text
from training.base_model.sessions import Example, example_of
from training.base_model.worlds import Item, Line, World

_ROLE = re.compile(r"^(?:user|agent):\s*")


def squad_library(path: Path, count: int, seed: int) -> Library:
    """``count`` questions on all paragraphs of a file in SQuAD's format.

    Raises:
        ValueError: the file is not in that format.
    """
    library = Library("squad")
    starts: list[dict[int, int]] = []
    asked: list[tuple[str, int, str, int]] = []
    try:
        for article in _read(path)["data"]:
            for paragraph in article["paragraphs"]:
                starts.append(_add_text(library, str(article.get("title", "Article")), paragraph["context"]))
                for q in paragraph["qas"]:
                    answer = q["answers"][0]
                    asked.append((q["question"], len(starts) - 1, answer["text"], answer["answer_start"]))
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path} is not in SQuAD's format: {error!r}") from error
    for question, paragraph, answer, start in random.Random(seed).sample(asked, min(count, len(asked))):
        library.items.append(_item(library, question, starts[paragraph], start, answer))
    return library


def doc2dial_library(documents: Path, questions: Path, count: int, seed: int) -> Library:
    """``count`` turns of Doc2Dial on all its documents; the two user turns before come as history.

    Raises:
        ValueError: a file is not in Doc2Dial's format.
    """
    library = Library("doc2dial")
    starts: dict[str, dict[int, int]] = {}
    try:
        for row in _rows(documents):
            starts[row["title"]] = _add_text(library, row["title"].split("#")[0], row["context"])
        turns = list(_rows(questions))
        for row in random.Random(seed).sample(turns, min(count, len(turns))):
            said = [_ROLE.sub("", turn) for turn in row["question"].split("\t") if not turn.startswith("agent:")]
            # The published file holds this structure as a Python literal.
            marked = ast.literal_eval(row["answers"]) if isinstance(row["answers"], str) else row["answers"]
            answer, start = marked["text"][0], marked["answer_start"][0]
            item = _item(library, said[0], starts[row["title"]], start, answer)
            history: tuple[Message, ...] = ({"role": "user", "content": said[1]},) if len(said) > 1 else ()
            library.items.append(Item(item.question, item.gold, history))
    except (KeyError, IndexError, TypeError, ValueError, SyntaxError) as error:
        raise ValueError(f"{documents} or {questions} is not in Doc2Dial's format: {error!r}") from error
    return library


def answerability_examples(path: Path, ranker: Ranker, count: int, seed: int) -> list[Example]:
    """Tasks with their passages and whether these answer (MTRAG-UN): only declining is judged, no sentence is gold.

    Raises:
        ValueError: the file is not in the format.
    """
    found = []
    rows = list(_rows(path))
    for row in random.Random(seed).sample(rows, min(count, len(rows))):
        try:
            said = [(turn["speaker"], turn["text"]) for turn in row["input"]]
            world = World()
            for number, context in enumerate(row["contexts"]):
                for sentence in split_sentences(context["text"]):
                    world.add(number, str(context.get("title") or "Document"), sentence)
            answerable = row["answerability"][0] == "ANSWERABLE"
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{path} is not in the format of MTRAG-UN: {error!r}") from error
        users = [text for speaker, text in said if speaker == "user"]
        history: tuple[Message, ...] = ({"role": "user", "content": users[-2]},) if len(users) > 1 else ()
        item = Item(users[-1], history=history)
        if not world.lines:
            continue
        vectors = ranker.embed([*map(line_text, world.lines), query_text(item)])
        scores = vectors[:-1] @ vectors[-1]
        evidence = [int(i) for i in (-scores).argsort(kind="stable")[:SENTENCES]]
        found.append(example_of(world, item, evidence, scores, DECLINE, answerable=answerable))
    return found


def _read(path: Path) -> Any:
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)


def _rows(path: Path) -> Iterator[Any]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return (json.loads(line) for line in text.splitlines() if line.strip())


def _add_text(library: Library, title: str, text: str) -> dict[int, int]:
    """Adds a document and returns where each of its sentences begins: {position in ``text``: line}."""
    number = library.lines[-1].document + 1 if library.lines else 0
    starts: dict[int, int] = {}
    position = 0
    for sentence in split_sentences(text):
        match = re.compile(r"\s+".join(map(re.escape, sentence.split()))).search(text, position)
        if match:
            starts[match.start()] = len(library.lines)
            position = match.end()
        library.lines.append(Line(number, title, sentence))
    return starts


def _item(library: Library, question: str, starts: dict[int, int], start: int, answer: str) -> Item:
    """The sentence in which the marked answer begins is the one to point at."""
    before = [at for at in starts if at <= start + len(answer) - len(answer.lstrip())]
    line = starts[max(before)]
    text = library.lines[line].text
    return Item(question, ((line, text),), short=answer if answer in text else "")
