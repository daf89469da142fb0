"""Is the question in the language of its passage? Only a clear no counts: few words are guessed wrong as often as
right."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING

from generation.overlap import words

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

SURE = 0.95
FEW_WORDS = 6
_MOST = 2_000


def other_language(question: str, passage: str, vocabulary: Collection[str]) -> str:
    """The language of the question where it is clearly not the passage's; else empty. Words that the documents use
    speak for their language, whatever the detector says."""
    if (script := _script(question)) and (own := _script(passage)) and script != own:
        return script.casefold()
    asked = words(question)
    if len(asked) < FEW_WORDS or sum(word in vocabulary for word in asked) >= len(asked) / 2:
        return ""
    code, sure = _identifier().classify(question[:_MOST])
    expected, _ = _identifier().classify(passage[:_MOST])
    return str(code) if code != expected and sure >= SURE else ""


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # some 100 MB: only where questions are written

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _script(text: str) -> str:
    """Of most letters: LATIN, CYRILLIC, CJK …"""
    counts: dict[str, int] = {}
    for char in text[:_MOST]:
        if char.isalpha():
            script = unicodedata.name(char, "OTHER").split(maxsplit=1)[0]
            counts[script] = counts.get(script, 0) + 1
    return max(counts, key=lambda s: counts[s]) if counts else ""
