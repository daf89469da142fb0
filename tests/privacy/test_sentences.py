"""Where texts are cut for the name model, which sentences it need not read, and what is remembered of the others."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from privacy.documents import FILLER
from privacy.everyday import everyday_words, needs_no_reading
from privacy.gazetteer import FUNCTION_WORDS, gazetteer
from privacy.name_model import finder
from privacy.name_model.decode import NOTHING
from privacy.name_model.finder import NameModel, name_model
from privacy.name_model.network import Window
from privacy.name_model.segments import segments
from privacy.name_model.weights import Matrix
from privacy.remembered import Remembered

PLAIN = ["the", "boiler", "makes", "a", "noise", "and", "nobody", "answers", "our", "question", "about", "it"]
NAMES = sorted((gazetteer().first | gazetteer().last) - gazetteer().common - FUNCTION_WORDS)
LOOKS = st.sampled_from((str.lower, str.title, str.upper))


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in segments(text)]


@settings(deadline=None)
@given(st.text() | st.lists(st.sampled_from(["word. ", "Mr. ", "!\n", "\n", " and so on ", "”? "])).map("".join))
def test_the_segments_of_a_text_are_the_text(text: str) -> None:
    assert "".join(cut(text)) == text
    assert all(cut(text))


def test_sentences_are_cut_and_what_belongs_together_is_not() -> None:
    first, second = "The engineer came on the day that you gave us. ", "He could not find the meter anywhere!"
    assert cut(first + second) == [first, second]
    assert cut(f"The tariff sheet replaced that of the year 2019. {second}")[1:] == [second]
    for together in (
        "I spoke to someone who is called Dr. Wilk and lives at St. Gallen.",
        "For weeks I have been waiting for a letter of Prof. Wilk about J. Smith, e.g. Anna.",
        "Hi! I am Anna.",
        "Please send everything that you have about it to me.\nTomasz Wilk",
        "Name: Anna Keller\nStreet: Am Hang 4\nTown: Bonn",
    ):
        assert cut(together) == [together]
    assert len(cut("a line of a log without an end\n" * 40)) > 3


def test_texts_of_nothing_but_marks_are_cut_in_linear_time() -> None:
    for mark in ("!", ".", "\n", '."', "! "):
        assert "".join(cut(mark * 200_000)) == mark * 200_000


def test_sentences_of_everyday_words_are_not_read() -> None:
    for sentence in (
        "The boiler makes a noise and nobody answers.",
        "How long will it take, and what does it cost?",
        "It's 12 days late; we don't know why.",
        f"Please write to {FILLER} about the invoice.",
        "you will get the fee back in 14 days",
    ):
        assert needs_no_reading(sentence), sentence


@pytest.mark.parametrize(
    "sentence",
    [
        "ask will about the invoice", "I told grace to wait.", "send it to mark at the desk", "is hope around today?",
        "We met at the Ombudsman about it.", "THE BOILER MAKES A NOISE", "he lives at 24 high street",
        "the parcel went to 10115", "it is 4b on the left", "mr storm is here", "hi storm how are you",
        "her name is storm", "Storm",
        "hi winter how are you", "my friend winter and i", "i spoke to doctor major about it",
        "Storm, are you there today?", f"{FILLER} Storm is here.", f"{FILLER} long is here.",
        "Мария is here", "the café is closed", "the boiler of müller makes a noise", "x", "o'brien is here",
    ],
)  # fmt: skip
def test_what_could_hold_a_name_is_read(sentence: str) -> None:
    assert not needs_no_reading(sentence)


def with_word(word: str, at: int) -> str:
    at %= len(PLAIN) + 1
    return " ".join([*PLAIN[:at], word, *PLAIN[at:]])


def test_the_words_around_are_everyday_words() -> None:
    assert needs_no_reading(" ".join(PLAIN))


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(categories=["L"]), min_size=2, max_size=12), st.integers(0, 99))
def test_an_unknown_word_is_always_read(word: str, at: int) -> None:
    assume(word.lower() not in everyday_words() and not gazetteer().is_common(word.lower()))
    assert not needs_no_reading(with_word(word, at))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), LOOKS, st.integers(0, 99))
def test_a_listed_name_is_always_read(name: str, look: object, at: int) -> None:
    assert callable(look)
    assert not needs_no_reading(with_word(look(name), at))


def test_no_listed_name_is_an_everyday_word() -> None:
    lists = gazetteer()
    assert len(everyday_words()) > 20_000
    assert not (everyday_words() - FUNCTION_WORDS) & (lists.first | lists.last | lists.places)


def test_a_sentence_is_read_as_in_its_passage_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    model = NameModel()
    forward = model._network.probabilities

    def counted(windows: list[Window]) -> list[Matrix]:
        calls.append(len(windows))
        return forward(windows)

    monkeypatch.setattr(model._network, "probabilities", counted)
    sentences = [
        "Yesterday Zbrvenka Tolquist phoned about the leak in the cellar. ",
        "The parcel went to Bad Oeynhausen by mistake, as it seems to us. ",
    ]
    alone = [model.read([sentence])[0] for sentence in sentences]
    assert calls == [1, 1]
    filling = "The boiler makes a noise and nobody answers our question. "
    together = model.read([filling + sentences[0] + filling + sentences[1]])[0]
    assert calls == [1, 1]
    text = filling + sentences[0] + filling + sentences[1]
    assert [text[hit.start : hit.end] for hit in together.hits] == ["Zbrvenka Tolquist", "Bad Oeynhausen"]
    assert [hit[2:] for hit in together.hits] == [hit[2:] for reading in alone for hit in reading.hits]
    model.forget()
    model.read([sentences[0]])
    assert calls == [1, 1, 1]


def test_a_passage_that_comes_back_is_not_even_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model = NameModel()
    passage = "The boiler makes a noise and nobody answers our question. " * 3 + "Ask Zbrvenka Tolquist about it. "
    question = "And who is Zbrvenka Tolquist, if I may ask you about it?"
    first = [reading.hits for reading in model.read([passage, question])]
    cut_texts: list[str] = []
    monkeypatch.setattr(finder, "segments", lambda text: cut_texts.append(text) or segments(text))
    again = [reading.hits for reading in model.read([question, passage, passage])]
    assert cut_texts == [question]
    assert [again[1], again[2], again[0]] == [first[0], first[0], first[1]]
    assert len(model.read([""])) == 1


def test_nothing_that_was_read_can_be_read_in_memory() -> None:
    model = NameModel()
    model.read(["Yesterday Zbrvenka Tolquist phoned about it."])
    assert len(model._known) == 1
    ((key, reading),) = model._known._entries.items()
    assert len(key) == 24
    assert key != NameModel()._known.key("Yesterday Zbrvenka Tolquist phoned about it.")
    assert "Tolquist" not in repr(reading)


def test_remembered_readings_stay_within_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "_ROOM", 10_000)
    model = NameModel()
    texts = [f"Yesterday Zbrvenka{i} Tolquist phoned." for i in range(40)]
    expected = model.read(texts)
    assert 0 < sum(map(finder._bytes, model._known._entries.values())) == model._known._used <= 10_000
    for before, after in zip(expected, model.read(texts), strict=True):
        assert [hit[:3] for hit in before.hits] == [hit[:3] for hit in after.hits]


def test_threads_share_what_is_remembered() -> None:
    memory: Remembered[int] = Remembered(50, lambda value: 1)
    keys = [memory.key(str(number)) for number in range(100)]

    def work(seed: int) -> bool:
        order = random.Random(seed)
        for _ in range(2000):
            number = order.randrange(100)
            if memory.get(keys[number]) not in (None, number):
                return False
            memory.put(keys[number], number)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    assert len(memory) == memory._used == 50


def test_words_nobody_asks_about_are_not_kept() -> None:
    quiet, named = name_model().read(["The Parser returns a Tree to me.", "Ask Zbrvenka Tolquist about the tree."])
    assert quiet is NOTHING or not len(quiet.hits)
    assert len(named.named) < 6
    assert named.likelihood(4, 21) > 0.5
    assert named.likelihood(22, 30) == 0.0
    assert np.all(named.named >= 0.009)
