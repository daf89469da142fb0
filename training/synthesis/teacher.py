"""Prompts for a teacher, and what its replies say. The teacher sees numbered sentences and answers by their numbers,
so that every answer is made of what stands in the documents.

Documents are not trusted either: their text goes between marks, on one line per sentence, and whatever a reply holds
is only ever a question, a list of numbers or an answer that the filters read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from generation.prompts import Message
from training.synthesis.sentences import Source

MAX_SHOWN = 24
"""Sentences of each chunk that a teacher sees, around those that matter."""
MAX_REPLY_TOKENS = 400

SYSTEM = (
    "You write realistic questions for training a support assistant that may only answer from its documents. "
    "Write in the language of the passages. A question must make sense to somebody who does not see them: name what "
    "it is about, never say “the passage” or “the text”, and do not copy a sentence. "
    "Reply with one JSON object and nothing else."
)
_TASKS = {
    "single": (
        "Write one question that sentence [{marked}] answers completely. "
        'Reply: {{"question": "...", "sentences": [numbers of the sentences that answer it], "answer": "..."}}'
    ),
    "several": (
        "Write one question whose answer needs at least one sentence of each of the two passages. "
        'Reply: {{"question": "...", "sentences": [numbers], "answer": "..."}}'
    ),
    "comparison": (
        "Write one question that compares what the two passages are about, so that one sentence of each is needed. "
        'Reply: {{"question": "...", "sentences": [numbers], "answer": "..."}}'
    ),
    "follow_up": (
        "Write a short conversation: a first question, and a follow-up that is only understood after it and that "
        "sentence [{marked}] answers. "
        'Reply: {{"first": "...", "first_sentences": [numbers], "question": "...", "sentences": [numbers], '
        '"answer": "..."}}'
    ),
    "near_miss": (
        "Write one question about the very thing that sentence [{marked}] is about, for a detail of it that a user "
        "would expect to find and that none of the sentences gives. "
        'Reply: {{"question": "..."}}'
    ),
    "out_of_scope": (
        "The assistant's documents are called: {titles}. Write one question that a user might type here although such "
        "documents cannot answer it. "
        'Reply: {{"question": "..."}}'
    ),
}
_PERSONAS = (
    "Name up to three different people who would have questions about the passage: who they are, in which situation, "
    'what they do not know, in at most 25 words each. Reply: {"personas": ["...", "..."]}'
)


@dataclass(frozen=True)
class Asking:
    """A prompt for one piece of work. ``shown``: the sentence behind each number, from 1."""

    messages: tuple[Message, ...]
    shown: tuple[Source, ...]

    @property
    def digest(self) -> str:
        """Names the prompt: hex, 16 digits."""
        said = json.dumps([dict(m) for m in self.messages], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Written:
    """What a reply says. ``sentences``, ``first_sentences``: places in ``Asking.shown``."""

    question: str
    sentences: tuple[int, ...] = ()
    answer: str = ""
    first: str = ""
    first_sentences: tuple[int, ...] = ()


class Nonsense(ValueError):
    """A reply that is not what was asked for; the message says how."""


def ask_teacher(
    form: str,
    places: Sequence[Source],
    *,
    style: str,
    persona: str = "",
    titles: Sequence[str] = (),
    objection: str = "",
) -> Asking:
    """``places``: the sentences that matter, of one or two chunks; ``objection``: why an earlier try was dropped."""
    shown: list[Source] = []
    blocks: list[str] = []
    for number, source in enumerate(places, start=1):
        start = max(0, min(source.index - MAX_SHOWN // 2, len(source.sentences) - MAX_SHOWN))
        around = [Source(source.chunk, source.path, source.sentences, i) for i in range(start, len(source.sentences))]
        lines = []
        for each in around[:MAX_SHOWN]:
            shown.append(each)
            lines.append(f"[{len(shown)}] {_line(each.sentence)}")
        blocks.append(f"<passage {number}: {_line(source.chunk.title)}>\n" + "\n".join(lines) + "\n</passage>")
    marked = next((i for i, s in enumerate(shown, start=1) if places and s.key == places[0].key), 0)
    task = _TASKS[form].format(marked=marked, titles="; ".join(_line(t) for t in titles[:40]))
    wishes = [task, f"The question should read {style}."]
    wishes += [f"The person who asks: {_line(persona)}"] if persona else []
    wishes += [f"An earlier try was of no use: {objection}. Write another one."] if objection else []
    content = "\n\n".join([*blocks, " ".join(wishes)])
    return Asking(({"role": "system", "content": SYSTEM}, {"role": "user", "content": content}), tuple(shown))


def ask_for_personas(source: Source) -> Asking:
    lines = "\n".join(_line(sentence) for sentence in source.sentences[:MAX_SHOWN])
    content = f"<passage: {_line(source.chunk.title)}>\n{lines}\n</passage>\n\n{_PERSONAS}"
    return Asking(({"role": "system", "content": SYSTEM}, {"role": "user", "content": content}), ())


def read_personas(text: str) -> list[str]:
    """Raises Nonsense."""
    found = _object(text).get("personas")
    if not isinstance(found, list) or not all(isinstance(p, str) for p in found):
        raise Nonsense("it names no personas")
    return [" ".join(p.split())[:300] for p in found[:3] if p.strip()]


def read_reply(form: str, text: str, shown: int) -> Written:
    """Raises Nonsense: no JSON object, no question, or numbers of sentences that were not shown."""
    said = _object(text)
    question = _text(said, "question", 600)
    if not question:
        raise Nonsense("the reply holds no question")
    if form in ("near_miss", "out_of_scope"):
        return Written(question)
    sentences = _numbers(said, "sentences", shown)
    if not sentences:
        raise Nonsense("the reply names no sentence that answers")
    first, first_sentences = "", tuple[int, ...]()
    if form == "follow_up":
        first, first_sentences = _text(said, "first", 600), _numbers(said, "first_sentences", shown)
        if not first or not first_sentences:
            raise Nonsense("the reply holds no first question with its sentences")
    return Written(question, sentences, _text(said, "answer", 2_000), first, first_sentences)


def _object(text: str) -> dict[str, Any]:
    """The first JSON object in the text: models put words or a code fence around it."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise Nonsense("the reply is no JSON object")
    try:
        said = json.loads(text[start : end + 1])
    except (ValueError, RecursionError):
        raise Nonsense("the reply is no JSON object") from None
    if not isinstance(said, dict):
        raise Nonsense("the reply is no JSON object")
    return said


def _text(said: dict[str, Any], name: str, longest: int) -> str:
    value = said.get(name, "")
    if not isinstance(value, str):
        raise Nonsense(f"“{name}” is no text")
    clean = " ".join(value.replace("\x00", " ").split())
    if len(clean) > longest:
        raise Nonsense(f"“{name}” is longer than {longest} characters")
    return re.sub(r"[\ud800-\udfff]", " ", clean)


def _numbers(said: dict[str, Any], name: str, shown: int) -> tuple[int, ...]:
    values = said.get(name, [])
    if not isinstance(values, list) or len(values) > 8:
        raise Nonsense(f"“{name}” is no short list of numbers")
    if not all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= shown for n in values):
        raise Nonsense(f"“{name}” names a sentence that was not shown")
    return tuple(dict.fromkeys(n - 1 for n in values))


def _line(text: str) -> str:
    return " ".join(text.replace("<", "‹").replace(">", "›").split())[:1_000]
