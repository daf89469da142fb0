"""Chat turns for the benchmarks of the scrubber: a question, three passages and an answer, with or without digits.

Sentences come from the demo's documents; what is personal is drawn from number ranges that belong to nobody.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "serving" / "demo"
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_DIGIT = re.compile(r"\d")
PASSAGE_CHARS = 800
ANSWER_CHARS = 400

Kind = Literal["digit-rich", "digit-free"]

_RICH_QUESTIONS = (
    "my number is {phone}, please call before {hour}pm about invoice {ref}",
    "I paid £{amount} on {date} with card {card} and it still says unpaid",
    "can you send it to {mail}? my account is {account} and the meter reads {meter}",
    "refund to {iban} please, case {ref} from {date}",
    "moved to {house} Tarn Street, LS{small} {small}AB on {date}, ring {phone}",
    "what is the fee after {small} months on the {year} plan, I was told £{amount}",
)
_FREE_QUESTIONS = (
    "my name is Ngozi Kral and the boiler is loud again",
    "can you send it to ngozi.kral@example.org please",
    "hi, this is Anna, what happens when I move out early",
    "the engineer called Tomasz never came, who do I tell",
)
_RICH_LINES = (
    "Call {phone} between {hour}am and {hour}.30pm.",
    "Invoice {ref} of {date} came to £{amount} for {meter} kWh.",
    "Version {small}.{small}.{hour} of the tariff sheet replaced that of {year}.",
    "Write to help{small}@example.org or see https://example.org/tariffs/{year}?page={small}.",
)


@dataclass(frozen=True)
class ChatTurn:
    """One turn as the scrubber gets it."""

    question: str
    passages: tuple[str, ...]
    answer: str

    @property
    def texts(self) -> list[str]:
        """All texts in reading order."""
        return [self.question, *self.passages, self.answer]


class ChatMix:
    """A seeded supply of turns of one kind: endless, or with ``once`` until every sentence and question was used.

    ``half``: of the even or of the odd sentences and questions alone, so that two mixes have none in common.
    """

    def __init__(self, kind: Kind, seed: int = 1, *, half: int | None = None, once: bool = False) -> None:
        self.kind = kind
        self._random = random.Random(f"{kind}-{seed}")
        self._once = once
        plain, numbered = _sentences()
        sentences = plain if kind == "digit-free" else plain + numbered
        asked = [q for q in _questions() if kind == "digit-rich" or not _DIGIT.search(q)]
        self._sentences = sentences if half is None else sorted(set(sentences))[half::2]
        self._questions = asked if half is None else sorted(set(asked))[half::2]

    def turn(self, passages: tuple[str, ...] | None = None) -> ChatTurn:
        """A new turn; with `passages` those are used again."""
        return ChatTurn(self.question(), passages or tuple(self.passage() for _ in range(3)), self._prose(ANSWER_CHARS))

    def question(self) -> str:
        """A question of a user; half of them carry something personal."""
        if self._random.random() < 0.5:
            return self._drawn(self._questions)
        templates = _RICH_QUESTIONS if self.kind == "digit-rich" else _FREE_QUESTIONS
        return self._filled(self._random.choice(templates)) + " " + self._drawn(self._questions)

    def passage(self) -> str:
        """A passage of some 800 characters."""
        return self._prose(PASSAGE_CHARS)

    def _prose(self, size: int) -> str:
        parts: list[str] = []
        while sum(map(len, parts)) < size:
            if self.kind == "digit-rich" and self._random.random() < 0.2:
                parts.append(self._filled(self._random.choice(_RICH_LINES)))
            parts.append(self._drawn(self._sentences))
        return " ".join(parts)

    def _drawn(self, texts: list[str]) -> str:
        """Raises ValueError when every text was used up."""
        return texts.pop(self._random.randrange(len(texts))) if self._once else self._random.choice(texts)

    def _filled(self, template: str) -> str:
        pick = self._random
        return template.format(
            phone=pick.choice(
                ("020 7946 0{:03d}", "07700 900{:03d}", "+44 20 7946 0{:03d}", "(212) 555-0{:03d}")
            ).format(pick.randrange(1000)),
            hour=pick.randint(1, 12),
            ref=f"{pick.choice('ABKT')}{pick.randrange(10**6):06d}",
            amount=f"{pick.randrange(10, 900)}.{pick.randrange(100):02d}",
            date=f"{pick.randint(1, 28)}/{pick.randint(1, 12)}/{pick.randint(2019, 2026)}",
            card=pick.choice(("4111 1111 1111 1111", "5555555555554444", "3782-822463-10005")),
            mail=f"user{pick.randrange(10**5)}@example.org",
            account=pick.randrange(10**7, 10**8),
            meter=pick.randrange(10**3, 10**5),
            iban="GB82 WEST 1234 5698 7654 32",
            house=pick.randint(1, 200),
            small=pick.randint(1, 9),
            year=pick.randint(2015, 2026),
        )


def _sentences() -> tuple[list[str], list[str]]:
    plain: list[str] = []
    numbered: list[str] = []
    for path in sorted((DEMO / "documents").rglob("*.md")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line and line[0] not in "#-|>":
                for sentence in _SENTENCE.split(line.strip()):
                    if len(sentence) > 20:
                        (numbered if _DIGIT.search(sentence) else plain).append(sentence)
    return plain, numbered


def _questions() -> list[str]:
    found: list[str] = []
    for path in sorted((DEMO / "conversations").glob("*.jsonl")):
        found += [json.loads(line)["question"] for line in path.read_text(encoding="utf-8").splitlines() if line]
    return found
