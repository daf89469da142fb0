"""Token rows for the trainer: many examples per row, each seeing only itself.

Five arrays of shape (rows, length) describe a row: `ids`, `codes` (what is being predicted, see below), `positions`
(restart per example; branches continue where the shared evidence ends), `groups` (example number in the row, 0 =
padding) and `branches` (0 = shared evidence). A token may attend to earlier tokens of its example's evidence and of its
own branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from generation.prompts import Message
from training.base_model.sessions import Example
from training.base_model.tokenizer import SPECIAL_TOKENS

if TYPE_CHECKING:
    from numpy.typing import NDArray

NONE, CONTEXT, QUESTION, ANSWER, FIRST, WRITTEN = range(6)
"""Codes of a token as a target: never, evidence text, question text, answer, first answer token, written question."""
_ROLE_TOKEN = {"system": SPECIAL_TOKENS[2], "user": SPECIAL_TOKENS[3], "assistant": SPECIAL_TOKENS[4]}
_END = SPECIAL_TOKENS[1]
_OPEN_ROWS = 16
"""Rows kept open for first-fit packing."""


def chat_text(messages: Sequence[Message]) -> str:
    """The prompt as the chat template of the model folder renders it."""
    body = "".join(f"{_ROLE_TOKEN[m['role']]}{m['content']}{_END}" for m in messages)
    return body + _ROLE_TOKEN["assistant"]


@dataclass
class Row:
    ids: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)

    def append(self, other: Row) -> None:
        group = (self.groups[-1] if self.groups else 0) + 1
        self.ids += other.ids
        self.codes += other.codes
        self.positions += other.positions
        self.groups += [group] * len(other.ids)
        self.branches += other.branches


def encode(tokenizer: Tokenizer, example: Example) -> Row:
    """One example as tokens: shared evidence first, then every branch from the token where the prompts part."""
    prompts = [tokenizer.encode(chat_text(b.messages), add_special_tokens=False).ids for b in example.branches]
    shared = min(len(p) for p in prompts) - 1
    for prompt in prompts[1:]:
        same = next((i for i, (a, b) in enumerate(zip(prompts[0], prompt, strict=False)) if a != b), shared)
        shared = min(shared, same)
    row = Row()
    _extend(row, prompts[0][:shared], [NONE] + [CONTEXT] * (shared - 1), 0, 0)
    for number, (branch, prompt) in enumerate(zip(example.branches, prompts, strict=True), start=1):
        answer = tokenizer.encode(branch.completion + _END, add_special_tokens=False).ids
        rest = prompt[shared:]
        codes = [NONE] + [QUESTION] * (len(rest) - 1)
        codes[-1] = NONE
        codes += [WRITTEN] * len(answer) if branch.writes_question else [FIRST] + [ANSWER] * (len(answer) - 1)
        _extend(row, rest + answer, codes, shared, number)
    return row


def _extend(row: Row, ids: Sequence[int], codes: Sequence[int], start: int, branch: int) -> None:
    row.ids += ids
    row.codes += codes
    row.positions += range(start, start + len(ids))
    row.branches += [branch] * len(ids)


class Packer:
    """First-fit packing into rows of one length."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.dropped = 0
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        if len(row.ids) > self.length:
            self.dropped += 1
            return
        for open_row in reversed(self.rows[-_OPEN_ROWS:]):
            if len(open_row.ids) + len(row.ids) <= self.length:
                open_row.append(row)
                return
        self.rows.append(Row())
        self.rows[-1].append(row)

    def arrays(self) -> dict[str, NDArray[np.uint16]]:
        """The packed rows as zero-padded (rows, length) arrays."""
        shape = (len(self.rows), self.length)
        names = ("ids", "codes", "positions", "groups", "branches")
        arrays = {name: np.zeros(shape, np.uint16) for name in names}
        for at, row in enumerate(self.rows):
            for name in names:
                values = getattr(row, name)
                arrays[name][at, : len(values)] = values
        return arrays
