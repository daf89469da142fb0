"""Work that is done once: a passage that comes back is neither searched nor embedded again."""

from __future__ import annotations

from typing import Any

from capture.models import Passage, Turn
from capture.services import receive_turns, scrub_waiting
from knowledge import evidence
from privacy import analyzer
from tests.capture.conftest import Cast, turn_item

LONG = "A fixed plan has an exit fee of £35. No fee is due in the last 49 days of the plan. " * 4


def test_a_passage_is_searched_and_embedded_once(cast: Cast, monkeypatch: Any) -> None:
    searched: list[str] = []
    embedded: list[str] = []
    search, embed = analyzer.OfflineAnalyzer._search, evidence.embed

    def watch_search(self: Any, text: str, types: Any) -> Any:
        searched.append(text)
        return search(self, text, types)

    def watch_embed(texts: Any) -> Any:
        embedded.extend(texts)
        return embed(texts)

    monkeypatch.setattr(analyzer.OfflineAnalyzer, "_search", watch_search)
    monkeypatch.setattr(evidence, "embed", watch_embed)
    for n in range(3):
        context = {"text": LONG, "title": "Fees"}
        items = [turn_item(id=f"{n}-{m}", conversation=f"c-{n}{m}", contexts=[context]) for m in range(3)]
        receive_turns(assistant=cast.bot, api_key=cast.key, items=items)
        scrub_waiting()
    assert Turn.objects.count() == 9
    assert Passage.objects.count() == 1
    assert searched.count(LONG) == 1
    sentences = evidence.wordings("Fees", LONG)
    expected = [text for sentence in sentences for text in (sentence.titled, sentence.window) if "49 days" in text]
    assert sorted(text for text in embedded if "49 days" in text) == sorted(expected)
