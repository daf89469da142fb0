"""The demo's log: where retrieval is said to have missed, nothing that is shown may come near what answers."""

from __future__ import annotations

import pytest

from knowledge.retrieval import RetrievedPassage
from serving.demo.frontend import tells

GOLD = [("tariffs/fees.md", "Drift, Owl, Volt and Acorn carry no early termination charge.")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Paper costs £1.50. Drift, Owl, Volt and Acorn carry no early termination charge.", True),
        ("There is no early termination charge on Owl.", True),  # another page says the same
        ("Owl can be left with 10 days' notice. A paper statement costs £1.50.", False),
        ("An early termination charge is listed in the Green Book.", False),  # three words in a row are of the house
    ],
)
def test_what_comes_near_an_answer_tells_it(text: str, found: bool) -> None:
    passage = RetrievedPassage(1, 1, "Fees", "archive/fees.md", text, 0.9, b"")
    assert tells(passage, GOLD, used=False) is found


def test_what_the_old_chatbot_answered_from_stays_unless_it_holds_the_very_sentence() -> None:
    near = RetrievedPassage(1, 1, "Owl", "archive/owl.md", "There is no early termination charge on Owl.", 0.9, b"")
    assert not tells(near, GOLD, used=True)
    same = RetrievedPassage(1, 1, "Fees", "archive/owl.md", GOLD[0][1], 0.9, b"")
    assert tells(same, GOLD, used=True)
