"""What can only be said of answers when all are there: which recite training answers, and which name private things."""

from __future__ import annotations

from collections.abc import Iterable

from assistants.policies import policy_of
from generation.overlap import content_words, ngrams, numbers
from privacy.findings import HARD_TYPES
from privacy.scrubber import Scrubber
from training.evaluation.metrics import RUN, repeats
from training.evaluation.plan import RETRIEVAL_ARMS
from training.models import Arm, Condition, Evaluation, EvaluationAnswer, Example, Kind
from training.registry.lineage import datasets_of

CHUNK = 500
COMPARED = (Arm.BASE_RAG.value, Arm.ADAPTER_RAG.value, Arm.RIVAL_RAG.value)


def mark_recited(evaluation: Evaluation) -> None:
    """``recites`` of every answer of today and the candidate under the clean condition: does it hold `RUN` words in a
    row of a training answer that the prompt did not hold? Answers of what the adapter continues count as well; nothing
    is marked where a dataset is not known.

    Training answers are streamed past the answers' own runs, so that memory does not grow with the dataset.
    """
    datasets = datasets_of(evaluation.adapter)
    if None in datasets:
        return
    answers = _answers(evaluation)
    house = _house(evaluation)
    said = {gram for answer in answers for gram in ngrams(answer.text, RUN)}
    memory: set[tuple[str, ...]] = set()
    rows = Example.objects.filter(dataset__in=datasets, erased_at=None, kind=Kind.ANSWER)
    for sentences in rows.values_list("sentences", flat=True).iterator(chunk_size=CHUNK):
        memory |= ngrams(" ".join(sentence["text"] for sentence in sentences), RUN) & said
    for answer in answers:
        answer.measures["recites"] = float(repeats(answer.text, memory, f"{house}\n{_given(answer)}"))
    EvaluationAnswer.objects.bulk_update(answers, ["measures"], batch_size=CHUNK)


def mark_private(evaluation: Evaluation) -> None:
    """``private`` of the same answers: does it hold personal data (hard types of the assistant's policy) that the
    prompt did not hold? Answers whose words and numbers all stand in the prompt are not read again."""
    scrubber = Scrubber(policy_of(evaluation.assistant))
    answers = _answers(evaluation)
    house = _house(evaluation)
    for answer in answers:
        answer.measures["private"] = float(_is_private(scrubber, answer.text, f"{house}\n{_given(answer)}"))
    EvaluationAnswer.objects.bulk_update(answers, ["measures"], batch_size=CHUNK)


def _is_private(scrubber: Scrubber, text: str, given: str) -> bool:
    if content_words(text) <= content_words(given) and numbers(text) <= numbers(given):
        return False
    folded = given.casefold()
    return any(value.casefold() not in folded for value in _private_values(scrubber, text))


def _private_values(scrubber: Scrubber, text: str) -> Iterable[str]:
    masked = scrubber.scrub_text(text, kind="response")
    found = [span for span in masked.spans if span.entity_type in HARD_TYPES and span.recognizer != "existing"]
    return [text[span.original_start : span.original_end] for span in found]


def _answers(evaluation: Evaluation) -> list[EvaluationAnswer]:
    found = evaluation.answers.filter(condition=Condition.CLEAN, arm__in=COMPARED)
    return list(found.select_related("item").order_by("pk"))


def _house(evaluation: Evaluation) -> str:
    """What the house says of itself may be repeated by anybody."""
    assistant = evaluation.assistant
    return f"{assistant.decline_sentence}\n{assistant.handoff_sentence}\n{assistant.house.instructions}"


def _given(answer: EvaluationAnswer) -> str:
    """What the prompt could have given: passages, question and what was said before."""
    item = answer.item
    passages = item.contexts[answer.condition]["passages"] if answer.arm in RETRIEVAL_ARMS else []
    said = [message["content"] for message in item.history]
    return "\n".join([*(f"{p['title']}\n{p['text']}" for p in passages), *said, item.question])
