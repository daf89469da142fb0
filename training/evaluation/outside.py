"""Questions outside any domain: can an adapter still read what it was not trained on, and decline there?

Forty small questions with passages of their own (libraries, bread, ferries), written for this and trained on by nobody.
They are a sanity check and no benchmark: forty questions see only a collapse. Per assistant, since the decline sentence
and the number of sentences offered are the assistant's.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from django.db import transaction

from assistants.models import Assistant
from training.models import Benchmark, BenchmarkItem, Condition

FILE = Path(__file__).with_name("outside.jsonl")
VERSION = 1


def outside_benchmark(assistant: Assistant) -> Benchmark:
    """The assistant's copy, frozen when it is first asked for (embeds about 120 passages)."""
    content = hashlib.sha256(FILE.read_bytes()).hexdigest()
    # What is offered depends on their number; a change of it makes another copy, and never changes a frozen one.
    name = f"Outside the domain, version {VERSION}, {content[:6]}, {assistant.evidence_sentences} sentences"
    if existing := Benchmark.objects.filter(assistant=assistant, name=name, sanity=True).first():
        return existing
    rows = _rows(assistant)
    with transaction.atomic():
        benchmark, made = Benchmark.objects.get_or_create(
            assistant=assistant, name=name, defaults={"content_hash": content, "sanity": True}
        )
        if made:
            for row in rows:
                row.benchmark = benchmark
            BenchmarkItem.objects.bulk_create(rows)
    return benchmark


def _rows(assistant: Assistant) -> list[BenchmarkItem]:
    from knowledge.evidence import EvidencePassage, rank_evidence, sentence_matrices
    from knowledge.query import question_vectors
    from training.evaluation.conditions import is_gold, sentence_of

    lines: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
    vectors = question_vectors([(line["question"], line["history"]) for line in lines])
    distinct = {p["source"]: (p["title"], p["text"]) for line in lines for p in line["passages"]}
    matrices = dict(zip(distinct, sentence_matrices(list(distinct.values())), strict=True))
    rows = []
    for line, vector in zip(lines, vectors, strict=True):
        passages = [{"rank": rank, **p} for rank, p in enumerate(line["passages"], start=1)]
        ranked = rank_evidence(
            question_vector=vector,
            passages=[EvidencePassage(p["rank"], p["text"], matrices[p["source"]]) for p in passages],
            limit=assistant.evidence_sentences,
        )
        frozen: dict[str, Any] = {
            "passages": passages,
            "evidence": [[one.rank, one.sentence, one.similarity] for one in ranked],
        }
        frozen["has_gold"] = any(is_gold(sentence_of(frozen, entry), line["gold"]) for entry in frozen["evidence"])
        rows.append(
            BenchmarkItem(
                key=line["id"], question=line["question"], history=line["history"], kind=line["kind"],
                answers=line["answers"], must_contain=line["must_contain"], gold=line["gold"], slice="outside",
                contexts={Condition.OUT_OF_DOMAIN.value: frozen},
            )
        )  # fmt: skip
    return rows
