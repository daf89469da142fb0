from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation.prompts import split_sentences
from training.base_model.evaluate import DEVELOPMENT, handbook
from training.base_model.generate import READING_TEXTS
from training.base_model.reading.__main__ import main as check
from training.base_model.reading.fill import Filler, check_slots
from training.base_model.reading.format import FormatError, problems, read_file, read_folder
from training.base_model.reading.worlds import reading_world, whole_world

SEALED = DEVELOPMENT.parent / "sealed"
SAMPLE = """% Boat hire
# Boats › Fees
A rowing boat costs {money} for {span}.
  ? What do I pay for rowing? = {money}
  y Is there a fee for rowing boats?
  > And for how long? = {span}
{person@a} keeps the keys.
  ? Who has the keys? = {person@a}
- Is there a boat for dogs?
+ 1 2 What does it cost, and who keeps the keys?
"""


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "boats.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_reading_file(tmp_path: Path) -> None:
    file = read_file(_file(tmp_path, SAMPLE))
    assert file.about == "Boat hire"
    document = file.documents[0]
    assert [[a.kind for a in s.asked] for s in document.sentences] == [["?", "y", ">"], ["?"]]
    assert document.sentences[0].asked[0].short == "{money}"
    assert document.near_misses == ["Is there a boat for dogs?"]
    assert document.joined == [(0, 1, "What does it cost, and who keeps the keys?")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  ? What is it? = six pounds", "does not stand in the sentence"),
        ("A boat costs {gold}.", "unknown slot"),
        ("A brace { alone.", "a brace outside"),
        ("One sentence. And another one.", "not one sentence"),
        ("+ one two what", "expected '\\+ FIRST SECOND"),
        ("+ 1 9 What and what?", "no two such sentences"),
    ],
)
def test_slips_are_named_with_their_line(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        read_file(_file(tmp_path, SAMPLE + line + "\n"))


def test_text_before_the_first_document_is_refused(tmp_path: Path) -> None:
    assert problems(_file(tmp_path, "A sentence without a document.\n"))[0].startswith("boats.txt:1: a document begins")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.txt"
        path.write_bytes(text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode())
        assert problems(path) == [] or all(line.startswith("any.txt") for line in problems(path))


def test_slots_agree_within_a_sentence_and_across_a_document() -> None:
    filler = Filler(random.Random(0))
    scope, other = filler.scope(), filler.scope()
    assert filler.fill("{money} {money#2} {person@a}", scope).split() != ""
    assert filler.fill("{money}", scope) == filler.fill("{money}", scope)
    values = {filler.fill("{code}", filler.scope()) for _ in range(20)}
    assert len(values) > 10
    assert filler.fill("{person@a}", scope) == filler.fill("{person@a}", other)
    with pytest.raises(ValueError, match="unknown slot"):
        check_slots("{nothing}")


def test_written_worlds_answer_what_they_ask() -> None:
    rng, files = random.Random(1), read_folder(READING_TEXTS)
    unanswerable = total = 0
    for _ in range(150):
        world = reading_world(rng, files, words=["alpha", "bravo", "delta"])
        assert all(split_sentences(line.text) == [line.text] for line in world.lines)
        for item in world.items:
            total += 1
            unanswerable += not item.gold
            for at, answer in item.gold:
                said = answer.removeprefix("Yes, ").removeprefix("No, ")
                assert said.casefold() == world.lines[at].text.casefold()
                assert item.short.casefold() in world.lines[at].text.casefold()
            assert "{" not in item.question
    assert 0.03 < unanswerable / total < 0.2


def test_the_training_texts_and_the_handbooks_are_in_the_format(capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (READING_TEXTS, DEVELOPMENT, SEALED):
        assert check([str(folder)]) == 0, capsys.readouterr().out
    assert check(["nowhere"]) == 2


def test_handbooks_are_large_enough_and_share_nothing_with_the_training_texts() -> None:
    trained = read_folder(READING_TEXTS)
    seen = {s.text.casefold() for f in trained for d in f.documents for s in d.sentences}
    seen |= {a.text.casefold() for f in trained for d in f.documents for s in d.sentences for a in s.asked}
    for folder in (DEVELOPMENT, SEALED):
        library = handbook(folder)
        assert not {line.text.casefold() for line in library.lines} & seen
        assert not {item.question.casefold() for item in library.items if len(item.question.split()) > 4} & seen
    sealed = handbook(SEALED)
    assert len({line.document for line in sealed.lines}) >= 20
    assert len(sealed.items) >= 200
    assert sum(not item.gold for item in sealed.items) >= 50


def test_a_whole_file_is_asked_word_for_word(tmp_path: Path) -> None:
    plain = SAMPLE.replace("{money}", "£5").replace("{span}", "one hour").replace("{person@a}", "Ana Ruiz")
    world = whole_world(read_file(_file(tmp_path, plain)))
    assert [item.question for item in world.items][:2] == [
        "What do I pay for rowing?",
        "Is there a fee for rowing boats?",
    ]
    assert len(world.items) == 6
    assert [len(item.gold) for item in world.items] == [1, 1, 1, 1, 2, 0]
    assert world.items[2].history[0]["content"] == "Who has the keys?"
