"""The chatbot that was there before: what it retrieved and answered, posted through the log API like anybody's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx

from assistants.models import Assistant
from generation.overlap import ngram_recall
from generation.prompts import Message, split_sentences
from knowledge.query import question_vectors
from knowledge.retrieval import RetrievedPassage, retrieve
from serving.demo.content import DECLINE, HANDOFF, DemoTurn
from training.data.alter import SHARES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH = 50
OLD_K = 4
"""Passages that the old chatbot put into its prompt."""
OLD_MODEL = "old-chatbot-2"


class DemoFailed(RuntimeError):
    """A step of the demo did not work; the message says which answer it got."""


def compose(assistant: Assistant, turns: Sequence[DemoTurn]) -> list[dict[str, Any]]:
    """The log as the frontend posts it: contexts are what our own retrieval brings for the question, since the old
    chatbot searched the same pages; its answers are the authors'."""
    vectors = _question_vectors(assistant, turns)
    history: dict[str, list[Message]] = defaultdict(list)
    # Two months up to the assistant's first day: the same on every run, since posting again must be a repeat.
    apart = timedelta(days=60) / max(1, len(turns))
    started = assistant.created_at - timedelta(days=60)
    items = []
    for number, (turn, vector) in enumerate(zip(turns, vectors, strict=True)):
        said = history[turn.conversation]
        passages = old_contexts(assistant, turn, said, vector)
        response = old_answer(turn, passages)
        items.append({
            "id": turn.id,
            "conversation": turn.conversation,
            "question": turn.question,
            "history": list(said[-8:]),
            "contexts": [
                {"text": p.text, "title": p.title, "source": p.source, "rank": rank, "score": p.score}
                for rank, p in enumerate(passages, start=1)
            ],
            "response": response,
            "model": OLD_MODEL,
            "latency_ms": 400 + 37 * (number % 23),
            "time": (started + apart * number).isoformat(),
            "tags": [turn.conversation.partition("-")[0]],
            "metadata": {"user": {"name": turn.user_name}} if turn.user_name else {},
        })  # fmt: skip
        said += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": response}]
    return items


def _question_vectors(assistant: Assistant, turns: Sequence[DemoTurn]) -> NDArray[np.float32]:
    """All questions embedded at once: a search asks only what the user said before, not what was answered."""
    asked: list[tuple[str, list[Message]]] = []
    earlier: dict[str, list[Message]] = defaultdict(list)
    for turn in turns:
        asked.append((turn.question, list(earlier[turn.conversation])))
        earlier[turn.conversation].append({"role": "user", "content": turn.question})
    return question_vectors(asked, assistant.glossary)


def old_contexts(
    assistant: Assistant, turn: DemoTurn, said: Sequence[Message], vector: NDArray[np.float32]
) -> list[RetrievedPassage]:
    """Four passages. Where the author says that retrieval missed, what answers is taken away; else it is among them."""
    found = retrieve(assistant=assistant, question=turn.question, history=said, k=24, vector=vector).passages
    if turn.bad_contexts:
        used = set((turn.logged or {}).get("cites") or ())
        return [p for p in found if not tells(p, turn.gold, used=p.source in used)][:OLD_K]
    chosen = found[:OLD_K]
    for path, sentence in turn.gold:
        if any(holds(p, path, sentence) for p in chosen):
            continue
        better = next((p for p in found if holds(p, path, sentence)), None) or _search_gold(assistant, path, sentence)
        if better is not None:
            chosen = [*chosen[: OLD_K - 1], better]
    return chosen


def tells(passage: RetrievedPassage, gold: Sequence[tuple[str, str]], *, used: bool) -> bool:
    """Whether it holds what answers, or comes near it: another edition, or another page that says the same. A row that
    declines beside such a sentence teaches to decline what can be answered, so it goes by the test that datasets apply
    to rows whose oracle they take away. ``used``: the old chatbot has answered from it, so it was there."""
    if any(says(passage.text, sentence) for _, sentence in gold):
        return True
    shown = () if used else split_sentences(passage.text)
    return any(ngram_recall(sentence, one) >= SHARES for one in shown for _, sentence in gold)


def _search_gold(assistant: Assistant, path: str, sentence: str) -> RetrievedPassage | None:
    found = retrieve(assistant=assistant, question=sentence, k=8).passages
    return next((p for p in found if holds(p, path, sentence)), None)


def holds(passage: RetrievedPassage, path: str, sentence: str) -> bool:
    return passage.source == path and says(passage.text, sentence)


def says(text: str, sentence: str) -> bool:
    return " ".join(sentence.split()) in " ".join(text.split()) or ngram_recall(sentence, text) > 0.8


def old_answer(turn: DemoTurn, passages: Sequence[RetrievedPassage]) -> str:
    if turn.logged is None:
        return ideal_answer(turn, [(rank, p.source, p.text) for rank, p in enumerate(passages, start=1)])
    cited = [rank for rank, p in enumerate(passages, start=1) if p.source in (turn.logged.get("cites") or ())]
    return " ".join([str(turn.logged["text"]), *(f"[{rank}]" for rank in cited[:2])])


def ideal_answer(turn: DemoTurn, passages: Iterable[tuple[int, str, str]]) -> str:
    """The gold sentences, each with the passage (rank, source, text) that holds it; or the house's fixed sentence."""
    if turn.kind == "handoff":
        return HANDOFF
    if turn.kind == "decline" or turn.bad_contexts:
        return DECLINE
    listed = list(passages)
    parts = []
    for path, sentence in turn.gold:
        rank = next((r for r, source, text in listed if source == path and says(text, sentence)), None)
        parts.append(sentence if rank is None else f"{sentence} [{rank}]")
    return " ".join(parts)


def post_log(client: httpx.Client, items: Sequence[dict[str, Any]], progress: Callable[[int, int], None]) -> int:
    """Posts in batches; how many were new.

    Raises:
        DemoFailed: an item was refused.
    """
    new = 0
    for start in range(0, len(items), BATCH):
        answer = client.post("/api/v1/turns/batch", json=items[start : start + BATCH])
        if answer.status_code not in (200, 201, 202, 207):
            raise DemoFailed(f"The log API answered {answer.status_code}: {answer.text[:300]}")
        results = answer.json()["results"]
        refused = [r for r in results if r["status"] in ("invalid", "conflict")]
        if refused:
            raise DemoFailed(f"The log API refused {len(refused)} turns; the first: {refused[0]}")
        new += sum(r["status"] == "created" for r in results)
        progress(min(start + BATCH, len(items)), len(items))
    return new


def post_feedback(client: httpx.Client, turns: Sequence[DemoTurn]) -> None:
    thumbs = {"up": 1, "down": -1}
    for turn in turns:
        if said := turn.raw.get("feedback"):
            item = {"turn": turn.id, "id": f"thumb-{turn.id}", "kind": "thumb", "value": thumbs[said]}
            answer = client.post("/api/v1/feedback", json=item)
            if answer.status_code >= 400 and answer.status_code != 409:
                raise DemoFailed(f"The feedback API answered {answer.status_code}: {answer.text[:300]}")
