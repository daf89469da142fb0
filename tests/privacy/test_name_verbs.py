"""Names that are everyday words: masked where a verb makes them somebody's, left alone everywhere else."""

from __future__ import annotations

import time

import pytest

from privacy.name_verbs import CALLED, people_by_verbs
from privacy.policy import Policy
from privacy.scrubber import Scrubber


def told(text: str) -> list[str]:
    return sorted(text[hit.start : hit.end] for hit in people_by_verbs(text))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ask case about the invoice", ["case"]),
        ("please call rose", ["rose"]),
        ("i talked to mark, he knows", ["mark"]),
        ("email bill about the refund", ["bill"]),
        ("will told me to wait", ["will"]),
        ("we waited because joy from support promised a refund", ["joy"]),
        ("can you text faith when it arrives?", ["faith"]),
        ("i must call hope and grace.", ["grace", "hope"]),
        ("ASK CASE BAKER ABOUT IT", ["CASE BAKER"]),
        ("I talked to Mark's boss", ["Mark"]),
        ("yesterday case said no", ["case"]),
        ("i was told by frank to wait", ["frank"]),
        ("let grace know it came, and get case to ring me", ["case", "grace"]),
        ("penny has my file", ["penny"]),
        ("İ ask case about it", ["case"]),
    ],
)
def test_a_person_is_told_by_the_verb(text: str, names: list[str]) -> None:
    assert told(text) == names


@pytest.mark.parametrize(
    "text",
    [
        "ask case studies for details",
        "the call will block, and a call may fail.",
        "The text will, in general, be wrapped.",
        "mark it as read and mark the box",
        "message will be sent to you",
        "The email case is open.",
        "the case said nothing about it",
        "a phone bill, a water bill",
        "call mark() to set it; call `mark` or self.mark to see",
        "ask page 3, call list.append, talk to sales",
        "case in support of this claim",
        "we met in may and in june",
        "get star ratings, have price lists, let hope win, let will be",
        "The job has your files; approved by june",
        "contact page is down, call waiting is off",
    ],
)
def test_the_same_words_stay_what_they_are(text: str) -> None:
    assert told(text) == []


def test_the_scrubber_masks_them_and_nothing_around_them() -> None:
    scrub = Scrubber(Policy()).scrub_text
    assert scrub("ask case about the invoice").text == "ask [PERSON_1] about the invoice"
    assert scrub("will told me that bill is away, so email bill about it").text == (
        "[PERSON_1] told me that [PERSON_2] is away, so email [PERSON_2] about it"
    )
    doubtful = scrub("i should email case about it").spans
    assert [(span.entity_type, span.uncertain) for span in doubtful] == [("PERSON", True)]


@pytest.mark.parametrize("piece", ["ask mark and ", "mark said ", "call will ", "to to mark ", "mark\n"])
def test_a_long_text_takes_linear_time(piece: str) -> None:
    def seconds(times: int) -> float:
        started = time.process_time()
        list(people_by_verbs(piece * times))
        return time.process_time() - started

    seconds(100)
    short, long = seconds(2_000), seconds(20_000)
    assert long < 40 * max(short, 0.005)


def test_the_list_holds_words_only() -> None:
    assert len(CALLED) > 250
    assert all(word.isalpha() and word.islower() for word in CALLED)
