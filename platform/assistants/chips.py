"""A scrubbed text cut into what stands there and what was masked, for pages that show one as chips in the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from privacy.findings import PLACEHOLDER

_GROUPS = {
    "PERSON": "person",
    "USERNAME": "person",
    "DATE_OF_BIRTH": "person",
    "EMAIL": "contact",
    "PHONE": "contact",
    "URL": "contact",
    "ADDRESS": "place",
    "LOCATION": "place",
    "SECRET": "secret",
}


@dataclass(frozen=True)
class Piece:
    """Plain text (``kind`` empty), or one placeholder with who said so."""

    text: str
    kind: str = ""
    group: str = ""
    why: str = ""
    uncertain: bool = False


def cut(text: str, findings: Mapping[str, Mapping[str, Any]]) -> list[Piece]:
    """``findings``: {placeholder: {recognizer, score, context_word, uncertain}}; what is not in it gets no reason."""
    pieces: list[Piece] = []
    position = 0
    for match in PLACEHOLDER.finditer(text):
        if match.start() > position:
            pieces.append(Piece(text[position : match.start()]))
        found = findings.get(match.group(), {})
        kind = match.group(1)
        pieces.append(
            Piece(
                match.group(),
                kind=kind,
                group=_GROUPS.get(kind, "number"),
                why=why(found),
                uncertain=bool(found.get("uncertain")),
            )
        )
        position = match.end()
    if position < len(text):
        pieces.append(Piece(text[position:]))
    return pieces


def why(found: Mapping[str, Any]) -> str:
    """Who said so, in words: recogniser and rule, score, context word."""
    if not found:
        return "It came with the text, or an earlier turn."
    recognizer, _, rule = str(found.get("recognizer", "")).partition(":")
    parts = [f"{recognizer} ({rule.lower()})" if rule else recognizer]
    if found.get("score") is not None:
        parts.append(f"score {float(found['score']):.2f}")
    if found.get("context_word"):
        parts.append(f"near “{found['context_word']}”")
    return ", ".join(parts)
