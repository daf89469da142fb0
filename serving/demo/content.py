"""The demo content as typed rows: an invented energy supplier, its documents, conversations, labels and benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
DOCUMENTS = ROOT / "documents"
SLUG = "tarnwick"
NAME = "Tarnwick Energy"
DECLINE = "Our help pages do not answer that."
HANDOFF = "Please call our care team on 1616, day or night."
# The house's own addresses, products and places: everybody may read them, and an answer must be allowed to name them.
PUBLIC = [
    "0300 440 220", "Tarnwick", "Tarnwick Energy", "Ardgrid", "Valepipe", "Energy Fairness Board", "Consumer Arbiter",
    "Ember", "Ember Fix", "Ember Fix 12", "Ember Fix 24", "Drift", "Owl", "Volt", "Acorn", "Sunback", "HearthGuard",
    "HearthGuard Basic", "HearthGuard Plus", "Hearthlight", "Lantern", "Calder", "Calder 22", "Wren", "Skua", "Tern",
    "Kestrel", "Blue Book", "Green Book", "Ardmere", "Northmark", "the Vale", "Saltcoast", "Brennoch",
]  # fmt: skip
ANNOTATORS = {"ines": "Ines Achebe", "tom": "Tom Varga", "ruth": "Ruth Lindgren"}


@dataclass(frozen=True)
class Label:
    annotator: str
    verdict: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class DemoTurn:
    """One authored turn. ``gold``: (path, sentence) pairs of the ideal answer; ``logged`` None: it was given."""

    raw: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.raw["id"])

    @property
    def conversation(self) -> str:
        return str(self.raw["conversation"])

    @property
    def question(self) -> str:
        return str(self.raw["question"])

    @property
    def kind(self) -> str:
        return str(self.raw["kind"])

    @property
    def bad_contexts(self) -> bool:
        """The old chatbot's retriever missed what answers."""
        return bool(self.raw.get("bad_contexts"))

    @cached_property
    def gold(self) -> tuple[tuple[str, str], ...]:
        return tuple((g["path"], g["sentence"]) for g in self.raw.get("gold", ()))

    @property
    def logged(self) -> dict[str, Any] | None:
        return self.raw.get("logged") or None

    @property
    def user_name(self) -> str:
        return str((self.raw.get("user") or {}).get("name", ""))

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        out = []
        for annotator, said in (self.raw.get("labels") or {}).items():
            verdict, _, reasons = said.partition(" ")
            out.append(Label(annotator, verdict, tuple(r.strip() for r in reasons.split(",") if r.strip())))
        return tuple(out)


def turns() -> list[DemoTurn]:
    """All turns; those of one conversation follow one another in order."""
    return [DemoTurn(row) for path in sorted((ROOT / "conversations").glob("*.jsonl")) for row in _rows(path)]


def benchmark_lines(*, development: bool = False) -> list[str]:
    """The benchmark with the reference answers filled in where they are the gold sentences themselves.

    ``development``: the first author's questions, on which recipes are tuned. The others are by another author, and
    nothing is chosen by them.
    """
    lines = []
    for row in _rows(ROOT / ("benchmark_development.jsonl" if development else "benchmark.jsonl")):
        row["answers"] = row.get("answers") or ([" ".join(g["sentence"] for g in row["gold"])] if row["gold"] else [])
        lines.append(json.dumps(row, ensure_ascii=False))
    return lines


def glossary() -> dict[str, str]:
    """{what customers say: what the documents say}"""
    found: dict[str, str] = json.loads((ROOT / "glossary.json").read_text(encoding="utf-8"))
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)
