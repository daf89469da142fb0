"""Versions of retrieval settings: what names them, what makes one active, and what they do to a search."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from assistants.models import Assistant, AuditEvent
from knowledge import candidates
from knowledge.configuration import RetrievalSettings, SettingsRefused, checked, config_digest, put_on, settings_of
from knowledge.configuring import activate, differences, note_active, save_configuration
from knowledge.models import Document, LexemeCount, Lexicon, RetrievalConfiguration
from knowledge.query import prepare
from knowledge.retrieval import retrieve, search
from knowledge.services import load_document
from tests.factories import make_assistant, make_user

DOCUMENTS = {
    "tariffs/leaving.md": "# Leaving early\n\nA fixed plan has an exit fee of £35. No fee is due in its last 49 days.",
    "tariffs/solar.md": "# Solar export\n\nWe pay 12 p for each unit you export. Export is metered every half hour.",
    "home/meters.md": "# Meter readings\n\nRead the meter on the first day. Ask for form Zebu-7 when it is broken.",
    "home/moving.md": "# Moving house\n\nTell us 10 days before you move. Your plan can move with you.",
}


@pytest.fixture
def assistant(db: None) -> Assistant:
    assistant = make_assistant()
    for path, text in DOCUMENTS.items():
        load_document(assistant=assistant, path=path, data=text.encode())
    return assistant


def sources(assistant: Assistant, question: str, said: Any = (), /, **settings: Any) -> list[str]:
    found = retrieve(assistant=assistant, question=question, history=said, settings=RetrievalSettings(**settings))
    return [passage.source for passage in found.passages]


def test_saving_and_going_back(assistant: Assistant) -> None:
    ann = make_user()
    first = config_digest(assistant)
    narrow = save_configuration(
        assistant=assistant, name=" Narrow ", settings=RetrievalSettings(k=2, words=1.0), actor=ann
    )
    assert (narrow.number, narrow.name, config_digest(assistant)) == (1, "Narrow", first)  # saved is not active
    assert activate(configuration=narrow, actor=ann) == narrow
    assistant.refresh_from_db()
    assert (assistant.retrieval_k, assistant.retrieval) == (2, {"words": 1.0})
    assert retrieve(assistant=assistant, question="fee?").config_digest == narrow.digest
    before = RetrievalConfiguration.objects.get(assistant=assistant, digest=first)  # noted when it was left
    assert activate(configuration=before, actor=ann) == before
    assistant.refresh_from_db()
    assert config_digest(assistant) == first
    acts = AuditEvent.objects.filter(assistant=assistant, actor=ann).values_list("action", flat=True)
    assert sorted(acts) == ["retrieval.activated", "retrieval.activated", "retrieval.saved"]


def test_the_digest_of_a_turn_leads_to_its_settings(assistant: Assistant) -> None:
    digest = retrieve(assistant=assistant, question="fee?").config_digest
    noted = RetrievalConfiguration.objects.get(assistant=assistant, digest=digest)
    assert checked(noted.settings) == settings_of(assistant)
    note_active(assistant)
    assert RetrievalConfiguration.objects.filter(assistant=assistant).count() == 1


def test_another_glossary_makes_another_version_of_the_same_settings(assistant: Assistant) -> None:
    saved = save_configuration(assistant=assistant, name="Five", settings=RetrievalSettings(k=5))
    Assistant.objects.filter(pk=assistant.pk).update(glossary={"ditch": "leave"})
    now = activate(configuration=saved)
    assert now.pk != saved.pk
    assert (now.name, now.settings) == ("Five", saved.settings)
    assert now.digest != saved.digest


@pytest.mark.parametrize(
    "values",
    [{"k": 0}, {"k": 99}, {"words": 0, "vectors": 0}, {"evidence_threshold": 2}, {"colour": 1}, {"fusion": "sum"},
     {"folders": [""]}, {"folders": ["a\x00"]}, {"k": "many"}],
)  # fmt: skip
def test_impossible_settings_are_refused_in_a_sentence(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsRefused) as refused:
        checked(values)
    assert "\n" not in str(refused.value)


def test_the_same_settings_are_not_saved_twice_and_need_a_name(assistant: Assistant) -> None:
    save_configuration(assistant=assistant, name="A", settings=RetrievalSettings(k=3))
    with pytest.raises(SettingsRefused, match=r"Version 1\. A"):
        save_configuration(assistant=assistant, name="B", settings=RetrievalSettings(k=3))
    with pytest.raises(SettingsRefused, match="No reranker"):
        save_configuration(assistant=assistant, name="B", settings=RetrievalSettings(rerank=True))
    with pytest.raises(SettingsRefused, match="name"):
        save_configuration(assistant=assistant, name="  ", settings=RetrievalSettings(k=4))


def test_only_what_differs_from_the_defaults_is_kept_on_the_assistant() -> None:
    assistant = Assistant(slug="a")
    put_on(assistant, RetrievalSettings(k=3, fusion="ranks", folders=("tariffs/",)))
    assert assistant.retrieval == {"fusion": "ranks", "folders": ["tariffs/"]}
    assert settings_of(assistant) == RetrievalSettings(k=3, fusion="ranks", folders=("tariffs/",))
    rows = differences(RetrievalSettings().model_dump(), RetrievalSettings(k=3).model_dump())
    assert rows == [("Passages", 6, 3)]


def test_a_rare_word_of_the_documents_finds_its_passage(assistant: Assistant) -> None:
    """By words alone: what all documents share says little, what one document has says all."""
    assert sources(assistant, "the plan, the day, zebu-7?", vectors=0, sentences=0)[0] == "home/meters.md"
    counts = dict(LexemeCount.objects.filter(assistant=assistant).values_list("lexeme", "chunks"))
    assert Lexicon.objects.get(assistant=assistant).chunks == len(DOCUMENTS)
    assert max(counts.values()) <= len(DOCUMENTS)


def test_words_of_headings_are_searched(assistant: Assistant) -> None:
    assert sources(assistant, "readings", vectors=0, sentences=0) == ["home/meters.md"]


def test_words_alone_find_nothing_where_no_word_fits(assistant: Assistant) -> None:
    assert sources(assistant, "xylophone", vectors=0, sentences=0) == []
    assert sources(assistant, "", vectors=0, sentences=0) == []


def test_folders_and_superseded_documents_are_left_out(assistant: Assistant) -> None:
    assert set(sources(assistant, "plan", folders=("tariffs/",))) == {"tariffs/leaving.md", "tariffs/solar.md"}
    Document.objects.filter(assistant=assistant, path="tariffs/leaving.md").update(superseded=True)
    assert "tariffs/leaving.md" in sources(assistant, "exit fee")
    assert "tariffs/leaving.md" not in sources(assistant, "exit fee", superseded=False)
    assert sources(assistant, "exit fee", folders=("tari%",)) == []


def test_words_are_planned_once_whatever_is_asked(assistant: Assistant) -> None:
    for number in range(12):
        (query,) = prepare([(f"exit fee plan{number}", ())])
        search(assistant=assistant, query=query, k=3)
    with connection.cursor() as cursor:
        cursor.execute("SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE statement LIKE '%listed%'")
        assert [row[0] for row in cursor.fetchall() if row[0] + row[1] >= 12] == [5]


def test_a_large_collection_that_was_never_counted_is_not_searched_by_words(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """In a web process: counting takes seconds there, and searching by words that stand everywhere too."""
    monkeypatch.setattr(candidates, "EXACT_UP_TO", 1)
    asked: list[str] = []
    real = candidates.statement
    monkeypatch.setattr(candidates, "statement", lambda **given: asked.append(given["terms"].search) or real(**given))
    (query,) = prepare([("zebu-7", ())])
    settings.PROCESS = "web"
    assert search(assistant=assistant, query=query, k=3)
    assert asked == [""]
    assert not Lexicon.objects.exists()
    settings.PROCESS = "worker"
    assert search(assistant=assistant, query=query, k=3)[0].source == "home/meters.md"
    assert "'zebu'" in asked[1]


@pytest.mark.parametrize("exact", [True, False])
def test_filters_hold_on_both_paths(assistant: Assistant, exact: bool) -> None:
    settings = RetrievalSettings(folders=("home/",))
    (query,) = prepare([("exit fee of a fixed plan", ())])
    found = search(assistant=assistant, query=query, k=10, exact=exact, settings=settings)
    assert {passage.source for passage in found} == {"home/meters.md", "home/moving.md"}


def test_an_answer_in_the_conversation_says_what_is_talked_about(assistant: Assistant) -> None:
    history: Any = [
        {"role": "user", "content": "Something about money?"},
        {"role": "assistant", "content": "Solar export is metered every half hour."},
    ]
    assert sources(assistant, "And how much is it?", history, vectors=0, sentences=0)[0] == "tariffs/solar.md"
    assert not sources(assistant, "And how much is it?", history, vectors=0, sentences=0, history="previous")
