"""A completion as it is written → the answer as readers see it, piece by piece.

In the style ``sentences`` the model points first (``[2] The fee is £35.``) and readers see the passage behind the
sentence (``The fee is £35. [1]``): text goes out at once, what a pointer stands for when its sentence ends. In the
style ``passages`` marks stand where readers see them; invented and repeated ones are left out. The pieces joined are
`prompts.parse_answer(...).marked`.
"""

from __future__ import annotations

import re

from generation.prompts import Prompt, PromptStyle

_OPEN = re.compile(r"\[\d{0,3}$")
_POINTER = re.compile(r"\[(\d{1,3})\]")


class AnswerStream:
    """Feed it what the engine streams; it returns what may be shown."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._held = ""
        self._mark = ""
        self._shown = False
        self._gap = False
        self._cited: set[int] = set()

    def feed(self, piece: str) -> str:
        """Text that can go out now; what may still turn out to be a pointer is held back."""
        self._held += piece
        out = ""
        while match := _POINTER.search(self._held):
            out += self._text(self._held[: match.start()])
            out += self._point(int(match.group(1)))
            self._held = self._held[match.end() :]
        half = _OPEN.search(self._held)
        ready, self._held = (self._held[: half.start()], self._held[half.start() :]) if half else (self._held, "")
        return out + self._text(ready)

    def finish(self) -> str:
        """What is left, with the last sentence's passage."""
        out = self._text(self._held) + self._end_sentence()
        self._held = ""
        return out

    def _text(self, raw: str) -> str:
        """Words with single spaces between them, also across pieces."""
        if not raw:
            return ""
        body = " ".join(raw.split())
        if not body:
            self._gap = True
            return ""
        lead = " " if self._shown and (self._gap or raw[0].isspace()) else ""
        self._gap = raw[-1].isspace()
        self._shown = True
        self._cited.clear()
        return lead + body

    def _point(self, number: int) -> str:
        """The mark that goes out now: in front of a sentence stands that of the one before, behind it its own."""
        if self._prompt.style is PromptStyle.SENTENCES:
            out = self._end_sentence()
            self._mark = self._passage(number)
            return out
        if number in self._prompt.ranks and number not in self._cited:
            self._cited.add(number)
            self._mark = f"[{number}]"
        return self._end_sentence()

    def _end_sentence(self) -> str:
        mark, self._mark = self._mark, ""
        self._gap = True
        if not mark:
            return ""
        lead = " " if self._shown else ""
        self._shown = True
        return lead + mark

    def _passage(self, number: int) -> str:
        inside = 1 <= number <= len(self._prompt.pointers)
        return f"[{self._prompt.pointers[number - 1].rank}]" if inside else ""
