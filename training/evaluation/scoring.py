"""One answer judged against one benchmark item: what was expected here, and was it that?"""

from __future__ import annotations

from assistants.models import Assistant
from generation.prompts import Answer, PromptPassage, PromptStyle
from training.evaluation.metrics import (
    REFERENCE_F1,
    answer_presence,
    citation_quality,
    holds,
    normalise,
    token_f1,
    unsupported_numbers,
)
from training.models import Arm, BenchmarkItem, Condition, Kind

RETRIEVAL_ARMS = frozenset({Arm.BASE_RAG.value, Arm.ADAPTER_RAG.value})


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
    *, item: BenchmarkItem, arm: str, condition: str, answer: Answer, assistant: Assistant
) -> dict[str, float]:
    """Measures of one answer as numbers (flags are 0 or 1); a measure that does not apply is left out.

    ``grounded_correct`` is the primary: the expected kind of behaviour, and for an answer the right content, nothing of
    a superseded version, and every sentence supported by the sentence it cites.
    """
    wanted = expected(item, arm, condition)
    passages = passages_of(item, arm, condition)
    # The whole answer, not its beginning: a decline that goes on to invent something is not one.
    declined = normalise(answer.text) == normalise(assistant.decline_sentence)
    handed = bool(assistant.handoff_sentence) and normalise(answer.text) == normalise(assistant.handoff_sentence)
    answered = not declined and not handed
    out: dict[str, float] = {"declined": float(declined), "handed_off": float(handed)}
    cites = citation_quality(answer, passages, PromptStyle(assistant.prompt_style))
    if answered and passages:
        out["citation_recall"], out["citation_precision"] = cites.recall, cites.precision
        out["unsupported_numbers"] = float(unsupported_numbers(answer.text, passages))
    if wanted == Kind.ANSWER:
        right = answered and is_right(item, answer.text)
        out["f1"] = token_f1(answer.text, item.answers) if answered else 0.0
        out["answer_presence"] = float(right)
        out["over_refusal"] = float(not answered)
        out["grounded_correct"] = float(right and cites.sentences > 0 and cites.recall == 1.0)
    elif wanted == Kind.DECLINE:
        out["rightly_declined"] = out["grounded_correct"] = float(declined)
    else:
        out["rightly_handed_off"] = out["grounded_correct"] = float(handed)
    return out


def is_right(item: BenchmarkItem, text: str) -> bool:
    if any(holds(text, phrase) for phrase in item.must_not_contain):
        return False
    if item.must_contain:
        return answer_presence(text, item.must_contain)
    return token_f1(text, item.answers) >= REFERENCE_F1
