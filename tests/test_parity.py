"""Training text and served prompt of the same turn are identical, through the whole way of a turn: retrieved and asked,
logged, scrubbed, labelled, made into an example, rendered as a training row."""

from __future__ import annotations

import pytest

from annotations.becoming import NOT_ASKED
from annotations.effects import served_evidence
from annotations.models import Resolution
from assistants.services import issue_key
from capture.models import Quarantine, Turn
from capture.services import receive_turns, scrub_item
from generation.prompts import Message
from knowledge.services import load_document
from serving import chat
from serving.experiments.shadow import turn_prompt
from tests.factories import make_assistant
from training.data.candidates import Candidate, Refused, from_turn
from training.data.render import sft_row
from training.models import DatasetVersion, Example

DOCUMENTS = {
    "leaving.md": "# Leaving early\n\nA fixed plan has an exit fee of £35. No fee is due in its last 49 days.",
    "meters.md": "# Meter readings\n\nRead the meter on the first day of the month. Send the figures before the dot.",
    "moving.md": "# Moving house\n\nTell us 10 days before you move. Your plan can move with you to the new address.",
}
HISTORY: list[Message] = [
    {"role": "user", "content": "Can I take my plan with me?"},
    {"role": "assistant", "content": "Your plan can move with you to the new address. [1]"},
]
FIELDS = ("origin", "kind", "history", "question", "contexts", "evidence", "sentences")


@pytest.mark.parametrize("history", [[], HISTORY], ids=["first question", "follow-up"])
@pytest.mark.parametrize("instructions", ["", "Be brief."], ids=["plain", "instructed"])
def test_a_turn_is_trained_on_as_it_was_asked(db: None, history: list[Message], instructions: str) -> None:
    assistant = make_assistant(instructions=instructions)
    for path, text in DOCUMENTS.items():
        load_document(assistant=assistant, path=path, data=text.encode())
    key, _ = issue_key(assistant=assistant, name="frontend", scopes=["log"])

    asked = chat.ask(
        assistant=assistant,
        arm=chat.resolve_model(assistant, assistant.slug),
        question="What does it cost to leave a fixed plan early?",
        history=history,
    )
    pointer = next(
        i for i, line in enumerate(_evidence_lines(asked.prompt.messages[-1]["content"]), 1) if "£35" in line
    )
    completion = f"[{pointer}] A fixed plan has an exit fee of £35."
    item = chat.turn_item(
        asked, completion=completion, conversation="c1", latency_ms=5, prompt_tokens=1, completion_tokens=1, user={}
    )
    (result,) = receive_turns(assistant=assistant, api_key=key, items=[item])
    assert result.status == "created", result.errors
    scrub_item(Quarantine.objects.get().pk)

    turn = Turn.objects.with_contexts().get()
    resolution = Resolution.objects.create(turn=turn, verdict="good", response=turn.response, how="single")
    candidate = from_turn(turn, resolution, assistant)
    assert isinstance(candidate, Candidate), candidate
    dataset = DatasetVersion(assistant=assistant)
    row = sft_row(assistant.house, Example(dataset=dataset, **{name: getattr(candidate, name) for name in FIELDS}))

    assert row["prompt"] == list(asked.prompt.messages)
    assert row["completion"] == [{"role": "assistant", "content": completion}]


def test_a_turn_below_the_threshold_is_declined_without_a_model_and_kept_as_such(db: None) -> None:
    assistant = make_assistant(evidence_threshold=0.99)
    for path, text in DOCUMENTS.items():
        load_document(assistant=assistant, path=path, data=text.encode())
    key, _ = issue_key(assistant=assistant, name="frontend", scopes=["log"])
    asked = chat.ask(
        assistant=assistant, arm=chat.resolve_model(assistant, assistant.slug),
        question="What does it cost to leave a fixed plan early?", history=[],
    )  # fmt: skip
    assert "Passages" not in asked.prompt.messages[-1]["content"]
    declined = asked.without_model()
    assert declined is not None
    assert declined.text == assistant.decline_sentence
    item = chat.turn_item(
        asked, completion=declined.text, conversation="c1", latency_ms=5, prompt_tokens=0, completion_tokens=0, user={}
    )
    (result,) = receive_turns(assistant=assistant, api_key=key, items=[item])
    assert result.status == "created", result.errors
    scrub_item(Quarantine.objects.get().pk)

    turn = Turn.objects.with_contexts().get()
    assert turn.withheld
    assert turn.declined
    # What was ranked is kept as it was: how far below the threshold the best sentence lay calibrates the next one.
    ranked = {similarity for r in turn.retrievals.all() for _, _, similarity in r.evidence}
    assert ranked == {one.similarity for one in asked.retrieval.below}
    assert served_evidence(turn, turn.retrievals.all()) == ([], True)
    assert turn_prompt(turn).messages == asked.prompt.messages
    resolution = Resolution.objects.create(turn=turn, verdict="good", response=turn.response, how="single")
    assert from_turn(turn, resolution, assistant) == Refused(NOT_ASKED)

    # Once the threshold is lower, the model is asked just this, and learns what people found right.
    assistant.evidence_threshold = 0.0
    turn.assistant = assistant
    learnt = from_turn(turn, resolution, assistant)
    assert isinstance(learnt, Candidate), learnt
    assert (learnt.kind, len(learnt.evidence)) == ("decline", len(asked.retrieval.below))
    assert chat.ask(assistant=assistant, arm=asked.arm, question=asked.question, history=[]).without_model() is None


def _evidence_lines(content: str) -> list[str]:
    return [line for line in content.splitlines() if line.startswith("[")]
