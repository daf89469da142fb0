"""How much may come in, from the settings."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from knowledge.conversion.shapes import ConversionLimits

MAX_PATH = 500
MAX_CHUNKS = 5_000
"""Of one document: more is a dump, not a document."""


@dataclass(frozen=True)
class UploadLimits:
    """Of one upload. ``file_bytes`` of each file, ``total_bytes`` together."""

    files: int
    file_bytes: int
    total_bytes: int


def upload_limits() -> UploadLimits:
    return UploadLimits(
        files=settings.RATCHET_UPLOAD_MAX_FILES,
        file_bytes=settings.RATCHET_DOCUMENT_MAX_BYTES,
        total_bytes=settings.RATCHET_UPLOAD_MAX_BYTES,
    )


def conversion_limits() -> ConversionLimits:
    return ConversionLimits(
        pages=settings.RATCHET_DOCUMENT_MAX_PAGES,
        files=settings.RATCHET_UPLOAD_MAX_FILES,
        file_bytes=settings.RATCHET_DOCUMENT_MAX_BYTES,
        expanded_bytes=settings.RATCHET_UPLOAD_MAX_EXPANDED_BYTES,
        seconds=settings.RATCHET_DOCUMENT_SECONDS,
        memory_bytes=settings.RATCHET_DOCUMENT_MEMORY_BYTES,
    )


def megabytes(count: int) -> str:
    """``25 MB``; of less than one, kB."""
    return f"{count // 1_000_000} MB" if count >= 1_000_000 else f"{max(1, count // 1_000)} kB"
