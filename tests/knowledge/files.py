"""Small files of every kind that is read, made here: real PDFs, Word documents and archives."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence


def make_pdf(pages: Sequence[Sequence[tuple[str, float] | tuple[str, float, float]]], *, title: str = "") -> bytes:
    """A PDF with these lines on its pages, from the top: (text, size in points[, gap above in lines]). A size below 0
    is bold; \\x01 and \\x02 are the joined letters of typesetters, fi and ff."""
    objects: list[bytes] = []

    def add(body: bytes) -> int:
        objects.append(body)
        return len(objects)

    encoding = "<< /Type /Encoding /BaseEncoding /WinAnsiEncoding /Differences [1 /fi 2 /ff] >>"
    fonts = [
        add(f"<< /Type /Font /Subtype /Type1 /BaseFont /{name} /Encoding {encoding} >>".encode())
        for name in ("Helvetica", "Helvetica-Bold")
    ]
    kids: list[int] = []
    parent = len(objects) + 2 * len(pages) + 1
    for lines in pages:
        content, y = "BT\n", 800.0
        for text, size, *gap in lines:
            y -= abs(size) * 1.2 * (gap[0] if gap else 1.0)
            escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
            content += f"/F{2 if size < 0 else 1} {abs(size)} Tf 1 0 0 1 50 {y:.1f} Tm ({escaped}) Tj\n"
        data = (content + "ET").encode("cp1252")
        stream = add(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(data), data))
        resources = f"<< /Font << /F1 {fonts[0]} 0 R /F2 {fonts[1]} 0 R >> >>"
        page = f"<< /Type /Page /Parent {parent} 0 R /MediaBox [0 0 595 842] /Resources {resources}"
        kids.append(add(f"{page} /Contents {stream} 0 R >>".encode()))
    listed = " ".join(f"{kid} 0 R" for kid in kids)
    assert add(f"<< /Type /Pages /Kids [{listed}] /Count {len(kids)} >>".encode()) == parent
    root = add(f"<< /Type /Catalog /Pages {parent} 0 R >>".encode())
    info = add(f"<< /Title ({title}) >>".encode())
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root %d 0 R /Info %d 0 R >>\n" % (len(objects) + 1, root, info)
    return bytes(out + b"startxref\n%d\n%%%%EOF\n" % start)


def protect(pdf: bytes, password: str) -> bytes:
    """The same PDF, encrypted; an empty password opens it for everybody."""
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf)))
    writer.encrypt(user_password=password, owner_password="owner", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def make_docx() -> bytes:
    """Title, headings, a list, a table with a cell over two columns, and a paragraph within a content control."""
    import docx
    from docx.oxml import parse_xml
    from docx.oxml.ns import nsdecls

    document = docx.Document()
    document.core_properties.title = ""
    document.add_heading("Tariff book", 0)
    document.add_heading("Fees", 1)
    document.add_paragraph("A fixed plan has an exit fee of £35.")
    document.add_paragraph("To leave you need:")
    for item in ("your account number", "the last reading"):
        document.add_paragraph(item, style="List Bullet")
    document.add_heading("Rates", 2)
    table = document.add_table(rows=3, cols=3)
    for r, row in enumerate([("Tariff", "Day", "Night"), ("Evening", "30 p", "12 p"), ("Flat", "24 p", "")]):
        for c, value in enumerate(row):
            table.cell(r, c).text = value
    table.cell(2, 1).merge(table.cell(2, 2))
    w = nsdecls("w")
    document.element.body.insert(
        2,
        parse_xml(
            f"<w:sdt {w}><w:sdtContent><w:p><w:r><w:t>In a control.</w:t></w:r>"
            "<w:ins><w:r><w:t> Inserted.</w:t></w:r></w:ins><w:del><w:r><w:delText>Gone.</w:delText></w:r></w:del>"
            "</w:p></w:sdtContent></w:sdt>"
        ),
    )
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def make_zip(files: Mapping[str, bytes | str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()
