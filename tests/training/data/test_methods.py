"""One example, three methods: what is wanted, what is not, and what is over what."""

from __future__ import annotations

from typing import Any

import pytest

from assistants.models import Assistant
from generation.prompts import PromptPassage, SentenceRef, build_prompt
from tests.factories import make_assistant
from training.data.rejected import rejected_completion
from training.data.render import MethodCounts, count_rows, dpo_rows, kto_rows, sft_rows
from training.models import DatasetVersion, Example

FEES = "A fixed plan has an exit fee of £35. No fee is due in the last 49 days."
MOVING = "Tell us 10 days before you move. Your plan moves with you."
CONTEXTS = [
    {"rank": 1, "title": "Leaving", "source": "a.md", "text": FEES, "relevant": True},
    {"rank": 2, "title": "Moving", "source": "b.md", "text": MOVING, "relevant": False},
]
EVIDENCE = [[2, 0, 0.8], [1, 0, 0.7], [1, 1, 0.6]]
WANTED = [{"text": "A fixed plan has an exit fee of £35.", "refs": [[1, 0]]}]


@pytest.fixture
def dataset(db: None) -> DatasetVersion:
    assistant = make_assistant()
    return DatasetVersion.objects.create(
        assistant=assistant, number=1, state="succeeded", prompt_digest=assistant.prompt_digest, content_hash="c" * 64
    )


def add(dataset: DatasetVersion, position: int, **fields: Any) -> Example:
    return Example.objects.create(
        dataset=dataset, position=position, digest=f"{position:064d}", question="What does leaving cost?",
        contexts=CONTEXTS, evidence=EVIDENCE,
        **{"split": "train", "origin": "good", "kind": "answer", "group": "g", "sentences": WANTED, **fields},
    )  # fmt: skip


def said(text: str, dataset: DatasetVersion) -> str:
    house = dataset.assistant.house
    passages = [PromptPassage(c["rank"], c["title"], c["text"]) for c in CONTEXTS]  # type: ignore[arg-type]
    refs = [SentenceRef(int(r), int(i)) for r, i, _ in EVIDENCE]
    prompt = build_prompt(house=house, question="?", passages=passages, evidence=refs)
    return rejected_completion(house=house, prompt=prompt, passages=passages, text=text)


def test_each_method_gets_what_the_labels_say(dataset: DatasetVersion) -> None:
    add(dataset, 0, weight=2)
    add(dataset, 1, origin="corrected", rejected="Tell us 10 days before. [2]", weight=4)
    add(dataset, 2, origin="bad", sentences=[], rejected="It costs £99. [1]")
    add(dataset, 3, origin="corrected", rejected="A fixed plan has an exit fee of £35. [1]")
    add(dataset, 4, split="validation")
    add(dataset, 5, origin="bad", sentences=[], rejected="", erased_at="2026-01-01T00:00Z")
    supervised = list(sft_rows(dataset, "train"))
    assert [(row["completion"][0]["content"], row["weight"]) for row in supervised] == [
        ("[2] A fixed plan has an exit fee of £35.", 2),
        ("[2] A fixed plan has an exit fee of £35.", 4),
        ("[2] A fixed plan has an exit fee of £35.", 1),
    ]
    unpaired = [(row["completion"][0]["content"], row["label"], row["weight"]) for row in kto_rows(dataset, "train")]
    assert unpaired == [
        ("[2] A fixed plan has an exit fee of £35.", True, 2),
        ("[2] A fixed plan has an exit fee of £35.", True, 4),
        ("[1] Tell us 10 days before.", False, 1),
        ("[2] It costs £99.", False, 1),
        ("[2] A fixed plan has an exit fee of £35.", True, 1),  # judged bad and corrected to the same: no pair
    ]
    (pair,) = dpo_rows(dataset, "train")
    assert pair["chosen"][0]["content"] == "[2] A fixed plan has an exit fee of £35."
    assert pair["rejected"][0]["content"] == "[1] Tell us 10 days before."
    assert pair["prompt"] == supervised[0]["prompt"]
    assert count_rows(dataset, "train") == MethodCounts(sft=3, kto_desirable=3, kto_undesirable=3, dpo=2)


def test_a_judged_answer_keeps_its_wrong_citation(dataset: DatasetVersion) -> None:
    assert said("A fixed plan has an exit fee of £35. [2]", dataset) == "[1] A fixed plan has an exit fee of £35."


def test_where_nothing_is_cited_support_is_found(dataset: DatasetVersion) -> None:
    assert said("No fee is due in the last 49 days. The moon is cheese.", dataset) == (
        "[3] No fee is due in the last 49 days. The moon is cheese."
    )


def test_a_decline_cites_nothing(dataset: DatasetVersion) -> None:
    decline = dataset.assistant.decline_sentence
    assert said(f"{decline} [1]", dataset) == decline


def test_with_whole_passages_the_marks_stay_behind(db: None) -> None:
    assistant: Assistant = make_assistant(prompt_style="passages")
    dataset = DatasetVersion(assistant=assistant)
    assert said("It costs £99. [1] [7] Maybe.", dataset) == "It costs £99. [1] Maybe."
