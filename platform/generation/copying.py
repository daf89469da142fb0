"""Prompt lookup: an answer that copies its sources is guessed from them, several tokens at a time.

A guess costs nothing but a wider step; whether it was right the model itself says in that step, so the answer is what
it would have been one token at a time. Our answers quote sentences that stand in the prompt, so most guesses are right.
After Saxena (2023), prompt lookup decoding; the pointer rule is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_GUESS = 10
"""Tokens in one step."""
BUDGET = 40
"""Guessed tokens of all rows in one step: what a CPU reads at little more than the price of one token each."""


class Copier:
    """Guesses what comes next in one completion."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._prompt = prompt
        self._after_pair: dict[tuple[int, int], int] = {}
        self._after_one: dict[int, int] = {}
        self._width = 4
        repeated: set[int] = set()
        for place, token in enumerate(prompt[:-1]):
            if token in self._after_one:
                repeated.add(token)
            self._after_one[token] = place + 1
            if place:
                self._after_pair.setdefault((prompt[place - 1], token), place + 1)
        # A token that stands there once says where to go on: a pointer `[2]` names its sentence.
        for token in repeated:
            del self._after_one[token]
        self._at = 0

    def guess(self, tokens: Sequence[int], room: int) -> list[int]:
        """At most ``room`` tokens that may follow; often none. ``tokens``: the completion so far, at least one."""
        at = self._at
        # A copy may have run to the very end of the prompt.
        if not (0 < at <= len(self._prompt) and self._prompt[at - 1] == tokens[-1]):
            pair = (tokens[-2], tokens[-1]) if len(tokens) > 1 else None
            at = (self._after_pair.get(pair, 0) if pair else 0) or self._after_one.get(tokens[-1], 0)
        self._at = at
        return list(self._prompt[at : at + min(room, self._width)]) if at else []

    def learn(self, guessed: int, right: int) -> None:
        """How many of the last guess were right: a source that is being copied is guessed from further ahead."""
        if not guessed:
            return
        self._at = self._at + right + 1 if right else 0
        self._width = min(LONGEST_GUESS, self._width * 2) if right == guessed else max(2, right)
