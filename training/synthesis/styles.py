"""How questions should sound: drawn from how people really ask here, or from a plain mix where too few have asked.

Only shapes are taken from the log (case, marks, length, kind of opening), never words: a shape says nothing about who
asked, and may go to a teacher.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from assistants.models import Assistant
from capture.models import Turn
from privacy.wordlists import words
from training.synthesis.shapes import Asked, head

ENOUGH = 50
LOOKED_AT = 2_000
_OPENING = re.compile(
    r"^(?:what|when|where|which|who|whose|why|how|can|could|do|does|did|is|are|was|will|would|should|must|may|has|have)\b",
    re.I,
)
_BARE = {"amount": "{x} price", "how long": "how long {x}", "where": "where {x}"}
"""Search words that still say what is asked for."""
_MAX_BARE = 4
_MONEY = frozenset(
    words("charge charges fee fees price prices cost costs rate rates payment instalment excess deposit")
)


@dataclass(frozen=True)
class Style:
    """``lower``: no capitals; ``unmarked``: no question mark; ``bare``: search words instead of a sentence; ``words``:
    about how many (0: as it comes)."""

    lower: bool = False
    unmarked: bool = False
    bare: bool = False
    words: int = 0

    @property
    def label(self) -> str:
        said = [name for name in ("lower", "unmarked", "bare") if getattr(self, name)]
        return " ".join(said) or "plain"

    @property
    def wish(self) -> str:
        """For the teacher, in words."""
        parts = ["as bare search words, no sentence" if self.bare else "as a person would type it"]
        parts += ["in lower case"] if self.lower else []
        parts += ["without a question mark"] if self.unmarked else []
        parts += [f"in about {self.words} words"] if self.words else []
        return ", ".join(parts)


PLAIN = Style()
MIXED = (PLAIN,) * 6 + (Style(lower=True), Style(lower=True, unmarked=True), Style(unmarked=True)) + (
    Style(lower=True, unmarked=True, bare=True),
)  # fmt: skip


def style_of(question: str) -> Style:
    """The shape of one real question."""
    text = question.strip()
    count = len(text.split())
    letters = [c for c in text if c.isalpha()]
    return Style(
        lower=bool(letters) and not any(c.isupper() for c in re.sub(r"\bI\b|\[[A-Z_0-9]+\]", "", text)),
        unmarked="?" not in text,
        bare=count <= 5 and not _OPENING.match(text),
        words=min(max(count, 3), 30),
    )


def styles_of(assistant: Assistant, wanted: str) -> list[Style]:
    """What to draw from; at least one."""
    if wanted == "plain":
        return [PLAIN]
    if wanted == "logged":
        newest = Turn.objects.of(assistant).order_by("-asked_at", "-pk").values_list("question", flat=True)
        shapes = [style_of(question) for question in newest[:LOOKED_AT] if question.strip()]
        if len(shapes) >= ENOUGH:
            return sorted(shapes, key=lambda s: (s.lower, s.unmarked, s.bare, s.words))
    return list(MIXED)


def in_style(question: str, style: Style, asked: Asked | None = None) -> str:
    """The question in that shape. It becomes bare only where the rule that made it says what is asked about."""
    frame = _BARE.get(asked.frame) if asked and style.bare else None
    if asked is not None and frame is not None:
        thing = re.sub(r"^(?:a|an|the|every|each|my|your) ", "", asked.subject)
        frame = frame if 2 <= len(thing.split()) <= _MAX_BARE else None
        frame = "{x}" if frame is not None and asked.frame == "amount" and head(thing) in _MONEY else frame
        question = frame.format(x=thing) if frame is not None else question
    if style.unmarked or frame is not None:
        question = question.rstrip("?")
    return question.lower() if style.lower else question


def draw(styles: list[Style], rng: random.Random) -> Style:
    return styles[rng.randrange(len(styles))]
