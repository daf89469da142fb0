"""Tasks → drafts: by rule, by the base model, or by a teacher. Every draft says how it came to be."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from django.conf import settings

from generation.engines import GenerationRequest
from generation.prompts import PromptStyle, build_question_prompt
from training.models import Synthesis
from training.synthesis import filters
from training.synthesis.asking_each import Reply, ask_each, teacher_engine
from training.synthesis.drafts import Draft, Task
from training.synthesis.plan import Plan
from training.synthesis.private import Screen
from training.synthesis.sentences import Material, Source
from training.synthesis.styles import PLAIN, Style, draw, in_style, styles_of
from training.synthesis.teacher import (
    MAX_REPLY_TOKENS,
    Asking,
    Nonsense,
    ask_for_personas,
    ask_teacher,
    read_personas,
    read_reply,
)

if TYPE_CHECKING:
    from generation.engines import Engine

WINDOW = 2
"""Sentences of the chunk that the base model sees before and after the marked one."""


class Writer:
    """``engine``: makes the base model's engine, called when it is first needed; ``question_tokens``: its limit."""

    def __init__(
        self,
        synthesis: Synthesis,
        plan: Plan,
        material: Material,
        screen: Screen,
        *,
        engine: Callable[[], Engine],
        question_tokens: int,
    ) -> None:
        self.plan = plan
        self.material = material
        self._screen = screen
        self.synthesis = synthesis
        self.seed = synthesis.seed
        self.question_tokens = question_tokens
        self.styles = styles_of(synthesis.assistant, plan.style)
        self.whole_passages = synthesis.assistant.prompt_style == PromptStyle.PASSAGES
        self._make_engine = engine
        self._engine: Engine | None = None
        self.model = ""
        self.personas: list[dict[str, str]] = list(synthesis.personas)

    @property
    def teaches(self) -> bool:
        return self.plan.writer == "teacher"

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            if self.teaches:
                self._engine, self.model = teacher_engine(self.plan.teacher_model)
            else:
                self._engine, self.model = self._make_engine(), "base"
        return self._engine

    def ask(self, requests: Sequence[GenerationRequest]) -> list[Reply]:
        """As the model that writes is asked: a server a few at a time and with patience, ours in one batch."""
        if self.teaches:
            seconds = float(self.plan.request_seconds)
            requests = [replace(request, deadline=request.deadline or seconds) for request in requests]
        return ask_each(self.engine, requests, parallel=self.teaches or bool(settings.RATCHET_OPENAI_BASE_URL))

    def write(self, tasks: Sequence[Task]) -> list[Draft]:
        drafts = [self._by_rule(task) for task in tasks]
        open_ones = [(i, task) for i, (task, draft) in enumerate(zip(tasks, drafts, strict=True)) if draft is None]
        if open_ones:
            listed = [task for _, task in open_ones]
            written = self._by_teacher(listed) if self.teaches else self._by_base(listed)
            for (i, _), draft in zip(open_ones, written, strict=True):
                drafts[i] = draft
        return [draft for draft in drafts if draft is not None]

    def _by_rule(self, task: Task) -> Draft | None:
        asked = task.asked
        if self.teaches and task.form != "counterfactual":
            return None
        if task.form == "single":
            asked = self.material.one_asked(task.places[0])
            if asked is None:
                return None
        plain = asked.question if asked is not None else task.plain
        style = self._style(task)
        question = in_style(plain, style, asked)
        lineage = self._lineage(task, "rule", style) | {"frame": asked.frame if asked is not None else task.form}
        draft = Draft(task, question, gold=self._gold(task), plain=plain, history=_styled(task, style), lineage=lineage)
        draft.subjects = task.subjects or ((asked.subject,) if asked is not None else ())
        return draft

    def _by_base(self, tasks: Sequence[Task]) -> list[Draft]:
        requests = []
        for task in tasks:
            source = task.places[0]
            start = max(0, source.index - WINDOW)
            shown = source.sentences[start : source.index + WINDOW + 1]
            prompt = build_question_prompt(title=source.chunk.title, sentences=shown, marked=source.index - start)
            requests.append(GenerationRequest(messages=prompt.messages, max_new_tokens=self.question_tokens))
        drafts = []
        for task, request, reply in zip(tasks, requests, self.ask(requests), strict=True):
            plain, style = " ".join(reply.text.split()), self._style(task)
            draft = Draft(task, in_style(plain, style), gold=self._gold(task), plain=plain)
            digest = Asking(tuple(request.messages), ()).digest
            draft.lineage = self._lineage(task, "base", style) | self._cost(reply) | {"prompt": digest}
            if reply.error:
                draft.drop(filters.NO_REPLY, reply.error)
            drafts.append(draft)
        return drafts

    def _by_teacher(self, tasks: Sequence[Task]) -> list[Draft]:
        self._imagine_readers()
        askings, styles, people = [], [], []
        for task in tasks:
            rng = random.Random(f"{self.seed} {task.key} {task.attempt}")
            style, persona = draw(self.styles, rng), self._persona(task, rng)
            titles = sorted({listed[0].chunk.document.title for listed in self.material.chunks.values()})
            askings.append(
                ask_teacher(
                    task.form, task.places, style=style.wish, persona=persona, objection=task.objection,
                    titles=rng.sample(titles, min(20, len(titles))) if task.form == "out_of_scope" else (),
                )
            )  # fmt: skip
            styles.append(style)
            people.append(persona)
        replies = self.ask([GenerationRequest(messages=a.messages, max_new_tokens=MAX_REPLY_TOKENS) for a in askings])
        drafts = []
        for task, asking, style, persona, reply in zip(tasks, askings, styles, people, replies, strict=True):
            draft = Draft(task)
            draft.lineage = self._lineage(task, "teacher", style) | self._cost(reply)
            draft.lineage |= {"prompt": asking.digest, "model": self.model, "persona": persona}
            if reply.error:
                draft.drop(filters.NO_REPLY, reply.error)
            else:
                self._read(draft, asking, reply.text)
            drafts.append(draft)
        return drafts

    def _read(self, draft: Draft, asking: Asking, text: str) -> None:
        try:
            said = read_reply(draft.task.form, text, len(asking.shown))
        except Nonsense as nonsense:
            draft.drop(filters.NO_REPLY, str(nonsense))
            return
        draft.question = draft.plain = said.question
        draft.gold = tuple(asking.shown[i] for i in said.sentences)
        # Small models learn to copy sentences; where whole passages are cited, the teacher's own words may stand.
        draft.answer = said.answer if self.whole_passages else ""
        if draft.task.form in ("several", "comparison") and len({s.chunk.pk for s in draft.gold}) < 2:
            draft.drop(filters.NO_REPLY, "the answer needs only one of the two passages")
        if said.first:
            earlier = " ".join(asking.shown[i].sentence for i in said.first_sentences)
            draft.history = ({"role": "user", "content": said.first}, {"role": "assistant", "content": earlier})
        draft.lineage["chunks"] = [source.place for source in draft.gold] or draft.lineage["chunks"]

    def _imagine_readers(self) -> None:
        """Personas of a few documents, once for a synthesis. A teacher that names none costs nothing but the asking."""
        if self.personas or not self.plan.personas or self.synthesis.items.exists():
            return
        by_path: dict[str, Source] = {}
        for source in self.material.sources:
            by_path.setdefault(source.path, source)
        paths = random.Random(f"{self.seed} personas").sample(sorted(by_path), min(self.plan.personas, len(by_path)))
        askings = [ask_for_personas(by_path[path]) for path in paths]
        replies = self.ask([GenerationRequest(messages=a.messages, max_new_tokens=300) for a in askings])
        for path, reply in zip(paths, replies, strict=True):
            try:
                named = read_personas(reply.text)
            except Nonsense:
                continue
            # A teacher likes to give its people names; those are not kept.
            self.personas += [
                {"path": path, "text": text} for text in named if not self._screen.kinds([("persona", text)])
            ]
        self.synthesis.personas = self.personas
        self.synthesis.keep("personas")

    def _persona(self, task: Task, rng: random.Random) -> str:
        own = [p["text"] for p in self.personas if task.places and p["path"] == task.places[0].path]
        if own:
            return rng.choice(own)
        return rng.choice(self.personas)["text"] if self.personas and rng.random() < 0.3 else ""

    def _style(self, task: Task) -> Style:
        # Joined questions keep their marks: without them nobody could tell where one ends.
        if task.form in ("several", "comparison"):
            return PLAIN
        return draw(self.styles, random.Random(f"{self.seed} {task.key}"))

    @staticmethod
    def _gold(task: Task) -> tuple[Source, ...]:
        if task.form in ("near_miss", "out_of_scope"):
            return ()
        return task.places[:1] if task.form == "follow_up" else task.places

    def _lineage(self, task: Task, writer: str, style: Style) -> dict[str, Any]:
        lineage: dict[str, Any] = {"writer": writer, "style": style.label}
        lineage["chunks"] = [source.place for source in task.places]
        if writer == "base":
            lineage["model"] = self.model
        if task.edit is not None:
            lineage["edit"] = list(task.edit)
        return lineage

    @staticmethod
    def _cost(reply: Reply) -> dict[str, Any]:
        return {"tokens": reply.tokens, "seconds": round(reply.seconds, 3)}


def _styled(task: Task, style: Style) -> tuple[Any, ...]:
    return tuple(
        {**m, "content": in_style(m["content"], replace(style, bare=False))} if m["role"] == "user" else m
        for m in task.history
    )
