"""A recipe as a YAML file that people keep beside their code: written with what each choice means, read strictly."""

from __future__ import annotations

import textwrap
from dataclasses import fields
from typing import Any

import yaml

from training.data.recipe import GROUPS, Recipe, RecipeError

MAX_FILE = 64_000
_END = "...\n"
"""What YAML puts behind a scalar that stands alone."""


class _Strict(yaml.SafeLoader):
    """A key that stands twice is a mistake, and no anchors: ten lines of them could stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise RecipeError("The file must not use anchors and aliases.")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [str(key.value) for key, _ in node.value]
        if twice := sorted({key[:60] for key in keys if keys.count(key) > 1}):
            raise RecipeError(" ".join(f"{key} stands twice in the file." for key in twice))
        return super().construct_mapping(node, deep)


def read_recipe(text: str) -> Recipe:
    """What a file does not name has its default.

    Raises:
        RecipeError: no YAML, or no recipe: a sentence per mistake.
    """
    if len(text) > MAX_FILE:
        raise RecipeError(f"A recipe has at most {MAX_FILE:,} characters.")
    try:
        values = yaml.load(text, _Strict)  # noqa: S506 - a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError(f"This is not YAML{where}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError("This is not YAML.") from None
    if values is None:
        return Recipe()
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise RecipeError("A recipe is a list of “field: value” lines.")
    return Recipe.from_dict({name: _plain(value) for name, value in values.items()})


def write_recipe(recipe: Recipe) -> str:
    """The same recipe for `read_recipe`, with what each choice means."""
    lines = ["# A recipe of a dataset version. What is left out here has its default."]
    for group in GROUPS:
        lines += ["", f"# --- {group}"]
        for choice in fields(Recipe):
            if choice.metadata["group"] == group:
                told = ". ".join(filter(None, (choice.metadata["label"].rstrip("."), choice.metadata["help"])))
                lines += [f"# {part}" for part in textwrap.wrap(told, 110)]
                value = getattr(recipe, choice.name)
                plain = list(value) if isinstance(value, tuple) else value
                written = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=100_000)
                lines.append(f"{choice.name}: {written.removesuffix(_END).strip()}")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    # YAML reads 2026-01-31 as a date; a recipe holds what JSON holds.
    return value.isoformat() if hasattr(value, "isoformat") else value
