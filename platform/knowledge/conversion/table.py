"""CSV and tab-separated tables: each row becomes a line that names its columns."""

from __future__ import annotations

import csv
import io

from knowledge.conversion.shapes import Converted
from knowledge.sections import Section, UnreadableDocument, clean, decode, table_lines

MAX_COLUMNS = 200
DELIMITERS = ",;\t|"
_FIELD = 1_000_000


def read_table(data: bytes, *, title: str, delimiter: str = "") -> Converted:
    """The first row is the header. ``delimiter``: found out where it is not given.

    Raises:
        UnreadableDocument: not a table, or nothing in it.
    """
    text = decode(data)
    csv.field_size_limit(_FIELD)
    try:
        rows = [
            [clean(cell) for cell in row]
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or _delimiter(text), strict=False)
        ]
    except csv.Error:
        raise UnreadableDocument(
            f"This table cannot be read: a cell has more than {_FIELD:,} characters, perhaps for want of a quote."
        ) from None
    rows = [row for row in rows if any(row)]
    if any(len(row) > MAX_COLUMNS for row in rows[:100]):
        raise UnreadableDocument(f"This table has more than {MAX_COLUMNS} columns.")
    if not rows:
        raise UnreadableDocument("There is no text in this file.")
    notes = []
    wide = sum(len(row) > len(rows[0]) and any(row[len(rows[0]) :]) for row in rows[1:])
    if wide:
        rows_have = "row has" if wide == 1 else "rows have"
        notes.append(f"{wide} {rows_have} more cells than the header; the cells beyond it stand without a name.")
        width = max(map(len, rows))
        rows[0] = rows[0] + [""] * (width - len(rows[0]))
    return Converted(text, [Section([title], [table_lines(rows)])], None, notes)


def _delimiter(text: str) -> str:
    """The sign that cuts the first lines most alike; the sniffer of the library guesses letters, too."""
    lines = [line for line in text[:20_000].splitlines() if line.strip()][:20]
    counts = {sign: [line.count(sign) for line in lines] for sign in DELIMITERS}
    return max(DELIMITERS, key=lambda sign: (bool(lines) and min(counts[sign]) > 0, sum(counts[sign])))
