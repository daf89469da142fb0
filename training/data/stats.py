"""What a version's page draws, counted once while it is frozen: a hundred thousand rows are not counted per visit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from training.data.candidates import Candidate

WORD_STEPS = (10, 20, 40, 80, 160, 320, 640)
"""Upper ends of the bars of a length chart, in words; the last bar is what is over."""
MOST_LISTED = 20


@dataclass
class Stats:
    """``add`` each row as it is frozen, then store `as_dict`."""

    rows: int = 0
    prompts: Counter[int] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    passages: Counter[int] = field(default_factory=Counter)
    history: Counter[bool] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    pairs: int = 0
    groups: set[str] = field(default_factory=set)

    def add(self, row: Candidate, split: str, *, prompt_words: int) -> None:
        self.rows += 1
        self.prompts[bar_of(prompt_words)] += 1
        self.answers[bar_of(len((row.response or row.rejected).split()))] += 1
        self.passages[len(row.contexts)] += 1
        self.history[bool(row.history)] += 1
        self.documents.update(path for path in row.answered_from if path)
        self.splits[split] += 1
        self.pairs += bool(row.sentences and row.rejected)
        self.groups.add(row.group)

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "prompt_words": [self.prompts[i] for i in range(len(WORD_STEPS) + 1)],
            "answer_words": [self.answers[i] for i in range(len(WORD_STEPS) + 1)],
            "passages": [[n, self.passages[n]] for n in sorted(self.passages)],
            "with_history": self.history[True],
            "documents": self.documents.most_common(MOST_LISTED),
            "documents_cited": len(self.documents),
            "splits": dict(self.splits),
            "pairs": self.pairs,
            "groups": len(self.groups),
        }


def bar_of(words: int) -> int:
    return next((i for i, end in enumerate(WORD_STEPS) if words <= end), len(WORD_STEPS))


def bar_labels() -> list[str]:
    starts = (0, *(end + 1 for end in WORD_STEPS))
    return [f"{start}–{end}" for start, end in zip(starts, WORD_STEPS, strict=False)] + [f"over {WORD_STEPS[-1]}"]
