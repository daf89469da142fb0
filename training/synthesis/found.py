"""What production retrieval brings for a written question, and where in it the answer stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from assistants.models import Assistant
from generation.overlap import content_words, ngram_recall, words
from generation.prompts import split_sentences
from knowledge.evidence import ScoredSentence, is_below, sentence_matrices
from knowledge.retrieval import RetrievedPassage, evidence_for, retrieve
from training.synthesis.drafts import Draft
from training.synthesis.shapes import DENIES, MONEY, SPAN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FAR = 0.5
"""Similarity of the best sentence from which a question that no document should answer may be answered after all."""
_HOLDS = 0.1
"""ChatQA's test: what shares so few of the answer's 4-grams does not hold it (Liu et al. 2024)."""


@dataclass(frozen=True)
class Retrieved:
    """``gold``: [rank, sentence] of each sentence of the answer, None where it was not offered."""

    passages: tuple[RetrievedPassage, ...]
    evidence: tuple[ScoredSentence, ...]
    gold: tuple[list[int] | None, ...]
    digest: str
    vector: NDArray[np.float32]
    withheld: bool = False
    """Below the assistant's threshold: serving declines it without asking a model, so nobody need learn it."""

    @property
    def complete(self) -> bool:
        return bool(self.gold) and None not in self.gold

    def contexts(self) -> dict[str, Any]:
        """As a benchmark item's condition; ``gold``: where the first sentence of the answer stands."""
        return {
            "passages": [
                {"rank": p.rank, "title": p.title, "source": p.source, "text": p.text} for p in self.passages
            ],
            "evidence": [[e.rank, e.sentence, e.similarity] for e in self.evidence],
            "gold": self.gold[0] if self.gold else None,
        }  # fmt: skip

    def offered(self) -> list[str]:
        """The sentences that a prompt would show, each behind its title."""
        by_rank = {p.rank: (p.title, split_sentences(p.text)) for p in self.passages}
        return [f"{by_rank[e.rank][0]}: {by_rank[e.rank][1][e.sentence]}" for e in self.evidence]


def find(assistant: Assistant, draft: Draft, vector: NDArray[np.float32]) -> Retrieved:
    """Asks as production does. For a counterfactual the passages are edited first, so that evidence, similarities and
    answer all speak of the edited text."""
    # Behind a history production searches by the whole conversation, which is another vector than the question's.
    known = None if draft.history else vector
    result = retrieve(assistant=assistant, question=draft.question, history=draft.history, vector=known)
    passages, evidence, withheld = tuple(result.passages), tuple(result.evidence), result.withheld
    if draft.task.edit is not None:
        passages = tuple(_edited(p, draft) for p in passages)
        evidence = tuple(evidence_for(assistant=assistant, vector=vector, passages=passages))
        withheld = is_below((one.similarity for one in evidence), assistant.evidence_threshold)
        evidence = () if withheld else evidence
    offered = {(e.rank, e.sentence) for e in evidence}
    gold = tuple(
        _place(text, source.chunk.pk, passages, offered)
        for text, source in zip(draft.texts, draft.gold, strict=True)
    )  # fmt: skip
    return Retrieved(passages, evidence, gold, result.config_digest, vector, withheld)


def holds_nothing_of(answer: str, found: Retrieved) -> bool:
    """No offered sentence could be taken for the answer: then declining is right."""
    return all(ngram_recall(answer, sentence) < _HOLDS for sentence in found.offered())


def contradicted(draft: Draft, found: Retrieved) -> bool:
    """A counterfactual of which another offered sentence still says the old value."""
    if draft.task.edit is None or not draft.gold:
        return False
    old = draft.gold[0].sentence
    return any(ngram_recall(old, sentence) > 0.5 for sentence in found.offered() if draft.texts[0] not in sentence)


def why_answerable(draft: Draft, found: Retrieved) -> str:
    """What speaks against declining a question that was made to be declined; empty: nothing."""
    if draft.task.form == "out_of_scope":
        best = max((e.similarity for e in found.evidence), default=0.0)
        return f"similarity {best:.2f} to a sentence" if best >= FAR else ""
    asked = content_words(draft.plain)
    for sentence in found.offered():
        told = content_words(sentence)
        if asked <= told or (
            len(asked & told) >= 0.7 * len(asked) and re.search(rf"{MONEY}|{SPAN}|{DENIES}", sentence)
        ):
            return f"it may be answered by: {sentence}"
    return ""


def _edited(passage: RetrievedPassage, draft: Draft) -> RetrievedPassage:
    assert draft.task.edit is not None
    sentence, (old, new) = draft.gold[0].sentence, draft.task.edit
    if sentence not in passage.text:
        return passage
    text = passage.text.replace(sentence, sentence.replace(old, new, 1))
    return replace(passage, text=text, sentence_embeddings=sentence_matrices([(passage.title, text)])[0])


def _place(
    text: str, chunk: int, passages: Sequence[RetrievedPassage], offered: set[tuple[int, int]]
) -> list[int] | None:
    """Of the sentence, or of its double in another passage, among the sentences that are offered."""
    wanted = words(text)
    places = [
        (p, index)
        for p in passages
        for index, sentence in enumerate(split_sentences(p.text))
        if words(sentence) == wanted and (p.rank, index) in offered
    ]
    own = [place for place in places if place[0].chunk_id == chunk]
    best = next(iter(own or places), None)
    return [best[0].rank, best[1]] if best else None
