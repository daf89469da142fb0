"""What a label would become if it counted, in words: shown on the item while somebody labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from annotations.becoming import NO_CORRECTION, NOT_ASKED, NOT_SUPPORTED, NoRow, Row, Shown, is_offered, row_of
from annotations.drafts import Draft
from annotations.models import MAX_CORRECTION, ContextMark, Reason, Verdict
from annotations.resolving import Wording, response_to_learn
from annotations.validation import clean_text
from capture.models import Turn
from generation.alignment import split_cited
from generation.prompts import PromptPassage, PromptStyle, split_sentences
from knowledge.evidence import is_below

MAX_QUOTED = 80
Sign = Literal["good", "decline", "nothing", "data", "warning"]


@dataclass(frozen=True)
class Effect:
    """One thing that the label becomes; ``sign`` picks the colour and the sign before it."""

    text: str
    sign: Sign


@dataclass(frozen=True)
class Check:
    """One sentence of the answer to learn. ``rank``: the passage that supports it; None when none does.

    ``cited``: the passages that it points at. ``offered``: what supports it was offered to the model.
    """

    text: str
    cited: tuple[int, ...]
    rank: int | None
    source: str
    offered: bool

    @property
    def moved(self) -> bool:
        """Another passage than the cited one supports it."""
        return self.rank is not None and bool(self.cited) and self.rank not in self.cited


@dataclass(frozen=True)
class Effects:
    effects: tuple[Effect, ...] = ()
    checks: tuple[Check, ...] = ()
    """Of the better answer, where there is one."""
    made: Row | NoRow | None = None
    """The row behind the words; None while nothing is decided."""


def effects_of(turn: Turn, draft: Draft, *, labels_needed: int = 1) -> Effects:
    """What the form as it stands would become, if this label alone decided.

    ``turn`` from `TurnQuerySet.with_contexts`, with its assistant: then no query runs here.
    """
    verdict = draft.verdict
    if verdict not in Verdict.values:
        return Effects()
    wording = Wording(decline=turn.assistant.decline_sentence, handoff=turn.assistant.handoff_sentence)
    correction = clean_text(draft.used_correction)[:MAX_CORRECTION]
    if correction == clean_text(turn.response):
        correction = ""
    learnt = response_to_learn(
        verdict=verdict, reasons=draft.all_reasons, correction=correction, logged=turn.response, wording=wording
    )
    shown = shown_in(turn)
    made = row_of(response=learnt, wording=wording, shown=shown)
    logged = turn.response
    lines = _why_not(verdict, made, logged) if isinstance(made, NoRow) else _learning(verdict, made, logged)
    if isinstance(made, Row) and correction and learnt != correction:
        lines.append(Effect("Your answer is kept, but not learnt: nothing that was retrieved holds it.", "nothing"))
    lines += _contradiction(turn, draft) + _retrieval(draft)
    if labels_needed > 1:
        lines.append(Effect(f"It counts when {labels_needed} labels agree.", "data"))
    checks = _checks(correction, made, shown) if correction and correction == learnt else ()
    return Effects(tuple(lines), checks, made)


def shown_in(turn: Turn) -> Shown:
    """What a model has to answer this turn from."""
    retrievals = list(turn.retrievals.all())
    evidence, withheld = served_evidence(turn, retrievals)
    return Shown(
        [PromptPassage(r.rank, r.passage.title, r.passage.text) for r in retrievals],
        evidence,
        turn.assistant.prompt_style,
        withheld,
    )


class Placed(Protocol):
    """A passage of a turn, as far as its evidence goes."""

    @property
    def rank(self) -> int: ...
    @property
    def evidence(self) -> Any: ...


def served_evidence(turn: Turn, retrievals: Iterable[Placed]) -> tuple[list[list[float]], bool]:
    """The evidence, and whether it is withheld, if the turn were asked today.

    The threshold of now decides, not the one of then: a prompt that serving would not make teaches nothing that is
    asked, and one that it withheld before it may well make now. Passages of a chatbot whose sentences were never ranked
    say nothing about a threshold.
    """
    evidence = _ranked(retrievals, turn.assistant.evidence_sentences)
    if not evidence:
        return [], turn.withheld
    below = is_below((similarity for _, _, similarity in evidence), turn.assistant.evidence_threshold)
    return ([], True) if below else (evidence, False)


def ranked_evidence(turn: Turn) -> list[list[float]]:
    """[[rank, sentence, similarity], …] in the order in which they were ranked; as many as serving offers now, whatever
    the setting was when the turn was captured, and whether or not a threshold offered them (`served_evidence`)."""
    return _ranked(turn.retrievals.all(), turn.assistant.evidence_sentences)


def _ranked(retrievals: Iterable[Placed], most: int) -> list[list[float]]:
    placed = sorted((place, r.rank, sentence, score) for r in retrievals for place, sentence, score in r.evidence)
    return [[rank, sentence, score] for _, rank, sentence, score in placed[:most]]


def _learning(verdict: str, row: Row, logged: str) -> list[Effect]:
    if row.kind == "decline":
        lines = [Effect("A declining example: the assistant learns to decline here.", "decline")]
    elif row.kind == "handoff":
        lines = [Effect("An example of handing over to a person.", "good")]
    elif verdict == Verdict.GOOD:
        lines = [Effect("A good example: the assistant learns this answer from the passages.", "good")]
    else:
        lines = [Effect("A corrected example: the assistant learns your answer from the passages.", "good")]
    if verdict == Verdict.BAD and logged.strip():
        lines.append(Effect("A preference pair: this over the logged answer.", "data"))
    return lines


def _why_not(verdict: str, made: NoRow, logged: str) -> list[Effect]:
    if made.why == NOT_ASKED:
        return [
            Effect("The threshold declines this without asking a model: your label says how well it is set.", "data")
        ]
    if made.why == NO_CORRECTION:
        empty = "A verdict only: the answer is empty, so there is nothing to learn."
        bad = "An example of what not to say, for training by verdicts (KTO). A better answer (e) teaches more."
        return [Effect(bad, "data") if verdict == Verdict.BAD and logged.strip() else Effect(empty, "nothing")]
    if made.why == NOT_SUPPORTED:
        alone = next((sentence["text"] for sentence in made.sentences if not sentence["refs"]), "")
        said = f"“{alone[:MAX_QUOTED]}{'…' if len(alone) > MAX_QUOTED else ''}”" if alone else "the answer."
        return [Effect(f"A verdict only, not learnt: no passage supports {said}", "nothing")]
    return [Effect("A verdict only, not learnt: what supports the answer was not offered to the model.", "nothing")]


def _contradiction(turn: Turn, draft: Draft) -> list[Effect]:
    """A good answer out of passages that are said to be beside the point. Not refused: both may be meant."""
    cited = sorted({int(pair[0]) for pair in turn.citations if pair})
    beside = ContextMark.Relevance.NOT_RELEVANT
    if draft.verdict != Verdict.GOOD or not cited or any(draft.marks.get(rank) != beside for rank in cited):
        return []
    ranks = ", ".join(f"[{rank}]" for rank in cited)
    said = f"the only passage it cites, {ranks}, as" if len(cited) == 1 else f"all passages that it cites, {ranks}, as"
    return [Effect(f"Look again: you call the answer good, but mark {said} not relevant.", "warning")]


def _retrieval(draft: Draft) -> list[Effect]:
    lines = []
    if Reason.RETRIEVAL_MISSED in draft.all_reasons:
        lines.append(Effect("A case for retrieval: nothing that was retrieved answers it.", "data"))
    if draft.missed:
        n = len(draft.missed)
        lines.append(Effect(f"{n} passage{'' if n == 1 else 's'} that retrieval should have found.", "data"))
    if draft.marks:
        lines.append(Effect(_marked(draft.marks), "data"))
    return lines


def _marked(marks: Mapping[int, str]) -> str:
    """``Marks: relevant 1, 3; not relevant 2.``"""
    parts = []
    for relevance, label in ContextMark.Relevance.choices:
        ranks = [str(rank) for rank, mark in sorted(marks.items()) if mark == relevance]
        if ranks:
            parts.append(f"{label.lower()} {', '.join(ranks)}")
    return f"Marks of retrieval: {'; '.join(parts)}." if parts else "No marks."


def _checks(correction: str, made: Row | NoRow, shown: Shown) -> tuple[Check, ...]:
    """Per sentence of the correction, in order; none for one that declines or hands over."""
    if isinstance(made, Row) and made.kind != "answer":
        return ()
    texts = {passage.rank: split_sentences(passage.text) for passage in shown.passages}
    checks = []
    for sentence, (_, cited) in zip(made.sentences, split_cited(correction), strict=True):
        rank, index = sentence["refs"][0] if sentence["refs"] else (None, 0)
        source = texts[rank][index] if rank is not None else ""
        offered = shown.style != PromptStyle.SENTENCES or is_offered(sentence, shown.evidence)
        checks.append(Check(sentence["text"], tuple(dict.fromkeys(cited)), rank, source, offered))
    return tuple(checks)
