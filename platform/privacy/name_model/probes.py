"""Sentences in which a name model must find what is there, and nothing else, before it is trusted with any.

What the model computes depends on processor and library, and one that errs would be seen nowhere: everything it misses
is stored. `config.json` holds what it said about one sentence where it was made; these are of several kinds, together
longer than a batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from privacy.documents import FILLER

if TYPE_CHECKING:
    from privacy.name_model.decode import Reading

_FILLING = "The engineer looked at the boiler and the meter and wrote down what he saw. "
_MANY = 12
PROBES: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "Yesterday Zbrvenka Tolquist phoned from Bad Oeynhausen about the boiler.",
        frozenset({"Zbrvenka Tolquist", "Bad Oeynhausen"}),
    ),
    ("hi, i am ngozi okafor and i moved to leeds in may", frozenset({"ngozi okafor", "leeds"})),
    ("PLEASE CALL MR TOMASZ WIELGOSZ BACK BEFORE NOON", frozenset({"TOMASZ WIELGOSZ"})),
    (
        "The parcel went to 12 Rosemount Terrace, Perth PH1 5AA, not to me.",
        frozenset({"12 Rosemount Terrace, Perth PH1 5AA"}),
    ),
    (
        "Name: Aurélie Dubois-Lefèvre\nTown: Saint-Étienne\nThe rest of the form is empty.",
        frozenset({"Aurélie Dubois-Lefèvre", "Saint-Étienne"}),
    ),
    (f"Dear {FILLER}, your letter to Ingrid Halvorsen came back.", frozenset({"Ingrid Halvorsen"})),
    ("The function returns None when the file cannot be opened.", frozenset()),
    ("how do i reset the meter, and what does it cost in 2024?", frozenset()),
    # Of several windows that overlap.
    (f"{_FILLING * _MANY}Then he rang Siobhan Kerrigan about it.", frozenset({"Siobhan Kerrigan"})),
)


def failed(readings: Iterable[Reading]) -> int:
    """In how many of the PROBES something else was found; `readings` are of their texts, in order."""
    return sum(
        {text[hit.start : hit.end] for hit in reading.hits} != expected
        for (text, expected), reading in zip(PROBES, readings, strict=True)
    )
