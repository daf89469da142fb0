"""Greedy decoding of several rows at once, step by step, with rows that join and leave at any step.

Everything that our engines write goes through a `Batch`: bulk work, single answers and streams. Rows of one batch may
use different adapters. Rotary positions are each row's own, so a row's tokens do not depend on its neighbours beyond
the rounding of the matrix products.

A row may bring guesses for its next tokens (`generation.copying`). They are read in the step in which the model says
whether they are right.

How a pass is made is a matter of the kinds of batch: `generation.ragged` for Llama-like models on a CPU,
`generation.padded` for all others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from generation.copying import BUDGET, LONGEST_GUESS, Copier
from generation.engines import FinishReason
from generation.loops import LoopWatch


@dataclass(eq=False)
class Row:
    """One completion in the making."""

    prompt: list[int]
    max_new_tokens: int
    adapter: str | None = None
    tokens: list[int] = field(default_factory=list)
    """What was written so far, without the end token."""
    finish: FinishReason | None = None
    """Set from outside to make the row leave before its end."""
    looped: bool = False
    """It ran into a loop; ``tokens`` hold the repeated block once."""
    cut_loops: bool = True
    shared: int = 0
    """Tokens at the beginning that other prompts begin with too."""
    copies: bool = False
    """Its next tokens are guessed from the prompt: the same text in fewer steps."""
    watch: LoopWatch = field(init=False)
    copier: Copier | None = field(init=False)

    def __post_init__(self) -> None:
        self.watch = LoopWatch(self.prompt)
        self.copier = Copier(self.prompt) if self.copies else None

    @property
    def settled(self) -> list[int]:
        """The tokens that nothing will take back; all of them once the row has ended."""
        pending = self.watch.pending if self.finish is None and self.cut_loops else 0
        return self.tokens[: len(self.tokens) - pending]

    def append(self, token: int) -> None:
        """One more token, and what follows from it."""
        self.tokens.append(token)
        if self.cut_loops and (repeated := self.watch.follow(self.tokens)):
            del self.tokens[-repeated:]
            self.looped, self.finish = True, self.finish or "stop"
        elif len(self.tokens) >= self.max_new_tokens:
            self.finish = self.finish or "length"


class Batch(ABC):
    """Rows that are decoded together. Not safe for use from several threads."""

    def __init__(self, *, end_tokens: frozenset[int]) -> None:
        self.rows: list[Row] = []
        self._end_tokens = end_tokens

    @abstractmethod
    def add(self, rows: Sequence[Row]) -> None:
        """Reads the prompts of new rows and writes the first token of each."""

    @abstractmethod
    def step(self) -> None:
        """One more token for every row, or several where guesses were right; rows that have ended leave."""

    @abstractmethod
    def clear(self) -> None:
        """Forgets all rows, finished or not."""

    def _guesses(self) -> list[list[int]]:
        """For each row what may come next, without a token that it may not write any more."""
        room = min(LONGEST_GUESS, BUDGET // len(self.rows))
        return [
            row.copier.guess(row.tokens, min(room, row.max_new_tokens - len(row.tokens) - 1))
            if row.copier is not None and row.finish is None
            else []
            for row in self.rows
        ]

    def _follow(self, row: Row, guess: Sequence[int], chosen: Sequence[int]) -> int:
        """Takes what the model says of the last token and of each guess; the number of guesses that were right."""
        right = next((i for i, token in enumerate(guess) if token != chosen[i]), len(guess))
        if row.copier is not None:
            row.copier.learn(len(guess), right)
        for token in chosen[: right + 1]:
            self._append(row, token)
            if row.finish is not None:
                break
        return right

    def _append(self, row: Row, token: int) -> None:
        if token in self._end_tokens:
            row.finish = row.finish or "stop"
            return
        row.append(token)
