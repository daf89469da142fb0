"""What makes large versions quick: passages read once, words counted at the freeze, products that decide the same."""

from __future__ import annotations

import hashlib
import json
import random
import re
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from assistants.background import launch
from assistants.models import Assistant
from capture.leaks import Audit, Row
from capture.models import Conversation
from capture.vault import entities_key
from generation.overlap import coverage, ngram_recall, ngrams
from privacy.entities import EntityTable, Value
from privacy.recalled import Recalled
from privacy.surrogates import Surrogates
from tests.factories import make_assistant, make_user
from tests.training.data.test_build import DECLINE, HANDOFF, build, curate, resolved, synthesise
from tests.training.data.test_dataset_pages import enter, page, shown
from training.data import near_kept, pool, turns
from training.data.candidates import Candidate
from training.data.corpus_words import WordCounter, taken_words
from training.data.invented import surrogates_of
from training.data.leaks import RowReader
from training.data.models import FrozenWords
from training.data.near_kept import NearKept
from training.data.nearest import DOUBT, exactly
from training.data.recipe import Recipe
from training.data.records import PARTS, record_of
from training.erasing import empty_rows
from training.models import DatasetPreview

pytestmark = pytest.mark.django_db
HOUSE = {"rank": 1, "title": "Desk", "source": "desk.md", "text": "The desk opens at nine.", "relevant": True}
LEAKY = {"rank": 2, "title": "Note", "source": "x.md", "text": "Ask zoe.clark@example.org for it.", "relevant": None}


@pytest.fixture
def assistant() -> Assistant:
    members: Any = {"reviewer": [make_user("rob")]}
    return make_assistant(decline_sentence=DECLINE, handoff_sentence=HANDOFF, members=members)


def row(question: str = "When does it open?", *, contexts: list[dict[str, Any]], **fields: Any) -> Candidate:
    said: list[Any] = [{"text": "At nine.", "refs": [[1, 0]]}]
    return Candidate(
        origin=fields.pop("origin", "good"), kind="answer", group="g", question=question, history=[],
        contexts=contexts, evidence=[], sentences=said, **fields,
    )  # fmt: skip


def read_by_parts(assistant: Assistant, rows: list[Candidate], size: int) -> dict[str, Any]:
    found = Audit(assistant, "x")
    reader = RowReader(found, assistant)
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        reader.read(part, [str(first + i) for i in range(len(part))])
    report = found.report()
    return {"findings": report.findings, "doubtful": report.doubtful, "counts": report.counts, "rows": report.rows}


def read_whole(assistant: Assistant, rows: list[Candidate]) -> dict[str, Any]:
    """Every text of every row, without what is remembered about passages."""
    found = Audit(assistant, "x")
    reader = RowReader(found, assistant)
    reader._learn_trust(rows)
    names = {turn: name for name, turn in Conversation.objects.values_list("external_id", "turns")}
    found.read(
        [
            Row(str(i), list(reader._texts(one)), names.get(one.turn_id, ""), str(one.turn_id or ""))
            for i, one in enumerate(rows)
        ]
    )
    report = found.report()
    return {"findings": report.findings, "doubtful": report.doubtful, "counts": report.counts, "rows": report.rows}


def test_a_passage_that_is_known_hides_nothing_of_its_rows(assistant: Assistant) -> None:
    turn = resolved(assistant, "And Xanthe Quillfeather?", "At nine. [1]")
    table = EntityTable(entities_key(assistant.pk, turn.conversation.external_id))
    table.assign([Value("PERSON", "Xanthe Quillfeather", private=True)])
    Conversation.objects.filter(pk=turn.conversation_id).update(entities=table.to_dict())
    named = {**HOUSE, "rank": 3, "text": "xanthe quillfeather opens it."}
    rows = [
        row(contexts=[HOUSE]),
        row(contexts=[HOUSE, named]),  # nothing by itself, read before the row of which it is a leak
        row(contexts=[HOUSE, LEAKY]),
        row("Mine is zoe.clark@example.org.", contexts=[HOUSE]),
        row(contexts=[HOUSE, named], turn_id=turn.pk),
        row(contexts=[LEAKY, HOUSE], origin="synthetic"),
        row(contexts=[{**HOUSE, "relevant": "zoe.clark@example.org"}]),
        row(contexts=[{**HOUSE, "note": {"by": "zoe.clark@example.org"}}]),
        row(contexts=[HOUSE, LEAKY]),
    ]
    expected = read_whole(assistant, rows)
    by_row = {(finding["row"], finding["field"], finding["by"]) for finding in expected["findings"]}
    assert {name for name, _, _ in by_row} == {"2", "3", "4", "6", "7", "8"}
    assert ("4", "contexts.3.text", "conversation") in by_row
    for size in (1, 4, 100):
        assert read_by_parts(assistant, rows, size) == expected
        assert read_by_parts(assistant, rows[::-1], size)["counts"] == expected["counts"]


def test_what_was_asked_for_last_is_recalled() -> None:
    known = Recalled(room=10)
    marks = [bytes([i]) for i in range(200)]
    for mark in marks:
        known.add(mark)
        assert marks[0] in known  # asked for again and again, so it stays
    assert len(known) <= 20
    assert marks[-1] in known
    assert marks[50] not in known


def test_passages_come_from_few_queries_and_a_small_shelf_changes_nothing(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    curate(assistant)
    synthesis = synthesise(assistant)
    expected = build(assistant, synthesis=synthesis)
    monkeypatch.setattr(turns, "SHELF", 0)
    assert build(assistant, synthesis=synthesis).content_hash == expected.content_hash


def test_a_build_asks_as_often_however_many_turns(assistant: Assistant) -> None:
    """A column that is read and was not asked for is one query for each turn."""
    curate(assistant)
    build(assistant)
    with CaptureQueriesContext(connection) as few:
        build(assistant)
    for i in range(6):
        resolved(assistant, f"May I pay invoice {i} in {i} parts?", "Tell us 10 days before you move. [2]")
    with CaptureQueriesContext(connection) as many:
        assert build(assistant).rows > 12
    asked = [sum(q["sql"].startswith("SELECT") for q in queries) for queries in (few, many)]
    assert asked[0] == asked[1]


def units(count: int, seed: int, *, around: int = 0) -> Any:
    """Vectors as a pool has them; ``around``: of so many centres, so that some are near each other."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((count, 384))
    if around:
        drawn = 0.02 * drawn + rng.standard_normal((around, 384))[rng.integers(0, around, count)]
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)


def test_a_product_at_the_threshold_is_decided_exactly() -> None:
    block = units(400, seed=5)
    rows = block.astype(np.float32)
    # The threshold is the very cosine of two of them: any rounding of products would decide about it.
    threshold = max(exactly(rows[j], rows[399]) for j in range(399))
    near = NearKept(block, room=399)
    near.add_all(np.arange(399))
    assert bool(near.reached(rows[399:], threshold)[0])
    assert not bool(near.reached(rows[399:], np.nextafter(threshold, 1))[0])
    assert not bool(near.reached(rows[399:], threshold + 2 * DOUBT)[0])


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.9, 0.93, 0.999])
@pytest.mark.parametrize("crowded", [0.0, 0.05, 2.0])
def test_short_pictures_decide_as_whole_products(
    threshold: float, crowded: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``crowded``: all pairs of a part at once, what is cheaper, each pair by itself."""
    monkeypatch.setattr(near_kept, "CROWDED", crowded)
    monkeypatch.setattr(near_kept, "PART", 37)
    monkeypatch.setattr(near_kept, "PAIRS", 11)
    block = units(300, seed=3, around=40)
    rows = block.astype(np.float32)
    near = NearKept(block, room=200)
    assert not near.reached(rows[200:], threshold).any()
    for start in range(0, 200, 70):
        near.add_all(np.arange(start, min(start + 70, 200)))
    expected = [max(exactly(rows[j], rows[i]) for j in range(200)) >= threshold for i in range(200, 300)]
    assert near.reached(rows[200:], threshold).tolist() == expected
    if threshold == 0.93:
        assert 0 < sum(expected) < 100


def test_invented_names_need_no_look_at_the_other_rows(assistant: Assistant) -> None:
    curate(assistant)
    resolved(assistant, "I am [PERSON_1], what is the exit fee?", "A fixed plan has an exit fee of £35. [1]")
    plain = build(assistant, missing_oracle_share=0)
    assert not FrozenWords.objects.exists()
    dataset = build(assistant, missing_oracle_share=0, surrogates=True)
    assert plain.content_hash == dataset.content_hash
    example = dataset.examples.get(question__startswith="I am [PERSON_1]")
    with CaptureQueriesContext(connection) as queries:
        read = shown(enter("rob").get(page("datasetversion_row", dataset.pk, example.position)))
    assert "[PERSON_1], what is" not in read
    rows = [query["sql"] for query in queries if 'FROM "training_example"' in query["sql"]]
    assert rows
    assert all(re.search(r'"(position|digest)" = ', sql) for sql in rows)
    # Names are still drawn from outside the version.
    drawn = surrogates_of(dataset)
    assert drawn is not None
    name = drawn.value("PERSON", "1", example.group)
    counter = WordCounter()
    counter.add(row(f"Does {name} know?", contexts=[HOUSE]))
    counter.save(dataset)
    taken = taken_words(dataset)
    assert taken is not None
    assert all(word in taken for word in f"does {name.casefold()} know".split())
    assert "unheard" not in taken
    again = surrogates_of(dataset)
    assert again is not None
    assert not set(again.value("PERSON", "1", example.group).split()) & set(name.split())
    empty_rows(assistant, [example.turn_id], [example.question])
    dataset.refresh_from_db()
    assert not FrozenWords.objects.exists()
    assert surrogates_of(dataset) is None


def test_surrogates_take_any_collection_of_words() -> None:
    class Everything:
        def __contains__(self, word: object) -> bool:
            return True

    assert Surrogates(b"s" * 16, avoid=Everything()).value("PERSON", "1", "c")  # tried, and given up


def test_rows_are_found_by_their_documents(assistant: Assistant) -> None:
    curate(assistant)
    dataset = build(assistant, missing_oracle_share=0)
    for example in dataset.examples.all():
        told = sorted({c["source"] for c in example.contexts if c["relevant"] and c["source"]})
        assert example.documents == told
    document = dataset.documents[0]
    read = shown(enter("rob").get(page("datasetversion_change", dataset.pk), {"document": document}))
    here = [e.question for e in dataset.examples.filter(documents__contains=[document])]
    assert here
    assert all(question in read for question in here)
    example = dataset.examples.exclude(documents=[]).exclude(turn=None).first()
    assert example is not None
    filtered = f"?document={quote(example.documents[0], safe='')}#rows"
    assert filtered in shown(enter("rob").get(page("datasetversion_row", dataset.pk, example.position)))
    empty_rows(assistant, [example.turn_id], [example.question])
    example.refresh_from_db()
    assert example.documents == []


def test_a_budget_that_nothing_fits_into_is_said(assistant: Assistant) -> None:
    curate(assistant)
    dataset = build(assistant, max_tokens=64)
    assert (dataset.state, dataset.rows) == ("failed", 0)
    assert "fits into 64 tokens" in dataset.error
    assert "set it to 0" in dataset.error
    assert build(assistant, max_tokens=0).state == "succeeded"
    preview = DatasetPreview.objects.create(assistant=assistant, recipe=Recipe(max_tokens=64).as_dict())
    launch(preview, foreground=True)
    preview.refresh_from_db()
    assert (preview.state, preview.result["rows"]) == ("succeeded", 0)
    assert "fits into 64 tokens" in preview.result["nothing"]
    assert preview.funnel[-1]["step"] == "token budget"


def test_a_row_is_written_as_plain_json() -> None:
    odd: list[dict[str, Any]] = [
        {**HOUSE, "text": 'He said "ﬁne"\\ and\tleft.\n', "relevant": None},
        {**HOUSE, "note": {"b": 1, "a": [True]}},
        {"rank": 1, "text": "No title."},
        {**HOUSE, "title": 7},
    ]
    for contexts in ([], [HOUSE], odd, [LEAKY, *odd, HOUSE]):
        one = row("Where’s “it”?", contexts=contexts)
        digest, parts = record_of(one)
        plain = {name: getattr(one, name) for name in PARTS}
        assert parts == {name: json.dumps(value, sort_keys=True, ensure_ascii=False) for name, value in plain.items()}
        assert digest == hashlib.sha256(json.dumps(plain, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def test_a_pool_brings_back_what_is_written_and_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WRITTEN", 300)
    with pool.Pool() as kept:
        places = [kept.put(f"{n} " * n) for n in range(60)]
        assert kept.get(*places[3]) == "3 " * 3
        assert kept.get(*places[-1]) == "59 " * 59
        places.append(kept.put("after reading"))
        assert [kept.get(*place) for place in places] == [*(f"{n} " * n for n in range(60)), "after reading"]


def test_runs_of_words_are_found_as_by_sets() -> None:
    rng = random.Random(3)
    texts = [
        " ".join(rng.choices(["pay", "a", "an", "27.4", "payment", "in"], k=rng.randrange(3, 15))) for _ in range(60)
    ]
    for text, source in pairwise(texts):
        for n in (2, 4):
            grams = ngrams(text, n)
            expected = len(grams & ngrams(source, n)) / len(grams) if grams else coverage(text, source)
            assert ngram_recall(text, source, n) == expected
    assert ngram_recall("in 4 days or so", "paid in 4 days or sooner") == 0.5
