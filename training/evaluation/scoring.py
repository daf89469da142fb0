"""One answer judged against one benchmark item: what was expected here, and was it that?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assistants.models import Assistant
from generation.prompts import Answer, PromptPassage, PromptStyle
from training.evaluation.metrics import (
    REFERENCE_F1,
    Entails,
    answer_presence,
    citation_quality,
    dates_exact,
    exact_match,
    groundedness,
    holds,
    normalise,
    numbers_exact,
    rouge_l,
    token_f1,
    unsupported_numbers,
)
from training.evaluation.plan import RETRIEVAL_ARMS
from training.models import BenchmarkItem, Condition, Kind


@dataclass(frozen=True)
class Gold:
    """What counts as right under one condition."""

    answers: Sequence[str]
    must_contain: Sequence[Sequence[str]]
    must_not_contain: Sequence[str]


def gold_of(item: BenchmarkItem, condition: str) -> Gold:
    """The item's own gold, or what a counterfactual context puts in its place."""
    frozen = item.contexts.get(condition, {})
    return Gold(
        answers=frozen.get("answers", item.answers),
        must_contain=frozen.get("must_contain", item.must_contain),
        must_not_contain=frozen.get("must_not_contain", item.must_not_contain),
    )


def expected(item: BenchmarkItem, arm: str, condition: str) -> Kind:
    """What is right for this prompt.

    Handing over wins everywhere. With retrieval, an answer is expected only where the prompt offers the sentence that
    holds it: where retrieval missed it, or the oracle was taken away, declining is right. Without retrieval nothing is
    offered and the question itself decides, so that saying nothing to everything earns nothing.
    """
    if item.kind != Kind.ANSWER or arm not in RETRIEVAL_ARMS:
        return Kind(item.kind)
    if condition == Condition.MISSING_ORACLE or not item.contexts[condition]["has_gold"]:
        return Kind.DECLINE
    return Kind.ANSWER


def passages_of(item: BenchmarkItem, arm: str, condition: str) -> list[PromptPassage]:
    if arm not in RETRIEVAL_ARMS:
        return []
    return [PromptPassage(p["rank"], p["title"], p["text"]) for p in item.contexts[condition]["passages"]]


def measure(
    *,
    item: BenchmarkItem,
    arm: str,
    condition: str,
    answer: Answer,
    assistant: Assistant,
    entails: Entails | None = None,
) -> dict[str, float]:
    """Measures of one answer as numbers (flags are 0 or 1); a measure that does not apply is left out.

    ``grounded_correct`` is the primary: the expected kind of behaviour, and for an answer the right content, nothing of
    a superseded version, and every sentence supported by the sentence it cites. ``entails``: a model's judgement of
    support, measured besides.
    """
    wanted = expected(item, arm, condition)
    passages = passages_of(item, arm, condition)
    # The whole answer, not its beginning: a decline that goes on to invent something is not one.
    declined = normalise(answer.text) == normalise(assistant.decline_sentence)
    handed = bool(assistant.handoff_sentence) and normalise(answer.text) == normalise(assistant.handoff_sentence)
    answered = not declined and not handed
    out: dict[str, float] = {"declined": float(declined), "handed_off": float(handed)}
    cites = citation_quality(answer, passages, PromptStyle(assistant.prompt_style))
    if answered:
        out["words"] = float(len(answer.text.split()))
    if answered and passages:
        out["citation_recall"], out["citation_precision"] = cites.recall, cites.precision
        out["invalid_citations"] = float(len(answer.invalid_pointers))
        out["unsupported_numbers"] = float(unsupported_numbers(answer.text, passages))
        out["groundedness"] = groundedness(answer.text, passages)
        if entails is not None:
            judged = citation_quality(answer, passages, PromptStyle(assistant.prompt_style), entails=entails)
            out["citation_recall_nli"], out["citation_precision_nli"] = judged.recall, judged.precision
    if wanted == Kind.ANSWER:
        gold = gold_of(item, condition)
        right = answered and is_right(gold, answer.text)
        said = answer.text if answered else ""
        out["exact_match"] = exact_match(said, gold.answers)
        out["f1"] = token_f1(said, gold.answers) if answered else 0.0
        out["rouge_l"] = rouge_l(said, gold.answers)
        for name, exact in (("numbers_exact", numbers_exact), ("dates_exact", dates_exact)):
            if (value := exact(said, gold.answers)) is not None:
                out[name] = value
        out["answer_presence"] = float(right)
        out["over_refusal"] = float(not answered)
        out["grounded_correct"] = float(right and cites.sentences > 0 and cites.recall == 1.0)
    elif wanted == Kind.DECLINE:
        out["rightly_declined"] = out["grounded_correct"] = float(declined)
    else:
        out["rightly_handed_off"] = out["grounded_correct"] = float(handed)
    return out


def is_right(gold: Gold, text: str) -> bool:
    if any(holds(text, phrase) for phrase in gold.must_not_contain):
        return False
    if gold.must_contain:
        return answer_presence(text, gold.must_contain)
    return token_f1(text, gold.answers) >= REFERENCE_F1
