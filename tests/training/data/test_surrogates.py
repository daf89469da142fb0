"""A dataset whose recipe asks for invented values: the same in all parts of a row, none of them a placeholder."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from assistants.models import Assistant, Rendering
from assistants.policies import change_policy, rules_of
from tests.factories import make_assistant
from training.data.invented import surrogates_of, with_surrogates
from training.data.recipe import Recipe, RecipeError
from training.data.render import sft_rows
from training.models import DatasetVersion, Example

pytestmark = pytest.mark.django_db


def dataset_of(assistant: Assistant, **recipe: Any) -> DatasetVersion:
    dataset = DatasetVersion.objects.create(
        assistant=assistant, number=1, recipe=Recipe(**recipe).as_dict(), prompt_digest=assistant.prompt_digest,
        content_hash="a" * 64, state="succeeded", rows=1,
    )  # fmt: skip
    Example.objects.create(
        dataset=dataset, position=0, split="train", origin="good", kind="answer", group="conversation:c-1",
        question="When does [PERSON_1] of [LOCATION_1] come?",
        history=[{"role": "user", "content": "I am [PERSON_1]."}],
        contexts=[{"rank": 1, "title": "Of [PERSON_1]", "source": "a.md", "text": "Ask [PERSON_1] first. Then wait.",
                   "relevant": True}],
        evidence=[[1, 0, 0.9], [1, 1, 0.5]], digest="0" * 64,
        sentences=[{"text": "Ask [PERSON_1] first.", "refs": [[1, 0]]}],
    )  # fmt: skip
    return dataset


def test_rows_hold_one_invented_person_everywhere() -> None:
    assistant = make_assistant()
    dataset = dataset_of(assistant, surrogates=True)
    row = next(sft_rows(dataset, "train"))
    text = json.dumps(row, ensure_ascii=False)
    assert "PERSON" not in text
    assert "LOCATION" not in text
    drawn = surrogates_of(dataset)
    assert drawn is not None
    name = drawn.value("PERSON", "1", "conversation:c-1")
    assert f"Ask {name} first." in row["completion"][0]["content"]
    assert text.count(name) >= 4
    assert row == next(sft_rows(dataset, "train"))
    assert Example.objects.get().question == "When does [PERSON_1] of [LOCATION_1] come?"


def test_without_it_rows_keep_their_placeholders() -> None:
    dataset = dataset_of(make_assistant())
    assert "[PERSON_1]" in next(sft_rows(dataset, "train"))["completion"][0]["content"]


def test_a_row_whose_sentences_would_move_keeps_its_placeholders() -> None:
    dataset = dataset_of(make_assistant(), surrogates=True)

    class Chatty:
        def render(self, text: str, conversation: str) -> str:
            return text.replace("[PERSON_1]", "Anna. She came. Yes")

    example = Example.objects.get()
    drawn: Any = Chatty()
    assert with_surrogates(example, drawn) is example
    assert surrogates_of(dataset) is not None


def test_the_recipe_takes_true_and_false_only_and_the_policy_gives_the_default() -> None:
    with pytest.raises(RecipeError, match="true or false"):
        Recipe.from_dict({"surrogates": 1})
    assistant = make_assistant()
    rules = replace(rules_of(assistant), rendering=Rendering.SURROGATES.value)
    change_policy(assistant=assistant, rules=rules, actor=None, reason="They read better.")
    from training.services import build_dataset

    assert build_dataset(assistant=assistant, benchmark=None, synthesis=None).recipe["surrogates"] is True
