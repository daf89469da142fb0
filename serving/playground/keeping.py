"""What the page carries of an answer, so that saving or sending it does not ask again: signed, so that the page cannot
change what a model said."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.core import signing
from django.db import transaction

from annotations.filling import add_turns
from annotations.models import Queue
from assistants.models import Assistant
from assistants.services import audit
from capture.models import PLAYGROUND_TAG, Quarantine, Turn
from capture.scrub import scrub_item
from capture.services import receive_turns
from generation.prompts import Message, Prompt, PromptPassage, SentenceRef, build_prompt, is_decline, split_sentences
from serving import chat
from serving.playground.asking import Said
from training.data.benchmark import read_items
from training.erasing import PLAYGROUND
from training.models import Kind

SALT = "serving.playground"
SECONDS = 24 * 3600
"""For so long what was asked can still be saved or sent from the page."""
MAX_DRAFT_CHARS = 500_000


class NotKept(ValueError):
    """It could not be saved or sent; the message is one sentence for the page."""


@dataclass(frozen=True)
class Shown:
    """An answer as the page shows it."""

    model: str
    item: Mapping[str, Any]
    sealed: str
    finish: str
    looped: bool
    dropped: int
    declined: bool
    prompt: Prompt

    @property
    def prompt_text(self) -> str:
        """The messages as they went to the engine."""
        return "\n\n".join(f"── {m['role']} ──\n{m['content']}" for m in self.prompt.messages)

    @property
    def history(self) -> list[Message]:
        """What a follow-up comes after."""
        own: list[Message] = [
            {"role": "user", "content": self.item["question"]},
            {"role": "assistant", "content": self.item["response"]},
        ]
        return [*self.item["history"], *own][-4:]

    @property
    def withheld(self) -> bool:
        """The threshold declined it; no model was asked."""
        return bool(self.item.get("withheld"))

    @property
    def passages(self) -> list[dict[str, Any]]:
        """What was retrieved, each sentence with its place among the evidence, from 1; None: not offered."""
        found = []
        for context in self.item["contexts"]:
            placed = {
                int(index): (None if self.withheld else int(place) + 1, similarity)
                for place, index, similarity in context["evidence"]
            }
            sentences = [
                {"text": text, "place": place, "similarity": similarity}
                for index, text in enumerate(split_sentences(context["text"]))
                for place, similarity in [placed.get(index, (None, None))]
            ]
            found.append({**context, "sentences": sentences})
        return found

    @property
    def offered(self) -> list[tuple[str, str, str]]:
        """(value, path, sentence) of each sentence that was offered, most similar first: where an answer may stand."""
        found = []
        for number, context in enumerate(self.item["contexts"]):
            sentences = split_sentences(context["text"])
            found += [
                (place, f"{number}:{int(index)}", context["source"], sentences[int(index)])
                for place, index, _ in context["evidence"]
            ]
        return [(value, path, sentence) for _, value, path, sentence in sorted(found)]


def seal(said: Said) -> str:
    """Signed text of an answer with all that its turn would hold."""
    assert said.result is not None
    item = chat.turn_item(
        said.asked,
        completion=said.result.text,
        conversation="",
        latency_ms=round((said.result.seconds + said.asked.retrieval.seconds) * 1000, 1),
        prompt_tokens=said.result.prompt_tokens,
        completion_tokens=said.result.completion_tokens,
        user={},
    )
    item["tags"] = [PLAYGROUND_TAG]
    value = {
        "assistant": said.asked.assistant.pk, "model": said.model, "item": item, "dropped": said.asked.dropped,
        "finish": said.result.finish_reason, "looped": said.result.looped,
    }  # fmt: skip
    return signing.dumps(value, salt=SALT, compress=True)


def unseal(assistant: Assistant, sealed: str) -> Shown:
    """
    Raises:
        NotKept: changed, too old, or of another assistant or prompt format.
    """
    try:
        value = signing.loads(sealed, salt=SALT, max_age=SECONDS)
    except signing.BadSignature as error:
        raise NotKept("This answer is too old to be used. Ask again.") from error
    item = value["item"]
    if value["assistant"] != assistant.pk or item["prompt_digest"] != assistant.prompt_digest:
        raise NotKept("This answer belongs to another assistant or prompt. Ask again.")
    return Shown(
        model=value["model"], item=item, sealed=sealed, finish=value["finish"], looped=value["looped"],
        dropped=value["dropped"], declined=is_decline(item["completion"], assistant.decline_sentence),
        prompt=_prompt(assistant, item),
    )  # fmt: skip


def _prompt(assistant: Assistant, item: Mapping[str, Any]) -> Prompt:
    """The prompt again, as any stored turn's."""
    offered = [] if item.get("withheld") else item["contexts"]
    placed = sorted((e[0], c["rank"], *e[1:]) for c in offered for e in c["evidence"])
    return build_prompt(
        house=assistant.house,
        question=item["question"],
        passages=[PromptPassage(c["rank"], c["title"], c["text"]) for c in item["contexts"]],
        evidence=[SentenceRef(int(rank), int(index)) for _, rank, index, _ in placed],
        similarity=[similarity for *_, similarity in placed],
        history=item["history"],
    )


def with_line(draft: str, shown: Shown, *, kind: str, answer: str, gold: list[str]) -> str:
    """The draft of a benchmark (JSON lines, as an upload takes them) with one more question.

    A frozen benchmark never changes, so a question goes into a draft, which becomes a benchmark of its own.

    Raises:
        NotKept, training.data.benchmark.BenchmarkError: it would not be an item.
    """
    if len(draft) > MAX_DRAFT_CHARS:
        raise NotKept("The draft is full. Freeze it, and begin another.")
    offered = {value: (path, sentence) for value, path, sentence in shown.offered}
    chosen = [offered[value] for value in gold if value in offered]
    answerable = kind == Kind.ANSWER.value
    line = {
        # The same answer may be kept with other wordings; its turn's id leads an erasure here.
        "id": f"{PLAYGROUND}{shown.item['id']}-{secrets.token_hex(4)}",
        "question": shown.item["question"],
        "history": shown.item["history"],
        "kind": kind,
        "answers": [answer.strip()] if answerable and answer.strip() else [],
        "gold": [{"path": path, "sentence": sentence} for path, sentence in chosen] if answerable else [],
        "slice": "playground",
    }
    lines = [*(each for each in draft.splitlines() if each.strip()), json.dumps(line, ensure_ascii=False)]
    read_items(lines)
    return "\n".join(lines)


def send_to_queue(*, shown: Shown, queue: Queue, actor: User) -> bool:
    """Makes the answer a turn of the log, scrubbed like any other, and puts it into the queue; False: it was there.

    Raises:
        NotKept: it was refused, or waits in quarantine.
    """
    assistant = queue.assistant
    (received,) = receive_turns(assistant=assistant, api_key=None, items=[dict(shown.item)])
    if received.status == "invalid":
        raise NotKept(f"The log does not take it: {', '.join(error['field'] for error in received.errors)}.")
    waiting = Quarantine.objects.filter(assistant=assistant, receipt__client_id=shown.item["id"]).first()
    if waiting is not None:
        scrub_item(waiting.pk)
    turn = Turn.objects.filter(assistant=assistant, client_id=shown.item["id"]).first()
    if turn is None:
        raise NotKept("It waits in quarantine. Send it again when it has been released there.")
    with transaction.atomic():
        added = add_turns(queue=queue, turns=[turn])
        if added:
            audit(
                assistant=assistant,
                actor=actor,
                action="playground.queued",
                target=str(queue),
                details={"turn": str(turn.pk)},
            )
    return bool(added)
