"""Below which similarity a question is to be declined: read off an assistant's own labels.

Each question has the similarity of the best sentence that was found for it, and a label that says whether declining was
right. A threshold declines everything below it; it is right where declining was right and loses an answer elsewhere.
Nothing is embedded: both are stored, also of what the threshold of then declined. How much of what is *not* declined is
answered well depends on who answers: `training.retrieval.worth`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from django.db.models.fields.json import KeyTransform

from annotations.becoming import kind_of
from annotations.models import Resolution
from annotations.resolving import Wording
from assistants.models import Assistant
from capture.models import Retrieval
from training.models import Benchmark, BenchmarkItem, Condition, Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

LABELS, BENCHMARKS = "labels", "benchmarks"
MAX_POINTS = 5_000
STEPS = 60
RESAMPLES = 500
FEWEST = 10
"""Questions of either kind below which nothing is proposed."""
ALLOWED = 0.05
"""Share of the answerable questions that may be declined for it."""


@dataclass(frozen=True)
class Labelled:
    """``decline``: declining was right. ``group``: questions of one conversation or document are alike."""

    similarity: float
    decline: bool
    group: str


@dataclass(frozen=True)
class Operating:
    """What a threshold does. ``precision``: of what it declines, the share that is right; ``recall``: of what should be
    declined, the share that it declines; ``lost``: of what could be answered, the share that it declines."""

    threshold: float
    declined: int
    precision: float
    recall: float
    lost: float
    rightly: int = 0
    wrongly: int = 0
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """95 % intervals of precision, recall and lost over whole conversations or documents, where asked for."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Calibration:
    """``proposed`` is chosen on all questions; ``honest`` is what such a choice does on questions that it has not seen
    (chosen on one half, counted on the other, both ways). None where there are too few."""

    answerable: int
    unanswerable: int
    auc: float | None
    curve: list[Operating]
    proposed: Operating | None
    honest: Operating | None


def labelled_turns(assistant: Assistant) -> list[Labelled]:
    """The newest resolved turns of which evidence is stored. Turns that go to a person are neither."""
    wording = Wording(decline=assistant.decline_sentence, handoff=assistant.handoff_sentence)
    rows = (
        Resolution.objects.filter(turn__conversation__assistant=assistant)
        .exclude(response="")
        .order_by("-resolved_at", "pk")
        .values_list("turn_id", "turn__conversation_id", "response")[:MAX_POINTS]
    )
    resolved = {turn: (str(conversation), kind_of(response, wording)) for turn, conversation, response in rows}
    best: dict[object, float] = {}
    for turn, evidence in Retrieval.objects.filter(turn__in=list(resolved)).values_list("turn_id", "evidence"):
        for _, _, similarity in evidence:
            best[turn] = max(best.get(turn, 0.0), float(similarity))
    return [
        Labelled(best[turn], kind == "decline", group)
        for turn, (group, kind) in resolved.items()
        if turn in best and kind != "handoff"
    ]


def labelled_items(benchmark: Benchmark) -> list[Labelled]:
    """The questions of a benchmark with what was frozen for them. Where the answer was not among what was offered,
    declining is right."""
    out: list[Labelled] = []
    rows = BenchmarkItem.objects.filter(benchmark=benchmark).exclude(kind=Kind.HANDOFF).order_by("pk")[:MAX_POINTS]
    for kind, golds, key, evidence, has_gold in rows.values_list("kind", "gold", "key", *clean("evidence", "has_gold")):
        if not evidence:
            continue
        best = max(float(similarity) for _, _, similarity in evidence)
        group = next((str(gold.get("path", "")) for gold in golds), "") or key
        out.append(Labelled(best, kind == Kind.DECLINE or not has_gold, group))
    return out


def clean(*names: str) -> list[KeyTransform]:
    """Of what is frozen under the clean condition, for ``values_list``: the passages of all conditions of thousands of
    questions are a hundred megabytes."""
    return [KeyTransform(name, KeyTransform(Condition.CLEAN.value, "contexts")) for name in names]


def calibrate(questions: Sequence[Labelled], allowed: float = ALLOWED) -> Calibration:
    """
    Args:
        allowed: share of the answerable questions that may be declined.
    """
    wrong = [q.similarity for q in questions if q.decline]
    right = [q.similarity for q in questions if not q.decline]
    enough = min(len(wrong), len(right)) >= FEWEST
    return Calibration(
        answerable=len(right),
        unanswerable=len(wrong),
        auc=round(_auc(right, wrong), 3) if right and wrong else None,
        curve=[operating(questions, t) for t in thresholds(questions)],
        proposed=choose(questions, allowed) if enough else None,
        honest=_honest(questions, allowed) if enough else None,
    )


def operating(questions: Sequence[Labelled], threshold: float) -> Operating:
    declined = [q for q in questions if q.similarity < threshold]
    rightly = sum(q.decline for q in declined)
    should, could = sum(q.decline for q in questions), sum(not q.decline for q in questions)
    return Operating(
        threshold=round(threshold, 4),
        declined=len(declined),
        precision=rightly / len(declined) if declined else 1.0,
        recall=rightly / should if should else 0.0,
        lost=(len(declined) - rightly) / could if could else 0.0,
        rightly=rightly,
        wrongly=len(declined) - rightly,
    )


def with_intervals(questions: Sequence[Labelled], points: Sequence[Operating]) -> list[Operating]:
    """The points with percentile intervals from resampling whole groups, the same draws for all of them."""
    if not questions or not points:
        return list(points)
    names = sorted({q.group for q in questions})
    place = {name: number for number, name in enumerate(names)}
    groups = np.array([place[q.group] for q in questions])
    decline = np.array([q.decline for q in questions])
    # Compared as `operating` does: the points' thresholds are rounded like the similarities.
    below = np.array([q.similarity for q in questions])[:, None] < np.array([p.threshold for p in points])[None, :]

    def each(chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
        found = np.zeros((len(names), chosen.shape[1]), dtype=np.float32)
        np.add.at(found, groups, chosen.astype(np.float32))
        return found

    draws = np.random.default_rng(0).multinomial(len(names), [1 / len(names)] * len(names), size=RESAMPLES)
    weights = draws.astype(np.float32)
    rightly, wrongly = weights @ each(below & decline[:, None]), weights @ each(below & ~decline[:, None])
    should, could = weights @ each(decline[:, None]), weights @ each(~decline[:, None])
    shares = {"precision": (rightly, rightly + wrongly), "recall": (rightly, should), "lost": (wrongly, could)}
    bounds = {name: _percentiles(part, whole, float(name == "precision")) for name, (part, whole) in shares.items()}
    return [
        replace(point, bounds={name: (float(low[i]), float(high[i])) for name, (low, high) in bounds.items()})
        for i, point in enumerate(points)
    ]


def _percentiles(part: NDArray[np.float32], whole: NDArray[np.float32], empty: float) -> NDArray[np.float64]:
    """(2, points). ``empty``: the share in a draw in which there is nothing to share, as in `operating`."""
    shares = np.full(part.shape, empty, dtype=np.float32)
    np.divide(part, whole, out=shares, where=np.broadcast_to(whole > 0, part.shape))
    found: NDArray[np.float64] = np.percentile(shares, [2.5, 97.5], axis=0)
    return found


def choose(questions: Sequence[Labelled], allowed: float) -> Operating:
    """The threshold that declines most of what it should, and no more than ``allowed`` of the rest."""
    fitting = [point for t in thresholds(questions) if (point := operating(questions, t)).lost <= allowed]
    # 0 declines nothing and always fits.
    return max([operating(questions, 0.0), *fitting], key=lambda p: (p.recall, p.precision, -p.threshold))


def thresholds(questions: Sequence[Labelled]) -> list[float]:
    """Between the similarities that occur, at most STEPS of them; evenly over the questions, not over the scale."""
    seen = sorted({round(q.similarity, 4) for q in questions})
    if not seen:
        return []
    step = max(1, len(seen) // STEPS)
    return sorted({*seen[::step], min(1.0, round(seen[-1] + 0.0001, 4))})


def _honest(questions: Sequence[Labelled], allowed: float) -> Operating | None:
    halves: tuple[list[Labelled], list[Labelled]] = ([], [])
    for question in questions:
        halves[hashlib.sha256(question.group.encode()).digest()[0] % 2].append(question)
    if not all(any(q.decline for q in half) and any(not q.decline for q in half) for half in halves):
        return None
    declined = rightly = 0
    chosen = []
    for own, other in (halves, halves[::-1]):
        threshold = choose(own, allowed).threshold
        chosen.append(threshold)
        point = [q.decline for q in other if q.similarity < threshold]
        declined, rightly = declined + len(point), rightly + sum(point)
    should = sum(q.decline for q in questions)
    return Operating(
        threshold=round(sum(chosen) / 2, 4),
        declined=declined,
        precision=rightly / declined if declined else 1.0,
        recall=rightly / should,
        lost=(declined - rightly) / (len(questions) - should),
    )


def _auc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """How often an answerable question is more similar to its best sentence than an unanswerable one (ties half)."""
    merged = sorted([(s, 1) for s in right] + [(s, 0) for s in wrong])
    ranks = 0.0
    place = 0
    while place < len(merged):
        end = place
        while end < len(merged) and merged[end][0] == merged[place][0]:
            end += 1
        mean_rank = (place + 1 + end) / 2
        ranks += mean_rank * sum(kind for _, kind in merged[place:end])
        place = end
    return (ranks - len(right) * (len(right) + 1) / 2) / (len(right) * len(wrong))
