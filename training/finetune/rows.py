"""Training rows: read, made into tokens, and refused as a whole when a single one would be cut. No Django."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generation.chat import control_tokens, render_chat

IGNORED = -100
"""Label of a token that the loss leaves out."""
MAX_ROWS = 2_000_000


class RowsError(ValueError):
    """Rows that cannot be trained on as they are; the message says which and what to do."""


@dataclass(frozen=True)
class Row:
    """``prompt`` and ``completion`` are chat messages; ``weight`` is how often the row is seen in one epoch."""

    prompt: list[dict[str, str]]
    completion: list[dict[str, str]]
    weight: int = 1

    @property
    def question(self) -> str:
        return self.prompt[-1]["content"].rpartition("Question: ")[2]

    @property
    def wanted(self) -> str:
        return self.completion[0]["content"]


@dataclass(frozen=True)
class Tokens:
    """One row as the model reads it. ``labels`` are `IGNORED` over the prompt."""

    input_ids: list[int]
    labels: list[int]


def read_rows(path: Path) -> list[Row]:
    """Rows of a JSON-lines file: {"prompt": [messages], "completion": [message], "weight": n}.

    Raises:
        RowsError: a line that is no such row, or a file without any.
    """
    rows: list[Row] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if number > MAX_ROWS:
                raise RowsError(f"{path.name} has more than {MAX_ROWS} rows.")
            rows.append(_row(line, f"{path.name} line {number}"))
    return rows


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> tuple[int, str]:
    """Writes rows as JSON lines; returns how many and the sha256 of the file."""
    digest = hashlib.sha256()
    count = 0
    with path.open("wb") as file:
        for row in rows:
            line = json.dumps(dict(row), ensure_ascii=False, sort_keys=True).encode() + b"\n"
            file.write(line)
            digest.update(line)
            count += 1
    return count, digest.hexdigest()


def tokenise(rows: Sequence[Row], tokenizer: Any) -> list[Tokens]:
    """The prompt exactly as an engine sends it, and behind it the completion with its end token.

    Both are tokenised apart, because that is what happens when a model answers: no token ever spans the border.
    """
    marks = control_tokens(tokenizer)
    prompts, completions = [], []
    for row in rows:
        prompt = render_chat(tokenizer, row.prompt, marks)
        whole = render_chat(tokenizer, row.prompt + row.completion, marks, answered=True)
        if not whole.startswith(prompt):
            raise RowsError("The chat template of the base renders a prompt differently when an answer follows it.")
        prompts.append(prompt)
        completions.append(whole[len(prompt) :])
    if not rows:
        return []
    before = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    after = tokenizer(completions, add_special_tokens=False)["input_ids"]
    return [Tokens(p + c, [IGNORED] * len(p) + c) for p, c in zip(before, after, strict=True)]


def check_lengths(tokens: Sequence[Tokens], limit: int) -> int:
    """The longest row.

    Raises:
        RowsError: a row is longer than ``limit`` tokens, or has nothing to learn: it would be cut, or dropped.
    """
    long = [i for i, row in enumerate(tokens) if len(row.input_ids) > limit]
    if long:
        worst = max(len(tokens[i].input_ids) for i in long)
        raise RowsError(
            f"{len(long)} of {len(tokens)} rows are longer than {limit} tokens (the longest has {worst}) and would be "
            f"cut; the first is row {long[0] + 1}. Offer fewer evidence sentences or shorter passages, or use a base "
            "with a longer context."
        )
    empty = [i for i, row in enumerate(tokens) if all(label == IGNORED for label in row.labels)]
    if empty:
        raise RowsError(
            f"{len(empty)} rows have an empty answer and would be dropped; the first is row {empty[0] + 1}."
        )
    return max((len(row.input_ids) for row in tokens), default=0)


def _row(line: str, where: str) -> Row:
    try:
        value = json.loads(line)
        row = Row(value["prompt"], value["completion"], value.get("weight", 1))
        messages = [*row.prompt, *row.completion]
        if not (row.prompt and len(row.completion) == 1 and isinstance(row.weight, int) and 1 <= row.weight <= 1000):
            raise RowsError(f"{where}: a row has a prompt, one completion message, and a weight of 1 to 1000.")
        if not all(isinstance(m["role"], str) and isinstance(m["content"], str) for m in messages):
            raise RowsError(f"{where}: messages have a role and a content.")
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, RowsError):
            raise
        raise RowsError(f"{where} is not a training row: {error}.") from error
    return row
