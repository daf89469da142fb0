"""Builds a dataset version: candidates → guard → caps → mix → splits → frozen rows, with every loss counted.

The same input gives the same content hash: nothing here depends on time, on row order in the database, or on chance
other than the recipe's seed.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from django.db import transaction

from capture.models import Turn
from generation.overlap import ngram_recall, words
from generation.prompts import PromptPassage, PromptStyle, build_prompt, split_sentences
from knowledge.query import question_vectors
from training.data.candidates import Candidate, Refused, from_resolutions, from_synthesis
from training.data.leakage import find_leaks
from training.data.leaks import audit_rows
from training.data.nearest import Kept
from training.data.recipe import Recipe
from training.data.render import offered
from training.data.split import bucket, is_validation
from training.models import UNTOUCHED, BenchmarkItem, DatasetVersion, Example, Kind, Origin

MAX_BLOCKED_LISTED = 500
HELD_OUT = "held-out document"


class EmptyDataset(ValueError):
    """A recipe and labels that yield nothing to train on; the message says what is missing."""


class TurnsErased(ValueError):
    """Turns went while their rows were being made."""


@dataclass
class Funnel:
    """What went in, what each step took out, and why: shown on the dataset's page."""

    steps: list[dict[str, Any]] = field(default_factory=list)

    def step(self, name: str, before: int, after: int, why: Iterable[str] = ()) -> None:
        self.steps.append({"step": name, "before": before, "kept": after, "why": dict(Counter(why))})


def perform(dataset: DatasetVersion) -> None:
    """Fills a queued dataset version and freezes it. Runs again from the start after a crash: rows are written in one
    transaction at the end.

    Raises:
        EmptyDataset: no row is left.
    """
    recipe = Recipe.from_dict(dataset.recipe)
    funnel = Funnel()
    dataset.beat(stage="collecting", done=0, total=6)
    rows = _collect(dataset, funnel)
    dataset.beat(stage="leakage guard", done=1)
    rows, blocked = _guard(dataset, recipe, rows, funnel)
    dataset.beat(stage="duplicates and caps", done=2)
    rows = _deduplicate(rows, recipe, funnel)
    rows = _cap(rows, recipe, funnel)
    dataset.beat(stage="mix", done=3)
    rows = _mix(rows, recipe, dataset, funnel)
    if not any(row.kind == Kind.ANSWER for row in rows):
        raise EmptyDataset(
            "No row with an answer is left. Label some turns as good or with a correction, or write synthetic "
            "questions."
        )
    dataset.beat(stage="leak audit", done=4)
    _freeze(dataset, recipe, rows, blocked, funnel)


def _collect(dataset: DatasetVersion, funnel: Funnel) -> list[Candidate]:
    curated = list(from_resolutions(dataset.assistant))
    kept = [c for c in curated if isinstance(c, Candidate)]
    funnel.step("resolved turns", len(curated), len(kept), (c.why for c in curated if isinstance(c, Refused)))
    synthetic = list(from_synthesis(dataset.synthesis))
    if dataset.synthesis is not None:
        written = dataset.synthesis.items.count()
        funnel.step("synthetic questions", written, len(synthetic), _dropped(dataset))
    rows = kept + synthetic
    # Guard and duplicates both compare meanings: each question is embedded once for both.
    for row, vector in zip(rows, question_vectors([(r.question, r.history) for r in rows]), strict=True):
        row.vector = vector
    return rows


def _dropped(dataset: DatasetVersion) -> list[str]:
    assert dataset.synthesis is not None
    return list(dataset.synthesis.items.exclude(dropped_by="").values_list("dropped_by", flat=True))


def _guard(
    dataset: DatasetVersion, recipe: Recipe, rows: list[Candidate], funnel: Funnel
) -> tuple[list[Candidate], list[dict[str, Any]]]:
    if dataset.benchmark is None:
        return rows, []
    items = list(dataset.benchmark.items.order_by("pk"))
    leaks = find_leaks(
        rows=[(row.question, row.history) for row in rows],
        items=[(item.question, item.history) for item in items],
        threshold=recipe.near_duplicate,
        row_vectors=np.stack([row.vector for row in rows]) if rows else None,
    )
    blocked: list[dict[str, Any]] = [
        {"question": rows[leak.row].question, "item": items[leak.item].key, "by": leak.by, "score": leak.score}
        for leak in leaks
    ]
    refused = {leak.row for leak in leaks}
    held_out = _held_out_documents(items)
    touching = {
        i: path
        for i, row in enumerate(rows)
        if i not in refused and (path := next(iter(sorted(row.answered_from & held_out.keys())), None))
    }
    blocked += [
        {"question": rows[i].question, "item": held_out[path], "by": HELD_OUT, "score": 1.0}
        for i, path in touching.items()
    ]
    refused |= touching.keys()
    kept = [row for i, row in enumerate(rows) if i not in refused]
    funnel.step("leakage guard", len(rows), len(kept), (entry["by"] for entry in blocked))
    return kept, blocked[:MAX_BLOCKED_LISTED]


def _held_out_documents(items: Sequence[BenchmarkItem]) -> dict[str, str]:
    """{path: key of an item}: documents from which no row may answer, so that one slice of the benchmark measures what
    no training has touched."""
    return {gold["path"]: item.key for item in reversed(items) if item.slice == UNTOUCHED for gold in item.gold}


def _deduplicate(rows: list[Candidate], recipe: Recipe, funnel: Funnel) -> list[Candidate]:
    """Drops a question that is there already: of curated rows only the same words (people do ask the same again, in
    their own words, and that is worth learning), of synthetic rows also the same meaning."""
    ordered = sorted(rows, key=lambda row: (not row.curated, row.group, row.question))
    near, kept = Kept(), []
    why: list[str] = []
    seen: set[tuple[tuple[str, ...], str]] = set()
    for row in ordered:
        key = (words(row.question), row.response if row.curated else "")
        if key in seen:
            why.append("same words")
            continue
        if not row.curated and near.similarity(row.vector) >= recipe.near_duplicate:
            why.append("same meaning")
            continue
        seen.add(key)
        near.add(row.vector)
        kept.append(row)
    funnel.step("duplicates", len(rows), len(kept), why)
    return kept


def _cap(rows: list[Candidate], recipe: Recipe, funnel: Funnel) -> list[Candidate]:
    """Curated rows first, so that caps take synthetic ones."""
    uses: Counter[str] = Counter()
    curated = sum(row.curated for row in rows)
    room = int(recipe.synthetic_per_curated * max(curated, 50))
    kept: list[Candidate] = []
    why: list[str] = []
    for row in sorted(rows, key=lambda r: (not r.curated, bucket(r.question, recipe.seed))):
        if not row.curated and any(uses[s] >= recipe.per_sentence_cap for s in row.gold):
            why.append("sentence asked often enough")
            continue
        if not row.curated and room == 0:
            why.append("more synthetic than the recipe allows")
            continue
        room -= not row.curated
        uses.update(row.gold)
        kept.append(row)
    funnel.step("caps", len(rows), len(kept), why)
    return kept


def _mix(rows: list[Candidate], recipe: Recipe, dataset: DatasetVersion, funnel: Funnel) -> list[Candidate]:
    rng = random.Random(recipe.seed)
    answers = [row for row in rows if row.kind == Kind.ANSWER]
    wanted = int(recipe.missing_oracle_share * len(answers))
    order = rng.sample(answers, len(answers))
    missing = [decline for row in order if (decline := without_oracle(row, dataset))][:wanted]
    if missing:
        made = ["the oracle taken away"] * len(missing)
        funnel.step("missing oracle added", len(rows), len(rows) + len(missing), made)
    declines = [row for row in rows if row.kind == Kind.DECLINE] + missing
    handoffs = [row for row in rows if row.kind == Kind.HANDOFF]
    others = [row for row in rows if row.kind not in (Kind.DECLINE, Kind.HANDOFF)]
    fewer = _at_most(recipe.max_handoff_share, handoffs, len(others), recipe)
    total = len(others) + len(handoffs) + len(declines)
    total = _count_over(funnel, "handing-over share", total, len(handoffs) - len(fewer))
    others += fewer
    fewer = _at_most(recipe.max_decline_share, declines, len(others), recipe)
    _count_over(funnel, "declining share", total, len(declines) - len(fewer))
    declines = fewer
    mixed = [weighted(row, recipe) for row in others + declines]
    return [shuffled(row, rng) if rng.random() < recipe.shuffled_share else row for row in mixed]


def _at_most(share: float, rows: list[Candidate], others: int, recipe: Recipe) -> list[Candidate]:
    """So many of the rows that they are at most ``share`` of them and the others together; curated ones stay first."""
    allowed = int(share / (1 - share) * others + 1e-9)
    if len(rows) <= allowed:
        return rows
    return sorted(rows, key=lambda row: (not row.curated, bucket(row.question, recipe.seed)))[:allowed]


def _count_over(funnel: Funnel, step: str, before: int, over: int) -> int:
    if over:
        funnel.step(step, before, before - over, ["over the share"] * over)
    return before - over


def without_oracle(row: Candidate, dataset: DatasetVersion) -> Candidate | None:
    """The row without whatever holds its answer; None where what is left might still hold it.

    A sentence holds the answer when more than half of the answer's 4-grams stand in it; the rest must share fewer than
    a tenth (the deletion test of ChatQA). Where prompts show whole passages, those with such a sentence go.
    """
    sentences = {c["rank"]: split_sentences(c["text"]) for c in row.contexts}
    shares = {
        (rank, index): ngram_recall(row.response, sentence)
        for rank, listed in sentences.items()
        for index, sentence in enumerate(listed)
    }
    contexts = row.contexts
    left = [ref for ref in row.evidence if shares[int(ref[0]), int(ref[1])] <= 0.5]
    shown = [shares[int(ref[0]), int(ref[1])] for ref in left]
    if dataset.assistant.prompt_style == PromptStyle.PASSAGES:
        holding = {rank for (rank, _), share in shares.items() if share > 0.5}
        contexts = [c for c in row.contexts if c["rank"] not in holding]
        left = [ref for ref in left if ref[0] not in holding]
        shown = [share for (rank, _), share in shares.items() if rank not in holding]
    if len(left) == len(row.evidence) or not left or any(share >= 0.1 for share in shown):
        return None
    return replace(
        row,
        origin=Origin.SYNTHETIC if row.origin == Origin.SYNTHETIC else Origin.DECLINED,
        kind=Kind.DECLINE,
        contexts=contexts,
        evidence=left,
        sentences=[{"text": dataset.assistant.decline_sentence, "refs": []}],
        rejected="",
        gold=(),
    )


def weighted(row: Candidate, recipe: Recipe) -> Candidate:
    weight = {
        Origin.CORRECTED.value: recipe.weight_corrected,
        Origin.GOOD.value: recipe.weight_good,
        Origin.DECLINED.value: recipe.weight_good,
    }.get(row.origin, recipe.weight_synthetic)
    return replace(row, weight=max(weight, recipe.weight_handoff) if row.kind == Kind.HANDOFF else weight)


def shuffled(row: Candidate, rng: random.Random) -> Candidate:
    return replace(row, evidence=rng.sample(row.evidence, len(row.evidence)))


def _refuse_erased(rows: Sequence[Candidate]) -> None:
    """What was erased while the build had it in memory must not come back; the foreign keys refuse whatever goes
    between this look and the commit."""
    keys = {row.turn_id for row in rows if row.turn_id is not None}
    if gone := len(keys) - Turn.objects.filter(pk__in=keys).count():
        raise TurnsErased(f"{gone} of its turns were erased while it was built. Build it again.")


def _freeze(
    dataset: DatasetVersion, recipe: Recipe, rows: Sequence[Candidate], blocked: list[dict[str, Any]], funnel: Funnel
) -> None:
    examples = [_example(dataset, recipe, row) for row in rows]
    examples.sort(key=lambda example: example.digest)
    for position, example in enumerate(examples):
        example.position = position
    content = hashlib.sha256("\n".join(f"{e.digest} {e.split} {e.weight}" for e in examples).encode()).hexdigest()
    report = audit_rows(
        dataset, examples, content_hash=content, beat=lambda read: dataset.beat(stage=f"leak audit, row {read}")
    )
    dataset.beat(stage="freezing", done=5)
    mix: dict[str, Counter[str]] = {}
    for example in examples:
        mix.setdefault(example.origin, Counter())[example.kind] += 1
    documents = {c["source"] for row in rows for c in row.contexts if c.get("relevant") and c.get("source")}
    with transaction.atomic():
        _refuse_erased(rows)
        dataset.examples.all().delete()
        Example.objects.bulk_create(examples, batch_size=1000)
        dataset.prompt_digest = dataset.assistant.prompt_digest
        dataset.content_hash = content
        dataset.funnel = funnel.steps
        dataset.mix = {origin: dict(kinds) for origin, kinds in mix.items()}
        dataset.blocked = blocked
        dataset.documents = sorted(documents)
        dataset.rows = len(examples)
        report.save()
        dataset.leak_report = report
        dataset.save(
            update_fields=[
                "prompt_digest", "content_hash", "funnel", "mix", "blocked", "documents", "rows", "leak_report",
            ]
        )  # fmt: skip
        dataset.beat(done=6)


def _example(dataset: DatasetVersion, recipe: Recipe, row: Candidate) -> Example:
    # Building the prompt now makes a row that cannot be rendered fail the build, not the training.
    build_prompt(
        house=dataset.assistant.house,
        question=row.question,
        passages=[PromptPassage(c["rank"], c["title"], c["text"]) for c in row.contexts],
        **offered(row.evidence),
        history=row.history,
    )
    record = {
        "question": row.question, "history": row.history, "contexts": row.contexts, "evidence": row.evidence,
        "sentences": row.sentences, "kind": row.kind, "origin": row.origin, "group": row.group,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(record, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    validation = is_validation(row.group, share=recipe.validation_share, seed=recipe.seed)
    return Example(
        dataset=dataset,
        split=Example.Split.VALIDATION if validation else Example.Split.TRAIN,
        weight=row.weight, rejected=row.rejected, turn_id=row.turn_id, chunk_id=row.chunk_id, digest=digest, **record,
    )  # fmt: skip
