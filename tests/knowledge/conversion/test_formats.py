"""Files of every kind become headings and lines, and what is wrong with one is said in a sentence."""

from __future__ import annotations

import io
import zipfile

import pytest

from knowledge.conversion import formats
from knowledge.conversion.archive import read_archive
from knowledge.conversion.child import convert
from knowledge.conversion.shapes import ConversionLimits, Converted
from knowledge.sections import UnreadableDocument
from tests.knowledge.files import make_docx, make_pdf, make_zip, protect

LIMITS = ConversionLimits()
BODY = "The exit fee of a fixed plan is due when you leave before its end,"


def read(data: bytes, media_type: str, limits: ConversionLimits = LIMITS) -> Converted:
    return convert(data, media_type=media_type, title="File", limits=limits)


def shape(found: Converted) -> list[tuple[list[str], list[list[str]]]]:
    return [(section.headings, section.blocks) for section in found.sections if section.blocks]


def why_not(data: bytes, media_type: str, limits: ConversionLimits = LIMITS) -> str:
    with pytest.raises(UnreadableDocument) as refused:
        read(data, media_type, limits)
    return str(refused.value)


# --- PDF --------------------------------------------------------------------------------------------------------------


def test_a_pdf_has_its_headings_paragraphs_and_lists() -> None:
    page = [
        ("Tariff book", 24), ("Fees", 16), (BODY, 10), ("and it is not due in the last 49 days of the energy sup-", 10),
        ("ply contract.", 10), ("A late payment costs more than that, each time it happens.", 10, 2.0),
        ("• your account number", 10, 2.0), ("• the last reading of your", 10), ("meter", 10),
        ("Moving house", 16), ("Tell us ten days before you move.", 10), ("Bring along", -10, 2.0),
        ("Your plan moves with you.", 10),
    ]  # fmt: skip
    found = read(make_pdf([page]), formats.PDF)
    assert shape(found) == [
        (
            ["Tariff book", "Fees"],
            [
                [f"{BODY} and it is not due in the last 49 days of the energy supply contract."],
                ["A late payment costs more than that, each time it happens."],
                ["your account number", "the last reading of your meter"],
            ],
        ),
        (["Tariff book", "Moving house"], [["Tell us ten days before you move."]]),
        (["Tariff book", "Moving house", "Bring along"], [["Your plan moves with you."]]),
    ]
    assert (found.pages, found.notes) == (1, [])
    assert found.text.startswith("# Tariff book\n\n## Fees\n\n")


def test_running_headers_and_page_numbers_are_no_text_and_a_sentence_goes_over_the_page() -> None:
    pages = [
        [
            ("Supplier handbook 2026", 8),
            (f"{BODY} number {word}", 10),
            (f"{word} and so on, as long as any line of this page can ever be made", 10),
            (f"Page {n} of 4", 8),
        ]
        for n, word in enumerate(("one", "two", "three", "four"), start=1)
    ]
    found = read(make_pdf(pages, title="Handbook"), formats.PDF)
    assert "Supplier handbook" not in found.text
    assert "Page 2" not in found.text
    assert shape(found)[0][0] == ["Handbook"]
    assert "can ever be made The exit fee" in found.text


def test_lines_that_had_room_were_broken_on_purpose_and_joined_letters_are_letters() -> None:
    page = [
        ("Fees", 20), ("Rates", -10), ("Tari\x02 Day Night", -10), ("Evening 30 p 12 p", 10, 2.0),
        ("You need these papers when you leave a \x01xed plan of ours:", 10, 2.0),
        ("your account number, which stands on every bill, and the name", 10, 2.0), ("of the plan", 10),
        ("the last reading", 10), ("A sentence that ends early.", 10),
    ]  # fmt: skip
    assert shape(read(make_pdf([page]), formats.PDF)) == [
        (
            ["Fees", "Rates"],
            [
                ["Tariff Day Night"],
                ["Evening 30 p 12 p"],
                ["You need these papers when you leave a fixed plan of ours:"],
                [
                    "your account number, which stands on every bill, and the name of the plan", "the last reading",
                    "A sentence that ends early.",
                ],
            ],
        )
    ]  # fmt: skip


def test_a_pdf_without_text_says_what_to_do_and_one_with_some_says_where_none_is() -> None:
    assert "OCR" in why_not(make_pdf([[], []]), formats.PDF)
    found = read(make_pdf([[("Only this page speaks.", 10)], [], []]), formats.PDF)
    assert found.notes == ["Pages 2, 3 of 3 have no text: empty, or a picture of text."]


def test_a_pdf_with_a_password_is_refused_and_one_that_only_forbids_printing_is_read() -> None:
    plain = make_pdf([[("Read me.", 10)]])
    assert "password" in why_not(protect(plain, "secret"), formats.PDF)
    assert "Read me." in read(protect(plain, ""), formats.PDF).text


@pytest.mark.parametrize(
    "data", [b"", b"%PDF-1.7\n", b"not a pdf at all", make_pdf([[("x", 10)]])[:150], b"%PDF-1.4\n" + b"\xff" * 4000]
)
def test_a_broken_pdf_is_a_sentence(data: bytes) -> None:
    assert why_not(data, formats.PDF).endswith(("damaged.", "OCR) over it first.", "no text in this file."))


def test_ten_thousand_pages_are_refused_before_they_are_read() -> None:
    many = make_pdf([[("x", 10)]] * 10_000)
    assert why_not(many, formats.PDF) == "It has 10,000 pages; at most 2,000 are taken. Split it."
    assert read(make_pdf([[("Here.", 10)]] * 3), formats.PDF, ConversionLimits(pages=3)).pages == 3


# --- Word -------------------------------------------------------------------------------------------------------------


def test_a_word_document_keeps_headings_lists_tables_and_what_stands_in_controls() -> None:
    assert shape(read(make_docx(), formats.WORD)) == [
        (
            ["Tariff book", "Fees"],
            [
                ["In a control. Inserted."],
                ["A fixed plan has an exit fee of £35."],
                ["To leave you need:"],
                ["your account number", "the last reading"],
            ],
        ),
        (
            ["Tariff book", "Fees", "Rates"],
            [["Tariff: Evening; Day: 30 p; Night: 12 p", "Tariff: Flat; Day: 24 p"]],
        ),
    ]


def test_word_documents_that_are_none_protected_or_bombs() -> None:
    assert "damaged" in why_not(b"no zip", formats.WORD)
    assert "damaged" in why_not(make_zip({"a.txt": "x"}), formats.WORD)
    assert "password" in why_not(b"\xd0\xcf\x11\xe0" + b"\x00" * 600, formats.WORD)
    with zipfile.ZipFile(out := io.BytesIO(make_docx()), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/media/huge.bmp", b"\x00" * 3_000_000)
    assert "unpacks to more than 1 MB" in why_not(out.getvalue(), formats.WORD, ConversionLimits(expanded_bytes=10**6))


# --- HTML -------------------------------------------------------------------------------------------------------------


def test_a_page_loses_no_text_but_what_leads_around_it() -> None:
    page = """<html><head><title>Boilers</title><style>p {}</style></head><body>
      <nav>Home | Shop</nav><header><a href="/">Logo</a><h1>Boiler <em>help</em></h1></header>
      <div>Loose text with <b>bold</b> words.<p>A paragraph.<br>Next line.</p>and a tail</div>
      <h2>Parts</h2>You need:<ul><li>a spanner<li>a <b>rag</b><ol><li>clean</ol></ul>
      <table><caption>Prices</caption><tr><th>Part<th>Price<tr><td>Valve<td>£9</table>
      <script>alert(1)</script><!-- secret --><p hidden>gone</p><pre>a = 1
b = 2</pre></body></html>"""
    assert shape(read(page.encode(), formats.HTML)) == [
        (
            ["Boiler help"],
            [["Loose text with bold words."], ["A paragraph. Next line."], ["and a tail"]],
        ),
        (
            ["Boiler help", "Parts"],
            [
                ["You need:"], ["a spanner", "a rag", "clean"], ["Prices", "Part: Valve; Price: £9"],
                ["a = 1", "b = 2"],
            ],
        ),
    ]  # fmt: skip


def test_a_page_nested_beyond_all_measure_is_read() -> None:
    assert shape(read(b"<div>" * 20_000 + b"deep", formats.HTML)) == [(["File"], [["deep"]])]


# --- CSV --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b'Tariff,Rate\nEvening,"1,5 p"\nFlat,24 p\n', formats.CSV),
        ("Tariff;Rate\r\nEvening;1,5 p\r\nFlat;24 p\r\n".encode("utf-8-sig"), formats.CSV),
        ("Tariff;Rate\nEvening;1,5 p\nFlat;24 p\n".encode("utf-16"), formats.CSV),
        (b"Tariff\tRate\nEvening\t1,5 p\nFlat\t24 p\n", formats.TSV),
    ],
)
def test_each_row_of_a_table_names_its_columns(data: bytes, media_type: str) -> None:
    lines = ["Tariff: Evening; Rate: 1,5 p", "Tariff: Flat; Rate: 24 p"]
    assert shape(read(data, media_type)) == [(["File"], [lines])]


def test_tables_that_are_not_well_formed() -> None:
    found = read(b"a,b\n1,2,3\n", formats.CSV)
    assert found.sections[0].blocks == [["a: 1; b: 2; 3"]]
    assert found.notes == ["1 row has more cells than the header; the cells beyond it stand without a name."]
    assert "no text" in why_not(b"\n,,\n", formats.CSV)
    assert "want of a quote" in why_not(b'a,b\n"' + b"x" * 2_000_000, formats.CSV)
    assert "200 columns" in why_not(b"a," * 300, formats.CSV)
    assert read("Größe;Preis\n1;2\n".encode("cp1252"), formats.CSV).sections[0].blocks == [["Größe: 1; Preis: 2"]]


# --- Archives ---------------------------------------------------------------------------------------------------------


def test_an_archive_is_read_file_by_file_and_tricks_are_named() -> None:
    link = zipfile.ZipInfo("link.md")
    link.external_attr = 0o120777 << 16
    out = io.BytesIO(make_zip({"a/fees.md": "# Fees", "../../etc/passwd": "x", "/root.md": "y", "in.zip": "z",
                               "__MACOSX/._fees.md": "junk", "C:\\evil.md": "w", "empty/": ""}))  # fmt: skip
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("gr____e.md", "Grad")
    unflagged = out.getvalue().replace(b"gr____e.md", "größe.md".encode())  # UTF-8 without saying so
    found = {member.name: member for member in read_archive(unflagged, limits=LIMITS)}
    assert {name for name, member in found.items() if not member.problem} == {"a/fees.md", "größe.md"}
    assert (
        found["etc/passwd"].problem
        == found["root.md"].problem
        == "Its name leads out of the archive, so it was not read."
    )
    assert "link" in found["link.md"].problem
    assert "inside an archive" in found["in.zip"].problem
    assert not any(member.data for member in found.values() if member.problem)


def test_a_bomb_goes_off_at_the_bound_and_what_came_before_it_stays() -> None:
    limits = ConversionLimits(file_bytes=2_000_000, expanded_bytes=3_000_000)
    bomb = make_zip({"a.txt": b"a" * 1_900_000, "big.txt": b"b" * 2_100_000, "c.txt": b"c" * 1_500_000, "d.txt": "d"})
    assert len(bomb) < 20_000
    found = {member.name: member for member in read_archive(bomb, limits=limits)}
    assert [name for name, member in found.items() if member.data] == ["a.txt", "d.txt"]
    assert found["c.txt"].problem == "The archive unpacks to more than 3 MB; this was not read."
    assert "unpacks to more" in found["big.txt"].problem


def test_a_directory_that_lies_about_a_size_is_not_believed() -> None:
    data = bytearray(make_zip({"a.txt": b"a" * 5_000_000}))
    real = (5_000_000).to_bytes(4, "little")
    while (place := data.find(real)) >= 0:
        data[place : place + 4] = (10).to_bytes(4, "little")
    (member,) = read_archive(bytes(data), limits=LIMITS)
    assert len(member.data) <= 10
    assert member.problem


def test_archives_that_are_none_or_hold_too_many() -> None:
    for data in (b"", b"PK\x03\x04nonsense", b"x" * 1000):
        with pytest.raises(UnreadableDocument, match="no zip archive"):
            list(read_archive(data, limits=LIMITS))
    many = make_zip({f"{n}.md": "x" for n in range(12)})
    with pytest.raises(UnreadableDocument, match="holds 12 files; at most 10"):
        list(read_archive(many, limits=ConversionLimits(files=10)))
