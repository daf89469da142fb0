"""What the dataset bench does in the database of DATABASE_URL, a step per call; each prints a line of JSON."""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

PASSAGES = 4_000
ITEMS = 300
K = 6
BATCH = 2_000
EMBEDDED = 1_000
"""So many questions of either kind are embedded. The others take the vector of one of these, moved by noise: embedding
a hundred thousand takes the better part of an hour, and a build does not look where a stored vector is from."""
NOISE = 0.6
TURNS = 0.6
VERBS = tuple("change cancel renew read pay move compare extend report check order replace lower explain split".split())  # noqa: SIM905
NOUNS = tuple(
    " ".join(
        (
            "meter bill plan tariff deposit address reading invoice payment contract heater boiler panel battery",
            "charger discount budget account form notice letter engineer visit refund exit fee day rate night charge",
            "direct debit smart display welcome pack garden lamp cellar kitchen roof garage stairs office workshop",
        )
    ).split()
)
WHEN = (
    "before I move", "after the visit", "when the display is blank", "in the first month", "if nobody is at home",
    "while the price is fixed", "at the end of the year", "once the letter has come", "for a second flat",
    "without a form", "when the payment fails", "during the night", "on the last day", "in a rented house",
)  # fmt: skip


def passage(draw: random.Random, number: int) -> tuple[str, str, str]:
    """(title, source, text of six sentences), each with a number of its own."""
    sentences = [
        f"To {draw.choice(VERBS)} the {draw.choice(NOUNS)} of your {draw.choice(NOUNS)} {draw.choice(WHEN)} "
        f"takes {number % 97 + i} days and costs {number * 7 % 991 + i} points."
        for i in range(6)
    ]
    return f"The {draw.choice(NOUNS)} {number}", f"folder{number % 40}/page{number}.md", " ".join(sentences)


def question(draw: random.Random) -> str:
    return (
        f"How do I {draw.choice(VERBS)} the {draw.choice(NOUNS)} and the {draw.choice(NOUNS)} of my "
        f"{draw.choice(NOUNS)} {draw.choice(WHEN)}, or {draw.choice(VERBS)} the {draw.choice(NOUNS)}?"
    )


def copy(rows: list[Any]) -> None:
    """As `bulk_create`, by COPY, which takes a fraction of the time for rows as wide as these."""
    from django.db import connection

    model = type(rows[0])
    fields = [f for f in model._meta.concrete_fields if not f.generated and (rows[0].pk or not f.primary_key)]
    names = ", ".join(f'"{f.column}"' for f in fields)
    statement = f'COPY "{model._meta.db_table}" ({names}) FROM STDIN'
    with connection.cursor() as cursor, cursor.cursor.copy(statement) as into:
        for row in rows:
            into.write_row([f.get_db_prep_save(f.pre_save(row, add=True), connection) for f in fields])


def fill(examples: int) -> dict[str, Any]:
    from assistants.models import Assistant
    from capture.models import Turn

    house, made = Assistant.objects.get_or_create(slug="dataset", defaults={"name": "Dataset"})
    if not made:
        return {"turns": Turn.objects.of(house).count()}
    draw = random.Random(11)
    texts = [passage(draw, n) for n in range(PASSAGES)]
    _turns(house, texts, int(examples * TURNS), draw)
    _questions(house, texts, examples - int(examples * TURNS), draw)
    _benchmark(house, draw)
    _settle_in()
    return {"turns": Turn.objects.of(house).count()}


class Vectors:
    """Unit vectors of questions: the first `EMBEDDED` are real (a build compares some of them with its embedder), two
    of the others that come from the same real one have a cosine of some .7, which is nobody's duplicate."""

    def __init__(self) -> None:
        self._real: list[Any] = []
        self._noise = np.random.default_rng(11)

    def of(self, questions: list[str]) -> list[Any]:
        from knowledge.query import question_vectors

        fresh = max(0, EMBEDDED - len(self._real))
        made = list(question_vectors([(one, ()) for one in questions[:fresh]])) if fresh else []
        self._real += made
        return made + [self._moved() for _ in questions[fresh:]]

    def _moved(self) -> Any:
        base = self._real[int(self._noise.integers(len(self._real)))]
        away = self._noise.standard_normal(len(base)).astype(np.float32)
        moved = base + NOISE * away / np.linalg.norm(away)
        return moved / np.linalg.norm(moved)


def _table(house: Any, name: str) -> dict[str, Any]:
    """What masking a name and a mail in a conversation leaves: the audit looks for them in all its rows."""
    from capture.vault import entities_key
    from privacy.entities import EntityTable, Value

    table = EntityTable(entities_key(house.pk, name))
    table.assign([Value("PERSON", f"Zenobia Quillfeather{name}"), Value("EMAIL", f"{name}@mail.example.org")])
    return table.to_dict()


def _turns(house: Any, texts: Any, count: int, draw: random.Random) -> None:
    from django.utils import timezone
    from pgvector import HalfVector

    from annotations.models import Resolution
    from capture.models import Conversation, Passage, Retrieval, Turn

    passages = Passage.objects.bulk_create(
        [
            Passage(assistant=house, digest=f"{n:064d}", title=title, source=source, text=text, trusted=True)
            for n, (title, source, text) in enumerate(texts)
        ],
        batch_size=1000,
    )
    now = timezone.now()
    embedded = Vectors()
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        talks = Conversation.objects.bulk_create(
            [
                Conversation(assistant=house, external_id=name, entities=_table(house, name) if i % 10 == 0 else {})
                for i, name in enumerate(f"c{start + i}" for i in range((size + 2) // 3))
            ]
        )
        asked = [question(draw) for _ in range(size)]
        vectors = embedded.of(asked)
        turns, retrievals, resolutions = [], [], []
        for i, (one, vector) in enumerate(zip(asked, vectors, strict=True)):
            chosen = draw.sample(range(PASSAGES), K)
            rank, sentence = draw.randrange(K), draw.randrange(6)
            answer = f"{texts[chosen[rank]][2].split('. ')[sentence].rstrip('.')}. [{rank + 1}]"
            bad = draw.random() < 0.1
            turn = Turn(
                assistant=house, conversation=talks[i // 3], client_id=f"t{start + i}", question=one,
                asked_at=now + timedelta(seconds=start + i),  # a build looks at the vectors of the oldest
                response="It costs nothing at all. [1]" if bad else answer, policy_digest="bench",
                embedding=HalfVector(vector), metadata={"user_key": f"u{draw.randrange(5000)}"},
            )  # fmt: skip
            turns.append(turn)
            places = [[rank, sentence], *([r, draw.randrange(6)] for r in range(K)), [rank, (sentence + 1) % 6]]
            offered = {tuple(place): at for at, place in reversed(list(enumerate(places)))}
            for r, key in enumerate(chosen):
                evidence = [[at, s, round(0.9 - at / 20, 4)] for (rr, s), at in offered.items() if rr == r]
                retrievals.append(Retrieval(turn=turn, passage=passages[key], rank=r + 1, evidence=evidence))
            resolutions.append(
                Resolution(
                    turn=turn,
                    verdict="bad" if bad else "good",
                    response=answer,
                    relevant_ranks=[rank + 1],
                    how="single",
                )
            )
        for rows in (turns, retrievals, resolutions):
            copy(rows)
        print(f"{start + size:,} turns", file=sys.stderr, flush=True)


def _questions(house: Any, texts: Any, count: int, draw: random.Random) -> None:
    from training.data.vectors import packed
    from training.models import Synthesis, SyntheticItem

    # Filled when a question is first seen: by its synthesis, or by the first build or preview.
    synthesis = Synthesis.objects.create(assistant=house, state="succeeded", wanted=count)
    items = []
    embedded = Vectors()
    for n in range(count):
        chosen = draw.sample(range(PASSAGES), K)
        sentence = draw.randrange(6)
        listed = [
            {"rank": r, "title": texts[key][0], "source": texts[key][1], "text": texts[key][2]}
            for r, key in enumerate(chosen, start=1)
        ]
        evidence = [[1, sentence, 0.9], [1, (sentence + 1) % 6, 0.8], *([r, 0, 0.7 - r / 20] for r in range(2, K + 1))]
        items.append(
            SyntheticItem(
                synthesis=synthesis,
                source=texts[chosen[0]][1],
                sentence=sentence,
                question=question(draw),
                response=f"{texts[chosen[0]][2].split('. ')[sentence].rstrip('.')}.",
                task=f"bench-{n}",
                contexts={"passages": listed, "evidence": evidence, "gold": [1, sentence]},
            )
        )
        if len(items) == BATCH or n == count - 1:
            vectors = embedded.of([item.question for item in items])
            for item, vector in zip(items, vectors, strict=True):
                item.vector = packed(vector)
            copy(items)
            items = []


def _benchmark(house: Any, draw: random.Random) -> None:
    from training.models import Benchmark, BenchmarkItem

    benchmark = Benchmark.objects.create(assistant=house, name="bench", content_hash="0" * 64)
    BenchmarkItem.objects.bulk_create(
        BenchmarkItem(benchmark=benchmark, key=f"b{n}", question=question(draw), kind="answer") for n in range(ITEMS)
    )


def _settle_in() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


class Clock:
    """Seconds on the clock and seconds of processor by stage. A stage begins with the first beat that names it."""

    def __init__(self) -> None:
        self.name = "start"
        self._since = (time.perf_counter(), processor_seconds())
        self._spent: dict[str, tuple[float, float]] = {}

    def stage(self, name: str) -> None:
        now = (time.perf_counter(), processor_seconds())
        wall, cpu = self._spent.get(self.name, (0.0, 0.0))
        self._spent[self.name] = (wall + now[0] - self._since[0], cpu + now[1] - self._since[1])
        self.name, self._since = name, now

    def told(self) -> dict[str, dict[str, float]]:
        return {name: {"s": round(wall, 1), "cpu_s": round(cpu, 1)} for name, (wall, cpu) in self._spent.items()}


def processor_seconds() -> float:
    """Of this process and of the helpers that it has waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


class Peak:
    """The most memory that this process and those that it has started took at one moment, looked at twice a second.
    Pages that several of them share count once (PSS)."""

    def __init__(self) -> None:
        self.mb = 0.0
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def end(self) -> int:
        self._over.set()
        self._watching.join()
        return round(self.mb)

    def _watch(self) -> None:
        import psutil

        own = psutil.Process()
        while not self._over.wait(0.5):
            taken = 0
            for process in (own, *own.children(recursive=True)):
                with suppress(psutil.Error):
                    taken += process.memory_full_info().pss
            self.mb = max(self.mb, taken / 2**20)


def build(_: int) -> dict[str, Any]:
    from assistants.models import Assistant
    from training.data.build import perform
    from training.data.recipe import Recipe
    from training.models import DatasetVersion

    house = Assistant.objects.get(slug="dataset")
    number = DatasetVersion.objects.count() + 1
    dataset = DatasetVersion.objects.create(
        assistant=house, number=number, recipe=Recipe(per_sentence_cap=20, missing_oracle_share=0.1).as_dict(),
        benchmark=house.benchmarks.get(), synthesis=house.syntheses.get(), prompt_digest=house.prompt_digest,
    )  # fmt: skip
    assert dataset.claim()
    clock = Clock()
    plain_beat = dataset.beat

    def beat(**progress: Any) -> None:
        clock.stage(progress.get("stage", clock.name))
        plain_beat(**progress)

    dataset.beat = beat  # type: ignore[method-assign]
    peak = Peak()
    begun, worked = time.perf_counter(), processor_seconds()
    perform(dataset)
    seconds, cpu = time.perf_counter() - begun, processor_seconds() - worked
    clock.stage("end")
    dataset.finish(DatasetVersion.State.SUCCEEDED)
    return {
        "seconds": round(seconds, 1), "cpu_s": round(cpu, 1), "peak_mb": peak.end(), "rows": dataset.rows,
        "content_hash": dataset.content_hash,
        "stages": clock.told(), "mix": dataset.mix,
        "funnel": dataset.funnel,
    }  # fmt: skip


if __name__ == "__main__":
    import django

    django.setup()
    print(json.dumps({"fill": fill, "build": build}[sys.argv[1]](int(sys.argv[2]))))
