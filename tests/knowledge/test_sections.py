from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge.chunking import MAX_TOKENS, chunk_sections
from knowledge.sections import UnreadableDocument, decode, read_sections


def sections(text: str, kind: str = "text/markdown"):
    return read_sections(text, kind, fallback_title="File")


def test_headings_nest_and_close():
    found = sections("# A\nintro\n## B\nb\n### C\nc\n## D\nd")
    assert [(s.headings, s.blocks) for s in found] == [
        (["A"], [["intro"]]),
        (["A", "B"], [["b"]]),
        (["A", "B", "C"], [["c"]]),
        (["A", "D"], [["d"]]),
    ]


def test_a_table_row_names_its_columns():
    (section,) = sections("# Fees\n\n| Fee | Amount |\n|---|---|\n| Exit | £35 |\n| Late | £12 |\n")
    assert section.blocks == [["Fee: Exit; Amount: £35", "Fee: Late; Amount: £12"]]


def test_marks_go_and_words_stay():
    (section,) = sections("# T\n\nThe **exit fee** is [£35](fees.md), see `Account`.\n\n- one\n- two\n  - three")
    assert section.blocks == [["The exit fee is £35, see Account."], ["one", "two", "three"]]


def test_html_loses_scripts_and_menus():
    html = "<title>T</title><nav><p>menu</p></nav><h1>H</h1><p>Hello <b>you</b></p><script>x()</script>"
    html += "<ul><li>a</li></ul>"
    assert [(s.headings, s.blocks) for s in sections(html, "text/html")] == [(["H"], [["Hello you"], ["a"]])]


@pytest.mark.parametrize("data", [b"%PDF-1.7\x00\x01", b"\x00\x00"])
def test_binary_is_refused_with_a_sentence(data: bytes):
    with pytest.raises(UnreadableDocument, match="not text"):
        decode(data)


def test_an_empty_file_is_refused():
    with pytest.raises(UnreadableDocument, match="no text"):
        sections("   \n# \n")


def test_old_encodings_are_read():
    assert decode("Café £5".encode("cp1252")) == "Café £5"


def word_count(text: str) -> int:
    return sum(1 + len(word) // 6 for word in text.split())


@given(st.lists(st.text(alphabet="abc .!?\n|#-0", max_size=900), max_size=6))
def test_chunks_hold_every_word_once_and_fit(paragraphs: list[str]):
    text = "\n\n".join(paragraphs)
    try:
        found = sections(text, "text/plain")
    except UnreadableDocument:
        return
    chunks = chunk_sections(found, word_count)
    assert all(word_count(" ".join(c.headings)) + c.tokens <= MAX_TOKENS for c in chunks)
    assert "".join("".join(c.text for c in chunks).split()) == "".join(text.split())


def test_a_chunk_never_crosses_a_section():
    chunks = chunk_sections(sections("# A\none two three.\n# B\nfour five six."), word_count)
    assert [(c.headings, c.text) for c in chunks] == [(("A",), "one two three."), (("B",), "four five six.")]


def test_one_endless_word_is_cut():
    chunks = chunk_sections(sections("x" * 5000, "text/plain"), word_count)
    assert len(chunks) > 3
    assert all(c.tokens <= MAX_TOKENS for c in chunks)
