"""Curated sets from files: read line by line, scrubbed, and turned into examples of this assistant's own prompts.

One JSON object a line, in any of the formats that exports have (`training.data.exports`):

* ours: {question, history, contexts, evidence, sentences, rejected} (lossless)
* TRL: {prompt, completion}, {prompt, completion, label}, {prompt, chosen, rejected}; messages, or plain text
* OpenAI: {messages: […, the answer last]}

Nothing of a refused row is stored but its line number and why.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from annotations.becoming import kind_of
from annotations.resolving import Wording
from assistants.models import Assistant
from assistants.policies import rules_of
from assistants.vault import PayloadUnreadable, decrypt
from generation.alignment import AlignedSentence
from generation.prompts import PromptPassage, SentenceRef, build_prompt, parse_answer, split_sentences
from privacy.entities import EntityTable
from privacy.findings import ScrubError
from privacy.scrubber import Kind, Scrubber, ScrubText
from training.data.pool import batches
from training.data.reading import MAX_CHARS, MAX_MESSAGES, Unreadable, read_messages, read_sentences
from training.models import CuratedRow, CuratedSet

MAX_BYTES = 64_000_000
MAX_ROWS = 100_000
MAX_LINE = 400_000
MAX_CONTEXTS = 40
MAX_LISTED = 200
CHUNK = 200
_SURROGATE = re.compile("[\ud800-\udfff]")
_OF_A_CONTEXT: tuple[tuple[Kind, str], ...] = (("context", "title"), ("context", "text"), ("label", "source"))


class ImportFailed(ValueError):
    """Nothing of the file could be taken; the message says why."""


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


def perform(curated: CuratedSet) -> None:
    """Reads the sealed file; started again, it begins anew and doubles nothing.

    Raises:
        ImportFailed: no line of it is an example.
    """
    if curated.sealed is None:
        raise ImportFailed("The file is gone. Import it again.")
    try:
        text = decrypt(curated.sealed).decode("utf-8-sig")
    except PayloadUnreadable:
        raise ImportFailed("The file was closed with a data key that is not here any more. Import it again.") from None
    except UnicodeDecodeError as error:
        raise ImportFailed(f"The file is not UTF-8 (from byte {error.start}). Save it as UTF-8.") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(lines) > MAX_ROWS:
        raise ImportFailed(f"The file has {len(lines):,} rows; at most {MAX_ROWS:,} are taken. Split it.")
    reader = _Reader(curated.assistant)
    rows: list[CuratedRow] = []
    for part in batches(lines, CHUNK):
        rows += reader.read(part, curated)
        curated.beat(stage="reading and scrubbing", done=part[-1][0], total=lines[-1][0])
    if not rows:
        why = f" The first: line {reader.problems[0]['line']}, {reader.problems[0]['why']}." if reader.problems else ""
        raise ImportFailed(f"None of the {len(lines):,} rows could be taken.{why}")
    digest = hashlib.sha256()
    for row in rows:
        plain = [row.question, row.history, row.contexts, row.evidence, row.sentences, row.rejected]
        digest.update(json.dumps(plain, ensure_ascii=False, sort_keys=True).encode())
    with transaction.atomic():
        curated.examples.all().delete()
        CuratedRow.objects.bulk_create(rows, batch_size=500)
        curated.rows, curated.refused, curated.masked = len(rows), reader.refused, reader.masked
        curated.problems, curated.content_hash, curated.sealed = reader.problems, digest.hexdigest(), None
        curated.keep("rows", "refused", "masked", "problems", "content_hash", "sealed")


class _Reader:
    """Counts what was refused and masked on the way."""

    def __init__(self, assistant: Assistant) -> None:
        self.refused = 0
        self.masked = 0
        self.problems: list[dict[str, Any]] = []
        self._assistant = assistant
        self._wording = Wording(decline=assistant.decline_sentence, handoff=assistant.handoff_sentence)
        self._scrubber = Scrubber(rules_of(assistant).policy)

    def read(self, lines: Sequence[tuple[int, str]], curated: CuratedSet) -> Iterator[CuratedRow]:
        for number, line in lines:
            try:
                row = self._row(number, line, curated)
            except (Refused, Unreadable) as error:
                self.refused += 1
                if len(self.problems) < MAX_LISTED:
                    self.problems.append({"line": number, "why": str(error)})
            else:
                yield row

    def _row(self, number: int, line: str, curated: CuratedSet) -> CuratedRow:
        taken = self._scrubbed(take(self._assistant, line))
        answer = " ".join(sentence["text"] for sentence in taken.sentences)
        row = CuratedRow(
            set=curated,
            position=number,
            kind=kind_of(answer or taken.rejected, self._wording),
            history=taken.history,
            question=taken.question,
            contexts=taken.contexts,
            evidence=taken.evidence,
            sentences=taken.sentences,
            rejected=taken.rejected,
        )
        _check_evidence(self._assistant, row)
        return row

    def _scrubbed(self, taken: Taken) -> Taken:
        """Masked in one call, so that a value has one placeholder in all of a row."""
        texts = [
            ScrubText("user", taken.question),
            ScrubText("response", taken.rejected),
            *(ScrubText("user" if m["role"] == "user" else "response", m["content"]) for m in taken.history),
            # From a file of anybody: nothing of it is taken for the house's own text.
            *(ScrubText(kind, c[name], trusted=False) for c in taken.contexts for kind, name in _OF_A_CONTEXT),
            *(ScrubText("response", sentence["text"]) for sentence in taken.sentences),
        ]
        try:
            masked = self._scrubber.scrub_turn(texts, EntityTable(secrets.token_bytes(32)))
        except ScrubError:
            raise Refused("it could not be scrubbed of personal data") from None
        self.masked += sum(len(one.spans) for one in masked)
        clean = iter(one.text for one in masked)
        question, rejected = next(clean), next(clean)
        history = [{"role": message["role"], "content": next(clean)} for message in taken.history]
        contexts = [{**context, **{name: next(clean) for _, name in _OF_A_CONTEXT}} for context in taken.contexts]
        sentences: list[AlignedSentence] = [{"text": next(clean), "refs": one["refs"]} for one in taken.sentences]
        return Taken(question, history, contexts, taken.evidence, sentences, rejected)


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
    if "prompt" not in value:
        raise Refused("it has none of: question, messages, prompt")
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


def _check_evidence(assistant: Assistant, row: CuratedRow) -> None:
    """After scrubbing: a mask may have moved the end of a sentence, and then every number points elsewhere."""
    ranks = [context["rank"] for context in row.contexts]
    if len(set(ranks)) != len(ranks):
        raise Refused("two contexts have the same rank")
    sentences = {context["rank"]: len(split_sentences(context["text"])) for context in row.contexts}
    cited = [ref for sentence in row.sentences for ref in sentence["refs"]]
    places = [*((int(rank), int(index)) for rank, index, _ in row.evidence), *((ref[0], ref[1]) for ref in cited)]
    if any(not 0 <= index < sentences.get(rank, 0) for rank, index in places):
        raise Refused("its evidence or its citations point outside its contexts")
    passages = [PromptPassage(c["rank"], c["title"], c["text"]) for c in row.contexts]
    refs = [SentenceRef(int(rank), int(index)) for rank, index, _ in row.evidence]
    try:
        build_prompt(house=assistant.house, question=row.question, passages=passages, evidence=refs)
    except ValueError:
        raise Refused("it offers more sentences than a prompt can number") from None
