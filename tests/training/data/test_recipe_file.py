"""Recipes as files: what is written is read, what cannot be meant is said, a sentence each."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tests.factories import make_assistant
from tests.training.data.test_build import DECLINE, HANDOFF, curate
from training.data.recipe import Recipe, RecipeError
from training.data.recipe_file import MAX_FILE, read_recipe, write_recipe
from training.models import DatasetVersion


def test_what_is_written_is_read() -> None:
    recipe = Recipe(queues=("A: b", "ü"), asked_from="2026-01-31", max_tokens=512, surrogates=True, near_duplicate=1)
    text = write_recipe(recipe)
    assert read_recipe(text) == recipe
    assert "# Rows per passage. 0: no cap." in text  # it says what a choice means
    assert read_recipe("asked_from: 2026-01-31\nseed: 3\n") == Recipe(asked_from="2026-01-31", seed=3)
    assert read_recipe("# nothing\n") == Recipe()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("weigth_good: 2", "weigth_good is no field of a recipe; weight_good is."),
        ("seed: 1\nseed: 2", "seed stands twice"),
        ("- seed", "“field: value”"),
        ("a: &x [1]\nqueues: *x", "anchors"),
        ("seed: [", "not YAML in line 1"),
        ("x: !!python/object/apply:os.system [ls]", "not YAML"),
        ("bad: keep", "bad must be “not to say” or “leave out”."),
        ("queues: one", "queues must be a list"),
        ("queues: ['']", "queues must be a list"),
        ("asked_from: yesterday", "asked_from must be a day"),
        ("asked_from: 2026-02-01\nasked_before: 2026-02-01", "later than"),
        ("max_tokens: 3", "between 64 and 131,072, or 0"),
        ("near_duplicate: .nan", "near_duplicate must be between"),
        ("missing_oracle_share: .inf", "missing_oracle_share must be between"),
        ("turns: 1", "turns must be true or false"),
        ("seed: true", "seed must be a whole number"),
        ("turns: false\nsynthetic_per_curated: 0", "nothing would be left"),
        ("x" * (MAX_FILE + 1), "at most"),
    ],
)
def test_what_cannot_be_meant_is_said(text: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(text)
    assert sentence in str(caught.value)


def test_every_mistake_has_its_sentence() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict({"seed": "x", "good": "?", "turns": 3})
    assert [name for name in ("seed must", "good must", "turns must") if name in str(caught.value)] == [
        "seed must", "good must", "turns must",
    ]  # fmt: skip


@pytest.mark.django_db
def test_a_dataset_is_built_from_a_file_without_a_browser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assistant = make_assistant("desk", decline_sentence=DECLINE, handoff_sentence=HANDOFF)
    curate(assistant)
    call_command("build_dataset", write=True)
    file = tmp_path / "recipe.yaml"
    file.write_text(capsys.readouterr().out.replace("missing_oracle_share: 0.3", "missing_oracle_share: 0.0"))
    call_command("build_dataset", "desk", recipe=file, count=True)
    assert "nothing is frozen." in capsys.readouterr().out
    assert not DatasetVersion.objects.exists()
    call_command("build_dataset", "desk", recipe=file)
    dataset = DatasetVersion.objects.get()
    assert f"Dataset 1: {dataset.rows} rows, content {dataset.content_hash}." in capsys.readouterr().out
    assert dataset.recipe["missing_oracle_share"] == 0
    for asked, sentence in (
        (["nobody"], "there is desk"),
        (["desk", "--benchmark", "x"], "no benchmark “x”"),
        (["desk", "--synthesis", "7"], "no synthesis “7”"),
        (["desk", "--recipe", str(tmp_path / "none.yaml")], "cannot be read"),
    ):
        with pytest.raises(CommandError, match=sentence):
            call_command("build_dataset", *asked)
    file.write_text("good: leave out\ncorrected: leave out\n")
    with pytest.raises(CommandError, match="left out by the recipe"):
        call_command("build_dataset", "desk", recipe=file)
