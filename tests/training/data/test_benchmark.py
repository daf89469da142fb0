"""Held-out questions: what a file may hold, and contexts that are frozen once for all arms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from assistants.background import launch
from assistants.models import Assistant
from generation.overlap import words
from generation.prompts import split_sentences
from knowledge.services import load_document
from tests.factories import make_assistant
from training.data.benchmark import BenchmarkError, freeze_benchmark, read_items
from training.data.benchmark_scrubbing import scrubbed
from training.models import Benchmark, BenchmarkItem, BenchmarkUpload, Condition
from training.services import start_benchmark

DOCUMENTS = {
    "leaving.md": "# Leaving early\n\nA fixed plan has an exit fee of £35. No fee is due in its last 49 days.",
    "overview.md": "# Overview\n\nMind this: a fixed plan has an exit fee of £35. Ask us if you are not sure.",
    "meters.md": "# Meter readings\n\nRead the meter on the first day of the month. Send the figures before the dot.",
    "moving.md": "# Moving house\n\nTell us 10 days before you move. Your plan can move with you to the new address.",
    "boiler.md": "# Boiler\n\nPress reset for five seconds. Code E4 means that the flue is blocked.",
}
FEE = {
    "id": "fee",
    "question": "What does it cost to leave a fixed plan early?",
    "kind": "answer",
    "answers": ["The exit fee is £35."],
    "must_contain": [["£35"]],
    "gold": [{"path": "leaving.md", "sentence": "A fixed plan has an exit fee of £35."}],
    "slice": "plain",
}
WEATHER = {"id": "weather", "question": "Will it rain tomorrow in Leeds?", "kind": "decline"}
FOLLOW_UP = {
    **FEE,
    "id": "follow-up",
    "question": "And near the end of it?",
    "history": [{"role": "user", "content": "Is there a fee for leaving a fixed plan?"}],
    "answers": ["No fee is due in its last 49 days."],
    "gold": [{"path": "leaving.md", "sentence": "No fee is due in its last 49 days."}],
}


def lines(*items: Any) -> list[str]:
    return [json.dumps(item) for item in items]


@pytest.fixture
def assistant(db: None) -> Assistant:
    assistant = make_assistant(retrieval_k=2)
    for path, text in DOCUMENTS.items():
        load_document(assistant=assistant, path=path, data=text.encode())
    return assistant


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["{"], "line 1: JSON"),
        (["[1]"], "line 1: JSON"),
        (lines({**FEE, "question": ""}), "line 1: question"),
        (lines(WEATHER, {**FEE, "kind": "joke"}), "line 2: kind"),
        (lines({**FEE, "surprise": 1}), "line 1: surprise"),
        (lines({**FEE, "history": [{"role": "robot", "content": "x"}]}), "line 1: history.0.role"),
        (lines({**FEE, "gold": [{"path": "x"}]}), "line 1: gold.0.sentence"),
        (lines({**FEE, "must_not_contain": ["x" * 201]}), "line 1: must_not_contain.0"),
        (lines(FEE, FEE), "the id fee stands twice"),
        (lines({**FEE, "answers": []}), "fee: an answerable question needs an answer"),
        (lines({**FEE, "gold": []}), "fee: an answerable question needs its gold sentences"),
        (["", "  "], "has no questions"),
        (["{"] * 9, "and 4 more"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_by_line(wrong: list[str], sentence: str) -> None:
    with pytest.raises(BenchmarkError, match=sentence):
        read_items(wrong)


def test_empty_lines_are_passed_over() -> None:
    assert [item.id for item in read_items(["", *lines(FEE), "  ", *lines(WEATHER)])] == ["fee", "weather"]


def test_contexts_are_frozen_per_condition(assistant: Assistant) -> None:
    seen: list[tuple[int, int]] = []
    benchmark = freeze_benchmark(
        assistant=assistant, name="b", items=read_items(lines(FEE, WEATHER, FOLLOW_UP)),
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(1, 3), (2, 3), (3, 3)]
    fee, weather, follow_up = benchmark.items.all()
    clean = fee.contexts[Condition.CLEAN]
    assert len(clean["passages"]) == 2
    assert {p["source"] for p in clean["passages"]} == {"leaving.md", "overview.md"}
    assert [p["rank"] for p in clean["passages"]] == [1, 2]
    assert clean["has_gold"] is True
    similarities = [row[2] for row in clean["evidence"]]
    assert similarities == sorted(similarities, reverse=True)
    assert set(weather.contexts) == {Condition.CLEAN}
    assert weather.contexts[Condition.CLEAN]["has_gold"] is False
    assert follow_up.contexts[Condition.CLEAN]["has_gold"] is True
    assert follow_up.contexts[Condition.CLEAN]["passages"][0]["source"] == "leaving.md"


def test_what_users_said_is_masked_in_an_upload(assistant: Assistant) -> None:
    mail, name = "jane.quarrington@example.org", "Jane Quarrington"
    own = {
        **FEE, "id": mail, "question": f"My name is {name}. What does it cost to leave?", "topic": mail,
        "history": [{"role": "user", "content": f"Write to {mail}."}],
        "answers": ["The exit fee is £35.", f"Dear {name}, it is £35."],
        "gold": [*FEE["gold"], {"path": "letters.md", "sentence": f"Jane's mail is {mail}."}],
        "must_not_contain": [mail],
    }  # fmt: skip
    upload = start_benchmark(assistant=assistant, name="b", content="\n".join(lines(own, WEATHER)))
    assert mail.encode() not in bytes(upload.sealed or b"")
    launch(upload, foreground=True)
    upload.refresh_from_db()
    assert (upload.state, upload.error, upload.sealed) == ("succeeded", "", None)
    benchmark = Benchmark.objects.get()
    item, weather = benchmark.items.order_by("pk")
    everything = json.dumps(BenchmarkItem.objects.filter(pk=item.pk).values().get(), default=str)
    assert "Quarrington" not in everything
    assert mail not in everything
    assert (item.question, item.answers[1]) == (
        "My name is [PERSON_1]. What does it cost to leave?", "Dear [PERSON_1], it is £35."
    )  # fmt: skip
    # What the documents hold and nobody said of themselves is left: the gold is found as it was.
    assert (item.gold[0], item.answers[0], item.must_contain) == (FEE["gold"][0], "The exit fee is £35.", [["£35"]])
    assert item.contexts[Condition.CLEAN]["has_gold"] is True
    # Some words of it are masked, where a user names a place; never in another way the second time.
    items = read_items(lines(own, WEATHER))
    assert list(scrubbed(assistant, items)) == list(scrubbed(assistant, items))
    assert weather.key == "weather"


def test_an_upload_that_no_key_opens_says_so(assistant: Assistant) -> None:
    upload = start_benchmark(assistant=assistant, name="b", content=lines(WEATHER)[0])
    BenchmarkUpload.objects.update(sealed=b"not sealed by us")
    upload.refresh_from_db()
    launch(upload, foreground=True)
    upload.refresh_from_db()
    assert "Upload it again" in upload.error
    assert not Benchmark.objects.exists()


def test_without_the_oracle_nothing_holds_the_gold(assistant: Assistant) -> None:
    """The other document that says the same goes too; the room is filled from deeper ranks."""
    benchmark = freeze_benchmark(assistant=assistant, name="b", items=read_items(lines(FEE, FOLLOW_UP)))
    for item in benchmark.items.all():
        frozen = item.contexts[Condition.MISSING_ORACLE]
        assert frozen["has_gold"] is False
        assert len(frozen["passages"]) == 2
        assert [p["rank"] for p in frozen["passages"]] == [1, 2]
        gold = {words(g["sentence"]) for g in item.gold}
        texts = [words(s) for p in frozen["passages"] for s in split_sentences(p["text"])]
        assert not gold & set(texts)
    assert all("£35" not in p["text"] for p in benchmark.items.first().contexts["missing_oracle"]["passages"])
    for rank, sentence, _ in frozen["evidence"]:
        passage = frozen["passages"][rank - 1]
        assert sentence < len(split_sentences(passage["text"]))


def test_a_gold_that_retrieval_misses_is_noted(assistant: Assistant) -> None:
    assistant.retrieval_k = 1
    item = {**FEE, "question": "What does code E4 mean?"}
    benchmark = freeze_benchmark(assistant=assistant, name="b", items=read_items(lines(item)))
    assert benchmark.items.get().contexts["clean"]["has_gold"] is False


def test_the_same_items_are_the_same_benchmark_and_others_need_another_name(assistant: Assistant) -> None:
    items = read_items(lines(FEE, WEATHER))
    first = freeze_benchmark(assistant=assistant, name="b", items=items)
    load_document(assistant=assistant, path="new.md", data=b"# New\n\nA fixed plan costs nothing to leave early.")
    again = freeze_benchmark(assistant=assistant, name="b", items=items)
    assert (again.pk, Benchmark.objects.count(), first.items.count()) == (first.pk, 1, 2)
    assert len(first.content_hash) == 64
    with pytest.raises(BenchmarkError, match="another name"):
        freeze_benchmark(assistant=assistant, name="b", items=items[:1])
    other = freeze_benchmark(assistant=assistant, name="c", items=items)
    assert other.content_hash == first.content_hash
    assert freeze_benchmark(assistant=make_assistant(), name="b", items=items).pk != first.pk
