"""Writes labelled texts: `python -m training.name_model.generate --out FOLDER --texts 70000 --seed 7`.

One JSON object a line: {"text", "spans": [[start, end, label], …]}; train.jsonl, and held_out.jsonl from templates and
names that train.jsonl does not have. Negative text is the documentation of the standard library (PSF licence), without
the modules that `privacy.measure` measures over-scrubbing on.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import random
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from privacy.measure import _PROSE_MODULES
from training.name_model.fill import Filler, Piece
from training.name_model.noise import Cell, cells, disturb
from training.name_model.pools import templates

_SEPARATORS = (" ", " ", "\n", "\n\n", " ... ")
_PASSAGE = 500
_PEOPLE_IN_DOCS = re.compile(
    r"\b(author|written by|contributed|thanks to|copyright|@|Guido|Tim Peters|Knuth)\b", re.IGNORECASE
)
_SKIPPED = frozenset({"antigravity", "this", "idlelib", "lib2to3", "test", "turtledemo", "__main__", "tkinter"})


def documentation() -> list[str]:
    """Passages of the standard library's documentation, sorted, without those that speak of people."""
    texts: set[str] = set()
    measured = {name.split(".")[0] for name in _PROSE_MODULES}
    for name in sorted(sys.stdlib_module_names - measured - _SKIPPED):
        if not name.startswith("_"):
            texts.update(_doc_strings(name))
    from pydoc_data.topics import topics

    texts.update(topics.values())
    passages = [passage for text in texts for passage in _passages(text)]
    return sorted({passage for passage in passages if not _PEOPLE_IN_DOCS.search(passage)})


def _doc_strings(name: str) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
    except (ImportError, OSError):
        return
    for member in [module, *(value for _, value in inspect.getmembers(module, callable))]:
        text = inspect.getdoc(member)
        if text and len(text) > 60:
            yield text
        for _, method in inspect.getmembers(member, inspect.isroutine) if inspect.isclass(member) else ():
            text = inspect.getdoc(method)
            if text and len(text) > 60:
                yield text


def _passages(text: str) -> Iterator[str]:
    """Paragraphs, put together up to some hundred characters."""
    joined = ""
    for paragraph in re.split(r"\n\s*\n", text):
        if joined and len(joined) + len(paragraph) > _PASSAGE:
            yield joined
            joined = ""
        joined = f"{joined}\n\n{paragraph}" if joined else paragraph
        joined = joined[: 2 * _PASSAGE]
    if joined.strip():
        yield joined


def labelled(text: list[Cell]) -> dict[str, Any]:
    """The JSON form of a text: stretches of one label."""
    spans: list[list[Any]] = []
    for i, cell in enumerate(text):
        if cell.label is None:
            continue
        if spans and spans[-1][1] == i and spans[-1][2] == cell.label:
            spans[-1][1] = i + 1
        else:
            spans.append([i, i + 1, cell.label])
    return {"text": "".join(cell.char for cell in text), "spans": spans}


def texts(count: int, seed: int, *, hold_out: bool, docs: list[str]) -> Iterator[dict[str, Any]]:
    """`count` labelled texts: single templates, several together, documentation, and names inside documentation."""
    filler = Filler(seed, hold_out=hold_out)
    rng = filler.rng
    forms = templates(hold_out=hold_out)
    shuffled: list[tuple[str, str]] = []
    for _ in range(count):
        draw = rng.random()
        pieces: list[Piece] = []
        if draw < 0.14:
            pieces.append(Piece(rng.choice(docs)))
        wanted = 0 if draw < 0.10 else 1 if draw < 0.72 else rng.randint(2, 4)
        for _ in range(wanted):
            if not shuffled:
                shuffled = rng.sample(forms, len(forms))
            if pieces:
                pieces.append(Piece(rng.choice(_SEPARATORS)))
            pieces += filler.fill(shuffled.pop()[1])
        text = cells(pieces)
        yield labelled(disturb(text, rng) if wanted else text)


def main() -> None:
    """Writes the files and says how many texts and spans they have."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=70_000)
    parser.add_argument("--held-out", type=int, default=2_500)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    docs = documentation()
    random.Random(arguments.seed).shuffle(docs)
    cut = len(docs) // 12
    for name, count, hold_out, passages in (
        ("held_out", arguments.held_out, True, docs[:cut]),
        ("train", arguments.texts, False, docs[cut:]),
    ):
        spans = chars = 0
        with (arguments.out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for row in texts(count, arguments.seed + hold_out, hold_out=hold_out, docs=passages):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                spans += len(row["spans"])
                chars += len(row["text"])
        print(f"{name}: {count} texts, {chars} characters, {spans} spans, {len(passages)} passages of documentation")


if __name__ == "__main__":
    main()
