"""The only code that turns a question with its passages into a prompt, and a completion back into an answer.

Training, evaluation and serving all call `build_prompt` and `render_completion`, so a training row and a served
request of the same turn are identical to the byte. `prompt_digest` names the format: it is stored on datasets,
adapters and turns, and an adapter of another digest is refused.

Two styles (an assistant's setting, part of the digest):

* ``sentences`` numbers the evidence sentences and asks for the pointer first. A small model then makes one decision
  (which number) and copies; every sentence of the answer can be checked against one sentence of a source.
* ``passages`` numbers whole passages and lets the model cite ``[n]`` behind each sentence, as large hub models do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Literal

from typing_extensions import TypedDict  # pydantic reads it on Python 3.11 only from there

# Raise this when the text of a prompt changes in any way: old adapters must not be served with a new format.
FORMAT_VERSION = 2
MAX_POINTER = 40
"""Highest sentence number: the bundled tokenizer holds `[1]`..`[40]` as one token each."""
MAX_HISTORY_TURNS = 2
MAX_HISTORY_CHARS = 400
"""Per message. What comes after that in a long message says little about a follow-up and costs context."""


CHAT_TEMPLATE_OPTIONS = {"enable_thinking": False}
"""Variables for the chat template, in training as in serving: hub models that can think aloud must not. Templates
that know no such variable ignore it."""


class PromptStyle(StrEnum):
    SENTENCES = "sentences"
    PASSAGES = "passages"


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class PromptPassage:
    """A retrieved text. ``rank`` is 1-based and is what readers see as ``[n]``."""

    rank: int
    title: str
    text: str


@dataclass(frozen=True, order=True)
class SentenceRef:
    """One sentence of one retrieved passage: passage rank (1-based), sentence index (0-based)."""

    rank: int
    sentence: int


@dataclass(frozen=True)
class House:
    """What an assistant says of itself: goes into the system message and so into the prompt digest."""

    decline: str
    instructions: str = ""
    style: PromptStyle = PromptStyle.SENTENCES


@dataclass(frozen=True)
class Prompt:
    """Chat messages plus the table that says what each pointer stands for."""

    messages: tuple[Message, ...]
    style: PromptStyle
    pointers: tuple[SentenceRef, ...] = ()
    """``sentences``: pointer ``[i]`` is ``pointers[i - 1]``. ``passages``: empty, ``[n]`` is the passage rank."""
    ranks: tuple[int, ...] = ()
    """Passages that were offered: a pointer in ``passages`` style outside of these was invented."""


@dataclass(frozen=True)
class Answer:
    """A completion as readers see it: text without pointers (``marked`` has ``[rank]`` behind each sentence)."""

    text: str
    marked: str
    citations: tuple[SentenceRef, ...]
    declined: bool
    invalid_pointers: tuple[int, ...] = field(default=())
    """Numbers that the prompt did not hold: the model invented them."""


SYSTEM = "Answer from the passages and cite them. If they do not say, reply: {decline}"
SYSTEM_PASSAGES = (
    "Answer from the numbered passages only and put the number of the passage, like [2], behind each sentence. "
    "Use the language of the question. If the passages do not hold the answer, reply exactly: {decline}"
)
SYSTEM_QUESTION = "Write a question that the marked sentence answers."

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9£$€])|\n+")
_POINTER = re.compile(r"\[(\d{1,3})\]")
_CONTROL = re.compile(r"<\|")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|approx|no|nr|mr|mrs|ms|dr|st|inc|ltd)\.|\b[A-Z]\.)$", re.I)
_LIST_MARK = re.compile(r"^(?:[-*•]\s+|\d{1,2}[.)]\s+|#{1,6}\s+)")
_TABLE_RULE = re.compile(r"^[\s|:-]+$")


def split_sentences(text: str) -> list[str]:
    """Sentences of a passage in order: prose sentences, list items and table rows, each on one line.

    Deterministic and pure: sentence indexes stored with citations stay valid as long as the passage text does.
    """
    return list(_sentences(text))


@lru_cache(maxsize=8192)  # the same passages come again and again, in a chat and in a dataset
def _sentences(text: str) -> tuple[str, ...]:
    pieces: list[str] = []
    for raw in text.splitlines():
        line = _LIST_MARK.sub("", raw.strip())
        if not line or _TABLE_RULE.match(line):
            continue
        start = 0
        for end in _SENTENCE_END.finditer(line):
            if _ABBREVIATION.search(line[start : end.start()]):
                continue
            pieces.append(line[start : end.end()])
            start = end.end()
        pieces.append(line[start:])
    return tuple(clean for piece in pieces if (clean := " ".join(piece.split())))


def prompt_digest(house: House) -> str:
    """Names the prompt format of this house: hex, 16 digits."""
    parts = [str(FORMAT_VERSION), house.style.value, house.decline, house.instructions]
    parts += [SYSTEM, SYSTEM_PASSAGES, str(MAX_HISTORY_TURNS), str(MAX_HISTORY_CHARS)]
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def build_prompt(
    *,
    house: House,
    question: str,
    passages: Sequence[PromptPassage] = (),
    evidence: Sequence[SentenceRef] | None = None,
    similarity: Sequence[float] = (),
    history: Sequence[Message] = (),
) -> Prompt:
    """The prompt for one question.

    ``passages`` in rank order; ``evidence`` in the order in which the sentences are offered (ranks must exist among
    ``passages``). Empty evidence means that nothing speaks to the question: nothing is offered, in either style. None
    means that sentences were not ranked: ``passages`` style then offers all. ``similarity``: of each offered sentence
    to the question (a cosine), shown in ``sentences`` style; empty: not known, not shown. History keeps its last
    `MAX_HISTORY_TURNS` exchanges.

    Raises:
        ValueError: evidence points outside the passages, holds more than `MAX_POINTER` sentences, or has another
            number of similarities.
    """
    system, body, pointers = _parts(house, passages, evidence)
    shown = _similarities(pointers, similarity)
    messages: list[Message] = [{"role": "system", "content": system}]
    messages += _history(history)
    messages.append({"role": "user", "content": f"{body}{shown}Question: {_line(question)}"})
    ranks = tuple(passage.rank for passage in passages)
    return Prompt(messages=tuple(messages), style=house.style, pointers=pointers, ranks=ranks)


def build_question_prompt(*, title: str, sentences: Sequence[str], marked: int) -> Prompt:
    """The prompt that makes a model write a question for sentence ``marked`` (0-based index into ``sentences``)."""
    if not 0 <= marked < len(sentences) <= MAX_POINTER:
        raise ValueError(f"sentence {marked} of {len(sentences)} cannot be marked")
    lines = [f"# {_line(title)}", *(f"[{i}] {_line(s)}" for i, s in enumerate(sentences, start=1))]
    content = "Passages:\n" + "\n".join(lines) + f"\n\nSentence: [{marked + 1}]"
    return Prompt(
        messages=({"role": "system", "content": SYSTEM_QUESTION}, {"role": "user", "content": content}),
        style=PromptStyle.SENTENCES,
        pointers=tuple(SentenceRef(1, i) for i in range(len(sentences))),
    )


def render_completion(*, house: House, prompt: Prompt, sentences: Sequence[tuple[str, Sequence[SentenceRef]]]) -> str:
    """What the model should write: each answer sentence with what it cites, in the style of the house.

    ``sentences`` style: pointer first, ``[2] The fee is £35.``; a sentence whose source is not offered in the prompt
    goes without a pointer. ``passages`` style: ``The fee is £35. [1]``. A decline is one sentence that cites nothing.
    """
    parts: list[str] = []
    for text, refs in sentences:
        if house.style is PromptStyle.SENTENCES:
            marks = [f"[{prompt.pointers.index(ref) + 1}]" for ref in refs if ref in prompt.pointers][:1]
            parts.append(" ".join([*marks, _disarm(text.strip())]))
        else:
            marks = [f"[{rank}]" for rank in dict.fromkeys(ref.rank for ref in refs)]
            parts.append(" ".join([_disarm(text.strip()), *marks]))
    return " ".join(part for part in parts if part)


def parse_answer(*, house: House, prompt: Prompt, completion: str) -> Answer:
    """Reads a completion: what was said, which sentences it cites, whether it declined."""
    completion = completion.strip()
    declined = is_decline(completion, house.decline)
    if house.style is PromptStyle.SENTENCES:
        segments = _pointer_first(completion)
        known = dict(enumerate(prompt.pointers, start=1))
    else:
        segments = _pointer_last(completion)
        known = {rank: SentenceRef(rank, 0) for rank in prompt.ranks}
    texts: list[str] = []
    marked: list[str] = []
    cited: list[SentenceRef] = []
    invalid: list[int] = []
    for text, numbers in segments:
        refs = []
        for number in numbers:
            if number in known:
                refs.append(known[number])
            else:
                invalid.append(number)
        texts.append(text)
        marks = "".join(f" [{rank}]" for rank in dict.fromkeys(ref.rank for ref in refs))
        marked.append((text + marks).strip())
        cited += [ref for ref in refs if ref not in cited]
    return Answer(
        text=" ".join(t for t in texts if t),
        marked=" ".join(m for m in marked if m.strip()),
        citations=() if declined else tuple(cited),
        declined=declined,
        invalid_pointers=tuple(invalid),
    )


def is_decline(text: str, decline: str) -> bool:
    """True when the answer is the decline sentence (case, spacing and end punctuation aside), with nothing before."""
    said = _fold(_POINTER.sub(" ", text))
    return bool(said) and said.startswith(_fold(decline))


def _fold(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold().replace("’", "'")))


def _line(text: str) -> str:
    """One line, whatever came in: a newline or a forged marker in a log must not look like prompt structure."""
    return " ".join(_disarm(text).split())


def _disarm(text: str) -> str:
    """Text of users and documents holds no pointers ([2] becomes (2)) and no control tokens (<|end|> falls apart)."""
    if "[" in text:  # looking is a fraction of replacing, and hardly any text has either
        text = _POINTER.sub(r"(\1)", text)
    return _CONTROL.sub("< |", text) if "<|" in text else text


def _parts(
    house: House, passages: Sequence[PromptPassage], evidence: Sequence[SentenceRef] | None
) -> tuple[str, str, tuple[SentenceRef, ...]]:
    template = SYSTEM if house.style is PromptStyle.SENTENCES else SYSTEM_PASSAGES
    system = template.format(decline=house.decline)
    if house.instructions:
        system = f"{_line(house.instructions)}\n{system}"
    if not passages or (evidence is not None and not evidence):
        return system, "", ()
    if house.style is PromptStyle.PASSAGES:
        blocks = [f"[{p.rank}] {_line(p.title)}\n{_disarm(p.text.strip())}" for p in passages]
        return system, "Passages:\n" + "\n\n".join(blocks) + "\n\n", ()
    lines, pointers = _evidence_lines(passages, evidence or ())
    return system, ("Passages:\n" + "\n".join(lines) + "\n\n" if lines else ""), pointers


def _evidence_lines(
    passages: Sequence[PromptPassage], evidence: Sequence[SentenceRef]
) -> tuple[list[str], tuple[SentenceRef, ...]]:
    if len(evidence) > MAX_POINTER:
        raise ValueError(f"{len(evidence)} evidence sentences; at most {MAX_POINTER} can be numbered")
    by_rank = {p.rank: p for p in passages}
    offered = {ref.rank for ref in evidence} & by_rank.keys()
    sentences = {rank: _lines_of(by_rank[rank].text) for rank in offered}
    titles = {rank: _line(by_rank[rank].title) for rank in offered}
    lines: list[str] = []
    heading: str | None = None
    for number, ref in enumerate(evidence, start=1):
        if ref.rank not in by_rank or not 0 <= ref.sentence < len(sentences[ref.rank]):
            raise ValueError(f"evidence {ref} is not among the passages")
        title = titles[ref.rank]
        if title != heading:
            lines.append(f"# {title}")
            heading = title
        lines.append(f"[{number}] {sentences[ref.rank][ref.sentence]}")
    return lines, tuple(evidence)


@lru_cache(maxsize=8192)
def _lines_of(text: str) -> tuple[str, ...]:
    """The sentences of a passage as a prompt shows them."""
    # What is the same text is kept once.
    return tuple(line if (line := _line(one)) != one else one for one in _sentences(text))


def _similarities(pointers: Sequence[SentenceRef], similarity: Sequence[float]) -> str:
    """One line of two-digit percentages, in the order of the sentences. How sure retrieval was says much about whether
    anything answers, and a model cannot know it from the words alone."""
    if not pointers or not similarity:
        return ""
    if len(similarity) != len(pointers):
        raise ValueError(f"{len(similarity)} similarities for {len(pointers)} evidence sentences")
    return f"Similarity: {' '.join(f'{min(max(round(s * 100), 0), 99):02d}' for s in similarity)}\n"


def _history(history: Sequence[Message]) -> list[Message]:
    turns = [m for m in history if m["role"] in ("user", "assistant")][-2 * MAX_HISTORY_TURNS :]
    while turns and turns[0]["role"] != "user":
        turns = turns[1:]
    out: list[Message] = []
    for message in turns:
        text = _line(_POINTER.sub(" ", message["content"]))[:MAX_HISTORY_CHARS]
        out.append(
            {"role": "user", "content": f"Question: {text}"}
            if message["role"] == "user"
            else {"role": "assistant", "content": text}
        )
    return out


def _pointer_first(completion: str) -> list[tuple[str, list[int]]]:
    """``[2] A. [5] B.`` → [("A.", [2]), ("B.", [5])]; text before the first pointer cites nothing."""
    pieces = _POINTER.split(completion)
    segments: list[tuple[str, list[int]]] = []
    if pieces[0].strip():
        segments.append((" ".join(pieces[0].split()), []))
    for number, text in zip(pieces[1::2], pieces[2::2], strict=True):
        segments.append((" ".join(text.split()), [int(number)]))
    return segments


def _pointer_last(completion: str) -> list[tuple[str, list[int]]]:
    """``A. [1] B. [1][2]`` → [("A.", [1]), ("B.", [1, 2])]."""
    segments: list[tuple[str, list[int]]] = []
    text = ""
    for piece in re.split(r"((?:\[\d{1,3}\]\s*)+)", completion):
        numbers = [int(n) for n in _POINTER.findall(piece)] if _POINTER.match(piece) else []
        if numbers:
            segments.append((" ".join(text.split()), numbers))
            text = ""
        else:
            text += piece
    if text.strip():
        segments.append((" ".join(text.split()), []))
    return segments
