"""Learns a map of questions for one assistant, measures it on what it has not seen, and offers it as a version."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max

from assistants.background import launch
from assistants.models import Assistant
from assistants.services import audit
from knowledge.configuration import settings_of
from knowledge.configuring import note_active, save_configuration, saved
from knowledge.embedding import embedder_digest
from knowledge.models import QueryMap, RetrievalConfiguration
from knowledge.query import prepare
from knowledge.query_maps import Weights
from training.evaluation.statistics import paired_test
from training.models import Benchmark
from training.retrieval.comparing import start_comparison
from training.retrieval.learning import Pair, learn, ranks
from training.retrieval.models import RetrieverTuning
from training.retrieval.pairs import Gathered, gather
from training.services import NotPossible
from training.signs import signed

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEWEST = 40
"""Pairs; with fewer the held-out fifth says nothing."""
HELD_OUT = 5
"""Every so many-th group is held out."""


def start_tuning(*, assistant: Assistant, benchmark: Benchmark | None, actor: User | None = None) -> RetrieverTuning:
    """Queues it.

    Raises:
        NotPossible: one is under way, or the benchmark is another assistant's.
    """
    if benchmark is not None and benchmark.assistant_id != assistant.pk:
        raise NotPossible("The benchmark belongs to another assistant.")
    with transaction.atomic():
        Assistant.objects.select_for_update(no_key=True).only("pk").get(pk=assistant.pk)
        if RetrieverTuning.objects.active().filter(assistant=assistant).exists():
            raise NotPossible("One is under way already.")
        tuning = RetrieverTuning.objects.create(assistant=assistant, benchmark=benchmark, created_by=actor)
        audit(assistant=assistant, actor=actor, action="retrieval.tuned", target=str(tuning))
    launch(tuning)
    return tuning


def perform(tuning: RetrieverTuning) -> None:
    """Gathers, learns on four fifths of the groups, measures on the rest, and stores map, version and result at once.

    Raises:
        NotPossible: too little to learn from.
    """
    if tuning.configuration is not None:  # killed between the two: all that is left is to compare
        _compare(tuning)
        return
    tuning.beat(stage="gathering")
    found = gather(tuning.assistant)
    if len(found.pairs) < FEWEST:
        raise NotPossible(
            f"{len(found.pairs)} questions with a right passage are too few: {FEWEST} are needed. Mark passages while "
            "labelling, or write questions."
        )
    held = np.array([is_held_out(pair) for pair in found.pairs])
    if not held.any() or held.all():
        raise NotPossible("All questions belong to one conversation or document: nothing would be left to measure on.")
    tuning.beat(stage="embedding", total=len(found.pairs))
    questions = _questions(tuning.assistant, found)
    seen = [pair for pair, out in zip(found.pairs, held, strict=True) if not out]
    tuning.beat(stage="learning")
    weights = learn(
        questions[~held], found.passages, seen, beat=lambda done, total: tuning.beat(done=done, total=total)
    )
    _finish(tuning, found, weights, measured(questions, found, weights, held))
    _compare(tuning)


def is_held_out(pair: Pair) -> bool:
    return int(hashlib.sha256(pair.group.encode()).hexdigest(), 16) % HELD_OUT == 0


def measured(
    questions: NDArray[np.float32], found: Gathered, weights: Weights, held: NDArray[np.bool_]
) -> dict[str, Any]:
    """Of the held-out questions, by vectors alone, before and after: MRR and recall@5, with paired tests by group."""
    pairs = [pair for pair, out in zip(found.pairs, held, strict=True) if out]
    before = ranks(questions[held], found.passages, pairs)
    after = ranks(weights.move(questions[held]), found.passages, pairs)
    clusters = [pair.group for pair in pairs]
    measures = {
        "mrr": ([1 / rank for rank in before], [1 / rank for rank in after]),
        "recall@5": ([float(rank <= 5) for rank in before], [float(rank <= 5) for rank in after]),
    }
    return {
        "learned_on": int((~held).sum()),
        "held_out": len(pairs),
        "before": {name: float(np.mean(one)) for name, (one, _) in measures.items()},
        "after": {name: float(np.mean(other)) for name, (_, other) in measures.items()},
        "tests": {name: paired_test(other, one, clusters).as_dict() for name, (one, other) in measures.items()},
    }


def _questions(assistant: Assistant, found: Gathered) -> NDArray[np.float32]:
    """As the search embeds them now."""
    settings = settings_of(assistant)
    queries = prepare(found.asked, glossary=assistant.glossary, history=settings.history)
    return np.stack([query.vector for query in queries])


def _finish(tuning: RetrieverTuning, found: Gathered, weights: Weights, result: dict[str, Any]) -> None:
    result |= {"sources": found.sources, "dropped": found.dropped, "passages": len(found.passages)}
    with transaction.atomic():
        tuning.beat(stage="storing")
        last = QueryMap.objects.filter(assistant=tuning.assistant).aggregate(last=Max("number"))["last"] or 0
        made = QueryMap.objects.create(
            assistant=tuning.assistant, number=last + 1, rank=weights.down.shape[0], down=weights.down.tobytes(),
            up=weights.up.tobytes(), embedder=embedder_digest(),
        )  # fmt: skip
        tuning.result = result
        tuning.configuration = _version(tuning, made)
        tuning.keep("result", "configuration")


def _compare(tuning: RetrieverTuning) -> None:
    """The new version with the active one, as a whole, on a benchmark: what decides."""
    if tuning.benchmark is None or tuning.configuration is None or tuning.comparison is not None:
        return
    note_active(tuning.assistant)
    active = saved(assistant=tuning.assistant, settings=settings_of(tuning.assistant))
    if active is None or active.pk == tuning.configuration.pk or not tuning.benchmark.items.exclude(gold=[]).exists():
        return
    tuning.comparison = start_comparison(
        benchmark=tuning.benchmark, first=active, second=tuning.configuration, actor=tuning.created_by
    )
    tuning.keep("comparison")


def _version(tuning: RetrieverTuning, made: QueryMap) -> RetrievalConfiguration:
    """Not active: whoever activates it has read the result."""
    settings = settings_of(tuning.assistant).model_copy(update={"learned": made.number})
    return save_configuration(
        assistant=tuning.assistant, name=f"Learned from labels, {made}", settings=settings, note=sentence(tuning),
        actor=tuning.created_by,
    )  # fmt: skip


def sentence(tuning: RetrieverTuning) -> str:
    """The result in one sentence; empty until it is there."""
    if not tuning.result:
        return ""
    change = tuning.result["tests"]["mrr"]["difference"]
    interval = f"95 % {signed(change['low'], 3)} … {signed(change['high'], 3)}, n = {change['n']:,}"
    points = f"MRR {signed(change['value'], 3)} on held-out questions, by vectors alone ({interval})"
    if change["low"] > 0:
        return f"The learned map finds right passages earlier: {points}."
    if change["high"] < 0:
        return f"The learned map finds right passages later: {points}. Leave it."
    return f"No difference is proven: {points}."
