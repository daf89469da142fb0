"""The format of a reading file: documents of one sentence per line, questions below the sentence that answers them.

::

    % Municipal archive
    # Reading room › Opening
    The reading room opens at {clock} on {weekday}s.
      ? When can I come in on a {weekday}? = {clock}
      y Is the place open on {weekday}s?
      > And on {weekday}s?
    - Can I bring my own scanner?
    + 1 2 When does it open, and who signs the form?

``?`` open question (after `` = `` the shortest answer), ``y``/``n`` answered by yes/no, ``>`` elliptic follow-up, ``-``
answered nowhere in the file, ``+`` needs two sentences of the document, counted from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from generation.prompts import split_sentences
from training.base_model.reading.fill import check_slots

Kind = Literal["?", "y", "n", ">"]
_QUESTION = re.compile(r"^\s+([?yn>])\s+(\S.*)$")
_JOINED = re.compile(r"^\+\s*(\d+)\s+(\d+)\s+(\S.*)$")


@dataclass(frozen=True)
class Asked:
    """A question on one sentence. ``short``: the value asked for, a part of the sentence; may be empty."""

    kind: Kind
    text: str
    short: str = ""


@dataclass
class Sentence:
    text: str
    asked: list[Asked] = field(default_factory=list)


@dataclass
class Document:
    title: str
    sentences: list[Sentence] = field(default_factory=list)
    near_misses: list[str] = field(default_factory=list)
    joined: list[tuple[int, int, str]] = field(default_factory=list)
    """(index of the first, of the second sentence, question), counted from 0."""


@dataclass
class ReadingFile:
    name: str
    about: str
    documents: list[Document] = field(default_factory=list)


class FormatError(ValueError):
    """A line that the format does not allow; the message names file, line and what was expected."""


def read_folder(folder: Path) -> list[ReadingFile]:
    """All ``*.txt`` of a folder in the order of their names.

    Raises:
        FileNotFoundError: there is none.
        FormatError: a file is not in the format.
    """
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise FileNotFoundError(f"no reading file (*.txt) in {folder}")
    return [read_file(path) for path in paths]


def read_file(path: Path) -> ReadingFile:
    """Raises FormatError at the first line that is not in the format."""
    for problem in (found := _Reader(path)).problems:
        raise FormatError(problem)
    return found.file


def problems(path: Path) -> list[str]:
    """Everything that is wrong with a file, one line each."""
    return _Reader(path).problems


class _Reader:
    def __init__(self, path: Path) -> None:
        self.file = ReadingFile(path.stem, path.stem)
        self.problems: list[str] = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                self._line(line.rstrip())
            except ValueError as error:
                self.problems.append(f"{path.name}:{number}: {error}")
        self.problems += [f"{path.name}: {text}" for text in self._whole()]

    def _line(self, line: str) -> None:
        if not line.strip():
            return
        if line.startswith("%"):
            self.file.about = line[1:].strip()
        elif line.startswith("#"):
            self.file.documents.append(Document(line[1:].strip()))
        elif match := _QUESTION.match(line):
            self._question(*match.groups())
        elif line[:1] in "-+":
            self._document_question(line)
        else:
            self._sentence(line.strip())

    def _document(self) -> Document:
        if not self.file.documents:
            raise ValueError("a document begins with '# title'")
        return self.file.documents[-1]

    def _sentence(self, text: str) -> None:
        check_slots(text)
        if split_sentences(text) != [text]:
            raise ValueError(f"not one sentence: {text!r}")
        self._document().sentences.append(Sentence(text))

    def _question(self, kind: str, text: str) -> None:
        document = self._document()
        if not document.sentences:
            raise ValueError("a question stands below the sentence that answers it")
        question, _, short = text.partition(" = ")
        short = short.strip()
        for part in (question, short):
            check_slots(part)
        sentence = document.sentences[-1]
        if short and short.casefold() not in sentence.text.casefold():
            raise ValueError(f"the short answer {short!r} does not stand in the sentence")
        sentence.asked.append(Asked(_kind(kind), question.strip(), short))

    def _document_question(self, line: str) -> None:
        document = self._document()
        if line.startswith("-"):
            check_slots(line)
            document.near_misses.append(line[1:].strip())
            return
        match = _JOINED.match(line)
        if not match:
            raise ValueError("expected '+ FIRST SECOND question'")
        check_slots(match.group(3))
        document.joined.append((int(match.group(1)) - 1, int(match.group(2)) - 1, match.group(3)))

    def _whole(self) -> Iterator[str]:
        if not self.file.documents:
            yield "no document"
        for document in self.file.documents:
            if not document.sentences:
                yield f"{document.title!r} has no sentence"
            for first, second, question in document.joined:
                if first == second or not all(0 <= at < len(document.sentences) for at in (first, second)):
                    yield f"{document.title!r}: no two such sentences for {question!r}"


def _kind(text: str) -> Kind:
    for kind in ("?", "y", "n", ">"):
        if text == kind:
            return kind
    raise ValueError(f"unknown kind of question {text!r}")
