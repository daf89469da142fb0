"""Which verdict counts, from the labels of several people. Pure: no database.

The rules, in order:

1. The verdict is the one that more than half of the labels give. A tie is no verdict: a reviewer settles it.
2. Bad labels say what to learn instead: declining, or a correction. Where they differ, more than half of those that
   say anything decide; a tie again waits for a reviewer. Among several corrections the one most like the others is
   taken (highest mean token F1), the earliest of equals.
3. Reasons count when at least half of the deciding labels name them (all of them, when none gets that far).
4. A passage is relevant when more labels mark it relevant than not relevant; "unsure" does not vote.
5. "Retrieval missed it" teaches declining, never answering: whatever was written, the answer to learn is the decline
   sentence, unless the correction itself declines or hands over.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from annotations.models import Reason, Resolution, Verdict
from generation.prompts import is_decline


@dataclass(frozen=True)
class Vote:
    """One label as the rules see it, in order of time."""

    key: int | UUID
    """Of an `Annotation`, or (a UUID) of a `MachineLabel`."""
    verdict: str
    reasons: tuple[str, ...] = ()
    correction: str = ""
    relevant: frozenset[int] = frozenset()
    not_relevant: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Wording:
    """What the assistant says when it does not answer."""

    decline: str
    handoff: str = ""


@dataclass(frozen=True)
class Decision:
    verdict: str
    reasons: tuple[str, ...]
    response: str
    relevant_ranks: tuple[int, ...]
    how: Resolution.How
    counted: tuple[int | UUID, ...]
    """Keys of the votes that made the verdict."""


def decide(votes: Sequence[Vote], *, logged: str, wording: Wording) -> Decision | None:
    """The decision of these labels, or None when they are split (or there are none)."""
    verdict = _majority([vote.verdict for vote in votes])
    if verdict is None:
        return None
    side = [vote for vote in votes if vote.verdict == verdict]
    ranks = relevant_ranks(votes)
    if verdict == Verdict.GOOD:
        return Decision(verdict, (), logged, ranks, _how(votes, side), tuple(vote.key for vote in side))
    target = _target(side, wording)
    if target is None:
        return None
    reasons = _reasons(side)
    response = response_to_learn(verdict=verdict, reasons=reasons, correction=target, logged=logged, wording=wording)
    return Decision(verdict, reasons, response, ranks, _how(votes, side), tuple(vote.key for vote in side))


def response_to_learn(*, verdict: str, reasons: Sequence[str], correction: str, logged: str, wording: Wording) -> str:
    """The answer that training may use; empty when a bad answer has nothing to put in its place."""
    if verdict == Verdict.GOOD:
        return logged
    if Reason.RETRIEVAL_MISSED in reasons:
        return correction if _does_not_answer(correction, wording) else wording.decline
    if correction:
        return correction
    return wording.decline if Reason.SHOULD_HAVE_DECLINED in reasons else ""


def relevant_ranks(votes: Sequence[Vote]) -> tuple[int, ...]:
    """Ranks that more labels mark relevant than not relevant."""
    balance: Counter[int] = Counter()
    for vote in votes:
        balance.update(vote.relevant)
        balance.subtract(vote.not_relevant)
    return tuple(sorted(rank for rank, votes_for in balance.items() if votes_for > 0))


def _majority(values: Sequence[str]) -> str | None:
    if not values:
        return None
    value, votes = Counter(values).most_common(1)[0]
    return value if votes * 2 > len(values) else None


def _how(votes: Sequence[Vote], side: Sequence[Vote]) -> Resolution.How:
    if len(votes) == 1:
        return Resolution.How.SINGLE
    return Resolution.How.AGREED if len(side) == len(votes) else Resolution.How.MAJORITY


def _reasons(side: Sequence[Vote]) -> tuple[str, ...]:
    named = Counter(reason for vote in side for reason in vote.reasons)
    kept = {reason for reason, votes in named.items() if votes * 2 >= len(side)} or set(named)
    return tuple(reason for reason in Reason.values if reason in kept)


def _target(side: Sequence[Vote], wording: Wording) -> str | None:
    """What the bad labels want instead: a correction, the decline sentence, "" for nothing; None when split."""
    declining: list[str] = []
    corrections: list[str] = []
    for vote in side:
        answer = response_to_learn(
            verdict=vote.verdict, reasons=vote.reasons, correction=vote.correction, logged="", wording=wording
        )
        if answer:
            (declining if is_decline(answer, wording.decline) else corrections).append(answer)
    if not declining and not corrections:
        return ""
    if len(declining) == len(corrections):
        return None
    return _most_typical(declining if len(declining) > len(corrections) else corrections)


def _does_not_answer(correction: str, wording: Wording) -> bool:
    if not correction:
        return False
    return is_decline(correction, wording.decline) or bool(wording.handoff and is_decline(correction, wording.handoff))


def _most_typical(texts: Sequence[str]) -> str:
    """The text with the highest mean token F1 to the others; the first of equals."""
    bags = [Counter(re.findall(r"\w+", text.casefold())) for text in texts]
    means = [sum(_token_f1(bag, other) for other in bags) for bag in bags]
    return texts[means.index(max(means))]


def _token_f1(a: Counter[str], b: Counter[str]) -> float:
    shared = (a & b).total()
    return 2 * shared / (a.total() + b.total()) if shared else 0.0
