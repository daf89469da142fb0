"""One uncertain mask as its page shows it: all texts of its turn, what was masked in them as chips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assistants.chips import Piece, cut, why
from capture.models import UncertainMask
from capture.stored_texts import Place, StoredTurn, stored_turns

MAX_PLACES = 300
"""Shown of one turn: metadata can be long."""


@dataclass(frozen=True)
class TextView:
    """``label``: what it is, in words. ``focus``: the mask in question stands here."""

    name: str
    label: str
    pieces: Sequence[Piece]
    focus: bool


@dataclass(frozen=True)
class ReviewPage:
    mask: UncertainMask
    texts: Sequence[TextView]
    left_out: int
    why: str
    others: int


def page_of(mask: UncertainMask) -> ReviewPage:
    """A fixed number of queries."""
    turn = stored_turns(mask.conversation).get(pk=mask.turn_id)
    masks = UncertainMask.objects.open().filter(conversation=mask.conversation_id)
    uncertain = dict.fromkeys(masks.values_list("placeholder", flat=True), True)
    by_field: dict[tuple[str, str], Mapping[str, Any]] = {}
    anywhere: dict[str, Mapping[str, Any]] = {}
    for entry in turn.pii:
        place = str(entry.get("placeholder", ""))
        found = {**entry, "uncertain": place in uncertain}
        by_field.setdefault((str(entry.get("field", "")), place), found)
        anywhere.setdefault(place, found)
    for place in uncertain:
        anywhere.setdefault(place, {"uncertain": True})
    places = StoredTurn(turn).places
    texts = []
    for place_ in places[:MAX_PLACES]:
        own = {placeholder: found for (name, placeholder), found in by_field.items() if name == place_.name}
        pieces = cut(place_.text, {**anywhere, **own})
        texts.append(TextView(place_.name, label_of(place_), pieces, mask.placeholder in place_.text))
    said = {"recognizer": mask.recognizer, "score": mask.score, "context_word": mask.context_word}
    return ReviewPage(
        mask=mask,
        texts=texts,
        left_out=max(0, len(places) - MAX_PLACES),
        why=why(said),
        others=max(0, len(uncertain) - 1),
    )


_LABELS = {
    "question": "Question",
    "response": "Answer",
    "completion": "Answer as the model wrote it",
    "feedback": "Feedback",
    "resolutions": "Response that counts",
    "machine_labels": "Explanation by a program",
    "live_answers": "What the live model answered for annotators",
    "missed": "Passage that an annotator added",
}


def label_of(place: Place) -> str:
    """In words: passage 2, title; earlier message 1; note of an annotator."""
    first, _, rest = place.name.partition(".")
    if first == "contexts":
        rank, _, part = rest.partition(".")
        return f"Passage {rank}" if part == "text" else f"Passage {rank}, {part.replace('.', ' ')}"
    if first == "history":
        return f"Earlier message {int(rest) + 1}"
    if first == "annotations":
        return "Correction by an annotator" if rest.endswith("correction") else "Note of an annotator"
    if first == "tags":
        return "Tag"
    return _LABELS.get(first, place.name.replace(".", " ").capitalize())
