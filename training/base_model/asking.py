"""How good are the questions that it writes? ``python -m training.base_model.asking --model models/base``.

For sentences of a folder of Markdown documents: the share of written questions that the filters of a synthesis pass,
whose sentence retrieval offers, and that the model then answers from that sentence. Whether a question reads naturally
is for a person to say: ``--show`` prints all of them.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generation.prompts import build_question_prompt, split_sentences
from knowledge.sections import read_sections
from training.base_model.evaluate import Answerer
from training.base_model.library import DECLINE, offered
from training.base_model.packing import chat_text
from training.base_model.ranking import Ranker, line_text, query_text
from training.base_model.sessions import example_of
from training.base_model.worlds import Item, Line, World
from training.synthesis.filters import first_objection, says_something

_SHOWN = 2
"""Sentences before and after the one that is asked about, as in a synthesis."""


@dataclass
class Written:
    """A question on ``line`` (index into the lines of the documents) and what came of it."""

    line: int
    question: str
    dropped_by: str = ""
    offered: bool = False
    answered: bool = False


def read_lines(folder: Path) -> list[Line]:
    """Every sentence of every section; a section counts as a document.

    Raises:
        FileNotFoundError: the folder holds no Markdown file.
    """
    paths = sorted(folder.rglob("*.md"))
    if not paths:
        raise FileNotFoundError(f"no Markdown file (*.md) in {folder}")
    sections = [
        section
        for path in paths
        for section in read_sections(path.read_text(encoding="utf-8"), "text/markdown", fallback_title=path.stem)
    ]
    return [
        Line(number, " › ".join(section.headings), sentence)
        for number, section in enumerate(sections)
        for block in section.blocks
        for sentence in split_sentences(" ".join(block))
    ]


def write_questions(answerer: Answerer, lines: Sequence[Line], chosen: Sequence[int]) -> list[Written]:
    prompts = []
    for at in chosen:
        shown = [i for i in range(at - _SHOWN, at + _SHOWN + 1) if 0 <= i < len(lines)]
        shown = [i for i in shown if lines[i].document == lines[at].document]
        sentences = [lines[i].text for i in shown]
        prompt = build_question_prompt(title=lines[at].title, sentences=sentences, marked=shown.index(at))
        prompts.append(chat_text(prompt.messages))
    texts = dict(answerer(prompts))
    return [Written(at, " ".join(texts[i].split())) for i, at in enumerate(chosen)]


def judge(answerer: Answerer, lines: list[Line], asked: Sequence[Written]) -> None:
    """Fills in filters, retrieval (the sentences that would be offered) and the model's own answer."""
    ranker = Ranker()
    vectors = ranker.embed([line_text(line) for line in lines])
    queries = ranker.embed([query_text(Item(written.question)) for written in asked])
    of_document = np.array([line.document for line in lines])
    prompts: dict[int, tuple[str, int]] = {}
    for number, (written, query) in enumerate(zip(asked, queries, strict=True)):
        line = lines[written.line]
        written.dropped_by = first_objection(written.question, line.text, line.title)
        scores = vectors @ query
        evidence = offered(scores, of_document)
        written.offered = written.line in evidence
        if written.offered:
            example = example_of(World(lines), Item(written.question), evidence, scores, DECLINE)
            prompts[number] = chat_text(example.branches[0].messages), evidence.index(written.line) + 1
    said = dict(answerer([prompt for prompt, _ in prompts.values()]))
    for position, (number, (_, pointer)) in enumerate(prompts.items()):
        asked[number].answered = said[position].startswith(f"[{pointer}]")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/base"))
    parser.add_argument("--documents", type=Path, default=Path("serving/demo/documents"), help="folder of .md files")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print the questions, one line of JSON each")
    options = parser.parse_args(argv)
    answerer, lines = Answerer(options.model), read_lines(options.documents)
    usable = [at for at, line in enumerate(lines) if says_something(line.text)]
    chosen = random.Random(options.seed).sample(usable, min(options.questions, len(usable)))
    asked = write_questions(answerer, lines, chosen)
    judge(answerer, lines, asked)
    for written in asked if options.show else ():
        print(json.dumps({**vars(written), "sentence": lines[written.line].text}, ensure_ascii=False))
    kept = [written for written in asked if not written.dropped_by and written.offered]
    counts = {
        "written": len(asked),
        "distinct": len({written.question for written in asked}),
        "pass the filters": sum(not written.dropped_by for written in asked),
        "their sentence is offered": sum(written.offered for written in asked),
        "and answered from it": sum(written.answered for written in asked),
        "kept by a synthesis": len(kept),
    }
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
