"""Writes questions from documents: sentence → question (by the engine) → filters → round trip through retrieval.

The answer is the sentence itself, so it is supported by construction; what has to be proved is that the question is
one that a person might type and that production retrieval brings the sentence for it. Every item is stored, dropped
ones with the filter's name, so that a killed synthesis goes on where it stopped and the funnel can show examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from generation.engines import GenerationRequest
from generation.overlap import words
from generation.prompts import build_question_prompt, split_sentences
from knowledge.query import history_query, question_vectors
from knowledge.retrieval import RetrievedPassage, evidence_for, search
from training.data.nearest import Kept
from training.engine import bulk_engine
from training.models import Kind, Synthesis, SyntheticItem
from training.synthesis.filters import first_objection, is_found
from training.synthesis.sentences import Source, sources

if TYPE_CHECKING:
    from generation.engines import Engine

BATCH = 48
MAX_TRIES_PER_WANTED = 5
"""Stop rule: a model that cannot write questions must not read the whole archive in vain."""
NEAR_DUPLICATE = 0.92
WINDOW = 2
"""Sentences of the chunk that are shown before and after the marked one."""
MAX_QUESTION_TOKENS = 40


def perform(synthesis: Synthesis) -> None:
    """Writes until enough are kept, documents are exhausted or the stop rule says enough."""
    engine = bulk_engine()
    done = set(synthesis.items.values_list("chunk_id", "sentence"))
    todo = (s for s in sources(synthesis.assistant, synthesis.seed) if (s.chunk.pk, s.index) not in done)
    kept = _kept_before(synthesis)
    written = len(done)
    while len(kept) < synthesis.wanted and written < synthesis.wanted * MAX_TRIES_PER_WANTED:
        batch = list(islice(todo, min(BATCH, max(16, 2 * (synthesis.wanted - len(kept))))))
        if not batch:
            break
        questions = write_questions(engine, batch)
        items = [_item(synthesis, source, question) for source, question in zip(batch, questions, strict=True)]
        judged = _judge(synthesis, items, batch, kept)
        SyntheticItem.objects.bulk_create(judged, ignore_conflicts=True)
        written += len(judged)
        synthesis.beat(stage="writing questions", done=len(kept), total=synthesis.wanted)
    synthesis.funnel = funnel(synthesis)
    synthesis.save(update_fields=["funnel"])


def funnel(synthesis: Synthesis) -> dict[str, Any]:
    """{written, kept, dropped: {filter: n}} counted from the stored items."""
    dropped = Counter(synthesis.items.values_list("dropped_by", flat=True))
    kept = dropped.pop("", 0)
    return {"written": kept + sum(dropped.values()), "kept": kept, "dropped": dict(dropped)}


def write_questions(engine: Engine, batch: Sequence[Source]) -> list[str]:
    requests = []
    for source in batch:
        start = max(0, source.index - WINDOW)
        shown = source.sentences[start : source.index + WINDOW + 1]
        prompt = build_question_prompt(title=source.chunk.title, sentences=shown, marked=source.index - start)
        requests.append(GenerationRequest(messages=prompt.messages, max_new_tokens=MAX_QUESTION_TOKENS))
    return [" ".join(result.text.split()) for result in engine.generate(requests)]


def _item(synthesis: Synthesis, source: Source, question: str) -> SyntheticItem:
    return SyntheticItem(
        synthesis=synthesis, chunk=source.chunk, source=source.path, sentence=source.index, question=question,
        response=source.sentence, kind=Kind.ANSWER,
        dropped_by=first_objection(question, source.sentence, source.chunk.title),
    )  # fmt: skip


def _judge(
    synthesis: Synthesis, items: list[SyntheticItem], batch: Sequence[Source], kept: Kept
) -> list[SyntheticItem]:
    """Near-duplicates and round trip for the items that still stand. Adds the questions that are kept to ``kept``;
    returns the items that were judged: all, or those up to the last question that was wanted."""
    assistant = synthesis.assistant
    standing = [i for i, item in enumerate(items) if not item.dropped_by]
    vectors = question_vectors([(items[i].question, ()) for i in standing], assistant.glossary)
    for i, vector in zip(standing, vectors, strict=True):
        item, source = items[i], batch[i]
        if len(kept) == synthesis.wanted:
            return items[:i]
        if kept.similarity(vector) >= NEAR_DUPLICATE:
            item.dropped_by = "asked already"
            continue
        query = history_query(item.question, (), assistant.glossary)
        passages = search(assistant=assistant, query=query, vector=vector, k=assistant.retrieval_k)
        evidence = evidence_for(assistant=assistant, vector=vector, passages=passages)
        gold = _place(source, passages)
        if not is_found(gold, [[e.rank, e.sentence] for e in evidence]):
            item.dropped_by = "not retrieved"
            continue
        item.contexts = {
            "passages": [{"rank": p.rank, "title": p.title, "source": p.source, "text": p.text} for p in passages],
            "evidence": [[e.rank, e.sentence, e.similarity] for e in evidence],
            "gold": gold,
        }
        kept.add(vector)
    return items


def _place(source: Source, passages: Sequence[RetrievedPassage]) -> list[int] | None:
    """[rank, sentence index] of the source sentence (or of its double in another passage) among the passages."""
    wanted = words(source.sentence)
    places = [
        [p.rank, index] for p in passages for index, s in enumerate(split_sentences(p.text)) if words(s) == wanted
    ]
    own = [place for place in places if passages[place[0] - 1].chunk_id == source.chunk.pk]
    return next(iter(own or places), None)


def _kept_before(synthesis: Synthesis) -> Kept:
    """The questions that an earlier attempt kept."""
    kept = Kept()
    questions = list(synthesis.items.filter(dropped_by="").values_list("question", flat=True))
    for vector in question_vectors([(question, ()) for question in questions], synthesis.assistant.glossary):
        kept.add(vector)
    return kept
