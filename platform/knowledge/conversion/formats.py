"""Which files are read: by the ending of their name."""

from __future__ import annotations

from pathlib import PurePosixPath

PDF = "application/pdf"
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
CSV = "text/csv"
TSV = "text/tab-separated-values"
HTML = "text/html"
MARKDOWN = "text/markdown"
PLAIN = "text/plain"
ZIP = "application/zip"
UNKNOWN = "application/octet-stream"

MEDIA_TYPES = {
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".txt": PLAIN,
    ".html": HTML,
    ".htm": HTML,
    ".pdf": PDF,
    ".docx": WORD,
    ".csv": CSV,
    ".tsv": TSV,
}
"""Ending of a document's name → its type."""
ARCHIVES = {".zip": ZIP}
NAMES = "Markdown, text, HTML, PDF, Word (.docx) or CSV"
APART = frozenset({PDF, WORD, HTML, CSV, TSV})
"""Read in a process of its own; Markdown and text are read here, by code that takes time in proportion to its input."""
_INSTEAD = {
    ".doc": "Old Word files are not read. Save it as .docx.",
    ".rtf": "RTF is not read. Save it as .docx.",
    ".odt": "OpenDocument is not read. Save it as .docx or PDF.",
    ".xls": "Spreadsheets are not read. Save each sheet as CSV.",
    ".xlsx": "Spreadsheets are not read. Save each sheet as CSV.",
    ".ods": "Spreadsheets are not read. Save each sheet as CSV.",
    ".ppt": "Slides are not read. Save them as PDF.",
    ".pptx": "Slides are not read. Save them as PDF.",
    ".rar": "Of archives only .zip is opened.",
    ".7z": "Of archives only .zip is opened.",
    ".gz": "Of archives only .zip is opened.",
    ".tar": "Of archives only .zip is opened.",
    ".tgz": "Of archives only .zip is opened.",
}


def suffix_of(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def media_type_of(path: str) -> str:
    return MEDIA_TYPES.get(suffix_of(path), UNKNOWN)


def is_archive(path: str) -> bool:
    return suffix_of(path) in ARCHIVES


def why_not_read(path: str) -> str:
    """A sentence for a file whose ending is not among those that are read."""
    endings = ", ".join(sorted({*MEDIA_TYPES, *ARCHIVES}))
    return _INSTEAD.get(suffix_of(path)) or f"Files of this kind are not read. Use {endings}."
