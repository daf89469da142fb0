"""Personal data out of held-out questions: who writes a benchmark from real conversations pastes what users said."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence

from assistants.models import Assistant
from assistants.policies import policy_of
from capture.own_texts import OwnTexts
from capture.payloads import Context
from capture.vault import stored_id
from privacy.entities import EntityTable
from privacy.findings import ScrubError
from privacy.scrubber import Scrubber, ScrubText
from training.data.benchmark import BenchmarkError, Item

CHUNK = 100


def scrubbed(assistant: Assistant, items: Sequence[Item]) -> Iterator[Item]:
    """The items masked, in order. Each is masked in one call, so that a value has one placeholder in all of it; a gold
    sentence that the assistant's documents hold is trusted, and what the house prints there may stand in the answer.

    The same items give the same masked ones: freezing a file twice still finds the first benchmark.

    Raises:
        BenchmarkError: an item cannot be read to its end.
    """
    scrubber = Scrubber(policy_of(assistant))
    for start in range(0, len(items), CHUNK):
        part = items[start : start + CHUNK]
        own = OwnTexts.of(assistant, [_context(g.path, g.sentence) for item in part for g in item.gold])
        for item in part:
            try:
                yield _masked(item, scrubber, own)
            except ScrubError:
                raise BenchmarkError("An item could not be checked for personal data. Shorten it.") from None


def _masked(item: Item, scrubber: Scrubber, own: OwnTexts) -> Item:
    table = EntityTable(secrets.token_bytes(32))
    texts = [ScrubText("user" if m["role"] == "user" else "response", m["content"]) for m in item.history]
    texts.append(ScrubText("user", item.question))
    for gold in item.gold:
        trusted = None if own.holds(_context(gold.path, gold.sentence)) else False
        texts += [ScrubText("context", gold.sentence, trusted), ScrubText("label", gold.path, trusted)]
    texts += [ScrubText("response", answer) for answer in item.answers]
    texts += [ScrubText("response", text) for group in item.must_contain for text in group]
    texts += [ScrubText("response", text) for text in item.must_not_contain]
    texts += [ScrubText("user" if " " in name else "label", name, False) for name in (item.slice, item.topic)]
    clean = iter(masked.text for masked in scrubber.scrub_turn(texts, table))
    return item.model_copy(
        update={
            "id": stored_id(item.id),
            "history": [{"role": m["role"], "content": next(clean)} for m in item.history],
            "question": next(clean),
            "gold": [gold.model_copy(update={"sentence": next(clean), "path": next(clean)}) for gold in item.gold],
            "answers": [next(clean) for _ in item.answers],
            "must_contain": [[next(clean) for _ in group] for group in item.must_contain],
            "must_not_contain": [next(clean)[:200] for _ in item.must_not_contain],
            "slice": next(clean)[:60],
            "topic": next(clean)[:60],
        }
    )


def _context(path: str, sentence: str) -> Context:
    # Longer than a context may be, or empty: nothing is validated here, it is only looked up.
    return Context.model_construct(text=sentence, source=path, title="", metadata={}, evidence=[])
