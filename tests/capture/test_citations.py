"""Which sentence a citation means."""

from __future__ import annotations

from capture.citations import Citation, segments, sentence_references

PASSAGES = {
    1: "Tell us early. A fixed plan has an exit fee of £35. No fee is due in the last 49 days.",
    3: "Read the meter monthly. Send the figures before the dot.",
}


def test_each_citation_finds_the_sentence_with_most_of_its_words() -> None:
    response = "Leaving a fixed plan costs an exit fee of £35. [1] In the last 49 days no fee is due [1][3]."
    assert sentence_references(response, PASSAGES) == [[1, 1], [1, 2]]


def test_a_passage_without_a_like_sentence_is_cited_as_a_whole() -> None:
    assert segments("Bananas are yellow. [3]", PASSAGES)[0].citations == [Citation(3, None)]
    assert sentence_references("Bananas are yellow. [3]", PASSAGES) == []


def test_numbers_of_no_passage_stay_text() -> None:
    found = segments("See note [7] and [2024]. Done", PASSAGES)
    assert "".join(segment.text for segment in found) == "See note [7] and [2024]. Done"


def test_known_sentences_win() -> None:
    found = segments("Send figures. [3]", PASSAGES, known=[[3, 0]])
    assert found[0].citations == [Citation(3, 0)]
    assert segments("Send figures. [3]", PASSAGES, known=[[3, 99]])[0].citations[0].rank == 3


def test_no_text_is_lost() -> None:
    response = "First. [1] Second [3], third [1] [3]\nlast"
    assert "".join(s.text for s in segments(response, PASSAGES)) == "First. Second, third\nlast"
