"""Passages under other conditions than those that a benchmark is frozen with.

A condition is frozen for a question the first time that an evaluation asks under it, and stays: every arm of every
evaluation sees the same prompt. All but the near misses are made of what the benchmark holds already. What is drawn is
drawn by the question's key, so the same benchmark gives the same conditions.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.db import transaction

from assistants.models import Assistant
from generation.overlap import ngram_recall, words
from generation.prompts import split_sentences
from training.evaluation.counterfactual import edited
from training.models import Benchmark, BenchmarkItem, Condition, Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH = 50
MOST_SENTENCES = 32
"""Of a noisy prompt; pointers end at 40."""
Frozen = dict[str, Any]
Scored = tuple[int, int, float]
Drawn = tuple[dict[str, Any], int]
"""(passage as frozen, sentence index)."""


def freeze_conditions(
    *,
    assistant: Assistant,
    benchmark: Benchmark,
    conditions: Iterable[str],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Adds what is missing of ``conditions`` to the benchmark's questions; what is there stays as it is. Questions for
    which a condition means nothing (no answer to take, nothing to change) are left without it."""
    made = {name: MAKERS[name] for name in conditions if name in MAKERS}
    items = list(benchmark.items.order_by("pk"))
    lacking = [item for item in items if any(name not in item.contexts for name in made)]
    pool = _pool(items) if Condition.NOISY_RANDOM in made and lacking else []
    for start in range(0, len(lacking), BATCH):
        batch = lacking[start : start + BATCH]
        helper = _Helper(assistant, batch, pool)
        new = {item.pk: _new(item, made, helper) for item in batch}
        with transaction.atomic():
            locked = BenchmarkItem.objects.select_for_update().filter(pk__in=new).order_by("pk")
            for item in locked:
                item.contexts = {**new[item.pk], **item.contexts}  # somebody else's, frozen meanwhile, stays
                item.save(update_fields=["contexts"])
        if progress:
            progress(start + len(batch), len(lacking))


def _new(item: BenchmarkItem, makers: Mapping[str, Maker], helper: _Helper) -> dict[str, Frozen]:
    found = {name: maker(item, helper) for name, maker in makers.items() if name not in item.contexts}
    return {name: frozen for name, frozen in found.items() if frozen is not None}


class _Helper:
    """What several makers need of a batch, made when the first one asks."""

    def __init__(self, assistant: Assistant, items: Sequence[BenchmarkItem], pool: Sequence[Drawn]) -> None:
        self.assistant, self.items, self.pool = assistant, items, pool
        self._vectors: dict[int, NDArray[np.float32]] = {}

    def vector(self, item: BenchmarkItem) -> NDArray[np.float32]:
        from knowledge.query import question_vectors

        if not self._vectors:
            asked = [(one.question, one.history) for one in self.items]
            vectors = question_vectors(asked, self.assistant.glossary)
            self._vectors = {one.pk: vector for one, vector in zip(self.items, vectors, strict=True)}
        return self._vectors[item.pk]

    def similarities(self, item: BenchmarkItem, drawn: Sequence[Drawn]) -> list[float]:
        """As evidence has them, against the history-aware question."""
        from knowledge.evidence import embed_wordings, wordings

        worded = [wordings(passage["title"], passage["text"])[index] for passage, index in drawn]
        return [round(float(x), 4) for x in embed_wordings(worded) @ self.vector(item)] if worded else []

    def deeper(self, item: BenchmarkItem) -> list[Any]:
        """What retrieval brings beyond what was frozen, best first."""
        from knowledge.query import history_query
        from knowledge.retrieval import search

        k = self.assistant.retrieval_k
        query = history_query(item.question, item.history, self.assistant.glossary)
        return search(assistant=self.assistant, query=query, vector=self.vector(item), k=2 * k)


Maker = Callable[[BenchmarkItem, _Helper], Frozen | None]


def gold_only(item: BenchmarkItem, helper: _Helper) -> Frozen | None:
    """The gold sentences and nothing else: what the model makes of perfect retrieval. A gold sentence that retrieval
    missed comes as a passage of its own."""
    if item.kind != Kind.ANSWER:
        return None
    clean = item.contexts[Condition.CLEAN.value]
    offered = [entry for entry in clean["evidence"] if is_gold(sentence_of(clean, entry), item.gold)]
    if offered:
        return {"passages": clean["passages"], "evidence": offered, "has_gold": True}
    made = [
        {"rank": rank, "title": _title(gold["path"]), "source": gold["path"], "text": gold["sentence"]}
        for rank, gold in enumerate(item.gold, start=1)
    ]
    drawn = [(passage, index) for passage in made for index in range(len(split_sentences(passage["text"])))]
    near = helper.similarities(item, drawn)
    evidence = [[p["rank"], index, similarity] for (p, index), similarity in zip(drawn, near, strict=True)]
    return {"passages": made, "evidence": evidence, "has_gold": True}


def shuffled(item: BenchmarkItem, _: _Helper) -> Frozen | None:
    """The same passages and sentences in another order."""
    clean = item.contexts[Condition.CLEAN.value]
    return _mixed(item, Condition.SHUFFLED, clean, [], [])


def noisy_random(item: BenchmarkItem, helper: _Helper) -> Frozen | None:
    """As many sentences again, drawn from what other questions retrieved of other documents, mixed in."""
    clean = item.contexts[Condition.CLEAN.value]
    taken = {p["source"] for p in clean["passages"]} | {gold["path"] for gold in item.gold}
    known = {words(sentence_of(clean, entry)) for entry in clean["evidence"]}
    draw = _random(item, Condition.NOISY_RANDOM)
    noise: list[Drawn] = []
    for passage, index in draw.sample(helper.pool, len(helper.pool)):
        if len(noise) >= _room(clean):
            break
        sentence = split_sentences(passage["text"])[index]
        if passage["source"] in taken or words(sentence) in known or is_gold(sentence, item.gold):
            continue
        noise.append((passage, index))
        known.add(words(sentence))
    return _mixed(item, Condition.NOISY_RANDOM, clean, noise, helper.similarities(item, noise))


def noisy_hard(item: BenchmarkItem, helper: _Helper) -> Frozen | None:
    """As many sentences again, the nearest of the passages that retrieval brings next, mixed in."""
    from knowledge.evidence import EvidencePassage, rank_evidence

    clean = item.contexts[Condition.CLEAN.value]
    known = {p["text"] for p in clean["passages"]}
    deep = [p for p in helper.deeper(item) if p.text not in known]
    deep = [p for p in deep if not any(is_gold(s, item.gold, 0.5) for s in split_sentences(p.text))]
    ranked = rank_evidence(
        question_vector=helper.vector(item),
        passages=[EvidencePassage(p.rank, p.text, p.sentence_embeddings) for p in deep],
        limit=_room(clean),
    )
    by_rank = {p.rank: {"title": p.title, "source": p.source, "text": p.text} for p in deep}
    noise = [(by_rank[one.rank], one.sentence) for one in ranked]
    return _mixed(item, Condition.NOISY_HARD, clean, noise, [one.similarity for one in ranked])


def counterfactual(item: BenchmarkItem, _: _Helper) -> Frozen | None:
    """A number or a name of the gold is changed in all passages and in what counts as right: following the passage is
    right, and what was learned by heart is wrong."""
    clean = item.contexts[Condition.CLEAN.value]
    if item.kind != Kind.ANSWER or not clean["has_gold"]:
        return None
    gold = [sentence for entry in clean["evidence"] if is_gold(sentence := sentence_of(clean, entry), item.gold)]
    return edited(
        frozen=clean, gold=gold, answers=item.answers, must_contain=item.must_contain,
        must_not_contain=item.must_not_contain, draw=_random(item, Condition.COUNTERFACTUAL),
    )  # fmt: skip


MAKERS: dict[str, Maker] = {
    Condition.GOLD_ONLY.value: gold_only,
    Condition.NOISY_HARD.value: noisy_hard,
    Condition.NOISY_RANDOM.value: noisy_random,
    Condition.COUNTERFACTUAL.value: counterfactual,
    Condition.SHUFFLED.value: shuffled,
}


def is_gold(sentence: str, gold: Sequence[Mapping[str, Any]], least: float = 0.8) -> bool:
    """As in a benchmark's freezing: word for word, or more than ``least`` of a gold sentence's 4-word runs."""
    return any(words(sentence) == words(g["sentence"]) or ngram_recall(g["sentence"], sentence) > least for g in gold)


def _mixed(
    item: BenchmarkItem, condition: Condition, clean: Frozen, noise: Sequence[Drawn], near: Sequence[float]
) -> Frozen:
    """Clean passages and noise in a drawn order, ranks given anew."""
    passages = [{key: p[key] for key in ("title", "source", "text")} for p in clean["passages"]]
    places = {p["rank"]: place for place, p in enumerate(clean["passages"])}
    entries: list[Scored] = [(places[rank], index, similarity) for rank, index, similarity in clean["evidence"]]
    for (passage, index), similarity in zip(noise, near, strict=True):
        plain = {key: passage[key] for key in ("title", "source", "text")}
        if plain not in passages:
            passages.append(plain)
        entries.append((passages.index(plain), index, similarity))
    draw = _random(item, condition)
    order = draw.sample(range(len(passages)), len(passages))
    ranks = {place: rank for rank, place in enumerate(order, start=1)}
    evidence = [[ranks[place], index, similarity] for place, index, similarity in draw.sample(entries, len(entries))]
    return {
        "passages": [{"rank": rank, **passages[place]} for place, rank in ranks.items()],
        "evidence": evidence,
        "has_gold": clean["has_gold"],
    }


def _room(clean: Frozen) -> int:
    have = len(clean["evidence"])
    return max(min(have, MOST_SENTENCES - have), 0)


def _pool(items: Sequence[BenchmarkItem]) -> list[Drawn]:
    """Every sentence of every passage that was frozen, once, in the benchmark's order."""
    pool: list[Drawn] = []
    seen: set[str] = set()
    for item in items:
        for passage in item.contexts[Condition.CLEAN.value]["passages"]:
            if passage["text"] not in seen:
                seen.add(passage["text"])
                pool += [(passage, index) for index in range(len(split_sentences(passage["text"])))]
    return pool


def sentence_of(frozen: Frozen, entry: Sequence[Any]) -> str:
    """The offered sentence of one evidence entry [rank, sentence, similarity]."""
    text = next(p["text"] for p in frozen["passages"] if p["rank"] == entry[0])
    return split_sentences(text)[int(entry[1])]


def _title(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0].replace("-", " ").replace("_", " ").capitalize() or path


def _random(item: BenchmarkItem, condition: Condition) -> random.Random:
    seed = hashlib.sha256(f"{condition.value}:{item.key}:{item.question}".encode()).digest()
    return random.Random(int.from_bytes(seed[:8]))
