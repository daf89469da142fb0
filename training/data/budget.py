"""No row is cut in training: what is too long for the token budget loses distractors here, and is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings

from assistants.models import Assistant
from generation.prompts import (
    House,
    Prompt,
    PromptPassage,
    PromptStyle,
    SentenceRef,
    build_prompt,
    render_completion,
)
from training.data.alter import cited_ranks
from training.data.candidates import Candidate
from training.data.rejected import rejected_completion
from training.data.render import offered
from training.finetune.bases import base_folder

SPARE = 24
"""Tokens for the marks of the chat template around each message, at most."""


@dataclass
class Budget:
    """``rows`` that lost something, and ``dropped`` sentences or passages in all."""

    assistant: Assistant
    most: int
    rows: int = 0
    dropped: int = 0
    _tokenizer: Any = None

    def fit(self, row: Candidate) -> Candidate | None:
        """The row, with as few distractors less as it takes; None where it does not fit without any."""
        if not self.most:
            return row
        before = self._size(row)
        if before <= self.most:
            return row
        droppable = _may_go(row, self.assistant.prompt_style)
        low, high = 1, len(droppable)
        best: Candidate | None = None
        while low <= high:  # fewer distractors are never longer
            middle = (low + high) // 2
            tried = _less(row, droppable[:middle], self.assistant.prompt_style)
            if self._size(tried) <= self.most:
                best, high = tried, middle - 1
                taken = middle
            else:
                low = middle + 1
        if best is not None:
            self.rows += 1
            self.dropped += taken
        return best

    def _size(self, row: Candidate) -> int:
        """Tokens, or bytes where already these fit: no tokenizer of ours makes more tokens than bytes."""
        messages, answers = messages_of(self.assistant.house, row)
        contents = [message["content"] for message in messages]
        size = sum(len(text.encode()) + SPARE for text in contents) + max(len(a.encode()) + SPARE for a in answers)
        if size <= self.most:
            return size
        return max(self._tokens([*messages, {"role": "assistant", "content": answer}]) for answer in answers)

    def _tokens(self, messages: Sequence[dict[str, str]]) -> int:
        from generation.chat import control_tokens, render_chat

        if self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(base_folder(settings.RATCHET_BASE_MODEL))
        text = render_chat(self._tokenizer, messages, control_tokens(self._tokenizer), answered=True)
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def prompt_of(house: House, row: Candidate) -> Prompt:
    """Raises ValueError when the evidence does not fit the contexts."""
    return build_prompt(
        house=house,
        question=row.question,
        passages=[PromptPassage(c["rank"], c["title"], c["text"]) for c in row.contexts],
        **offered(row.evidence),
        history=row.history,
    )


def messages_of(house: House, row: Candidate) -> tuple[list[dict[str, str]], list[str]]:
    """The prompt, and the answers that may stand behind it."""
    prompt = prompt_of(house, row)
    answers = []
    if row.sentences:
        said = [(s["text"], [SentenceRef(*ref) for ref in s["refs"]]) for s in row.sentences]
        answers.append(render_completion(house=house, prompt=prompt, sentences=said))
    if row.rejected:
        passages = [PromptPassage(c["rank"], c["title"], c["text"]) for c in row.contexts]
        answers.append(rejected_completion(house=house, prompt=prompt, passages=passages, text=row.rejected))
    return [{"role": m["role"], "content": m["content"]} for m in prompt.messages], answers or [""]


def _may_go(row: Candidate, style: str) -> list[Any]:
    """Passages (their ranks) or sentences of evidence that nothing cites, least similar first."""
    if style == PromptStyle.PASSAGES:
        cited = cited_ranks(row)
        if not any(int(ref[0]) in cited for ref in row.evidence):
            # A prompt with nothing offered shows no passage at all: the best one that is offered stays.
            cited = cited | {int(ref[0]) for ref in row.evidence[:1]}
        return [c["rank"] for c in reversed(row.contexts) if c["rank"] not in cited]
    cited_sentences = {(ref[0], ref[1]) for sentence in row.sentences for ref in sentence["refs"]}
    free = [ref for ref in row.evidence if (int(ref[0]), int(ref[1])) not in cited_sentences]
    return sorted(free, key=lambda ref: (ref[2], -ref[0], -ref[1]))


def _less(row: Candidate, gone: Sequence[Any], style: str) -> Candidate:
    if style == PromptStyle.PASSAGES:
        return replace(
            row,
            contexts=[c for c in row.contexts if c["rank"] not in gone],
            evidence=[ref for ref in row.evidence if int(ref[0]) not in gone],
        )
    return replace(row, evidence=[ref for ref in row.evidence if ref not in gone])
