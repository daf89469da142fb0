"""Recipes as files: what is written is read, what cannot be meant is said, a sentence each."""

from __future__ import annotations

import pytest

from training.data.recipe import Recipe, RecipeError
from training.data.recipe_file import MAX_FILE, read_recipe, write_recipe


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
