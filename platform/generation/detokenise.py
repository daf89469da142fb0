"""Tokens to text while they come: only whole characters go out, and nothing that a stop text may yet swallow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BROKEN = "\ufffd"
MOST_BROKEN_TOKENS = 8
"""A character has at most 4 bytes, so at most 4 tokens; after this many the bytes are wrong and go out as they are."""


class TextStream:
    """The text of one completion. What `feed` and `finish` return, joined, is `text`."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self.stops = tuple(stops)
        self._done = 0  # tokens whose text is out
        self._anchor = 0  # tokens before this one cannot change how later ones are written
        self._held = ""
        self._parts: list[str] = []
        self.stopped = False

    @property
    def text(self) -> str:
        """What went out so far."""
        return "".join(self._parts)

    def feed(self, tokens: Sequence[int]) -> str:
        """``tokens``: all tokens of the completion so far. Returns what may go out now."""
        return self._out(self._decode(tokens, last=False), last=False)

    def finish(self, tokens: Sequence[int]) -> str:
        return self._out(self._decode(tokens, last=True), last=True)

    def _decode(self, tokens: Sequence[int], *, last: bool) -> str:
        if len(tokens) == self._done:
            return ""
        known = self._plain(tokens[self._anchor : self._done])
        grown = self._plain(tokens[self._anchor :])
        if not last and grown.endswith(BROKEN) and len(tokens) - self._done < MOST_BROKEN_TOKENS:
            return ""
        self._anchor, self._done = self._done, len(tokens)
        return grown[len(known) :]

    def _plain(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _out(self, piece: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + piece
        ends = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            text, self._held = text[: min(ends)], ""
        elif last:
            self._held = ""
        else:
            keep = max((_overlap(text, stop) for stop in self.stops), default=0)
            self._held = text[len(text) - keep :]
            text = text[: len(text) - keep]
        if text:
            self._parts.append(text)
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` with which ``stop`` begins."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
