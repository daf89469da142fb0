"""What is measured of one answer: pure functions, each with its definition and source.

Lexical support is a *hint* of groundedness (AUROC .76 on RAGTruth-QA, 95 % interval .72 to .80), which is why it never
gates alone: the primary measure asks for the right content as well. What is measured of rankings: `knowledge.metrics`.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from generation.alignment import split_cited
from generation.overlap import coverage, ngrams, numbers, supports
from generation.prompts import Answer, PromptPassage, PromptStyle, split_sentences
from training.evaluation.dates import dates

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


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """Highest ROUGE-L F1 with any reference (Lin 2004): longest common subsequence of words over both lengths. Words
    as Google's rouge-score reads them without a stemmer: runs of ASCII letters and digits, folded."""
    return max((_rouge_l(_ascii_words(answer), _ascii_words(reference)) for reference in references), default=0.0)


def _ascii_words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _rouge_l(a: list[str], b: list[str]) -> float:
    if not a or not b:
        return 0.0
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for place, other in enumerate(b, start=1):
            diagonal, row[place] = row[place], diagonal + 1 if word == other else max(row[place], row[place - 1])
    common = row[-1]
    if not common:
        return 0.0
    precision, recall = common / len(a), common / len(b)
    return 2 * precision * recall / (precision + recall)


def groundedness(text: str, passages: Sequence[PromptPassage]) -> float:
    """Share of the answer's content words that stand in the passages together: unigram precision, a lexical *hint*
    (AUROC .762 on RAGTruth-QA; it lets a negation pass and punishes free rewording). 0 … 1."""
    return coverage(text, "\n".join(f"{p.title}\n{p.text}" for p in passages))


def numbers_exact(answer: str, references: Sequence[str]) -> float | None:
    """1 when the answer holds exactly the numbers of one of the references, thousands separators aside; None when no
    reference holds a number. Numbers that name dates count here too."""
    wanted = [numbers(reference) for reference in references]
    if not any(wanted):
        return None
    return float(any(numbers(answer) == one for one in wanted if one))


def dates_exact(answer: str, references: Sequence[str]) -> float | None:
    """1 when the answer names exactly the dates of one of the references, in whatever form; None when no reference
    names one."""
    wanted = [dates(reference) for reference in references]
    if not any(wanted):
        return None
    return float(any(dates(answer) == one for one in wanted if one))


RUN = 8
"""Words in a row that are no coincidence any more."""


def repeats(text: str, memory: Set[tuple[str, ...]], given: str) -> bool:
    """The answer holds `RUN` words in a row that stand in the training answers (``memory``: their n-grams) and not in
    what the prompt gave: it was recited, not read."""
    return bool((ngrams(text, RUN) & memory) - ngrams(given, RUN))


Entails = Callable[[str, str], bool]
"""(premise, claim) → whether the premise supports the claim."""


def lexically(premise: str, claim: str) -> bool:
    """Support without a model: every number of the claim and `SUPPORT` of its content words stand in the premise."""
    return supports(premise, claim, SUPPORT)


@dataclass(frozen=True)
class Citations:
    """ALCE's citation recall and precision (Gao et al. 2023, eval.py of princeton-nlp/ALCE), with `lexically` in place
    of its NLI model unless one is given. A citation is a mark [n] behind a sentence.

    ``recall``: share of answer sentences that cite something and are supported by what they cite together.
    ``precision``: share of citations that are needed: of a supported sentence, those that support it by themselves, and
    those without which the rest would not support it. Citations of an unsupported sentence count as wrong.
    ``sentences``: how many were judged; with none both are 0.
    """

    recall: float
    precision: float
    sentences: int


def citation_quality(
    answer: Answer,
    passages: Sequence[PromptPassage],
    style: PromptStyle = PromptStyle.SENTENCES,
    *,
    entails: Entails = lexically,
) -> Citations:
    """``style``: what a citation points to, sentences of a passage or (``passages``) the whole of it."""
    whole = style is PromptStyle.PASSAGES
    sources = {p.rank: [p.text] if whole else split_sentences(p.text) for p in passages}
    cited: dict[int, list[str]] = {}
    for ref in answer.citations:
        if ref.sentence < len(sources.get(ref.rank, [])):
            cited.setdefault(ref.rank, []).append(sources[ref.rank][ref.sentence])
    supported = right = marks = 0
    sentences = split_cited(answer.marked)
    for claim, ranks in sentences:
        texts = {rank: " ".join(cited.get(rank, [])) for rank in dict.fromkeys(ranks)}
        marks += len(texts)
        # A mark that points nowhere makes the sentence unsupported, as in ALCE.
        if not texts or not all(texts.values()) or not entails(" ".join(texts.values()), claim):
            continue
        supported += 1
        right += sum(_needed(rank, texts, claim, entails) for rank in texts)
    count = len(sentences)
    return Citations(supported / count if count else 0.0, right / marks if marks else 0.0, count)


def _needed(rank: int, texts: Mapping[int, str], claim: str, entails: Entails) -> bool:
    if len(texts) == 1 or entails(texts[rank], claim):
        return True
    return not entails(" ".join(text for other, text in texts.items() if other != rank), claim)


def unsupported_numbers(text: str, passages: Sequence[PromptPassage]) -> int:
    """Numbers of the answer that stand in no passage."""
    return len(numbers(text) - numbers("\n".join(p.text for p in passages)))
