"""Measure the scrubber on labelled texts: `python -m privacy.measure FILE [--prose FILE]`.

FILE is JSON or JSON.gz in presidio-research's form: a list of {full_text, spans: [{entity_type,
start_position, end_position}]}. A span counts as masked when at least half of its characters are
(by any type); a text leaks when one of its spans is not masked. Precision is the share of masks that touch a labelled
span of any type; F2 combines it with what was masked. Over-scrubbing is the share of
characters masked in prose without personal data, by default the documentation strings of modules
of the standard library.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import inspect
import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from privacy.findings import MaskedText
from privacy.policy import Policy
from privacy.scrubber import Scrubber
from privacy.wordlists import words

# Labels of presidio-research that the default policy sets out to mask.
PROMISED = frozenset(
    words(
        "PERSON STREET_ADDRESS ZIP_CODE GPE CREDIT_CARD PHONE_NUMBER EMAIL_ADDRESS IBAN_CODE US_SSN"
        " IP_ADDRESS US_DRIVER_LICENSE"
    )
)
# The labels of the figures that the project compares itself with.
COMPARED = (PROMISED - {"US_DRIVER_LICENSE"}) | {"ORGANIZATION", "DATE_TIME", "DOMAIN_NAME"}
_PROSE_MODULES = words(
    "argparse ast asyncio calendar collections concurrent.futures configparser csv ctypes datetime"
    " decimal difflib doctest email enum fractions functools heapq html inspect io ipaddress"
    " itertools json logging mailbox multiprocessing optparse os pathlib pickle pydoc random re"
    " shutil smtplib socket sqlite3 ssl statistics string subprocess tarfile textwrap threading"
    " tkinter turtle types typing unittest urllib.parse uuid warnings xml.dom zipfile"
)


@dataclass
class Scores:
    """Counts over labelled spans of the chosen labels."""

    spans: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    texts: int = 0
    leaking_texts: int = 0
    chars: int = 0
    leaked_chars: int = 0

    def add(self, labelled: Iterable[tuple[str, int, int]], covered: Sequence[bool]) -> None:
        """Count one text; `covered` says for each of its characters whether it was masked."""
        leaks = False
        for label, start, end in labelled:
            hidden = sum(covered[start:end])
            self.spans[label] += 1
            self.chars += end - start
            self.leaked_chars += end - start - hidden
            if 2 * hidden >= end - start:
                self.masked[label] += 1
            else:
                leaks = True
        self.texts += 1
        self.leaking_texts += leaks

    def summary(self) -> dict[str, float]:
        """Masked recall, share of leaked characters, share of texts that leak."""
        return {
            "spans": self.spans.total(),
            "masked": round(self.masked.total() / max(1, self.spans.total()), 4),
            "leaked_chars": round(self.leaked_chars / max(1, self.chars), 4),
            "texts_leaking": round(self.leaking_texts / max(1, self.texts), 4),
        }


def covered_characters(masked: MaskedText, size: int) -> list[bool]:
    """For each character of the original text whether a placeholder took its place."""
    covered = [False] * size
    for span in masked.spans:
        for position in range(span.original_start, span.original_end):
            covered[position] = True
    return covered


def measure(records: Sequence[dict[str, Any]], scrubber: Scrubber) -> dict[str, Any]:
    """Scores of the promised and of the compared labels, precision, F2, and characters per second."""
    scores = {"promised": Scores(), "compared": Scores()}
    labels = {"promised": PROMISED, "compared": COMPARED}
    false_chars = chars = right = made = 0
    started = time.perf_counter()
    results = [scrubber.scrub_text(record["full_text"]) for record in records]
    seconds = time.perf_counter() - started
    for record, masked in zip(records, results, strict=True):
        size = len(record["full_text"])
        covered = covered_characters(masked, size)
        spans = [(span["entity_type"], span["start_position"], span["end_position"]) for span in record["spans"]]
        for name, score in scores.items():
            score.add([span for span in spans if span[0] in labels[name]], covered)
        inside = {p for _, start, end in spans for p in range(start, end)}
        made += len(masked.spans)
        right += sum(not inside.isdisjoint(range(m.original_start, m.original_end)) for m in masked.spans)
        false_chars += sum(hit for p, hit in enumerate(covered) if p not in inside)
        chars += size
    recall = {
        label: round(scores["promised"].masked[label] / count, 3)
        for label, count in scores["promised"].spans.most_common()
    }
    precision, hidden = right / max(1, made), scores["promised"].summary()["masked"]
    return {
        "precision": round(precision, 4),
        "F2": round(5 * precision * hidden / max(1e-9, 4 * precision + hidden), 4),
        "promised": scores["promised"].summary(),
        "compared": scores["compared"].summary(),
        "recall": recall,
        "false_chars": round(false_chars / max(1, chars), 4),
        "chars_per_second": round(chars / seconds),
    }


def standard_library_prose() -> list[str]:
    """Documentation strings that contain no user's personal data."""
    texts = []
    for name in _PROSE_MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:  # tkinter is optional in many installations
            continue
        members = [module, *(value for _, value in inspect.getmembers(module, callable))]
        texts += [text for text in map(inspect.getdoc, members) if text and len(text) > 80]
    return sorted(set(texts))


def over_scrub(texts: Sequence[str], scrubber: Scrubber) -> dict[str, Any]:
    """Share of characters masked, and what was masked most, by type."""
    types: Counter[str] = Counter()
    examples: Counter[str] = Counter()
    chars = masked_chars = 0
    for text in texts:
        chars += len(text)
        for span in scrubber.scrub_text(text).spans:
            masked_chars += span.original_end - span.original_start
            types[span.entity_type] += 1
            examples[text[span.original_start : span.original_end]] += 1
    return {
        "chars": chars,
        "share": round(masked_chars / max(1, chars), 5),
        "types": dict(types.most_common()),
        "most": [value for value, _ in examples.most_common(25)],
    }


def _read(path: Path) -> Any:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return json.load(file)


def main() -> None:
    """Print the figures and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("--prose", type=Path, help="text file to measure over-scrubbing on")
    arguments = parser.parse_args()
    scrubber = Scrubber(Policy())
    scrubber.scrub_text("load the engine before the clock starts")
    figures = measure(_read(arguments.file), scrubber)
    prose = arguments.prose.read_text(encoding="utf-8").split("\n\n") if arguments.prose else standard_library_prose()
    figures["over_scrub"] = over_scrub(prose, scrubber)
    for label, recall in figures["recall"].items():
        print(f"{label:20} {recall:6.3f}")  # noqa: T201
    for name in ("promised", "compared"):
        print(f"{name:10} " + "  ".join(f"{k} {v}" for k, v in figures[name].items()))  # noqa: T201
    print(f"precision {figures['precision']}  F2 {figures['F2']}  {figures['chars_per_second']} characters/s")  # noqa: T201
    print(f"over-scrub {figures['over_scrub']['share']:.3%} of prose: {figures['over_scrub']['types']}")  # noqa: T201
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    main()
