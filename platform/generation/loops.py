"""Completions of small models sometimes run into a loop ("the fee is are are are …"): seen as it is written, and cut.

Every completion of ours passes here, in evaluation as in serving (`generation.decoding.Batch`), so what is measured is
what users get.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_BLOCK = 8
"""Tokens. Longer blocks are sentences, which an honest list may repeat."""
REPEATS = 4


class LoopWatch:
    """Follows one completion token by token."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._prompt = prompt
        # [period - 1]: how many of the last tokens each equal the token one period before them.
        self._echoes = [0] * LONGEST_BLOCK

    @property
    def pending(self) -> int:
        """Tokens at the end that a loop may yet take away: a stream holds them back, for it can take nothing back."""
        return max(self._echoes)

    def follow(self, tokens: Sequence[int]) -> int:
        """After one more token: how many at the end are nothing but repetition of a loop; 0: there is none.

        What stands in the prompt just so is a quotation (a table's rule, an account number), however monotonous.
        """
        last = len(tokens) - 1
        for place in range(LONGEST_BLOCK):
            before = last - place - 1
            same = before >= 0 and tokens[before] == tokens[last]
            self._echoes[place] = self._echoes[place] + 1 if same else 0
        for place, echoes in enumerate(self._echoes):
            period = place + 1
            if echoes >= (REPEATS - 1) * period and not self._quoted(tokens[last + 1 - period - echoes :]):
                return echoes
        return 0

    def _quoted(self, tail: Sequence[int]) -> bool:
        """Looked up only where a completion repeats itself, so a plain scan is good enough."""
        wanted, first = list(tail), tail[0]
        size = len(wanted)
        return any(
            self._prompt[i] == first and list(self._prompt[i : i + size]) == wanted
            for i in range(len(self._prompt) - size + 1)
        )
