"""A passage that says otherwise: one number or name of the gold is changed wherever the passages hold it, and in what
counts as a right answer."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from generation.overlap import numbers
from generation.prompts import split_sentences

_END = r"(?![.,:]?\d|-|(?!(?:p|kg|km|kWh?|GB|MB|cm|mm)\b)[A-Za-z_])"
"""Behind a number: no more of it, and no letters but those of a unit, since 1st would become 4st, and 8am 14am."""
_NUMBER = re.compile(rf"(?<![\w.,:-])(?:£|\$|€)?(\d+(?:[.,:]\d+)*){_END}")
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{3,}\b")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_NAMES = ("Tarnwick", "Oslebury", "Merriden", "Calvert", "Brackley", "Hollin", "Penrose", "Dunmore", "Averill", "Selby")
_TRIES = 40


def edited(
    *,
    frozen: dict[str, Any],
    gold: Sequence[str],
    answers: Sequence[str],
    must_contain: Sequence[Sequence[str]],
    must_not_contain: Sequence[str],
    draw: random.Random,
) -> dict[str, Any] | None:
    """The frozen context with one value changed, and the gold that belongs to it (``answers``, ``must_contain``,
    ``must_not_contain``, ``edit``); None where nothing can be changed without breaking a sentence.

    Only what stands in the answer *and* in a gold sentence is changed: else the question would ask for something else.
    """
    texts = [p["text"] for p in frozen["passages"]] + [p["title"] for p in frozen["passages"]]
    taken = set().union(*(numbers(text) for text in [*texts, *answers, *must_not_contain]))
    for old in _candidates(answers, must_contain, gold):
        new = _other(old, taken, texts, draw)
        if new is None:
            continue
        passages = [{**p, "title": _replaced(p["title"], old, new), "text": _replaced(p["text"], old, new)}
                    for p in frozen["passages"]]  # fmt: skip
        if not _same_sentences(frozen["passages"], passages):
            continue
        groups = [_group(group, old, new) for group in must_contain]
        right = [_replaced(answer, old, new) for answer in answers if _holds(answer, old)]
        if must_contain and groups == [list(group) for group in must_contain]:
            continue  # what counts as right would not notice the change
        if not right or not all(groups):
            continue
        return {
            **frozen,
            "passages": passages,
            "answers": right,
            "must_contain": groups,
            "must_not_contain": [*(phrase for phrase in must_not_contain if not _holds(phrase, new)), old],
            "edit": {"from": old, "to": new},
        }
    return None


def _candidates(answers: Sequence[str], must_contain: Sequence[Sequence[str]], gold: Sequence[str]) -> Iterator[str]:
    """Numbers first, then days, months and names; of the strings that must be in the answer before its other words."""
    asked = [alternative for group in must_contain for alternative in group]
    seen: set[str] = set()
    for pattern in (_NUMBER, re.compile(rf"\b(?:{'|'.join((*_DAYS, *_MONTHS))})\b"), _NAME):
        for text in (*asked, *answers):
            for match in pattern.finditer(text):
                value = match.group(match.lastindex or 0)
                if value not in seen and any(_holds(sentence, value) for sentence in gold):
                    seen.add(value)
                    yield value


def _other(old: str, taken: set[str], texts: Sequence[str], draw: random.Random) -> str | None:
    if old[0].isdigit():
        for _ in range(_TRIES):
            new = _other_number(old, draw)
            if new.replace(",", "") not in taken and new != old:
                return new
        return None
    among = _DAYS if old in _DAYS else _MONTHS if old in _MONTHS else _NAMES
    free = [name for name in among if name != old and not any(_holds(text, name) for text in texts)]
    return draw.choice(free) if free else None


def _other_number(old: str, draw: random.Random) -> str:
    """Of the same form and like size: 35 → 48, 1,250 → 1,730, 27.4 → 31.9, 14:30 → 11:30, 2026 → 2029."""
    if re.fullmatch(r"\d{1,2}:\d{2}", old):
        return f"{draw.randint(1, 12):0{len(old) - 3}d}{old[-3:]}"
    if re.fullmatch(r"(19|20)\d\d", old):
        return str(int(old) + draw.randint(2, 9))
    plain = old.replace(",", "") if re.fullmatch(r"\d{1,3}(,\d{3})+", old) else old
    whole, point, rest = plain.partition(".")
    if not whole.isdigit() or (rest and not rest.isdigit()):
        return old
    value = int(whole)
    new = draw.randint(max(2, int(value * 1.15) + 1), max(9, int(value * 1.8) + 3))
    text = f"{new:,}" if "," in old else str(new).zfill(len(whole) if whole.startswith("0") else 1)
    return text + point + "".join(str(draw.randint(1, 9)) for _ in rest)


def _pattern(value: str) -> re.Pattern[str]:
    if value[0].isdigit():
        return re.compile(rf"(?<![\w.,:-]){re.escape(value)}{_END}")
    return re.compile(rf"\b{re.escape(value)}\b")


def _holds(text: str, value: str) -> bool:
    return _pattern(value).search(text) is not None


def _replaced(text: str, old: str, new: str) -> str:
    return _pattern(old).sub(new, text)


def _group(group: Sequence[str], old: str, new: str) -> list[str]:
    """Alternatives that name the value are changed; where one does, those that word it otherwise go."""
    changed = [_replaced(alternative, old, new) for alternative in group if _holds(alternative, old)]
    return changed or list(group)


def _same_sentences(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> bool:
    return all(
        len(split_sentences(a["text"])) == len(split_sentences(b["text"])) for a, b in zip(before, after, strict=True)
    )
