"""Says how well the name model alone does: `python -m training.name_model.evaluate [--folder F] [--held-out FILE]`.

A labelled stretch is *masked* when at least half of its characters are covered by hits of any type, and *found* when
they are covered by hits of its own type. A hit is right when it touches a labelled stretch of its type.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from privacy.name_model.decode import ModelHit
from privacy.name_model.finder import NameModel
from privacy.name_model.labels import TYPES
from privacy.name_model.weights import FOLDER
from training.name_model import development
from training.name_model.development import Labelled


def figures(model: NameModel, texts: Sequence[Labelled], thresholds: dict[str, float]) -> dict[str, Any]:
    """Per type: labelled, masked, found, precision; over all: masked, texts that leak, F2, characters hit in vain."""
    readings = model.read([item.text for item in texts])
    count = {kind: [0, 0, 0, 0, 0] for kind in TYPES}
    leaking = vain = chars = 0
    for item, reading in zip(texts, readings, strict=True):
        hits = [hit for hit in reading.hits if hit.score >= thresholds[hit.entity_type]]
        leaks = False
        for start, end, kind in item.spans:
            if kind not in count:
                continue
            masked = 2 * _covered(hits, start, end) >= end - start
            count[kind][0] += 1
            count[kind][1] += masked
            count[kind][2] += 2 * _covered([hit for hit in hits if hit.entity_type == kind], start, end) >= end - start
            leaks = leaks or not masked
        leaking += leaks
        chars += len(item.text)
        for hit in hits:
            touched = [kind for start, end, kind in item.spans if start < hit.end and hit.start < end]
            count[hit.entity_type][3] += 1
            count[hit.entity_type][4] += hit.entity_type in touched or "IGNORE" in touched
            vain += 0 if touched else hit.end - hit.start
    total = [sum(values) for values in zip(*count.values(), strict=True)]
    recall, precision = total[1] / max(1, total[0]), total[4] / max(1, total[3])
    return {
        **{
            kind: {
                "labelled": n,
                "masked": round(masked / max(1, n), 3),
                "found": round(found / max(1, n), 3),
                "precision": round(right / max(1, made), 3),
            }
            for kind, (n, masked, found, made, right) in count.items()
        },
        "masked": round(recall, 4),
        "precision": round(precision, 4),
        "F2": round(5 * precision * recall / max(1e-9, 4 * precision + recall), 4),
        "texts_leaking": round(leaking / max(1, len(texts)), 4),
        "vain_chars": round(vain / max(1, chars), 5),
    }


def _covered(hits: Sequence[ModelHit], start: int, end: int) -> int:
    return sum(max(0, min(hit.end, end) - max(hit.start, start)) for hit in hits)


def main() -> None:
    """Prints one line of JSON per set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--held-out", type=Path)
    parser.add_argument("--threshold", type=float, help="of the score, for every type; default: the policy's")
    arguments = parser.parse_args()
    from privacy.policy import Policy

    chosen = arguments.threshold
    thresholds = {kind: Policy().threshold(kind) if chosen is None else chosen for kind in TYPES}
    model = NameModel(arguments.folder)
    sets = {"chats": development.chats(), "technical": development.technical()}
    if arguments.held_out:
        sets["held out"] = development.held_out(arguments.held_out)
    for name, texts in sets.items():
        print(json.dumps({name: figures(model, texts, thresholds)}))


if __name__ == "__main__":
    main()
