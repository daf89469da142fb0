"""Documents are masked before anything of them is stored or embedded, by the choice that the policy has for them.

The file as it was written and its parsed sections are read in one call: markup can cut a value in two in the one and
not in the other, and what is found in either is masked in both. The path is read before, with the same table.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from assistants.policies import Rules
from assistants.policy_model import DocumentMasking
from assistants.vault import keyed_hash
from knowledge.sections import MAX_HEADING, Section, UnreadableDocument
from privacy.entities import EntityTable
from privacy.findings import MaskedText, ScrubError, TextTooLong
from privacy.scrubber import Scrubber, ScrubText

_RANGES = 900
_RANGE = 1_000


@dataclass(frozen=True)
class ScrubbedDocument:
    """``masked``: how many places of ``text`` were masked, by type."""

    text: str
    sections: list[Section]
    masked: dict[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.sections[0].headings[0]


def source_key(assistant_id: int, path: str) -> str:
    """Names a document in its assistant, by its path as it was given: what a policy masks in the path may change, and
    two paths may read alike when they are masked."""
    return keyed_hash("document", assistant_id, path).hex()


def table_of(path: str) -> EntityTable:
    """The table of one load: the path says from where on placeholders are numbered."""
    return EntityTable(secrets.token_bytes(32), first=first_ordinal(path))


def scrub_path(*, rules: Rules | None, path: str, table: EntityTable) -> str:
    """The path as it may be shown. The same for every load of it under the same policy.

    Args:
        rules: None when they cannot be read; then, and when the path cannot be scrubbed, it is a name made up from it.
    """
    if rules is not None and rules.documents == DocumentMasking.NOTHING:
        return path
    try:
        if rules is None:
            raise ScrubError
        trusted = rules.documents == DocumentMasking.TRUSTED
        # Part by part: an address may have a slash in it, and would take the folders before it along.
        parts = [ScrubText("label", part, trusted=trusted) for part in path.split("/")]
        masked = Scrubber(rules.policy).scrub_turn(parts, table)
    except ScrubError:
        return f"document-{keyed_hash('path', path).hex()[:12]}{PurePosixPath(path).suffix[:10].lower()}"
    return "/".join(part.text for part in masked)


def scrub_document(*, rules: Rules, table: EntityTable, text: str, sections: list[Section]) -> ScrubbedDocument:
    """The document with what ``rules`` mask in documents.

    Args:
        table: from `table_of`, and through `scrub_path`: a value of the path has the same placeholder in the text.
        text: the file as it was read, with its markup.

    Raises:
        UnreadableDocument: it could not be scrubbed to the end; the message quotes nothing of it.
    """
    if rules.documents == DocumentMasking.NOTHING:
        return ScrubbedDocument(text, sections)
    headings = list(dict.fromkeys(heading for section in sections for heading in section.headings))
    bodies = ["\n\n".join("\n".join(block) for block in section.blocks) for section in sections]
    trusted = rules.documents == DocumentMasking.TRUSTED
    texts = [ScrubText("context", one, trusted=trusted) for one in (text, *headings, *bodies)]
    try:
        whole, *parts = Scrubber(rules.policy).scrub_turn(texts, table)
    except TextTooLong:
        raise UnreadableDocument(
            f"It has more than {rules.policy.max_chars:,} characters, too many to be scrubbed. Split it."
        ) from None
    except ScrubError:
        raise UnreadableDocument(
            "It could not be scrubbed of personal data, so nothing of it was stored. Load it again, or split it."
        ) from None
    titles = {old: new.text[:MAX_HEADING] for old, new in zip(headings, parts, strict=False)}
    masked_bodies = parts[len(headings) :]
    read = [
        Section([titles[heading] for heading in section.headings], _blocks(section, body))
        for section, body in zip(sections, masked_bodies, strict=True)
    ]
    if _placeholders(parts) <= _placeholders([whole]):
        return ScrubbedDocument(whole.text, read, _counts([whole]))
    # Markup hides a value (an entity, a tag in its middle): then the markup is not kept.
    plain = "\n\n".join("\n\n".join((section.headings[-1], *map("\n".join, section.blocks))) for section in read)
    return ScrubbedDocument(plain, read, _counts(masked_bodies))


def first_ordinal(path: str) -> int:
    """Placeholders of a document are numbered from here, the same for every load of a path.

    Conversations number from 1, so theirs and those of a passage do not mean each other: what a review puts back in
    place of ``[PERSON_1]`` must not land in a document's text. Two documents rarely share a range.
    """
    return _RANGE * (1 + int.from_bytes(hashlib.sha256(path.encode()).digest()[:4]) % _RANGES) + 1


def masking_digest(rules: Rules) -> str:
    """Names what a document was scrubbed by: the choice, and the policy's digest unless nothing is masked anyway."""
    policy = "" if rules.documents == DocumentMasking.NOTHING else rules.policy.digest()
    return hashlib.sha256(f"{rules.documents}\x1f{policy}".encode()).hexdigest()


def _blocks(section: Section, body: MaskedText) -> list[list[str]]:
    """A mask over a line break makes one line, or one block, of two."""
    return [block.split("\n") for block in body.text.split("\n\n")] if body.spans else section.blocks


def _placeholders(texts: Sequence[MaskedText]) -> set[str]:
    return {text.text[span.start : span.end] for text in texts for span in text.spans if span.recognizer != "existing"}


def _counts(texts: Sequence[MaskedText]) -> dict[str, int]:
    found = Counter(span.entity_type for text in texts for span in text.spans if span.recognizer != "existing")
    return dict(sorted(found.items()))
