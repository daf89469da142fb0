"""Properties of the texts between model and reader, for any text at all."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from generation.prompts import (
    House,
    PromptPassage,
    PromptStyle,
    SentenceRef,
    build_prompt,
    parse_answer,
    render_completion,
    split_sentences,
)
from generation.streaming import AnswerStream

DECLINE = "I can't find that in the documents."
PASSAGES = [
    PromptPassage(1, "Leaving", "A fixed plan has an exit fee of £35. No fee is due in the last 49 days."),
    PromptPassage(2, "Meters", "Read the meter on the first day. Send the figures before the dot."),
]
EVIDENCE = [SentenceRef(2, 1), SentenceRef(1, 0), SentenceRef(2, 0)]
HOUSES = {style: House(decline=DECLINE, style=style) for style in PromptStyle}
PROMPTS = {
    style: build_prompt(house=house, question="Fee?", passages=PASSAGES, evidence=EVIDENCE)
    for style, house in HOUSES.items()
}

fragments = st.sampled_from(
    [
        *("[1]", "[2]", "[3]", "[4]", "[40]", "[999]", "[", "]", "[1", "[12", "[]", "[1234]", "[[1]]", "[ 1]"),
        *(" ", "  ", "\n", "\t", "\u2028", "\xa0", "The fee is £35.", "Yes.", "a", ".", "é", DECLINE, "I can't find"),
    ]
)
completions = st.lists(fragments | st.text(max_size=6), max_size=14).map("".join)


@st.composite
def cut_completions(draw: st.DrawFn) -> tuple[str, list[str]]:
    text = draw(completions)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    edges = [0, *cuts, len(text)]
    return text, [text[a:b] for a, b in pairwise(edges)]


@settings(max_examples=600, deadline=None)
@given(cut_completions(), st.sampled_from(list(PromptStyle)))
def test_a_stream_cut_anywhere_shows_what_the_whole_answer_shows(
    cut: tuple[str, list[str]], style: PromptStyle
) -> None:
    completion, pieces = cut
    stream = AnswerStream(PROMPTS[style])
    shown = "".join([*(stream.feed(piece) for piece in pieces), stream.finish()])
    assert shown == parse_answer(house=HOUSES[style], prompt=PROMPTS[style], completion=completion).marked


@settings(max_examples=300, deadline=None)
@given(completions, st.sampled_from(list(PromptStyle)))
def test_any_completion_is_read(completion: str, style: PromptStyle) -> None:
    answer = parse_answer(house=HOUSES[style], prompt=PROMPTS[style], completion=completion)
    known = set(EVIDENCE) if style is PromptStyle.SENTENCES else {SentenceRef(1, 0), SentenceRef(2, 0)}
    assert set(answer.citations) <= known
    assert not re.search(r"\[\d{1,3}\]", answer.text)
    marks = {int(n) for n in re.findall(r"\[(\d{1,3})\]", answer.marked)}
    assert marks <= {1, 2}
    if not answer.declined:
        assert marks == {ref.rank for ref in answer.citations}


plain = st.text(
    alphabet=st.characters(blacklist_categories=("Cs",), blacklist_characters="[]<|"), min_size=1, max_size=40
)
sentences = st.lists(
    st.tuples(plain.map(lambda text: " ".join(text.split())).filter(bool), st.sampled_from(EVIDENCE)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(sentences)
def test_what_is_trained_is_read_back_as_it_was_meant(said: list[tuple[str, SentenceRef]]) -> None:
    house, prompt = HOUSES[PromptStyle.SENTENCES], PROMPTS[PromptStyle.SENTENCES]
    completion = render_completion(house=house, prompt=prompt, sentences=[(text, [ref]) for text, ref in said])
    answer = parse_answer(house=house, prompt=prompt, completion=completion)
    assert answer.text == " ".join(text for text, _ in said)
    assert answer.marked == " ".join(f"{text} [{ref.rank}]" for text, ref in said)
    assert answer.invalid_pointers == ()
    if not answer.declined:
        assert list(answer.citations) == list(dict.fromkeys(ref for _, ref in said))


lines = st.sampled_from(
    [
        *("A. B", "e.g. x", "- item", "1. Do it.", "| a | b |", "|---|", "# H", "£5. ", "27.4 kWh. Next"),
        *("Mr. Smith came. He left.", "No. 5 is open.", "\n", "\n\n", " ", "\r\n", "\x0b", "\x85"),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(lines | st.text(max_size=20), max_size=10).map("".join))
def test_splitting_is_stable_and_loses_no_word(text: str) -> None:
    split = split_sentences(text)
    assert split == split_sentences(text)
    assert all(sentence == " ".join(sentence.split()) and sentence for sentence in split)
    assert re.sub(r"[\W\d_]", "", "".join(split)) == re.sub(r"[\W\d_]", "", text)
