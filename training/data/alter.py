"""One candidate shown in another way: without what answers it, with that alone, with fewer passages, in another order,
or with a second question. Citations follow. Pure: no database."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from assistants.models import Assistant
from generation.alignment import AlignedSentence
from generation.overlap import ngram_recall
from generation.prompts import PromptStyle, split_sentences
from training.data.candidates import Candidate, gold_sentences
from training.models import Kind, Origin

HOLDS, SHARES = 0.5, 0.1
"""A sentence holds the answer when more than half of the answer's 4-grams stand in it; what is left must share fewer
than a tenth (the deletion test of ChatQA)."""


def without_oracle(row: Candidate, assistant: Assistant) -> Candidate | None:
    """The row without whatever holds its answer; None where what is left might still hold it.

    Where prompts show whole passages, those with such a sentence go.
    """
    left = _without(row, row.response, assistant.prompt_style)
    if left is None:
        return None
    contexts, evidence = left
    changed = replace(
        row,
        origin=Origin.SYNTHETIC if row.origin == Origin.SYNTHETIC else Origin.DECLINED,
        kind=Kind.DECLINE,
        contexts=contexts,
        evidence=evidence,
        sentences=[{"text": assistant.decline_sentence, "refs": []}],
        rejected="",
        gold=(),
    )
    return changed if len(contexts) == len(row.contexts) else _without_gaps(changed)


def _without(row: Candidate, answer: str, style: str) -> tuple[list[dict[str, Any]], list[list[float]]] | None:
    """(contexts, evidence) without what holds ``answer``; None where nothing goes, nothing is left, or a rest stays."""
    sentences = {c["rank"]: split_sentences(c["text"]) for c in row.contexts}
    shares = {
        (rank, index): ngram_recall(answer, sentence)
        for rank, listed in sentences.items()
        for index, sentence in enumerate(listed)
    }
    contexts = row.contexts
    left = [ref for ref in row.evidence if shares[int(ref[0]), int(ref[1])] <= HOLDS]
    shown = [shares[int(ref[0]), int(ref[1])] for ref in left]
    if style == PromptStyle.PASSAGES:
        holding = {rank for (rank, _), share in shares.items() if share > HOLDS}
        contexts = [c for c in row.contexts if c["rank"] not in holding]
        left = [ref for ref in left if ref[0] not in holding]
        shown = [share for (rank, _), share in shares.items() if rank not in holding]
    if len(left) == len(row.evidence) or not left or any(share >= SHARES for share in shown):
        return None
    return contexts, left


def cited_ranks(row: Candidate) -> set[int]:
    return {ref[0] for sentence in row.sentences for ref in sentence["refs"]}


def oracle_only(row: Candidate) -> Candidate:
    """Nothing but the passages that answer."""
    cited = cited_ranks(row)
    return _only(row, cited) if cited else row


def fewer_passages(row: Candidate, rng: random.Random) -> Candidate:
    """From one passage to all but one, the best ones; those that answer stay."""
    ranks = [context["rank"] for context in row.contexts]
    if len(ranks) < 2:
        return row
    cited = cited_ranks(row)
    others = [rank for rank in ranks if rank not in cited]
    return _only(row, cited | set(others[: max(0, rng.randrange(1, len(ranks)) - len(cited))]))


def _only(row: Candidate, ranks: Collection[int]) -> Candidate:
    evidence = [ref for ref in row.evidence if int(ref[0]) in ranks]
    if not evidence:
        return row
    return _without_gaps(replace(row, contexts=[c for c in row.contexts if c["rank"] in ranks], evidence=evidence))


def _without_gaps(row: Candidate) -> Candidate:
    """Serving numbers what it shows from 1 without gaps."""
    return _renumbered(row, {context["rank"]: place for place, context in enumerate(row.contexts, start=1)})


def shuffled(row: Candidate, rng: random.Random, assistant: Assistant) -> Candidate:
    """Another order of what is offered. Where prompts number passages, these and citations are numbered anew."""
    if assistant.prompt_style != PromptStyle.PASSAGES:
        return replace(row, evidence=rng.sample(row.evidence, len(row.evidence)))
    order = rng.sample(row.contexts, len(row.contexts))
    return _renumbered(row, {context["rank"]: place for place, context in enumerate(order, start=1)})


def _renumbered(row: Candidate, ranks: dict[int, int]) -> Candidate:
    contexts = sorted(({**c, "rank": ranks[c["rank"]]} for c in row.contexts), key=lambda c: int(c["rank"]))
    return replace(
        row,
        contexts=contexts,
        evidence=[[ranks[int(rank)], index, share] for rank, index, share in row.evidence],
        sentences=[
            {"text": one["text"], "refs": [[ranks[rank], index] for rank, index in one["refs"]]}
            for one in row.sentences
        ],
    )


def two_in_one(first: Candidate, second: Candidate, assistant: Assistant, *, both: bool) -> Candidate | None:
    """Both questions in one. ``both``: both are answered, from different passages; else the second's source is taken
    away, and the answer says that this is not in the documents. None where that cannot be made of the two."""
    if not first.gold or not second.gold or set(first.cited_texts) & set(second.cited_texts):
        return None
    contexts, moved = _merged(first, second, assistant.retrieval_k)
    evidence = _merged_evidence(first, moved, assistant.evidence_sentences)
    gap: list[AlignedSentence] = [{"text": assistant.decline_sentence, "refs": []}]
    joined = replace(
        first,
        question=f"{first.question.strip()} {second.question.strip()}",
        contexts=contexts,
        evidence=evidence,
        sentences=[*first.sentences, *(moved.sentences if both else gap)],
        rejected="",
    )
    if not both:
        left = _without(joined, second.response, assistant.prompt_style)
        if left is None:
            return None
        joined = replace(joined, contexts=left[0], evidence=left[1])
    if not _all_offered(joined):
        return None
    joined = joined if len(joined.contexts) == len(contexts) else _without_gaps(joined)
    return replace(joined, gold=gold_sentences(joined.contexts, joined.sentences))


def _merged(first: Candidate, second: Candidate, most: int) -> tuple[list[dict[str, Any]], Candidate]:
    """The contexts of both, each text once, at most ``most`` but never without what answers; and the second row with
    its references among them."""
    contexts: list[dict[str, Any]] = [dict(context) for context in first.contexts]
    place = {context["text"]: context["rank"] for context in contexts}
    ranks: dict[int, int] = {}
    needed = cited_ranks(second)
    for context in second.contexts:
        rank = place.get(context["text"])
        if rank is None and (context["rank"] in needed or len(contexts) < most):
            rank = max((c["rank"] for c in contexts), default=0) + 1
            contexts.append({**context, "rank": rank})
            place[context["text"]] = rank
        if rank is not None:
            ranks[context["rank"]] = rank
    for context in contexts:
        context["relevant"] = context["rank"] in cited_ranks(first) | {ranks[rank] for rank in needed}
    moved = replace(
        second,
        contexts=[c for c in second.contexts if c["rank"] in ranks],
        evidence=[ref for ref in second.evidence if int(ref[0]) in ranks],
    )
    return contexts, replace(_renumbered(moved, ranks), contexts=contexts)


def _merged_evidence(first: Candidate, second: Candidate, most: int) -> list[list[float]]:
    """What both were offered, most similar first, and each sentence once; what is cited is never beyond ``most``."""
    best: dict[tuple[int, int], float] = {}
    for rank, index, share in (*first.evidence, *second.evidence):
        place = (int(rank), int(index))
        best[place] = max(share, best.get(place, 0.0))
    cited = {(ref[0], ref[1]) for row in (first, second) for one in row.sentences for ref in one["refs"]}
    by_share = sorted(best, key=lambda place: (-best[place], place))
    kept = set([*cited, *(place for place in by_share if place not in cited)][: max(most, len(cited))])
    return [[rank, index, best[rank, index]] for rank, index in by_share if (rank, index) in kept]


def _all_offered(row: Candidate) -> bool:
    offered = {(int(rank), int(index)) for rank, index, _ in row.evidence}
    return all((ref[0], ref[1]) in offered for one in row.sentences for ref in one["refs"])
