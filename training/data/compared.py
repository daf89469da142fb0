"""Pairs of blind comparisons as candidates: the preferred answer over the other one."""

from __future__ import annotations

from typing import Any

from annotations.becoming import kind_of
from annotations.models import Choice
from annotations.resolving import Wording
from assistants.models import Assistant
from generation.prompts import parse_answer
from training.data.candidates import Candidate, Refused, gold_sentences, group_name
from training.data.reading import Unreadable, read_messages, read_sentences
from training.models import Kind, Origin

OTHER_FORMAT = "asked with another prompt format"


def from_pair(pair: Any, assistant: Assistant) -> Candidate | Refused:
    """``pair`` of `ComparisonPairQuerySet.preferred`, with its round."""
    house = assistant.house
    won = pair.winner == Choice.CANDIDATE
    chosen = pair.candidate_completion if won else pair.baseline_completion
    other = pair.baseline_completion if won else pair.candidate_completion
    try:
        asked = read_messages(house=house, messages=pair.prompt)
    except Unreadable:
        return Refused(OTHER_FORMAT)
    if not asked.exact:
        return Refused(OTHER_FORMAT)
    # The contexts of the pair know their documents; the prompt knows only titles.
    sources = {context["title"]: context.get("source", "") for context in pair.contexts}
    contexts = [{**context, "source": sources.get(context["title"], "")} for context in asked.contexts]
    sentences = read_sentences(house=house, prompt=asked.prompt, completion=chosen)
    if not sentences:
        return Refused("the preferred answer is empty")
    wording = Wording(decline=assistant.decline_sentence, handoff=assistant.handoff_sentence)
    response = " ".join(sentence["text"] for sentence in sentences)
    return Candidate(
        origin=Origin.PREFERRED,
        kind=Kind(kind_of(response, wording)),
        # Where users asked it, it belongs to their conversation, and goes with it.
        group=group_name("conversation", pair.turn.conversation.external_id)
        if pair.turn is not None
        else group_name("comparison", f"{pair.round.name}:{pair.key}"),
        question=asked.question,
        history=asked.history,
        contexts=contexts,
        evidence=asked.evidence,
        sentences=sentences,
        rejected=parse_answer(house=house, prompt=asked.prompt, completion=other).marked,
        turn_id=pair.turn_id,
        came_from=f"comparison {pair.round.name}, pair {pair.position}"[:200],
        gold=gold_sentences(contexts, sentences),
    )
