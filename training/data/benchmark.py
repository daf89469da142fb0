"""Freezing a benchmark: held-out questions with their gold, and the passages that every arm will see.

Contexts are retrieved once and stored per condition, so that all arms answer identical prompts and a rerun next year
measures the model, not the index.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from django.db import transaction
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assistants.models import Assistant
from assistants.vault import PayloadUnreadable, decrypt
from generation.overlap import ngram_recall, words
from generation.prompts import Message, split_sentences
from knowledge.configuration import settings_of
from knowledge.query import prepare
from knowledge.retrieval import RetrievedPassage, evidence_for, search
from training.models import Benchmark, BenchmarkItem, BenchmarkUpload, Condition, Kind

BEAT = 50
DEEPER = 4
"""How many times k passages are fetched, so that a missing oracle is replaced by the next best ones."""


class BenchmarkError(ValueError):
    """Items that cannot be a benchmark; the message names the first wrong ones."""


class GoldSentence(BaseModel):
    model_config = ConfigDict(extra="forbid")
    path: str
    sentence: str


class Item(BaseModel):
    """One line of a benchmark file."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(min_length=1, max_length=80)
    question: str = Field(min_length=1, max_length=4000)
    history: list[Message] = Field(default_factory=list, max_length=40)
    kind: Kind
    answers: list[str] = Field(default_factory=list, max_length=10)
    must_contain: list[list[str]] = Field(default_factory=list)
    must_not_contain: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(default_factory=list)
    gold: list[GoldSentence] = Field(default_factory=list)
    slice: str = Field(default="", max_length=60)
    topic: str = Field(default="", max_length=60)


def read_items(lines: Sequence[str]) -> list[Item]:
    """JSONL to items.

    Raises:
        BenchmarkError: with line number and field of up to five wrong lines, or a repeated id.
    """
    items: list[Item] = []
    wrong: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            items.append(Item.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            wrong.append(f"line {number}: {'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}")
    repeated = [key for key, times in Counter(item.id for item in items).items() if times > 1]
    wrong += [f"the id {key} stands twice" for key in sorted(repeated)]
    answerable = [item for item in items if item.kind == Kind.ANSWER]
    wrong += [f"{item.id}: an answerable question needs an answer" for item in answerable if not item.answers]
    # Without it nobody could tell whether the oracle was offered, nor take it away.
    wrong += [f"{item.id}: an answerable question needs its gold sentences" for item in answerable if not item.gold]
    if wrong:
        raise BenchmarkError("; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""))
    if not items:
        raise BenchmarkError("The benchmark has no questions.")
    return items


def freeze_benchmark(
    *,
    assistant: Assistant,
    name: str,
    items: Sequence[Item],
    progress: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """Stores the benchmark with its contexts; the same items again return the stored one.

    Raises:
        BenchmarkError: a benchmark of this name holds other items.
    """
    content = hashlib.sha256("\n".join(i.model_dump_json() for i in items).encode()).hexdigest()
    if existing := Benchmark.objects.filter(assistant=assistant, name=name).first():
        if existing.content_hash != content:
            raise BenchmarkError(f"A benchmark “{name}” with other questions is there; give the new one another name.")
        return existing
    history = settings_of(assistant).history
    queries = prepare([(i.question, i.history) for i in items], glossary=assistant.glossary, history=history)
    rows = []
    for done, (item, query) in enumerate(zip(items, queries, strict=True), start=1):
        deep = search(assistant=assistant, query=query, k=assistant.retrieval_k * DEEPER)
        rows.append(_row(assistant, item, deep, query.evidence))
        if progress:
            progress(done, len(items))
    with transaction.atomic():
        benchmark = Benchmark.objects.create(assistant=assistant, name=name, content_hash=content)
        for row in rows:
            row.benchmark = benchmark
        BenchmarkItem.objects.bulk_create(rows)
    return benchmark


def perform(upload: BenchmarkUpload) -> None:
    """Freezes an uploaded benchmark in the performing process; started again, it begins anew and doubles nothing.

    Raises:
        BenchmarkError: as `freeze_benchmark`.
    """
    from training.data.benchmark_scrubbing import scrubbed

    if upload.sealed is None:
        raise BenchmarkError("The file is gone. Upload it again.")
    try:
        given = read_items(decrypt(upload.sealed).decode().split("\n"))
    except PayloadUnreadable:
        raise BenchmarkError(
            "The file was closed with a data key that is not here any more. Upload it again."
        ) from None
    items: list[Item] = []
    for item in scrubbed(upload.assistant, given):
        items.append(item)
        if len(items) % BEAT == 0:
            upload.beat(stage="masking personal data", done=len(items), total=len(given))
    upload.beat(stage="embedding the questions", done=0, total=len(items))
    upload.benchmark = freeze_benchmark(
        assistant=upload.assistant,
        name=upload.name,
        items=items,
        progress=lambda done, total: upload.beat(stage="freezing what is retrieved", done=done, total=total),
    )
    upload.sealed = None
    upload.keep("benchmark", "sealed")


def _row(assistant: Assistant, item: Item, deep: list[RetrievedPassage], vector: Any) -> BenchmarkItem:
    k = assistant.retrieval_k
    contexts = {Condition.CLEAN.value: _frozen(assistant, item, deep[:k], vector)}
    if item.kind == Kind.ANSWER:
        without = [p for p in deep if not _holds_gold(p, item)][:k]
        reranked = [
            RetrievedPassage(rank, p.chunk_id, p.title, p.source, p.text, p.score, p.sentence_embeddings)
            for rank, p in enumerate(without, start=1)
        ]
        contexts[Condition.MISSING_ORACLE.value] = _frozen(assistant, item, reranked, vector)
    return BenchmarkItem(
        key=item.id, question=item.question, history=[dict(m) for m in item.history], kind=item.kind,
        answers=item.answers, must_contain=item.must_contain, must_not_contain=item.must_not_contain,
        gold=[g.model_dump() for g in item.gold], slice=item.slice, topic=item.topic, contexts=contexts,
    )  # fmt: skip


def _frozen(assistant: Assistant, item: Item, passages: list[RetrievedPassage], vector: Any) -> dict[str, Any]:
    evidence = evidence_for(assistant=assistant, vector=vector, passages=passages)
    gold = {words(g.sentence) for g in item.gold}
    sentences = {p.rank: split_sentences(p.text) for p in passages}
    offered = [sentences[e.rank][e.sentence] for e in evidence]
    return {
        "passages": [{"rank": p.rank, "title": p.title, "source": p.source, "text": p.text} for p in passages],
        "evidence": [[e.rank, e.sentence, e.similarity] for e in evidence],
        "has_gold": any(_is_gold(sentence, gold, item) for sentence in offered),
    }


def _is_gold(sentence: str, gold: set[tuple[str, ...]], item: Item) -> bool:
    if words(sentence) in gold:
        return True
    return any(ngram_recall(g.sentence, sentence) > 0.8 for g in item.gold)


def _holds_gold(passage: RetrievedPassage, item: Item) -> bool:
    """True when the passage holds the gold sentence, or another that says most of it."""
    return any(
        ngram_recall(g.sentence, sentence) > 0.5 for g in item.gold for sentence in split_sentences(passage.text)
    )
