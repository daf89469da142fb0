"""Chunks follow headings, hold what belongs together, and never exceed what the embedder reads: counted with its own
tokenizer."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generation.embedder import load_embedder
from knowledge.chunking import ChunkText, chunk_sections, embedded_text
from knowledge.sections import Section, read_sections

EMBEDDER = load_embedder()
WINDOW = EMBEDDER.max_tokens
WORDS = sorted({"the", "exit", "fee", "of", "a", "fixed", "plan", "is", "thirty", "five", "pounds", "late", "payment"})


def cut(*blocks: list[str], headings: list[str] | None = None, window: int | None = None) -> list[ChunkText]:
    return chunk_sections([Section(headings or ["Fees"], list(blocks))], EMBEDDER.count_tokens, window=window)


def sentence(words: int) -> str:
    return " ".join(WORDS[i % len(WORDS)] for i in range(words)) + "."


def word_pieces(chunk: ChunkText) -> int:
    """As the embedder reads it: with its two special tokens."""
    return EMBEDDER.count_tokens(embedded_text(chunk.headings, chunk.text)) + 2


HOSTILE = st.one_of(
    st.text(max_size=400),
    st.text(alphabet="각힣한글漢字ﷺ🙂é\u0301", max_size=300),
    st.text(alphabet="a1-_/=", min_size=200, max_size=900),
    st.integers(1, 300).map(sentence),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    headings=st.lists(HOSTILE.filter(str.strip), min_size=1, max_size=3),
    blocks=st.lists(st.lists(HOSTILE.filter(str.strip), min_size=1, max_size=4), min_size=1, max_size=4),
)
def test_no_chunk_is_longer_than_the_embedder_reads(headings: list[str], blocks: list[list[str]]) -> None:
    assert WINDOW == 256
    for chunk in cut(*blocks, headings=[heading[:300] for heading in headings]):
        assert word_pieces(chunk) <= WINDOW


def test_an_embedder_that_reads_less_gets_shorter_chunks() -> None:
    chunks = cut([sentence(2000)], window=128)
    assert max(word_pieces(chunk) for chunk in chunks) <= 128
    assert max(word_pieces(chunk) for chunk in cut([sentence(2000)])) > 128


def test_no_word_is_lost() -> None:
    blocks = [[sentence(30)], [sentence(700)], ["x" * 500], [f"item {n}" for n in range(300)]]
    said = "".join(chunk.text for chunk in cut(*blocks))
    assert "".join(said.split()) == "".join("".join(line.split()) for block in blocks for line in block)


def test_lists_and_tables_stay_whole_where_they_fit_and_with_the_line_that_leads_to_them() -> None:
    papers = [f"paper number {n} of the house" for n in range(12)]
    (before, whole) = cut([sentence(150)], ["To move you need:"], papers)
    assert before.text == sentence(150)
    assert whole.text == "\n".join(["To move you need:", *papers])


def test_every_piece_of_a_table_names_its_columns() -> None:
    rows = "\n".join(f"| Tariff {n} | {n} p | {n * 2} p |" for n in range(120))
    table = f"# Rates\n\n| Tariff | Day rate | Night rate |\n|---|---|---|\n{rows}\n"
    chunks = chunk_sections(read_sections(table, "text/markdown", fallback_title="T"), EMBEDDER.count_tokens)
    assert len(chunks) > 10
    for chunk in chunks:
        for line in chunk.text.split("\n"):
            assert line.startswith("Tariff: Tariff ")
            assert "; Day rate: " in line
            assert "; Night rate: " in line


def test_a_row_that_does_not_fit_keeps_its_name_and_its_columns_in_each_piece() -> None:
    row = f"Tariff: Evening; Conditions: {sentence(400)}; Fee: £35; Notes: {sentence(120)}"
    pieces = [chunk.text for chunk in cut([row, "Tariff: Flat; Fee: £5"])]
    assert len(pieces) > 2
    assert all(piece.startswith("Tariff: ") for piece in pieces)
    assert all("Conditions: " in piece or "Notes: " in piece for piece in pieces[:2])
    assert pieces[-1].endswith("Tariff: Flat; Fee: £5")


def test_a_chunk_carries_its_title_and_the_path_of_its_section() -> None:
    text = "# Book\n\nIntro.\n\n## Fees\n\nOne.\n\n### Late\n\nTwo.\n\n## Moving\n\nThree.\n"
    chunks = chunk_sections(read_sections(text, "text/markdown", fallback_title="T"), EMBEDDER.count_tokens)
    assert [(list(chunk.headings), chunk.text) for chunk in chunks] == [
        (["Book"], "Intro."), (["Book", "Fees"], "One."), (["Book", "Fees", "Late"], "Two."),
        (["Book", "Moving"], "Three."),
    ]  # fmt: skip


def test_only_so_many_are_made() -> None:
    assert len(chunk_sections([Section(["T"], [[sentence(100)]] * 50)], EMBEDDER.count_tokens, most=7)) == 7
