"""No text that is stored may hold personal data, whatever becomes of its question: whom a teacher has made up looks
like a person to everybody who reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from assistants.models import Assistant
from capture.leaks import scanner_of


class Screen:
    """Reads texts by the rules of the leak audit, under the policy that counts now."""

    def __init__(self, assistant: Assistant) -> None:
        self._scanner = scanner_of(assistant)

    def kinds(self, texts: Sequence[tuple[str, str]], documents: Iterable[str] = ()) -> str:
        """The types of personal data in (field, text) pairs and where they stand, without their values; empty: none.
        What the ``documents`` print may be repeated. What cannot be read is not clean."""
        from privacy.findings import ScrubError
        from privacy.leaks import AuditText

        rows = [AuditText(field, text) for field, text in texts if text]
        rows += [AuditText(f"document {n}", text, trusted=True) for n, text in enumerate(documents)]
        try:
            leaks = [leak for leak in self._scanner.read(rows) if leak.blocks]
        except ScrubError:
            return "a text that cannot be read"
        return ", ".join(sorted({f"{leak.entity_type} in {leak.field}" for leak in leaks}))
