"""Curated sets from files: read line by line, scrubbed, and turned into examples of this assistant's own prompts.

One JSON object a line, or one row of Parquet, in any of the formats that exports have (`training.data.exports`):

* ours: {question, history, contexts, evidence, sentences, rejected} (lossless)
* TRL: {prompt, completion}, {prompt, completion, label}, {prompt, chosen, rejected}; messages, or plain text
* OpenAI: {messages: […, the answer last]}, {input: {messages}, preferred_output, non_preferred_output}

Nothing of a refused row is stored but its line number and why.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from django.db import transaction

from annotations.becoming import kind_of
from annotations.resolving import Wording
from assistants.models import Assistant
from assistants.policies import rules_of
from assistants.vault import PayloadUnreadable, decrypt
from generation.alignment import AlignedSentence
from generation.prompts import PromptPassage, SentenceRef, build_prompt, split_sentences
from privacy.entities import EntityTable
from privacy.findings import ScrubError
from privacy.scrubber import Kind, Scrubber, ScrubText
from training.data.import_files import ImportFailed, lines_of
from training.data.import_lines import Refused, Taken, take
from training.data.pool import batches
from training.data.reading import Unreadable
from training.models import CuratedRow, CuratedSet

MAX_BYTES = 64_000_000
MAX_LISTED = 200
CHUNK = 200
_OF_A_CONTEXT: tuple[tuple[Kind, str], ...] = (("context", "title"), ("context", "text"), ("label", "source"))


def perform(curated: CuratedSet) -> None:
    """Reads the sealed file; started again, it begins anew and doubles nothing.

    Raises:
        ImportFailed: no line of it is an example.
    """
    if curated.sealed is None:
        raise ImportFailed("The file is gone. Import it again.")
    try:
        content = decrypt(curated.sealed)
    except PayloadUnreadable:
        raise ImportFailed("The file was closed with a data key that is not here any more. Import it again.") from None
    lines = lines_of(content)
    if not lines:
        raise ImportFailed("The file has no rows.")
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
