"""From chosen rows to a frozen version: made ready, read by the leak audit, written in one transaction.

Rows are on disk in between; in memory is one line of each. They are written by COPY: a hundred thousand rows with their
passages are some hundreds of megabytes.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction

from capture.leaks import Audit
from capture.models import LeakReport, Turn
from training.data.auditing import Helper, Stored, named_by_position
from training.data.budget import Budget, prompt_of
from training.data.collect import CHUNK, Funnel, Order
from training.data.corpus_words import WordCounter
from training.data.leaks import RowReader
from training.data.pool import Head, Pool, batches
from training.data.recipe import Recipe
from training.data.records import COLUMNS, columns_of, documents_of, record_of
from training.data.split import is_validation
from training.data.stats import Stats
from training.models import DatasetVersion, Example, Kind, Origin


class TurnsErased(ValueError):
    """Turns went while their rows were being made."""


@dataclass(slots=True)
class Line:
    """One row that is ready; the rest of it is in the pool."""

    digest: str
    judged: str
    """Digest of the answer that was judged bad."""
    split: str
    weight: int
    row: tuple[int, int]
    """Where the candidate is."""
    columns: tuple[int, int]
    """Where what COPY writes of it is."""
    came: int
    """Its place in the order in which rows were made ready."""


@dataclass
class Ready:
    """``lines`` in the order of the version."""

    lines: list[Line]
    content_hash: str
    stats: Stats
    budget: Budget
    mix: dict[str, dict[str, int]]
    documents: list[str]
    turns: set[Any]
    words: WordCounter | None
    """Where the recipe asks for invented values."""

    @property
    def answers(self) -> int:
        """Rows with an answer to learn."""
        return sum(kinds.get(Kind.ANSWER, 0) for origin, kinds in self.mix.items() if origin != Origin.BAD)


def make_ready(order: Order, pool: Pool, rows: Sequence[Head], funnel: Funnel, helper: Helper | None = None) -> Ready:
    """Fits each row to the token budget and renders it once, so that a row which cannot be rendered fails the build and
    not the training. ``helper``: reads the rows for the leak audit meanwhile.

    Raises:
        ValueError: a row's evidence does not fit its contexts.
        privacy.findings.ScrubError: the helper cannot read a row.
    """
    recipe = order.recipe
    budget = Budget(order.assistant, recipe.max_tokens)
    stats, mix = Stats(), dict[str, Counter[str]]()
    documents: set[str] = set()
    lines: list[Line] = []
    turns: set[Any] = set()
    words = WordCounter() if recipe.surrogates else None
    for head in rows:
        before = pool.read(head)
        row = budget.fit(before)
        if row is None:
            continue
        place = (head.place, head.size) if row is before else pool.put(row)
        split = split_of(row.group, recipe)
        digest, record = record_of(row)
        judged = hashlib.sha256(row.rejected.encode()).hexdigest()[:16] if row.rejected else ""
        columns = pool.put(columns_of(row, record))
        lines.append(Line(digest, judged, split, head.weight, place, columns, came=len(lines)))
        if helper is not None:
            helper.read(Stored(place[0], row.turn_id, pool.raw(*place)))
        prompt = prompt_of(order.assistant.house, row)
        stats.add(row, split, prompt_words=sum(len(m["content"].split()) for m in prompt.messages))
        mix.setdefault(str(row.origin), Counter())[str(row.kind)] += 1
        documents.update(documents_of(row))
        if words is not None:
            words.add(row)
        if row.turn_id is not None:
            turns.add(row.turn_id)
        if len(lines) % CHUNK == 0:
            order.beat(stage="rendering rows", done=len(lines), total=len(rows))
    count_budget(funnel, len(rows), len(lines))
    lines.sort(key=lambda line: (line.digest, line.judged))
    told = "\n".join(f"{line.digest} {line.split} {line.weight} {line.judged}".rstrip() for line in lines)
    plain_mix = {origin: dict(kinds) for origin, kinds in mix.items()}
    content_hash = hashlib.sha256(told.encode()).hexdigest()
    return Ready(lines, content_hash, stats, budget, plain_mix, sorted(documents), turns, words)


def count_budget(funnel: Funnel, before: int, kept: int) -> None:
    if before > kept:
        funnel.step("token budget", before, kept, ["too long without a single distractor"] * (before - kept))


def split_of(group: str, recipe: Recipe) -> str:
    held_out = is_validation(group, share=recipe.validation_share, seed=recipe.seed)
    return Example.Split.VALIDATION.value if held_out else Example.Split.TRAIN.value


def audit_lines(
    dataset: DatasetVersion, pool: Pool, ready: Ready, beat: Callable[..., None], helper: Helper | None = None
) -> LeakReport:
    """The leak audit's report, not yet saved. ``helper``: has read the rows already, as `make_ready` gave them to it.

    Raises:
        privacy.findings.ScrubError: a row cannot be read.
        training.data.auditing.HelperLost: the helper was killed twice.
    """
    beat(stage="leak audit", done=0, total=len(ready.lines))
    if helper is not None:
        came = {line.came: at for at, line in enumerate(ready.lines)}

        def row(place: int) -> Stored:
            at, size = ready.lines[came[place]].row
            data = pool.raw(at, size)
            return Stored(at, pickle.loads(data).turn_id, data)  # noqa: S301 - of our own build

        report = named_by_position(helper.report(row), came)
        report.content_hash, report.created_by = ready.content_hash, dataset.created_by
        return report
    found = Audit(dataset.assistant, str(dataset))
    reader = RowReader(found, dataset.assistant)
    done = 0
    for part in batches(ready.lines, CHUNK):
        rows = [pool.get(*line.row) for line in part]
        reader.read(rows, [str(done + i) for i in range(len(rows))])
        done += len(part)
        beat(stage="leak audit", done=done, total=len(ready.lines))
    return found.report(content_hash=ready.content_hash, created_by=dataset.created_by)


def write_version(
    dataset: DatasetVersion,
    pool: Pool,
    ready: Ready,
    *,
    report: LeakReport,
    funnel: Funnel,
    blocked: list[dict[str, Any]],
) -> None:
    """All of it, or nothing. No beat in here: it would be seen by nobody before the end.

    Raises:
        TurnsErased: turns of the rows went meanwhile.
    """
    with transaction.atomic():
        # What was blocked is listed with its question.
        _refuse_erased(ready.turns | {entry["turn"] for entry in blocked if entry.get("turn") is not None})
        dataset.examples.all().delete()
        copy_rows(dataset, pool, ready.lines)
        if ready.words is not None:
            ready.words.save(dataset)
        dataset.prompt_digest = dataset.assistant.prompt_digest
        dataset.content_hash = ready.content_hash
        dataset.funnel = funnel.steps
        dataset.mix = ready.mix
        dataset.blocked = [{name: entry[name] for name in entry if name != "turn"} for entry in blocked]
        dataset.documents = ready.documents
        dataset.rows = len(ready.lines)
        told = {"rows": ready.budget.rows, "dropped": ready.budget.dropped, "most": ready.budget.most}
        # The same recipe on the same turns gives other rows under another threshold.
        threshold = dataset.assistant.evidence_threshold
        dataset.stats = {**ready.stats.as_dict(), "budget": told, "threshold": threshold}
        report.save()
        dataset.leak_report = report
        dataset.keep(
            "prompt_digest", "content_hash", "funnel", "mix", "blocked", "documents", "rows", "stats", "leak_report"
        )


def copy_rows(dataset: DatasetVersion, pool: Pool, lines: Sequence[Line]) -> None:
    quoted = ", ".join(f'"{column}"' for column in COLUMNS)
    statement = f'COPY "{Example._meta.db_table}" ({quoted}) FROM STDIN'
    # psycopg's own cursor: Django's has no COPY.
    with connection.cursor() as cursor, cursor.cursor.copy(statement) as copy:
        for position, line in enumerate(lines):
            own = pool.get(*line.columns)
            copy.write_row((dataset.pk, position, line.split, line.weight, line.digest, *own))


def _refuse_erased(turns: set[Any]) -> None:
    """What was erased while the build had it in memory must not come back; the foreign keys refuse whatever goes
    between this look and the commit."""
    there = sum(Turn.objects.filter(pk__in=part).count() for part in batches(sorted(turns), 5_000))
    if gone := len(turns) - there:
        raise TurnsErased(f"{gone} of its turns were erased while it was built. Build it again.")
