"""Checks reading files: ``python -m training.base_model.reading FOLDER`` lists what is wrong, and counts."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from training.base_model.reading.format import problems, read_file


def main(argv: Sequence[str]) -> int:
    if len(argv) != 1 or not (folder := Path(argv[0])).is_dir():
        print("usage: python -m training.base_model.reading FOLDER", file=sys.stderr)
        return 2
    counts: Counter[str] = Counter()
    wrong = 0
    for path in sorted(folder.glob("*.txt")):
        found = problems(path)
        wrong += len(found)
        print("\n".join(found) or f"{path.name}: fine")
        if found:
            continue
        for document in read_file(path).documents:
            counts["documents"] += 1
            counts["sentences"] += len(document.sentences)
            counts["near-misses"] += len(document.near_misses)
            counts["joined"] += len(document.joined)
            for sentence in document.sentences:
                counts.update(f"questions {asked.kind}" for asked in sentence.asked)
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
