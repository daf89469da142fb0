"""What is measured of one answer: pure functions, each with its definition and source.

Lexical support is a *hint* of groundedness (AUROC about .77 on modern model output), which is why it never gates alone:
the primary measure asks for the right content as well.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from generation.alignment import split_cited
from generation.overlap import numbers, supports
from generation.prompts import Answer, PromptPassage, PromptStyle, split_sentences

SUPPORT = 0.6
"""Share of a sentence's content words that its cited sentence must hold, besides every number."""
REFERENCE_F1 = 0.7
"""Token F1 from which an answer counts as correct where the benchmark names no strings that must be in it."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation.replace("%", "").replace("£", "") + "’‘“”–—")


def normalise(text: str) -> str:
    """SQuAD normalisation (Rajpurkar et al. 2016): case, punctuation, articles and spacing aside. Points and colons
    between digits stay, so that 27.4 does not become 274."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text.casefold())
    text = re.sub(r"(?<=\d)([.:])(?=\d)", lambda m: "\ue000" if m.group(1) == "." else "\ue001", text)
    text = _ARTICLES.sub(" ", text.translate(_PUNCTUATION))
    return " ".join(text.replace("\ue000", ".").replace("\ue001", ":").split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    return float(any(normalise(answer) == normalise(reference) for reference in references))


def token_f1(answer: str, references: Sequence[str]) -> float:
    """Highest token F1 with any reference (SQuAD)."""
    return max((_f1(normalise(answer).split(), normalise(r).split()) for r in references), default=0.0)


def _f1(a: list[str], b: list[str]) -> float:
    common = sum((Counter(a) & Counter(b)).values())
    if not common:
        return 0.0
    precision, recall = common / len(a), common / len(b)
    return 2 * precision * recall / (precision + recall)


def holds(text: str, phrase: str) -> bool:
    """The phrase stands in the text as whole words and whole numbers, after normalisation: £35 is not in £35.50."""
    wanted = normalise(phrase)
    whole = rf"(?<!\w)(?<!\d[.:]){re.escape(wanted)}(?!\w)(?![.:]\d)"
    return bool(wanted) and re.search(whole, normalise(text)) is not None


def answer_presence(text: str, groups: Sequence[Sequence[str]]) -> bool:
    """Every group has an alternative that stands in the text."""
    return all(any(holds(text, alternative) for alternative in group) for group in groups)


@dataclass(frozen=True)
class Citations:
    """ALCE's citation recall and precision (Gao et al. 2023) with lexical support in place of an NLI model.

    ``recall``: share of answer sentences that cite something and are supported by what they cite together.
    ``precision``: share of citations whose sentence supports the citing sentence by itself.
    ``sentences``: how many were judged; with none both are 0.
    """

    recall: float
    precision: float
    sentences: int


def citation_quality(
    answer: Answer, passages: Sequence[PromptPassage], style: PromptStyle = PromptStyle.SENTENCES
) -> Citations:
    """``style``: what a citation points to, a sentence of a passage or (``passages``) the whole of it."""
    whole = style is PromptStyle.PASSAGES
    sources = {p.rank: [p.text] if whole else split_sentences(p.text) for p in passages}
    sentences = split_cited(answer.marked)
    supported = right = cited = 0
    for text, ranks in sentences:
        refs = [ref for ref in answer.citations if ref.rank in ranks and ref.sentence < len(sources.get(ref.rank, []))]
        texts = [sources[ref.rank][ref.sentence] for ref in refs]
        supported += bool(texts) and supports(" ".join(texts), text, SUPPORT)
        own = [t for t in texts if supports(t, text, SUPPORT)]
        # One pointer leads one sentence; two sentences of one passage must not count against each other.
        cited += len(set(ranks))
        right += min(len(own), len(set(ranks)))
    count = len(sentences)
    return Citations(supported / count if count else 0.0, right / cited if cited else 0.0, count)


def unsupported_numbers(text: str, passages: Sequence[PromptPassage]) -> int:
    """Numbers of the answer that stand in no passage."""
    return len(numbers(text) - numbers("\n".join(p.text for p in passages)))
