"""Every arm answers every question under every condition: what is left is asked, what is answered is stored.

An interrupted evaluation goes on where it stopped, since the stored answers say what is done. Prompts depend on the
condition and not on the arm, so that arms with retrieval see the same to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from generation.engines import GenerationRequest, GenerationResult, PromptTooLong
from generation.prompts import Message, Prompt, build_prompt, parse_answer
from knowledge.evidence import is_below
from training.data.render import offered
from training.evaluation import extractive
from training.evaluation.conditions import is_gold, sentence_of
from training.evaluation.few_shot import Demonstration, with_demonstrations
from training.evaluation.metrics import Entails
from training.evaluation.plan import RETRIEVAL_ARMS, Plan
from training.evaluation.scoring import expected, measure, passages_of
from training.models import Arm, BenchmarkItem, Condition, Evaluation, EvaluationAnswer, Kind

if TYPE_CHECKING:
    from generation.engines import Engine

BATCH = 64
MAX_ANSWER_TOKENS = 96
ADAPTER_ARMS = frozenset({Arm.ADAPTER.value, Arm.ADAPTER_RAG.value})


@dataclass(frozen=True)
class Task:
    item: BenchmarkItem
    arm: str
    condition: str


@dataclass
class Examination:
    """One evaluation on its way: what all its tasks share."""

    evaluation: Evaluation
    engine: Engine
    plan: Plan
    items: Sequence[BenchmarkItem]
    """Of the benchmark, then of the questions outside the domain, where these are asked."""
    shown: Sequence[Demonstration] = ()
    thresholds: Sequence[float] = ()
    """Of the extractive arm, for each fold; none where the plan has one for all arms."""
    entails: Entails | None = None
    _kept: dict[tuple[int, str], int] = field(default_factory=dict)

    def tasks(self) -> list[Task]:
        """What is left to answer, arm by arm: batches of one arm have prompts of like length."""
        done = set(self.evaluation.answers.values_list("item_id", "arm", "condition"))
        return [task for task in self.all_tasks() if (task.item.pk, task.arm, task.condition) not in done]

    def all_tasks(self) -> Iterator[Task]:
        for arm, condition in self.plan.pairs():
            for item in self.items:
                if condition in item.contexts:
                    yield Task(item, arm, condition)

    def answer(self, batch: Sequence[Task]) -> list[EvaluationAnswer]:
        declined = {task for task in batch if below(task, self.plan.threshold)}
        by_engine = [task for task in batch if task.arm != Arm.EXTRACTIVE and task not in declined]
        prompts, results = self._generated(by_engine)
        written = dict(zip(by_engine, zip(prompts, results, strict=True), strict=True))
        rows = []
        for task in batch:
            prompt, result = written.get(task) or (task_prompt(self.evaluation, task), None)
            if task in declined:
                text = self.evaluation.assistant.decline_sentence
            else:
                text = self._extracted(task, prompt) if result is None else result.text
            rows.append(self._row(task, prompt, text, result))
        return rows

    def seconds(self, task: Task) -> float:
        """How long one answer takes when nothing else is asked."""
        _, (result,) = self._generated([task])
        return result.seconds

    def _generated(self, tasks: Sequence[Task]) -> tuple[list[Prompt], list[GenerationResult]]:
        """Prompts and completions. What does not fit the model's context loses its last sentences that are not gold,
        the same for every arm; a demonstration goes before a sentence does."""
        demonstrations = [len(self.shown)] * len(tasks)
        while True:
            prompts = [
                task_prompt(self.evaluation, task, self._sentences(task, n))
                for task, n in zip(tasks, demonstrations, strict=True)
            ]
            asked = zip(tasks, prompts, demonstrations, strict=True)
            requests = [self._request(task, prompt, n) for task, prompt, n in asked]
            try:
                return prompts, self.engine.generate(requests) if requests else []
            except PromptTooLong as error:
                task = tasks[error.index]
                if task.arm == Arm.FEW_SHOT and demonstrations[error.index]:
                    demonstrations[error.index] -= 1
                    continue
                kept = self._kept.get(_key(task), len(_evidence(task)))
                if kept <= 1:
                    raise
                self._kept[_key(task)] = kept - 1

    def _sentences(self, task: Task, demonstrations: int) -> int | None:
        """How many sentences fit. An arm that still shows examples does not hear of other arms what fits: it would show
        more of them where the same process has asked those before, and another prompt where another process has."""
        return None if task.arm == Arm.FEW_SHOT and demonstrations else self._kept.get(_key(task))

    def _request(self, task: Task, prompt: Prompt, demonstrations: int) -> GenerationRequest:
        messages: Sequence[Message] = prompt.messages
        if task.arm == Arm.FEW_SHOT:
            messages = with_demonstrations(prompt, self.shown[:demonstrations])
        adapter = self.evaluation.adapter if task.arm in ADAPTER_ARMS else None
        if task.arm == Arm.RIVAL_RAG:
            adapter = self.evaluation.rival
        name = adapter.engine_name if adapter is not None else None
        return GenerationRequest(messages=messages, adapter=name, max_new_tokens=MAX_ANSWER_TOKENS)

    def _extracted(self, task: Task, prompt: Prompt) -> str:
        fold = extractive.fold_of(cluster_of(task.item))
        threshold = self.thresholds[fold] if self.thresholds else 0.0
        return extractive.completion(
            self.evaluation.assistant.house, prompt, task.item.contexts[task.condition], threshold
        )

    def _row(self, task: Task, prompt: Prompt, text: str, result: GenerationResult | None) -> EvaluationAnswer:
        evaluation = self.evaluation
        answer = parse_answer(house=evaluation.assistant.house, prompt=prompt, completion=text)
        measures = measure(
            item=task.item, arm=task.arm, condition=task.condition, answer=answer, assistant=evaluation.assistant,
            entails=self.entails,
        )  # fmt: skip
        tokens = result.completion_tokens if result else 0
        if result:
            measures["tokens"] = float(tokens)
        return EvaluationAnswer(
            evaluation=evaluation, item=task.item, arm=task.arm, condition=task.condition,
            completion=text, text=answer.marked, declined=answer.declined, measures=measures,
            seconds=result.seconds if result else 0.0, completion_tokens=tokens,
        )  # fmt: skip


def task_prompt(evaluation: Evaluation, task: Task, kept: int | None = None) -> Prompt:
    """The prompt of one task: what serving would build for these passages. ``kept``: so many sentences, where all do
    not fit."""
    passages = passages_of(task.item, task.arm, task.condition)
    return build_prompt(
        house=evaluation.assistant.house,
        question=task.item.question,
        passages=passages,
        **offered(_shortened(_evidence(task), task, kept) if passages else []),
        history=task.item.history,
    )


def below(task: Task, threshold: float) -> bool:
    """Whether serving would decline this without asking: the arm retrieves, and all of it lies below the threshold.

    What is expected of the answer stays what it was (`scoring.expected` knows no threshold): a threshold that declines
    what retrieval did find loses by it.
    """
    if task.arm not in RETRIEVAL_ARMS:
        return False
    return is_below((entry[2] for entry in task.item.contexts[task.condition]["evidence"]), threshold)


def cluster_of(item: BenchmarkItem) -> str:
    """Questions on one document are alike; one without a document stands for itself."""
    return str(item.gold[0]["path"]) if item.gold else f"item:{item.key}"


def fitted_thresholds(evaluation: Evaluation, items: Sequence[BenchmarkItem]) -> list[float]:
    """The extractive arm's thresholds, fitted under the clean condition; no model is asked."""
    clean = [item for item in items if Condition.CLEAN.value in item.contexts]
    house = evaluation.assistant.house

    def worth(item: BenchmarkItem, declined: bool) -> float:
        task = Task(item, Arm.EXTRACTIVE.value, Condition.CLEAN.value)
        frozen = item.contexts[task.condition]
        if declined or extractive.best(frozen) is None:
            return float(expected(item, task.arm, task.condition) == Kind.DECLINE)
        prompt = task_prompt(evaluation, task)
        text = extractive.completion(house, prompt, frozen, 0.0)
        answer = parse_answer(house=house, prompt=prompt, completion=text)
        found = measure(
            item=item, arm=task.arm, condition=task.condition, answer=answer, assistant=evaluation.assistant
        )
        return found["grounded_correct"]

    def similarity(item: BenchmarkItem) -> float:
        found = extractive.best(item.contexts[Condition.CLEAN.value])
        return found[2] if found else 0.0

    clusters = [cluster_of(item) for item in clean]
    return extractive.thresholds(clean, [similarity(item) for item in clean], clusters, worth)


def _key(task: Task) -> tuple[int, str]:
    return task.item.pk, task.condition


def _evidence(task: Task) -> list[Any]:
    return list(task.item.contexts[task.condition]["evidence"]) if task.arm in RETRIEVAL_ARMS else []


def _shortened(evidence: list[Any], task: Task, kept: int | None) -> list[Any]:
    if kept is None or len(evidence) <= kept:
        return evidence
    frozen = task.item.contexts[task.condition]
    left = list(evidence)
    for entry in reversed(evidence):
        # Half of its runs: a gold sentence with a changed number is still the gold one.
        if len(left) > kept and not is_gold(sentence_of(frozen, entry), task.item.gold, 0.5):
            left.remove(entry)
    return left[:kept]
