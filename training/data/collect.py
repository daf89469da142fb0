"""The sources of a dataset, one after the other, as candidates in a pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from annotations.models import ComparisonPair, ComparisonRound, Queue
from assistants.models import Assistant
from capture.models import Turn
from knowledge.query import in_house_words, question_vectors
from training.data.auditing import Helper, Stored
from training.data.candidates import Candidate, Refused, from_curated, from_item, from_turn
from training.data.compared import from_pair
from training.data.embedding import Asked, Embed
from training.data.pool import Head, Pool, batches
from training.data.recipe import Recipe, RecipeError
from training.data.stored_vectors import asked_first, curated_rows, rows_fit, taken_as_stored, turns_fit, written_rows
from training.data.turns import Shelf, turns_of, with_all_it_takes
from training.data.vectors import packed, sent, unit, unpacked
from training.models import Benchmark, CuratedRow, CuratedSet, Synthesis, SyntheticItem

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK = 500


@dataclass
class Funnel:
    """What went in, what each step took out, and why: shown on the dataset's page."""

    steps: list[dict[str, Any]] = field(default_factory=list)

    def step(self, name: str, before: int, after: int, why: Iterable[str] = ()) -> None:
        self.steps.append({"step": name, "before": before, "kept": after, "why": dict(Counter(why))})


@dataclass(frozen=True)
class Order:
    """What is to be built, and how to tell how far it is."""

    assistant: Assistant
    recipe: Recipe
    benchmark: Benchmark | None
    synthesis: Synthesis | None
    beat: Callable[..., None]
    helper: Helper | None = None
    """Reads for the leak audit meanwhile, where there is a second process."""
    embed: Embed = question_vectors

    def look_ahead(self, pool: Pool, heads: Sequence[Head]) -> None:
        if self.helper is not None and heads and self.helper.has_room:
            self.helper.look([stored(pool, head) for head in heads])

    def asked_first(self) -> Iterator[tuple[Sequence[Asked], Mapping[str, str]]]:
        return asked_first(self.assistant, self.recipe, benchmark=self.benchmark, synthesis=self.synthesis)

    def expected(self) -> int:
        """Rows of its two large sources, about: two queries."""
        turns = turns_of(self.assistant, self.recipe).count() if self.recipe.turns else 0
        return turns + (self.synthesis.items.filter(dropped_by="").count() if self.synthesis is not None else 0)


def stored(pool: Pool, head: Head) -> Stored:
    return Stored(head.place, head.turn_id, pool.raw(head.place, head.size))


def collect(order: Order, pool: Pool, funnel: Funnel) -> list[Head]:
    """Raises RecipeError when a name in the recipe is nobody's."""
    refuse_unknown_names(order.assistant, order.recipe)
    heads: list[Head] = []
    for source in (_turns, _curated, _compared, _written):
        heads += source(order, pool, funnel)
    return _without_documents(heads, order.recipe, funnel)


def refuse_unknown_names(assistant: Assistant, recipe: Recipe) -> None:
    """Raises RecipeError."""
    wrong = []
    for name, known in (
        ("queues", Queue.objects.filter(assistant=assistant)),
        ("curated_sets", CuratedSet.objects.filter(assistant=assistant, state=CuratedSet.State.SUCCEEDED)),
    ):
        wanted: tuple[str, ...] = getattr(recipe, name)
        have = set(known.filter(name__in=wanted).values_list("name", flat=True)) if wanted else set()
        wrong += [f"{name}: there is no “{one}” here." for one in wanted if one not in have]
    known_forms = {str(form) for form in SyntheticItem.Form.values}
    wrong += [f"forms: there is no form “{one}”." for one in recipe.forms if one not in known_forms]
    if wrong:
        raise RecipeError(" ".join(wrong[:10]))


def _turns(order: Order, pool: Pool, funnel: Funnel) -> list[Head]:
    if not order.recipe.turns:
        return []
    rows = turns_of(order.assistant, order.recipe)
    total = rows.count()
    pool.reserve(total)
    as_stored = taken_as_stored(total)
    """Whether they fit is asked at the end: the sample that tells is being embedded meanwhile."""
    heads: list[Head] = []
    borrowed: list[Head] = []
    """With the vectors that their turns keep."""
    why: list[str] = []
    done = 0
    shelf = Shelf()
    for part in batches(with_all_it_takes(rows).iterator(chunk_size=CHUNK), CHUNK):
        retrieved = shelf.retrieved(part)
        kept: list[Candidate] = []
        vectors: list[Any] = []
        for turn in part:
            turn.assistant = order.assistant
            shown = retrieved.get(turn.pk, ())
            made = from_turn(turn, turn.resolution, order.assistant, order.recipe, retrieved=shown)
            if isinstance(made, Refused):
                why.append(made.why)
                continue
            kept.append(made)
            halves = vars(turn)["halves"]
            usable = as_stored and halves is not None and not _has_house_words(turn, order.assistant)
            vectors.append(sent(halves) if usable else None)
        added = _add(order, pool, kept, vectors)
        order.look_ahead(pool, added)
        heads += added
        borrowed += [head for head, vector in zip(added, vectors, strict=True) if vector is not None]
        done += len(part)
        order.beat(stage="labelled turns", done=done, total=total)
    if borrowed and not turns_fit(order.embed, rows, order.assistant):
        _embed_anew(order, pool, borrowed)
    funnel.step("resolved turns", done, len(heads), why)
    return heads


def _embed_anew(order: Order, pool: Pool, heads: Sequence[Head]) -> None:
    """Another embedder has made the stored vectors."""
    for done, part in enumerate(batches(heads, CHUNK)):
        rows = [pool.read(head) for head in part]
        pool.move([head.row for head in part], order.embed([(row.question, row.history) for row in rows]))
        order.beat(stage="embedding questions anew", done=done * CHUNK, total=len(heads))


def _add(order: Order, pool: Pool, rows: Sequence[Candidate], vectors: Sequence[Any]) -> list[Head]:
    """``vectors``: None where a question is still to be embedded."""
    missing = [row for row, vector in zip(rows, vectors, strict=True) if vector is None]
    fresh = iter(order.embed([(row.question, row.history) for row in missing]) if missing else ())
    return [pool.add(row, next(fresh) if v is None else unit(v)) for row, v in zip(rows, vectors, strict=True)]


def _has_house_words(turn: Turn, assistant: Assistant) -> bool:
    """Whether the glossary has changed what was embedded: datasets compare questions as they were asked."""
    texts = (turn.question, *(m["content"] for m in turn.history if m["role"] == "user"))
    return any(in_house_words(text, assistant.glossary) != text for text in texts)


def _curated(order: Order, pool: Pool, funnel: Funnel) -> list[Head]:
    if not order.recipe.curated_sets:
        return []
    rows = curated_rows(order.assistant, order.recipe)
    names = dict(rows.order_by().values_list("set", "set__name").distinct())
    made = ((row, from_curated(row, names[row.set_id])) for row in rows.iterator(chunk_size=CHUNK))
    return _all(order, pool, funnel, made, name="imported rows", total=rows.count(), sample=rows)


def _compared(order: Order, pool: Pool, funnel: Funnel) -> list[Head]:
    if not order.recipe.comparisons:
        return []
    # The guard would block pairs on its own benchmark's questions one by one: leave them out whole.
    held_out = order.benchmark.name if order.benchmark is not None else ""
    rounds = ComparisonRound.objects.filter(assistant=order.assistant)
    if held_out:
        rounds = rounds.exclude(held_out=held_out)
    preferred = ComparisonPair.objects.filter(round__in=rounds).exclude(prompt=[]).preferred()
    rows = preferred.select_related("round", "turn__conversation").order_by("round", "position")
    made = ((None, from_pair(pair, order.assistant)) for pair in rows.iterator(chunk_size=CHUNK))
    return _all(order, pool, funnel, made, name="compared pairs", total=rows.count())


def _written(order: Order, pool: Pool, funnel: Funnel) -> list[Head]:
    if order.synthesis is None:
        return []
    items = order.synthesis.items.all()
    kept = items.filter(dropped_by="").exclude(spot_check__verdict="bad")
    why: list[str] = list(items.exclude(dropped_by="").values_list("dropped_by", flat=True))
    why += ["judged bad in the spot check"] * items.filter(dropped_by="", spot_check__verdict="bad").count()
    if order.recipe.forms:
        why += ["of another form"] * kept.exclude(form__in=order.recipe.forms).count()
    rows = written_rows(order.synthesis, order.recipe)
    made = ((item, from_item(item, order.assistant)) for item in rows.iterator(chunk_size=CHUNK))
    return _all(order, pool, funnel, made, name="synthetic questions", total=items.count(), why=why, sample=rows)


def _all(
    order: Order,
    pool: Pool,
    funnel: Funnel,
    made: Iterator[tuple[SyntheticItem | CuratedRow | None, Candidate | Refused]],
    **counted: Any,
) -> list[Head]:
    """``made``: what a candidate is made of (None where it keeps no vector), and the candidate.

    ``counted``: ``name`` of the step, ``total`` before it, ``why`` some are not among ``made``; ``sample``: rows by
    which is told whether stored vectors are of today's embedder.
    """
    pool.reserve(counted["total"])
    reasons = list(counted.get("why", ()))
    heads: list[Head] = []
    fits = "sample" in counted and rows_fit(order.embed, counted["sample"])
    for part in batches(made, CHUNK):
        kept = [(row, one) for row, one in part if isinstance(one, Candidate)]
        reasons += [one.why for _, one in part if isinstance(one, Refused)]
        vectors = [unpacked(row.vector) if fits and row is not None and row.vector else None for row, _ in kept]
        missing = [at for at, vector in enumerate(vectors) if vector is None]
        for at, vector in zip(missing, _embedded(order, [kept[at][1] for at in missing]), strict=True):
            vectors[at] = vector
        added = [pool.add(one, vector) for (_, one), vector in zip(kept, vectors, strict=True)]
        order.look_ahead(pool, added)
        heads += added
        _keep_vectors([(kept[at][0], vectors[at]) for at in missing])
        order.beat(stage=counted["name"], done=len(heads), total=counted["total"])
    funnel.step(counted["name"], counted["total"], len(heads), reasons)
    return heads


def _embedded(order: Order, rows: Sequence[Candidate]) -> list[NDArray[np.float32]]:
    """Rounded as they are stored, so that the second build compares what the first did."""
    if not rows:
        return []
    return [unpacked(packed(vector)) for vector in order.embed([(row.question, row.history) for row in rows])]


def _keep_vectors(made: Sequence[tuple[SyntheticItem | CuratedRow | None, Any]]) -> None:
    """The next build, and the preview before it, need not embed what this one has."""
    models: tuple[type[SyntheticItem | CuratedRow], ...] = (SyntheticItem, CuratedRow)
    for model in models:
        rows = [(row, vector) for row, vector in made if isinstance(row, model)]
        for row, vector in rows:
            row.vector = packed(vector)
        manager: Any = model._default_manager
        manager.bulk_update([row for row, _ in rows], ["vector"], batch_size=CHUNK)


def _without_documents(heads: list[Head], recipe: Recipe, funnel: Funnel) -> list[Head]:
    if not recipe.without_documents:
        return heads
    folders = tuple(path for path in recipe.without_documents if path.endswith("/"))
    paths = set(recipe.without_documents)
    kept = [h for h in heads if not any(d in paths or (folders and d.startswith(folders)) for d in h.documents)]
    funnel.step("documents left out", len(heads), len(kept), ["answers from it"] * (len(heads) - len(kept)))
    return kept
