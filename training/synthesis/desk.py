"""What is written next: the form that is furthest from its share, about the sentences that are covered least.

Everything it knows is read from the stored items, so that work that was killed goes on as if it had not been.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cached_property
from math import ceil

from generation.overlap import content_words
from training.data.split import bucket
from training.models import Synthesis
from training.synthesis import filters
from training.synthesis.constructing import Constructor
from training.synthesis.drafts import Task
from training.synthesis.plan import FORMS, Plan
from training.synthesis.sentences import Material, Source

HOPELESS_AFTER, HOPELESS = 60, 0.02
"""A form of which so many were written and no larger share was kept is given up; its share goes to single passages."""
RARE = 20
_AGAIN = frozenset(
    {
        filters.NO_REPLY, filters.EMPTY, filters.ABOUT_PASSAGE, filters.READS_BADLY, filters.VERBATIM,
        filters.GIVES_ANSWER, filters.OFF_SENTENCE, filters.NOT_STANDALONE, filters.OTHER_LANGUAGE,
        filters.NOT_SUPPORTED, filters.ASKED_ALREADY, filters.MAY_BE_ANSWERED,
    }
)  # fmt: skip
"""What another try of a teacher may mend. By rule the same comes out again."""


class Desk:
    """``by_rule_only``: sentences for which no rule has a question are left out."""

    def __init__(self, synthesis: Synthesis, plan: Plan, material: Material, *, by_rule_only: bool) -> None:
        self.plan = plan
        self.wanted = synthesis.wanted
        self.material = material
        self.seed = synthesis.seed
        self.by_rule_only = by_rule_only
        self.attempts: dict[str, tuple[int, str]] = {}
        """Task key → tries so far, and what dropped the last one."""
        self.kept: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        self.missing = 0
        self.chunk_kept: Counter[int] = Counter()
        self.chunk_tried: Counter[int] = Counter()
        self.used: set[str] = set()
        """Keys of sentences that are, or were to be, the answer of something."""
        rows = synthesis.items.order_by("pk").values_list("task", "attempt", "dropped_by", "form", "chunk_id")
        for task, attempt, dropped_by, form, chunk in rows.iterator():
            self.note(task, attempt, dropped_by, chunk, missing=form == "missing")
        self._streams: dict[str, Iterator[Task]] = {}
        self._waiting: list[Task] = []
        self._closed: set[str] = set()
        """Forms for which there is nothing more to write about."""

    @cached_property
    def constructor(self) -> Constructor:
        """It reads every statement once: only where something is to be built of them."""
        return Constructor(self.material)

    @property
    def total(self) -> int:
        """Everything that was kept, cases of a missing passage with it."""
        return sum(self.kept.values()) + self.missing

    @property
    def missing_left(self) -> int:
        return max(0, int(self.plan.missing_share * self.wanted) - self.missing)

    def note(self, task: str, attempt: int, dropped_by: str, chunk: int | None, *, missing: bool = False) -> None:
        """Counts a stored item."""
        form, _, rest = task.partition(":")
        self.attempts[task] = (attempt, dropped_by)
        self.written[form] += 1
        if chunk is not None:
            self.chunk_tried[chunk] += 1
        if not dropped_by:
            self.missing += missing
            self.kept[form] += not missing
            if chunk is not None:
                self.chunk_kept[chunk] += 1
        if form != "near_miss":
            self.used.add(rest.split("+")[0])

    def next_tasks(self, size: int) -> list[Task]:
        """Up to ``size`` pieces of work; none when there is nothing left to write about."""
        tasks: list[Task] = []
        if self.plan.writer == "teacher":
            tasks += self._second_tries(size)
        open_forms = [form for form in FORMS if self.plan.share(form) > 0 and not self._is_closed(form)]
        taken = {task.key for task in tasks} | set(self.attempts)
        while len(tasks) < size and open_forms:
            needs = {form: self._need(form) for form in open_forms}
            # What few sentences fit comes first: single passages take any.
            form = max(open_forms, key=lambda f: (f != "single", needs[f]))
            room = size - len(tasks)
            count = min(room, max(1, round(room * needs[form] / sum(needs.values()))), ceil(needs[form]))
            found = self._take(form, count, taken)
            tasks += found
            open_forms.remove(form)
            if len(found) < count:
                self._closed.add(form)
            elif not open_forms:
                open_forms = [f for f in FORMS if self.plan.share(f) > 0 and not self._is_closed(f)]
        # Mixed, so that the last ones that are wanted are of every form.
        return sorted(tasks, key=lambda task: bucket(task.place, self.seed))

    def _need(self, form: str) -> float:
        """Pieces of work that it probably takes until the form has its share."""
        left = self._left(form)
        if form == "single":  # what others cannot give comes from single passages
            others = [f for f in FORMS if f != "single" and self.plan.share(f) > 0]
            left += sum(max(self._left(f), 0) for f in others if self._is_closed(f))
            if all(self._left(f) <= 0 for f in others):
                left = max(left, self.wanted - self.total)
        return max(left, 0.01) * (self.written[form] + 2) / (self.kept[form] + 1)

    def _left(self, form: str) -> float:
        return self.plan.share(form) * self.wanted - self.kept[form]

    def _is_closed(self, form: str) -> bool:
        return form in self._closed or (form != "single" and self._hopeless(form))

    def _hopeless(self, form: str) -> bool:
        return self.written[form] >= HOPELESS_AFTER and self.kept[form] < HOPELESS * self.written[form]

    def _second_tries(self, size: int) -> list[Task]:
        """Work that a teacher may mend, with what dropped it; each once more at a time."""
        again = [
            (key, n, why) for key, (n, why) in self.attempts.items() if why in _AGAIN and n < self.plan.max_attempts
        ]
        tasks: list[Task] = []
        for key, number, why in again[:size]:
            form, _, rest = key.partition(":")
            places = self._places(rest)
            if form != "counterfactual" and (places or form == "out_of_scope"):
                objection = "" if why == filters.NO_REPLY else filters.EXPLAINED[why]
                tasks.append(Task(form, places, name=rest, attempt=number + 1, objection=objection))
        return tasks

    def _places(self, rest: str) -> tuple[Source, ...]:
        by_key = {source.key: source for part in rest.split("+") for source in self._of_chunk(part)}
        return tuple(by_key[part] for part in rest.split("+") if part in by_key)

    def _of_chunk(self, part: str) -> list[Source]:
        chunk = part.partition(".")[0]
        return self.material.chunks.get(int(chunk), []) if chunk.isdecimal() else []

    def _take(self, form: str, count: int, taken: set[str]) -> list[Task]:
        found: list[Task] = []
        while len(found) < count:
            task = self._next(form)
            if task is None:
                break
            answer = task.places[0].key if task.places else ""
            if task.key in taken or (form != "near_miss" and answer and answer in self.used):
                continue
            taken.add(task.key)
            if answer and form != "near_miss":
                self.used.add(answer)
            found.append(task)
        return found

    def _next(self, form: str) -> Task | None:
        if form == "single":
            if not self._waiting:
                ordered = self.material.least_covered(
                    self.chunk_kept, self.chunk_tried, self.used, by_rule_only=self.by_rule_only
                )
                self._waiting = [Task("single", (source,)) for source in ordered][::-1]
            return self._waiting.pop() if self._waiting else None
        stream = self._streams.get(form)
        if stream is None:
            teacher = self.plan.writer == "teacher" and form != "counterfactual"
            stream = self._streams[form] = self._for_teacher(form) if teacher else self.constructor.tasks(form)
        return next(stream, None)

    def forget_order(self) -> None:
        """After a batch: what is covered least has changed."""
        self._waiting = []

    def _for_teacher(self, form: str) -> Iterator[Task]:
        """Any sentence will do for a teacher; two passages are of chunks that share a rare word."""
        listed = sorted(self.material.sources, key=lambda s: bucket(f"{form} {s.path} {s.sentence}", self.seed))
        if form == "out_of_scope":
            yield from (Task(form, (), name=f"written {number}") for number in range(10 * self.wanted))
            return
        if form not in ("several", "comparison"):
            yield from (Task(form, (source,)) for source in listed)
            return
        by_word: defaultdict[str, list[Source]] = defaultdict(list)
        for source in listed:
            for word in content_words(source.sentence):
                by_word[word].append(source)
        rng = random.Random(f"{self.seed} {form}")
        for source in listed:
            rare = sorted(w for w in content_words(source.sentence) if 1 < len(by_word[w]) <= RARE)
            others = [s for w in rare for s in by_word[w] if s.chunk.pk != source.chunk.pk]
            if others:
                yield Task(form, (source, rng.choice(others)))
