"""Vocabulary of the generated documents: one block per domain in `lexicon.txt` and `lexicon_held_out.txt`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

_HERE = Path(__file__).parent
TRAIN_LEXICON = _HERE / "lexicon.txt"
HELD_OUT_LEXICON = _HERE / "lexicon_held_out.txt"


@dataclass(frozen=True)
class Domain:
    """The words of one kind of document."""

    name: str
    titles: tuple[str, ...]
    things: tuple[str, ...]
    properties: tuple[tuple[str, str], ...]
    """(name, kind of value)."""
    actions: tuple[str, ...]
    people: tuple[str, ...]
    events: tuple[str, ...]
    consequences: tuple[str, ...]
    places: tuple[str, ...]
    topics: tuple[str, ...]


@dataclass
class _Draft:
    name: str
    titles: list[str]
    lists: dict[str, list[str]] = field(default_factory=dict)


def read_lexicon(path: Path) -> list[Domain]:
    """Domains of a vocabulary file.

    Raises:
        ValueError: a block lacks one of its lists.
    """
    drafts: list[_Draft] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("@"):
            name, titles = line[1:].split(":", 1)
            drafts.append(_Draft(name.strip(), _items(titles)))
        elif line and not line.startswith("#"):
            letter, items = line.split(":", 1)
            drafts[-1].lists[letter] = _items(items)
    return [_domain(draft) for draft in drafts]


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(";") if item.strip()]


def _domain(draft: _Draft) -> Domain:
    missing = [letter for letter in "eadpxclt" if not draft.lists.get(letter)]
    if missing:
        raise ValueError(f"vocabulary of {draft.name!r} lacks {missing}")
    pairs = [tuple(item.split("=")) for item in draft.lists["a"]]
    return Domain(
        name=draft.name,
        titles=tuple(draft.titles),
        things=tuple(draft.lists["e"]),
        properties=tuple((name, kind) for name, kind in pairs),
        actions=tuple(draft.lists["d"]),
        people=tuple(draft.lists["p"]),
        events=tuple(draft.lists["x"]),
        consequences=tuple(draft.lists["c"]),
        places=tuple(draft.lists["l"]),
        topics=tuple(draft.lists["t"]),
    )
