"""Where a text is cut for the name model: sentences, each of which is read once however often it comes back.

The model was trained on texts of some hundred characters, so a sentence read alone is read as well as in its passage.
What is masked in one sentence leaves the others as they are: they are not read again.
"""

from __future__ import annotations

import re

# A full stop counts behind four letters, and behind less with a capital after it: not in "J. Smith", "e.g. Anna" or
# behind what is written short before names. The marks behind it are bounded, so that a text of nothing but marks
# takes linear time.
_SHORT = r"(?<!\b(?i:mr|ms|dr|st|jr|sr|nr|no))(?<!\b(?i:mrs|mme|rev|sgt|str))(?<!\b(?i:prof|capt|dott))"
_CLOSING = r"[.!?\"'”’)\]]{0,3}"
_SENTENCE_END = re.compile(
    rf"(?:[!?…]|{_SHORT}(?:(?<=[^\W\d_]{{4}})\.|(?:(?<=[^\W_]{{2}})|(?<=\d))\.(?={_CLOSING}\s{{1,9}}[A-Z])))"
    rf"{_CLOSING}\s+|\n"
)
_MAY_END = re.compile(r"[!?….\n]")
"""What each of them begins with, so that nothing else of a text is looked at."""
_SHORTEST = 40
"""Shorter sentences stay together with the next: "Hi! I am Anna." """
_LINE_FROM = 240
"""Lines without an end of a sentence (forms, lists, logs) are cut from this length on; before it a label above a value
tells what the value is."""


def segments(text: str) -> list[tuple[int, int]]:
    """[start, end) of the stretches that are read by themselves; together they are the text, in order."""
    found: list[tuple[int, int]] = []
    start = read = 0
    for mark in _MAY_END.finditer(text):
        match = _SENTENCE_END.match(text, mark.start()) if mark.start() >= read else None
        if match is None:
            continue
        read = end = match.end()
        if end - start >= (_LINE_FROM if match.group() == "\n" else _SHORTEST):
            found.append((start, end))
            start = end
    if found and len(text) - start < _SHORTEST // 2:
        start = found.pop()[0]
    if start < len(text):
        found.append((start, len(text)))
    return found
