"""Which language a turn is in: what its frontend said, else what its words look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf.locale import LANG_INFO

_SAID = ("language", "lang", "locale")
_MOST = 2_000
"""Characters that are looked at: more do not make it surer."""

# What the detector knows and Django has a name for.
_CODES = (
    "af ar az be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gl he hi hr hu hy id is it ja ka kk km kn ko ky "
    "lb lt lv mk ml mn mr ms ne nl no pa pl pt ro ru sk sl sq sr sv sw ta te th tr uk ur vi zh"
)
_NAMES = {"no": "Norwegian", "zh": "Chinese"}

LANGUAGES: tuple[tuple[str, str], ...] = tuple(
    sorted(
        (
            (code, _NAMES.get(code) or str(LANG_INFO[code]["name"]))
            for code in _CODES.split()
            if code in LANG_INFO or code in _NAMES
        ),
        key=lambda pair: pair[1],
    )
)


def language_of(*, metadata: Mapping[str, Any], question: str, response: str) -> str:
    """Two letters, such as ``en``; empty where there is nothing to go by.

    The metadata of a turn (`language`, `lang` or `locale`) come first. Else question and answer are read together: a
    question of two words alone is guessed wrong as often as right.
    """
    for name in _SAID:
        said = metadata.get(name)
        if isinstance(said, str) and (code := said.strip()[:2].casefold()).isalpha():
            return {"nb": "no", "nn": "no"}.get(code, code)
    text = f"{question}\n{response}"[:_MOST]
    if not any(letter.isalpha() for letter in text):
        return ""
    import py3langid  # 0.2 s and some 100 MB, so only where somebody filters by language

    code, _ = py3langid.classify(text)
    return {"nb": "no", "nn": "no"}.get(str(code), str(code))
