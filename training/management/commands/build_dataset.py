"""Builds a dataset from a recipe file: manage.py build_dataset ASSISTANT --recipe recipe.yaml."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from assistants.models import Assistant
from assistants.performing import perform_here
from training.data.recipe import Recipe, RecipeError
from training.data.recipe_file import MAX_FILE, read_recipe, write_recipe
from training.data.services import start_preview
from training.models import Benchmark, DatasetPreview, DatasetVersion, Synthesis
from training.services import NotPossible, build_dataset


class Command(BaseCommand):
    help = "Builds and freezes the next dataset version of an assistant, or only counts what its recipe would give."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("assistant", nargs="?", help="Slug of the assistant.")
        parser.add_argument("--recipe", type=Path, help="YAML file; without it the defaults.")
        parser.add_argument("--benchmark", help="Name of the benchmark that guards it.")
        parser.add_argument("--synthesis", type=int, help="Number of the synthesis whose questions are offered.")
        parser.add_argument("--count", action="store_true", help="Only count; nothing is frozen.")
        parser.add_argument("--write", action="store_true", help="Print the default recipe as a file, and do no more.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["write"]:
            self.stdout.write(write_recipe(Recipe()), ending="")
            return
        try:
            work = self._start(**options)
            self._perform(work)
        except (NotPossible, RecipeError) as error:
            raise CommandError(str(error)) from None

    def _start(self, **options: Any) -> DatasetVersion | DatasetPreview:
        assistant = Assistant.objects.filter(slug=options["assistant"] or "").first()
        if assistant is None:
            known = ", ".join(Assistant.objects.order_by("slug").values_list("slug", flat=True)[:20]) or "none"
            raise CommandError(f"Name an assistant; there is {known}.")
        given: dict[str, Any] = {
            "assistant": assistant,
            "recipe": _recipe(options["recipe"]),
            "benchmark": _found(Benchmark, options["benchmark"], assistant=assistant, name=options["benchmark"]),
            "synthesis": _found(Synthesis, options["synthesis"], assistant=assistant, pk=options["synthesis"]),
        }
        return start_preview(**given) if options["count"] else build_dataset(**given)

    def _perform(self, work: DatasetVersion | DatasetPreview) -> None:
        perform_here(work)  # a worker that was quicker has it: then this does nothing
        work.refresh_from_db()
        if work.state == work.State.FAILED:
            raise CommandError(work.error)
        if work.is_active:
            self.stdout.write(f"{work}: a worker builds it.")
            return
        counted = isinstance(work, DatasetPreview)
        for step in work.funnel:
            why = ", ".join(f"{n} {reason}" for reason, n in step["why"].items())
            self.stdout.write(f"{step['step']}: {step['before']} → {step['kept']}{f' ({why})' if why else ''}")
        if isinstance(work, DatasetPreview) and work.result["nothing"]:
            raise CommandError(work.result["nothing"])
        rows = work.result["rows"] if isinstance(work, DatasetPreview) else work.rows
        told = "nothing is frozen" if counted else f"content {work.content_hash}"  # type: ignore[union-attr]
        self.stdout.write(f"{work}: {rows} rows, {told}.")


def _recipe(path: Path | None) -> Recipe:
    if path is None:
        return Recipe()
    try:
        if path.stat().st_size > MAX_FILE:
            raise CommandError(f"{path} is larger than {MAX_FILE:,} bytes.")
        return read_recipe(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8.") from None
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from None


def _found(model: Any, asked: Any, **filters: Any) -> Any:
    if asked is None:
        return None
    found = model.objects.filter(**filters).first()
    if found is None:
        raise CommandError(f"There is no {model._meta.verbose_name} “{asked}” of this assistant.")
    return found
