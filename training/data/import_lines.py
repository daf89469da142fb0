"""One line of an imported set, in any of the formats that are read, as texts and structure. Pure: nothing is stored."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from assistants.models import Assistant
from generation.alignment import AlignedSentence
from generation.prompts import parse_answer
from training.data.reading import MAX_CHARS, MAX_MESSAGES, read_messages, read_sentences

MAX_LINE = 400_000
MAX_CONTEXTS = 40
_SURROGATE = re.compile("[\ud800-\udfff]")


class Refused(ValueError):
    """One row that cannot be taken; the message says why and quotes nothing of it."""


@dataclass
class Taken:
    """A row's texts and structure, before it is scrubbed. ``sentences`` is empty where only ``rejected`` is known."""

    question: str
    history: list[dict[str, str]] = field(default_factory=list)
    contexts: list[dict[str, Any]] = field(default_factory=list)
    evidence: list[list[float]] = field(default_factory=list)
    sentences: list[AlignedSentence] = field(default_factory=list)
    rejected: str = ""


def take(assistant: Assistant, line: str) -> Taken:
    """Raises Refused, or Unreadable for messages that are no question."""
    if len(line) > MAX_LINE:
        raise Refused(f"it is longer than {MAX_LINE:,} characters")
    if "\x00" in line or "\\u0000" in line:
        raise Refused("it holds a NUL character")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise Refused("it is not JSON") from None
    if not isinstance(value, dict):
        raise Refused("a row is a JSON object")
    if "\\ud" in line.lower() and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise Refused("it holds half of a character")
    if "question" in value:
        return _own(value)
    if "messages" in value:
        messages = _messages(value["messages"], "user")
        if len(messages) < 2 or messages[-1].get("role") != "assistant":
            raise Refused("messages end with the assistant's answer")
        return _asked(assistant, messages[:-1], _content(messages[-1:]), "")
    value = _preference(value)
    if "prompt" not in value:
        raise Refused("it has none of: question, messages, prompt, input with preferred_output")
    prompt = _messages(value["prompt"], "user")
    if "chosen" in value and "rejected" in value:
        chosen, rejected = (_content(_messages(value[name], "assistant")) for name in ("chosen", "rejected"))
        return _asked(assistant, prompt, chosen, rejected)
    if "completion" not in value:
        raise Refused("a prompt needs a completion, or chosen and rejected")
    completion = _content(_messages(value["completion"], "assistant"))
    label = value.get("label", True)
    if not isinstance(label, bool):
        raise Refused("label must be true or false")
    return _asked(assistant, prompt, completion if label else "", "" if label else completion)


def _preference(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A preference row of OpenAI's with TRL's names; others as they are."""
    asked = value.get("input")
    if not isinstance(asked, dict) or not {"preferred_output", "non_preferred_output"} <= value.keys():
        return value
    outputs = {"chosen": value["preferred_output"], "rejected": value["non_preferred_output"]}
    return {"prompt": asked.get("messages"), **outputs}


def _messages(value: Any, role: str) -> list[Mapping[str, Any]]:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise Refused("messages are text, or a list of {role, content}")
    return value


def _content(messages: Sequence[Mapping[str, Any]]) -> str:
    if len(messages) != 1 or messages[0].get("role") != "assistant" or not isinstance(messages[0].get("content"), str):
        raise Refused("an answer is one message of the assistant")
    text: str = messages[0]["content"]
    if not text.strip() or len(text) > MAX_CHARS:
        raise Refused(f"an answer has between 1 and {MAX_CHARS:,} characters")
    return text


def _asked(assistant: Assistant, messages: Sequence[Mapping[str, Any]], wanted: str, unwanted: str) -> Taken:
    house = assistant.house
    asked = read_messages(house=house, messages=messages)
    history = [{"role": str(m["role"]), "content": m["content"]} for m in asked.history]
    taken = Taken(asked.question, history, asked.contexts, asked.evidence)
    if wanted:
        taken.sentences = read_sentences(house=house, prompt=asked.prompt, completion=wanted)
        if not taken.sentences:
            raise Refused("the answer says nothing")
        cited = {ref[0] for sentence in taken.sentences for ref in sentence["refs"]}
        taken.contexts = [{**c, "relevant": c["rank"] in cited if cited else None} for c in taken.contexts]
    if unwanted:
        taken.rejected = parse_answer(house=house, prompt=asked.prompt, completion=unwanted).marked or unwanted
    return taken


def _own(value: Mapping[str, Any]) -> Taken:
    """Our own format: every field checked, nothing believed."""
    question, rejected = value["question"], value.get("rejected", "")
    history, contexts = value.get("history", []), value.get("contexts", [])
    evidence, sentences = value.get("evidence", []), value.get("sentences", [])
    if not isinstance(question, str) or not question.strip() or not isinstance(rejected, str):
        raise Refused("question and rejected are text, and the question is not empty")
    if not isinstance(history, list) or len(history) > MAX_MESSAGES or not all(_is_message(one) for one in history):
        raise Refused(f"history is a list of at most {MAX_MESSAGES} messages of user and assistant")
    if not isinstance(contexts, list) or len(contexts) > MAX_CONTEXTS or not all(_is_context(one) for one in contexts):
        raise Refused("contexts are a list of {rank, title, source, text}")
    if not isinstance(evidence, list) or not all(_is_place(one, 3) for one in evidence):
        raise Refused("evidence is a list of [rank, sentence, similarity]")
    if not isinstance(sentences, list) or not all(_is_sentence(one) for one in sentences):
        raise Refused("sentences are a list of {text, refs: [[rank, sentence]]}")
    if not sentences and not rejected.strip():
        raise Refused("it has neither an answer nor one that was rejected")
    size = sum(len(text) for text in (question, rejected, *(c["text"] for c in contexts)))
    if size > MAX_LINE:
        raise Refused(f"its texts are longer than {MAX_LINE:,} characters")
    return Taken(
        question,
        [{"role": one["role"], "content": one["content"]} for one in history],
        [_context(one) for one in contexts],
        [[int(rank), int(place), float(share)] for rank, place, share in evidence],
        [{"text": one["text"], "refs": [[int(r), int(i)] for r, i in one["refs"]]} for one in sentences],
        rejected,
    )


def _context(one: Mapping[str, Any]) -> dict[str, Any]:
    relevant = one.get("relevant")
    return {
        "rank": one["rank"],
        "title": one.get("title", "")[:500],
        "source": one.get("source", "")[:500],
        "text": one["text"],
        "relevant": relevant if isinstance(relevant, bool) else None,
    }


def _is_message(one: Any) -> bool:
    return isinstance(one, dict) and one.get("role") in ("user", "assistant") and isinstance(one.get("content"), str)


def _is_context(one: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(one.get("rank"), int) or isinstance(one["rank"], bool):
        return False
    texts = (one.get("text"), one.get("title", ""), one.get("source", ""))
    return 1 <= one["rank"] <= MAX_CONTEXTS and all(isinstance(text, str) for text in texts)


def _is_place(one: Any, length: int) -> bool:
    return (
        isinstance(one, list)
        and len(one) == length
        and all(isinstance(n, (int, float)) and not isinstance(n, bool) and -1 <= n <= 10_000 for n in one)
    )


def _is_sentence(one: Any) -> bool:
    return (
        isinstance(one, dict)
        and isinstance(one.get("text"), str)
        and bool(one["text"].strip())
        and isinstance(one.get("refs"), list)
        and all(_is_place(ref, 2) for ref in one["refs"])
    )
