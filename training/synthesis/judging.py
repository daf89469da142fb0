"""Puts drafts through the filters, cheap ones first: text, what is known already, retrieval, personal data, and last
what the model makes of the passage alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assistants.models import Assistant
from generation.engines import GenerationRequest
from generation.prompts import Prompt, PromptPassage, SentenceRef, build_prompt, parse_answer
from knowledge.query import question_vectors
from knowledge.retrieval import evidence_for
from training.synthesis import filters
from training.synthesis.asking_each import Reply
from training.synthesis.drafts import Draft
from training.synthesis.filters import first_objection, is_no_question, reproduced, unsupported
from training.synthesis.found import Retrieved, contradicted, find, holds_nothing_of, why_answerable
from training.synthesis.language import other_language
from training.synthesis.naturalness import why_unnatural
from training.synthesis.nearness import AskedBefore, HeldOut
from training.synthesis.private import Screen
from training.synthesis.sentences import Material

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_ANSWER_TOKENS = 64
Ask = Callable[[Sequence[GenerationRequest]], list[Reply]]


@dataclass
class Judged:
    """A draft with its verdict. ``missing``: kept as a case in which the passage is not there."""

    draft: Draft
    found: Retrieved | None = None
    missing: bool = False

    @property
    def kept(self) -> bool:
        return not self.draft.dropped_by


class Judge:
    """``ask``: the model that answers from the passage alone, None: nobody asks it. ``sure``: that model declines what
    a passage does not hold, so that it may be asked about questions which are to be declined."""

    def __init__(
        self,
        assistant: Assistant,
        material: Material,
        before: AskedBefore,
        screen: Screen,
        *,
        ask: Ask | None,
        sure: bool,
    ) -> None:
        self.assistant = assistant
        self.material = material
        self.before = before
        self.held_out = HeldOut(assistant)
        self._ask = ask
        self._sure = sure
        self._screen = screen

    def judge(self, drafts: Sequence[Draft], *, missing_left: int) -> list[Judged]:
        """Fills in why drafts are dropped. At most ``missing_left`` become cases of a missing passage. Near-duplicates
        among the drafts themselves are left to `accept`."""
        for draft in drafts:
            self._hide_private(draft)
            if not draft.dropped_by:
                self._read_text(draft)
        judged = [Judged(draft) for draft in drafts]
        standing = [row for row in judged if row.kept]
        pairs = [(row.draft.question, row.draft.history) for row in standing]
        vectors = question_vectors(pairs, self.assistant.glossary)
        for row, vector in zip(standing, vectors, strict=True):
            missing_left -= self._look_up(row, vector, may_be_missing=missing_left > 0)
        self._answer_again([row for row in standing if row.kept])
        return judged

    def accept(self, row: Judged) -> None:
        """Takes a draft that still stands among the kept ones, or drops it because an earlier one of them is the
        same."""
        if not row.kept or row.found is None:
            return
        if why := self.before.why(_whole(row.draft), row.found.vector):
            row.draft.drop(filters.ASKED_ALREADY, why)
            return
        self.before.add(_whole(row.draft), row.found.vector)

    def _read_text(self, draft: Draft) -> None:
        question, own = draft.plain or draft.question, " ".join(source.sentence for source in draft.gold)
        titles = " ".join([*(source.chunk.title for source in draft.task.places), *draft.subjects])
        if draft.declines or draft.history:
            objection = is_no_question(f"{question} {draft.history[0]['content']}" if draft.history else question)
        else:
            objection = first_objection(question, own, titles)
        if objection:
            draft.drop(objection)
            return
        if not draft.history and draft.task.form != "near_miss" and any(map(self.material.is_vague, draft.subjects)):
            draft.drop(filters.NOT_STANDALONE, "several documents speak of such a thing")
            return
        if len(draft.task.places) == 1 and not draft.declines:
            said = " ".join([question, *(message["content"] for message in draft.history)])
            if self.material.is_one_of_several(draft.task.places[0], said):
                draft.drop(filters.NOT_STANDALONE, "the documents say it of several things")
                return
        near = None
        if draft.lineage.get("writer") == "base":
            near = " ".join([*(s for source in draft.task.places for s in source.sentences), titles])
        invents = draft.lineage.get("writer") != "teacher" and draft.task.form != "out_of_scope"
        known = self.material.vocabulary if invents else ()
        why = why_unnatural(question, known=known, near=near)
        # What was said before may be said again, and two questions in one repeat what they are about.
        joined = draft.task.form in ("several", "comparison", "follow_up")
        if why and not (joined and why.startswith("it says")):
            draft.drop(filters.READS_BADLY, why)
            return
        if own and (language := other_language(question, own, self.material.vocabulary)):
            draft.drop(filters.OTHER_LANGUAGE, f"it looks like “{language}”")
        elif draft.answer and (why := unsupported(draft.answer, draft.texts)):
            draft.drop(filters.NOT_SUPPORTED, why)

    def _look_up(self, row: Judged, vector: NDArray[np.float32], *, may_be_missing: bool) -> bool:
        """What is known and what is retrieved. True when it became a missing case."""
        draft = row.draft
        if why := self.before.why(_whole(draft), vector):
            draft.drop(filters.ASKED_ALREADY, why)
            return False
        if why := self.held_out.why(draft.question, draft.history, vector):
            draft.drop(filters.HELD_OUT, why)
            return False
        row.found = found = find(self.assistant, draft, vector)
        if found.withheld:
            draft.drop(filters.BELOW_THRESHOLD)
            return False
        if draft.declines:
            if why := why_answerable(draft, found):
                draft.drop(filters.MAY_BE_ANSWERED, why)
        elif not found.complete or contradicted(draft, found):
            nothing = found.evidence and all(place is None for place in found.gold)
            plain = draft.task.form == "single" and may_be_missing
            if not (nothing and plain and all(holds_nothing_of(text, found) for text in draft.texts)):
                draft.drop(filters.NOT_RETRIEVED, "" if not found.complete else "another sentence still says otherwise")
                return False
            row.missing = True
        return row.missing

    def _hide_private(self, draft: Draft) -> None:
        """Empties a draft that holds personal data which its documents do not print."""
        texts = [("the question", draft.question), ("the question", draft.plain), ("the answer", draft.answer)]
        texts += [("what was said before", message["content"]) for message in draft.history]
        if kinds := self._screen.kinds(texts, [source.chunk.text for source in (*draft.task.places, *draft.gold)]):
            draft.drop(filters.PERSONAL_DATA, kinds)
            draft.question = draft.plain = draft.answer = ""
            draft.history = ()

    def _answer_again(self, rows: Sequence[Judged]) -> None:
        """Round trip: from the passages of its answer alone the model must say it, or decline where it should."""
        if self._ask is None:
            return
        asked = [row for row in rows if not row.missing and (not row.draft.declines or self._sure)]
        prompts = [self._prompt(row) for row in asked]
        requests = [GenerationRequest(messages=p.messages, max_new_tokens=MAX_ANSWER_TOKENS) for p in prompts]
        for row, prompt, reply in zip(asked, prompts, self._ask(requests), strict=True):
            draft = row.draft
            draft.lineage["tokens"] = draft.lineage.get("tokens", 0) + reply.tokens
            if reply.error:
                draft.drop(filters.NO_REPLY, reply.error)
                continue
            answer = parse_answer(house=self.assistant.house, prompt=prompt, completion=reply.text)
            if draft.declines:
                if not answer.declined:
                    draft.drop(filters.MAY_BE_ANSWERED, self._said(answer.text, row))
            elif answer.declined or not reproduced(answer.text, [draft.answer or "", *draft.texts]):
                draft.drop(filters.NOT_REPRODUCED, self._said(answer.text, row))

    def _said(self, text: str, row: Judged) -> str:
        documents = [p.text for p in row.found.passages] if row.found is not None else []
        return "" if self._screen.kinds([("the answer", text)], documents) else f"it was answered: {text}"

    def _prompt(self, row: Judged) -> Prompt:
        assert row.found is not None
        found, draft = row.found, row.draft
        ranks = {place[0] for place in found.gold if place}
        passages = [p for p in found.passages if not ranks or p.rank in ranks]
        evidence = evidence_for(assistant=self.assistant, vector=found.vector, passages=passages)
        return build_prompt(
            house=self.assistant.house,
            question=draft.question,
            passages=[PromptPassage(p.rank, p.title, p.text) for p in passages],
            evidence=[SentenceRef(e.rank, e.sentence) for e in evidence],
            similarity=[e.similarity for e in evidence],
            history=draft.history,
        )


def _whole(draft: Draft) -> str:
    """The question with what it follows: “And gas?” alone is the same as any other."""
    return "\n".join([*(m["content"] for m in draft.history if m["role"] == "user"), draft.question])
