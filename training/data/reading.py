"""Chat messages back to what they were made of: question, history, passages, evidence.

What our own prompt code has written is read exactly (it is made again, and compared); of other chats the last message
is the question, and there are no passages. Pure: no database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from generation.alignment import AlignedSentence
from generation.prompts import (
    House,
    Message,
    Prompt,
    PromptPassage,
    PromptStyle,
    SentenceRef,
    build_prompt,
    parse_answer,
    split_sentences,
)

MAX_MESSAGES = 40
MAX_CHARS = 40_000
_SIMILARITY = re.compile(r"Similarity: (\d{2}(?: \d{2})*)\n")
_BLOCK = re.compile(r"(?:^|\n\n)\[(\d{1,3})\] ([^\n]*)\n")
_NUMBERED = re.compile(r"\[(\d{1,3})\] (.*)")


class Unreadable(ValueError):
    """Messages that are no question; the message says why and quotes nothing."""


@dataclass(frozen=True)
class Asked:
    """``exact``: today's prompt code makes these very messages of it."""

    question: str
    history: list[Message]
    prompt: Prompt
    exact: bool
    contexts: list[dict[str, Any]] = field(default_factory=list)
    evidence: list[list[float]] = field(default_factory=list)


def read_messages(*, house: House, messages: Sequence[Mapping[str, Any]]) -> Asked:
    """The messages before the answer.

    Raises:
        Unreadable: they do not end with a user's message, are too many or too long, or have roles of their own.
    """
    plain = [_message(message) for message in messages]
    if len(plain) > MAX_MESSAGES or sum(len(message["content"]) for message in plain) > MAX_CHARS:
        raise Unreadable(f"a prompt has at most {MAX_MESSAGES} messages and {MAX_CHARS:,} characters")
    if not plain or plain[-1]["role"] != "user" or not plain[-1]["content"].strip():
        raise Unreadable("a prompt ends with a question of the user")
    history = [_without_label(message) for message in plain[:-1] if message["role"] != "system"]
    body, _, question = plain[-1]["content"].rpartition("Question: ")
    if plain[-1]["content"].startswith("Question: ") or body.startswith("Passages:\n"):
        contexts, evidence = _passages(body, house.style)
        asked = _asked(house, question, history, contexts, evidence)
        if asked is not None and asked.messages[-1]["content"] == plain[-1]["content"]:
            exact = [dict(m) for m in asked.messages] == [dict(m) for m in plain]
            return Asked(question, history, asked, exact, contexts, evidence)
        if body:  # numbered passages in a format that is not ours today: citations would point anywhere
            raise Unreadable("its passages are written in another prompt format than this assistant's")
        return Asked(question, history, build_prompt(house=house, question=question, history=history), False)
    question = plain[-1]["content"]
    return Asked(question, history, build_prompt(house=house, question=question, history=history), False)


def read_sentences(*, house: House, prompt: Prompt, completion: str) -> list[AlignedSentence]:
    """The sentences of a completion with what each cites, as an example stores them."""
    if house.style is PromptStyle.PASSAGES:
        return [
            {"text": text, "refs": [[rank, 0] for rank in ranks if rank in prompt.ranks]}
            for text, ranks in _cited_behind(completion)
        ]
    answer = parse_answer(house=house, prompt=prompt, completion=completion)
    if not answer.text:
        return []
    found: list[AlignedSentence] = []
    for number, text in _pointed(completion):
        refs = [prompt.pointers[number - 1]] if 0 < number <= len(prompt.pointers) else []
        if text:
            found.append({"text": text, "refs": [[ref.rank, ref.sentence] for ref in refs]})
    return found


def _message(message: Mapping[str, Any]) -> Message:
    role, content = message.get("role"), message.get("content")
    if role not in ("system", "user", "assistant") or not isinstance(content, str):
        raise Unreadable("a message has a role (system, user or assistant) and a content that is text")
    return {"role": role, "content": content}


def _without_label(message: Message) -> Message:
    return {"role": message["role"], "content": message["content"].removeprefix("Question: ")}


def _passages(body: str, style: PromptStyle) -> tuple[list[dict[str, Any]], list[list[float]]]:
    if not body.startswith("Passages:\n"):
        return [], []
    text = body.removeprefix("Passages:\n")
    if style is PromptStyle.PASSAGES:
        return _whole(text)
    similar = _SIMILARITY.search(text)
    shares = [int(n) / 100 for n in similar.group(1).split()] if similar else []
    lines = (text[: similar.start()] if similar else text).strip("\n").split("\n")
    return _numbered(lines, shares)


def _numbered(lines: Sequence[str], shares: Sequence[float]) -> tuple[list[dict[str, Any]], list[list[float]]]:
    """``# title`` lines and ``[n] sentence`` lines. A title that comes again is the same passage again."""
    ranks: dict[str, int] = {}
    texts: dict[int, list[str]] = {}
    evidence: list[list[float]] = []
    rank = 0
    for line in lines:
        if line.startswith("#"):
            rank = ranks.setdefault(line.removeprefix("#").strip(), len(ranks) + 1)
            texts.setdefault(rank, [])
        elif (match := _NUMBERED.fullmatch(line)) and rank:
            share = shares[len(evidence)] if len(evidence) < len(shares) else 0.0
            evidence.append([rank, len(texts[rank]), share])
            texts[rank].append(match.group(2))
    contexts = [_context(rank, title, "\n".join(texts[rank])) for title, rank in ranks.items()]
    return contexts, evidence


def _whole(text: str) -> tuple[list[dict[str, Any]], list[list[float]]]:
    found = list(_BLOCK.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    contexts = [
        _context(int(match.group(1)), match.group(2), text[match.end() : end].strip("\n"))
        for match, end in zip(found, ends, strict=True)
    ]
    evidence = [[c["rank"], i, 0.0] for c in contexts for i in range(len(split_sentences(c["text"])))]
    return contexts, evidence


def _context(rank: int, title: str, text: str) -> dict[str, Any]:
    return {"rank": rank, "title": title, "source": "", "text": text, "relevant": None}


def _asked(
    house: House,
    question: str,
    history: list[Message],
    contexts: Sequence[Mapping[str, Any]],
    evidence: Sequence[Sequence[float]],
) -> Prompt | None:
    known = any(share for _, _, share in evidence)
    try:
        return build_prompt(
            house=house,
            question=question,
            passages=[PromptPassage(c["rank"], c["title"], c["text"]) for c in contexts],
            evidence=[SentenceRef(int(rank), int(index)) for rank, index, _ in evidence],
            similarity=[share for _, _, share in evidence] if known else [],
            history=history,
        )
    except ValueError:
        return None


def _pointed(completion: str) -> list[tuple[int, str]]:
    pieces = re.split(r"\[(\d{1,3})\]", completion)
    found = [(0, " ".join(pieces[0].split()))] if pieces[0].strip() else []
    return found + [(int(n), " ".join(t.split())) for n, t in zip(pieces[1::2], pieces[2::2], strict=True)]


def _cited_behind(completion: str) -> list[tuple[str, list[int]]]:
    from generation.alignment import split_cited

    return split_cited(completion)
