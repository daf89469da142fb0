"""What is found for a question: both paths, one assistant only, hostile text, a fixed number of queries."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assistants.models import Assistant
from generation.engines import EngineUnavailable
from generation.prompts import PromptPassage, build_prompt, split_sentences
from knowledge.candidates import find, opening
from knowledge.configuration import settings_of
from knowledge.embedding import embed
from knowledge.evidence import EvidencePassage, pack, rank_evidence, sentence_matrices, unpack
from knowledge.models import Chunk
from knowledge.query import begin, history_query, in_house_words, prepare, question_vectors
from knowledge.retrieval import config_digest, retrieve, search
from knowledge.services import load_document
from tests.factories import make_assistant

DOCUMENTS = {
    "leaving.md": "# Leaving early\n\nA fixed plan has an exit fee of £35. No fee is due in its last 49 days.",
    "meters.md": "# Meter readings\n\nRead the meter on the first day of the month. Send the figures before the dot.",
    "moving.md": "# Moving house\n\nTell us 10 days before you move. Your plan can move with you to the new address.",
    "boiler.md": "# Boiler\n\n## Lockout\n\nPress reset for five seconds. Code E4 means that the flue is blocked.",
    "solar.md": "# Solar export\n\nWe pay 12 p for each unit that you export. Export is metered every half hour.",
}
QUESTIONS = [
    "What does it cost to leave a fixed plan early?",
    "How many days before moving do I have to tell you?",
    "What does code E4 mean?",
    "How much do you pay for solar electricity?",
    "When should I read my meter?",
]
EXPECTED = ["leaving.md", "moving.md", "boiler.md", "solar.md", "meters.md"]


@pytest.fixture
def assistant(db: None) -> Assistant:
    assistant = make_assistant()
    for path, text in DOCUMENTS.items():
        load_document(assistant=assistant, path=path, data=text.encode())
    return assistant


def test_the_right_document_comes_first_with_its_sentence(assistant: Assistant) -> None:
    for question, path in zip(QUESTIONS, EXPECTED, strict=True):
        result = retrieve(assistant=assistant, question=question)
        first = result.passages[0]
        assert (first.rank, first.source) == (1, path)
        assert result.evidence[0].rank == 1
        assert [p.rank for p in result.passages] == list(range(1, len(result.passages) + 1))
        assert np.isclose(np.linalg.norm(result.query_vector), 1, atol=1e-5)
    assert first.title == "Meter readings"


def test_exact_search_and_index_agree(assistant: Assistant) -> None:
    for question in QUESTIONS:
        (vector,) = question_vectors([(question, ())])
        exact, index = (
            search(assistant=assistant, query=question, vector=vector, k=5, exact=exact) for exact in (True, False)
        )
        assert [p.chunk_id for p in exact] == [p.chunk_id for p in index]


@pytest.mark.parametrize("exact", [True, False])
def test_nothing_of_another_assistant_is_ever_found(assistant: Assistant, exact: bool) -> None:
    """The stranger's chunks are nearer to the question and far more, so that an index would meet them first."""
    other = make_assistant()
    (vector,) = question_vectors([(QUESTIONS[0], ())])
    document = load_document(assistant=other, path="near.md", data=f"# Near\n\n{QUESTIONS[0]}".encode())
    template = document.chunks.get()
    Chunk.objects.bulk_create(
        Chunk(
            assistant=other, document=document, position=i, headings=["Near"], text=template.text, digest="d",
            tokens=9, embedding=template.embedding, sentence_embeddings=template.sentence_embeddings,
        )
        for i in range(1, 400)
    )  # fmt: skip
    found = search(assistant=assistant, query=QUESTIONS[0], vector=vector, k=20, exact=exact)
    own = set(Chunk.objects.filter(assistant=assistant).values_list("pk", flat=True))
    assert {p.chunk_id for p in found} == own
    assert {p.source for p in search(assistant=other, query="meter", vector=vector, k=20, exact=exact)} == {"near.md"}


def test_a_follow_up_is_searched_with_what_it_follows(assistant: Assistant) -> None:
    history: Any = [
        {"role": "user", "content": "Do you pay for solar export?"},
        {"role": "assistant", "content": "Yes. Read the meter on the first day of the month."},
    ]
    assert history_query("And how much?", history) == "Do you pay for solar export?\nAnd how much?"
    assert retrieve(assistant=assistant, question="And how much?", history=history).passages[0].source == "solar.md"


def test_only_the_previous_question_counts_and_long_ones_are_cut() -> None:
    history: Any = [{"role": "user", "content": c} for c in ("first", "x" * 5000)]
    query = history_query("y" * 5000, history)
    assert query == "x" * 500 + "\n" + "y" * 1000
    assert history_query("  alone ", []) == "alone"


def test_customers_words_find_the_documents_words(assistant: Assistant) -> None:
    glossary = {"Happy hour": "Owl tariff", "C++ (old)": "Cee"}
    assert in_house_words("is HAPPY HOUR on?", glossary) == "is HAPPY HOUR on? (Owl tariff)"
    assert in_house_words("unhappy hours", glossary) == "unhappy hours"
    assert in_house_words("the C++ (old) plan", glossary).endswith("(Cee)")
    assistant.glossary = {"ditch": "leave, exit fee, fixed plan"}
    with_words = retrieve(assistant=assistant, question="Can I ditch you?")
    assert with_words.passages[0].source == "leaving.md"
    assert with_words.config_digest != config_digest(make_assistant())


def test_the_configuration_has_a_name_that_follows_what_decides(assistant: Assistant) -> None:
    before = config_digest(assistant)
    assert len(before) == 16
    assert config_digest(assistant) == before
    assistant.retrieval_k += 1
    assert config_digest(assistant) != before


def test_k_and_limits(assistant: Assistant) -> None:
    assistant.evidence_sentences = 3
    result = retrieve(assistant=assistant, question=QUESTIONS[0], k=2)
    assert len(result.passages) == 2
    assert len(result.evidence) == 3
    assert len(retrieve(assistant=assistant, question=QUESTIONS[0], k=20).passages) == len(DOCUMENTS)
    empty = retrieve(assistant=make_assistant(), question=QUESTIONS[0])
    assert (empty.passages, empty.evidence) == ([], [])


def test_nothing_is_offered_below_the_threshold(assistant: Assistant) -> None:
    before = config_digest(assistant)
    best = retrieve(assistant=assistant, question=QUESTIONS[0]).evidence[0].similarity
    assistant.evidence_threshold = best - 0.01
    assert retrieve(assistant=assistant, question=QUESTIONS[0]).evidence
    assistant.evidence_threshold = best + 0.01
    result = retrieve(assistant=assistant, question=QUESTIONS[0])
    assert result.passages
    assert not result.evidence
    assert config_digest(assistant) != before


def test_asking_for_more_does_not_change_the_first(assistant: Assistant) -> None:
    """A benchmark fetches more than serving does; both must offer the same passages."""
    assistant.retrieval = {"reordered": 2}
    few = retrieve(assistant=assistant, question=QUESTIONS[0], k=2).passages
    many = retrieve(assistant=assistant, question=QUESTIONS[0], k=20).passages
    assert [p.chunk_id for p in few] == [p.chunk_id for p in many[:2]]


@pytest.mark.parametrize("exact", [True, False])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60) | st.sampled_from([
    "'", "a & b | !c <-> d :* (", "\\", "%s %(x)s", '"quoted phrase', "http://a.b/?x=1&y=2", "\x00", "\ud800", "",
    "-- ; DROP TABLE x", "£$€ \u202e", "((((", "fee:*A & 'x", "-meter -fee", "or or or",
]))  # fmt: skip
def test_any_text_is_a_query(assistant: Assistant, exact: bool, text: str) -> None:
    vector = np.ones(384, dtype=np.float32) / np.sqrt(np.float32(384))
    query = history_query(text, [{"role": "user", "content": text}])
    assert search(assistant=assistant, query=query, vector=vector, k=3, exact=exact)


@pytest.mark.parametrize("text", ["\x00 fee", "\ud800 fee", "", " ", "?!", "x" * 30_000])
def test_hostile_questions_are_answered(assistant: Assistant, text: str) -> None:
    assert retrieve(assistant=assistant, question=text).passages


def test_the_number_of_queries_does_not_grow(assistant: Assistant, django_assert_num_queries: Any) -> None:
    retrieve(assistant=assistant, question=QUESTIONS[0])
    with django_assert_num_queries(3):  # size and words, candidates, rows
        retrieve(assistant=assistant, question=QUESTIONS[1], k=1)
    with django_assert_num_queries(3):
        retrieve(assistant=assistant, question=QUESTIONS[1], k=20)


# --- Evidence ---------------------------------------------------------------------------------------------------------


def passages(*texts: str) -> list[EvidencePassage]:
    packed = sentence_matrices([("Title", text) for text in texts])
    return [EvidencePassage(i, text, matrix) for i, (text, matrix) in enumerate(zip(texts, packed, strict=True), 1)]


def test_evidence_is_the_same_every_time_and_in_any_order_of_passages() -> None:
    offered = passages(*(text.partition("\n\n")[2] for text in DOCUMENTS.values()))
    vector = embed([QUESTIONS[0]])[0]
    ranked = rank_evidence(question_vector=vector, passages=offered, limit=6)
    assert ranked == rank_evidence(question_vector=vector, passages=offered, limit=6)
    assert ranked == rank_evidence(question_vector=vector, passages=offered[::-1], limit=6)
    assert (ranked[0].rank, ranked[0].sentence) == (1, 0)
    similarities = [s.similarity for s in ranked]
    assert similarities == sorted(similarities, reverse=True)
    assert all(round(s, 4) == s for s in similarities)


def test_a_sentence_in_two_passages_counts_once_and_ties_go_by_rank() -> None:
    offered = passages("The fee is £35.", "THE FEE IS £35. It is due at once.")
    ranked = rank_evidence(question_vector=embed(["What is the fee?"])[0], passages=offered, limit=6)
    assert [(s.rank, s.sentence) for s in ranked if s.rank == 1 or s.sentence == 0] == [(1, 0)]


def test_a_sentence_is_read_between_its_neighbours() -> None:
    """ "It is £60." says nothing of what it is; behind a sentence about leaving early it answers that question."""
    told = passages("You may leave early for a charge. It is £60.", "Our office stands by the river. It is £60.")
    vector = embed(["What does leaving early cost?"])[0]
    pairs = [(unpack(p.sentence_embeddings) @ vector)[1] for p in told]
    assert pairs[0] > pairs[1] + 0.1
    (alone,) = passages("It is £60.")
    assert pairs[0] > (unpack(alone.sentence_embeddings) @ vector)[0]


def test_vectors_of_another_text_are_refused() -> None:
    (one,) = passages("The fee is £35.")
    wrong = EvidencePassage(1, "The fee is £35. And more. And more still.", one.sentence_embeddings)
    with pytest.raises(ValueError, match="3 sentences and 1 vectors"):
        rank_evidence(question_vector=embed(["fee"])[0], passages=[wrong], limit=3)


def test_packing_keeps_what_a_similarity_shows() -> None:
    matrix = embed(["The exit fee is £35.", "Read the meter."])
    assert np.abs(unpack(pack(matrix)) - matrix).max() < 5e-4
    assert unpack(pack(matrix[:0])).shape == (0, 384)
    assert sentence_matrices([("Title", "")]) == [b""]


def test_evidence_fits_the_prompt(assistant: Assistant) -> None:
    result = retrieve(assistant=assistant, question=QUESTIONS[2])
    prompt = build_prompt(
        house=assistant.house,
        question=QUESTIONS[2],
        passages=[PromptPassage(p.rank, p.title, p.text) for p in result.passages],
        evidence=[e.ref for e in result.evidence],
    )
    first = result.evidence[0]
    sentence = split_sentences(result.passages[first.rank - 1].text)[first.sentence]
    assert f"# Boiler › Lockout\n[1] {sentence}" in prompt.messages[-1]["content"]


def test_the_database_is_asked_while_the_engine_embeds(
    assistant: Assistant, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a web process; what is found is the same."""
    expected = retrieve(assistant=assistant, question=QUESTIONS[0])
    known = {QUESTIONS[0]: embed([QUESTIONS[0]])[0]}
    begun, asked = threading.Event(), threading.Event()

    def slowly(texts: Sequence[str]) -> Any:
        begun.set()

        def ready() -> Any:
            assert asked.is_set(), "the database is asked only when the vector is there"
            return np.stack([known[text] for text in texts])

        return ready

    def noted(*args: Any) -> Any:
        assert begun.is_set()
        asked.set()
        return opening(*args)

    monkeypatch.setattr("knowledge.query.begin_embedding", slowly)
    monkeypatch.setattr("knowledge.candidates.opening", noted)
    settings.PROCESS = "web"
    found = retrieve(assistant=assistant, question=QUESTIONS[0])
    assert [p.chunk_id for p in found.passages] == [p.chunk_id for p in expected.passages]
    assert [p.score for p in found.passages] == [p.score for p in expected.passages]
    assert found.evidence == expected.evidence


@pytest.mark.parametrize(
    "changed", [{}, {"vectors": 0.0}, {"words": 0.0}, {"folders": ["guide"]}, {"superseded": True}]
)
def test_words_searched_before_the_vector_is_there_find_the_same(assistant: Assistant, changed: dict[str, Any]) -> None:
    how = settings_of(assistant).model_copy(update=changed)
    for question in QUESTIONS:
        (query,) = prepare([(question, [])])
        opened = opening(assistant, query.parts, how)
        assert opened.listed is not None
        expected = find(assistant=assistant, query=query, settings=how)
        assert find(assistant=assistant, query=query, settings=how, opened=opened) == expected
    if how.words and not how.folders:
        assert opened.listed


def test_an_engine_that_is_away_is_said_when_its_vector_is_needed(
    assistant: Assistant, settings: Any, tmp_path: Path
) -> None:
    settings.PROCESS, settings.RATCHET_ENGINE_URL = "web", f"unix:{tmp_path / 'nobody.sock'}"
    pending = begin("exit fee?", [])
    assert pending.parts == (("exit fee?", 1.0),)
    with pytest.raises(EngineUnavailable):
        pending.ready()
    with pytest.raises(EngineUnavailable):
        retrieve(assistant=assistant, question="exit fee?")
